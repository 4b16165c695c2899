// IndexTree: look-ups and walks in an LMDB file through a mapping, believing nothing that is there.
//
// LMDB has no page checksums, and liblmdb follows whatever a damaged page says: it asserts, reads
// outside of the map, or answers from the wrong page. So what serves requests does not ask liblmdb
// for rows: a read transaction pins the state, and these classes read it. Each page is used only
// after its number, kind, depth and bounds were checked, each node after its place was, and the
// keys of a page must lie between those that lead to it. What does not fit is damage, never a
// crash and never "not found". A damaged page that was changed into another plausible one is left
// to the checksums of the rows (index_reader.cc) and to the scrub.
//
// TreeGuard does the same for a writer: liblmdb may change only pages that were looked at whole.
// Cost of a look-up: that of mdb_get (HEAD takes as many instructions as with it, GET 0.5 % more).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "storage/files_posix.h"
#include "storage/lmdb_format.h"

namespace basalt::storage {

struct TreeHead {
  uint16_t flags = 0, depth = 0;
  uint64_t branch_pages = 0, leaf_pages = 0, overflow_pages = 0, entries = 0;
  uint64_t root = lmdb::kNoPage;
  uint64_t pages() const { return branch_pages + leaf_pages + overflow_pages; }
  static TreeHead parse(const uint8_t* at);  // lmdb::kTreeBytes
};

// A state of the file: what a committed transaction left. Valid while that transaction is pinned.
struct TreeState {
  const uint8_t* base = nullptr;
  uint32_t page_bytes = 0;
  uint64_t last_page = 0;
  uint64_t transaction = 0;
  TreeHead free, main;
};

// The file, mapped for reading. Any thread. An I/O error of the device is SIGBUS, as with LMDB.
class IndexMap {
 public:
  static Result<std::unique_ptr<IndexMap>> open(const std::string& path);
  ~IndexMap();
  IndexMap(const IndexMap&) = delete;

  // The state of transaction `id`, or that of the newest commit (for whoever knows that nobody
  // writes). kNotFound: it was replaced by a later one; kCorrupt. Where a commit may be under way,
  // it counts only if no later one has been published afterwards: LMDB writes a meta page upwards,
  // its transaction last, so half of a new one may be in what was read.
  Result<TreeState> state(std::optional<uint64_t> id);
  // Both meta pages, before liblmdb opens the file and takes one of them at its word. kCorrupt.
  Status check_heads();

 private:
  struct View {
    const uint8_t* base;
    uint64_t bytes;
  };
  explicit IndexMap(UniqueFd fd) : fd_(std::move(fd)) {}
  std::optional<TreeState> head(unsigned i, uint32_t page_bytes);
  Status complete(TreeState& state);
  // A mapping of at least that much of the file.
  Result<const uint8_t*> reach(uint64_t bytes);

  UniqueFd fd_;
  std::atomic<const View*> view_{nullptr};
  std::atomic<uint64_t> file_bytes_{0};
  std::mutex mutex_;
  std::vector<std::unique_ptr<View>> views_;  // all are kept: somebody may be reading there
};

// Pages that TreeGuard has looked at whole.
using PageSet = std::unordered_set<uint64_t>;

// Moves over one tree of one state. One thread.
class TreeCursor {
 public:
  enum class Step : uint8_t { kYes, kNo, kDamaged };
  struct Row {
    Bytes key, value;
  };

  TreeCursor() = default;
  // `whole`: every page that is met is checked whole, unless it is in there, and put there.
  void reset(const TreeState& state, const TreeHead& tree, PageSet* whole = nullptr);

  // The row of `key`. kNo: it is not there, by the order of all keys that could have led to it.
  Step find(Bytes key);
  Step seek(Bytes key);  // the first row >= `key`
  Step first();
  Step next();  // after kYes
  // As next(), where the next row is of the same leaf and sound; else false, and nothing has moved.
  bool step();
  // After kYes, until the next move.
  Bytes key() const { return row_.key; }
  Bytes value() const { return row_.value; }

  // The rows beside the place where the last find() or seek() ended: before it, and at it (of a
  // find() that said kNo: after it). kNo: there is none.
  Step before(Row& row) const;
  Step at(Row& row) const;

  // Looks at every page that liblmdb may use when it removes the row at this place and merges what
  // is left: the neighbours on each level, and the first pages below them.
  Step visit_beside() const;

  // After kDamaged.
  uint64_t damaged_page() const { return damaged_page_; }
  const char* damage() const { return damage_; }

 private:
  struct Level {
    const uint8_t* page;
    uint64_t number;
    uint16_t count, upper;
    uint16_t index;
    bool leaf, bounded;  // whether `high` is a bound
    Bytes low, high;     // keys of the page are in [low, high)
  };
  struct Node {
    const uint8_t* at = nullptr;
    Bytes key;
    uint16_t flags = 0;
    uint32_t value_bytes = 0;
    uint64_t child = 0;
  };
  bool damaged(uint64_t page, const char* what) const {
    damaged_page_ = page;
    damage_ = what;
    return false;
  }
  bool start();
  bool enter(unsigned level, uint64_t number, Bytes low, bool bounded, Bytes high);
  bool enter_child(unsigned level);  // the one at levels_[level].index
  bool node(const Level& level, unsigned index, Node& out) const;
  bool take(const Level& level, unsigned index, Row& row) const;
  bool whole(const Level& level) const;
  bool descend(Bytes key, bool& exact);
  bool go_down(unsigned from, bool last);
  Step neighbour(bool forward);  // leaf; its first or last row becomes the place
  Step arrive();
  void walk_ahead(const Level& leaf);
  Step next_leaf();
  void read_ahead();

  const TreeState* state_ = nullptr;
  const TreeHead* tree_ = nullptr;
  PageSet* whole_ = nullptr;
  bool integers_ = false, trees_ = false;
  unsigned depth_ = 0;  // levels in use; 0: nowhere
  Row row_;
  // The rows of a leaf are found through offsets that are read first, one wait for memory after the
  // other, and the leaves in order lie anywhere. So who walks asks for the next leaf while it walks
  // over this one, some lines with each row.
  const uint8_t* walked_ = nullptr;  // the leaf that was met last
  const uint8_t* ahead_ = nullptr;   // the next one, if the page above knows it
  uint32_t ahead_at_ = 0, ahead_step_ = 0;
  // A walk that met a leaf which had to come from the disk has the next ones read side by side:
  // those that the page `asked_` names before `asked_to_`.
  bool cold_ = false;
  uint64_t asked_ = 0;
  unsigned asked_to_ = 0;
  mutable uint64_t damaged_page_ = 0;
  mutable const char* damage_ = "";
  Level levels_[lmdb::kDepthMax];
};

// A table's head in the table of tables. kNo: there is no such table.
TreeCursor::Step find_table(const TreeState& state, std::string_view name, TreeHead& head,
                            TreeCursor& cursor);

// Looks at what liblmdb is about to use, before it does. One write transaction at a time.
class TreeGuard {
 public:
  // The state that a write transaction begins from: the whole free list, since LMDB takes pages
  // from it and would write over what a damaged one names; the table of tables; and that the pages
  // of all trees and the free ones are as many as there are. kCorrupt.
  Status begin(const TreeState& state, const std::vector<std::string_view>& tables);
  // Only the table of tables: for a look at them.
  Status look(const TreeState& state, const std::vector<std::string_view>& tables);
  bool has_all_tables() const { return tables_found_ == names_.size(); }
  const TreeHead& head(size_t table) const { return heads_[table]; }
  // Remembers the free list of a state that was just committed: begin() with that state fails if it
  // is another one by then.
  void committed(const TreeState& state);

  // Before a row of table `table` (position in begin()'s list) is read or put; with `removal`
  // before it is removed.
  Status cover(size_t table, Bytes key, bool removal);
  // A whole table.
  Status cover_all(size_t table);

 private:
  struct Free {
    uint64_t pages = 0;
    uint64_t sum = 0;
  };
  Status walk_free(const TreeState& state, Free& free);
  Status damage(const TreeCursor& cursor, std::string_view table) const;

  TreeState state_;
  std::vector<std::string_view> names_;
  std::vector<TreeHead> heads_;
  size_t tables_found_ = 0;
  uint64_t table_pages_ = 0;
  std::vector<TreeCursor> cursors_;
  PageSet whole_;
  std::optional<uint64_t> committed_;  // transaction of `free_`
  Free free_;
};

}  // namespace basalt::storage
