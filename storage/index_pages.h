// IndexPages: reads an LMDB file page by page and believes nothing it finds there.
//
// LMDB has no page checksums, and liblmdb follows whatever a damaged page says: it may assert, read
// behind the file's end, or answer from the wrong page. So the tools that look for damage (scrub,
// fsck, rebuild) do not ask liblmdb. They read the file, in O_DIRECT where that works, and check
// each page before they use it: its number and kind, that its nodes tile it exactly, that its keys
// rise and lie between those of its parent, that every page of the file is used exactly once or
// free, that the counts of each tree are what was found. Nothing here writes.
//
// Online the caller holds a read transaction (IndexReader::Snapshot) and passes its id: pages of a
// pinned snapshot are not reused, and the file is coherent with LMDB's own writes.
// Format: LMDB 0.9 (data version 1), 64 bit, no DUPSORT.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "storage/files_posix.h"

namespace basalt::storage {

struct PageDamage {
  uint64_t page = 0;
  std::string table;  // "" if it belongs to none
  std::string what;
  // The keys that the damaged part would have led to lie in [low, high); `high` absent: to the end.
  // Only for damage that hides keys.
  bool hides_keys = false;
  std::string low;
  std::optional<std::string> high;
};

class IndexPages {
 public:
  // Called with the bytes of each read before it; an error ends the walk (kCancelled to stop).
  using Pace = std::function<Status(size_t bytes)>;
  using Damaged = std::function<void(const PageDamage&)>;
  // false: enough.
  using Visit = std::function<bool(Bytes key, Bytes value, uint64_t page)>;

  static Result<std::unique_ptr<IndexPages>> open(const std::string& path, Pace pace = {});

  // Chooses the state to look at: that of transaction `id`, or of the newest commit. Forgets what
  // was read before. kNotFound: both meta pages have gone on since (take a new snapshot); kCorrupt:
  // there is no usable meta page.
  Status select(std::optional<uint64_t> id, const Damaged& damaged);

  // The whole file: every tree with `visit(table)` for its rows, the free list, the counts, the use
  // of each page. Damage is reported and walked around.
  Status check(const std::function<Visit(std::string_view table)>& visit, const Damaged& damaged);

  // The rows of one table from the first key >= `start` on, until `visit` says enough.
  Status walk(std::string_view table, Bytes start, const Visit& visit, const Damaged& damaged);

  uint64_t transaction() const { return transaction_; }
  uint64_t file_bytes() const { return file_bytes_; }
  uint64_t bytes_read() const { return bytes_read_; }

 private:
  struct Tree {
    std::string name;
    uint16_t flags = 0;
    uint16_t depth = 0;
    uint64_t branch_pages = 0, leaf_pages = 0, overflow_pages = 0, entries = 0;
    uint64_t root = 0;
  };
  struct Meta {
    bool valid = false;
    std::string why;
    uint64_t transaction = 0;
    uint64_t last_page = 0;
    uint32_t page_bytes = 0;
    Tree free, main;
  };
  struct Walk;

  explicit IndexPages(UniqueFd fd) : fd_(std::move(fd)) {}
  Status read_metas(std::array<Meta, 2>& metas);
  Status load_tables(const Damaged& damaged);
  Status read_page(uint64_t number, uint8_t* out);
  Status read_run(uint64_t number, uint64_t count, std::vector<uint8_t>& out);
  Status descend(Walk& walk, uint64_t number, unsigned level, Bytes low, std::optional<Bytes> high);
  Status walk_tree(Tree& tree, Bytes start, const Visit& visit, const Damaged& damaged, bool check);
  bool use_page(Walk& walk, uint64_t number);
  static Tree parse_tree(std::string name, const uint8_t* at);

  UniqueFd fd_;
  Pace pace_;
  uint64_t file_bytes_ = 0;
  uint64_t bytes_read_ = 0;
  uint32_t page_bytes_ = 4096;
  uint64_t transaction_ = 0;
  uint64_t last_page_ = 0;
  Tree free_, main_;
  std::map<std::string, Tree, std::less<>> tables_;
  std::vector<bool> used_;  // by page, during check()

  struct Block {
    uint64_t number;
    uint8_t* bytes;
    size_t size;
  };
  struct Freer {
    void operator()(uint8_t* memory) const;
  };
  std::vector<std::unique_ptr<uint8_t, Freer>> memory_;
  std::list<Block> blocks_;  // most recently used first
  std::unordered_map<uint64_t, std::list<Block>::iterator> by_number_;
};

}  // namespace basalt::storage
