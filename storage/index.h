// Index: the LMDB environment of one shard. Changed only by IndexWriter (one at a time, begin to
// commit on one thread, in LMDB's default synchronous mode); read by IndexReaders, one a thread of
// use.
//
// Damage: rows are read through IndexTree, never through liblmdb, and pages that a checkpoint
// changes are looked at before liblmdb does. So a damaged page is kCorrupt for who needs it, and
// for the checkpoint that would have changed it; it does not end the process.
//
// At any crash the index equals the state after some prefix of the shard's log, plus what the parts
// of a checkpoint that did not end have written, which the replay leaves as it is
// (ShardState::insert). Format: docs/on-disk-format.md, "Index".
#pragma once

#include <lmdb.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/result.h"
#include "storage/files.h"
#include "storage/index_tree.h"
#include "storage/key_slices.h"
#include "storage/record_codec.h"
#include "storage/types.h"

namespace basalt::storage {

// Live blobs of one file, as far as one shard's index refers to them.
struct FileSum {
  int64_t bytes = 0;
  int64_t blobs = 0;
};
// Records of table kCurrent of one space in one shard.
struct SpaceSum {
  int64_t objects = 0;
  int64_t bytes = 0;
};

constexpr unsigned kIndexReadersMax = 512;
// A map is grown by doubling up to here, if it had to start smaller than asked for.
constexpr uint64_t kIndexMapBytesMin = 64u << 20;

class Index {
 public:
  struct Options {
    std::string directory;  // made if it is not there
    unsigned shard = 0;
    uint64_t map_bytes = uint64_t{1} << 40;
    // Kept allocated behind the last page, so that a checkpoint can commit deletes on a disk that
    // is full.
    uint64_t reserve_bytes = 0;
    const Clock* clock = nullptr;  // of IndexWalk; null: the system's
  };
  // kCorrupt: the index is of another format or shard, or its own rows are damaged.
  static Result<std::unique_ptr<Index>> open(const Options& options);
  ~Index();

  // As of open() or reload().
  const LogPosition& applied() const { return applied_; }
  const std::map<uint32_t, FileSum>& file_sums() const { return file_sums_; }
  const std::map<uint64_t, SpaceSum>& space_sums() const { return space_sums_; }

  Status reload();  // nobody else uses the index meanwhile

  // As of the last checkpoint, or the open; for who knows that no other is running.
  struct Size {
    uint64_t file_bytes = 0;
    uint64_t used_pages = 0;  // that hold something
    uint64_t used_bytes = 0;  // of them
    uint64_t reader_lag = 0;  // commits since the oldest read transaction began
  };
  const Size& size() const { return size_; }

  // A compacted copy, as of now, to a descriptor (a pipe will do). Blocks; any thread but a loop's.
  // A damaged structure is kCorrupt, as far as LMDB notices. The map cannot grow meanwhile: whoever
  // reads the pipe slowly looks at growth_waits(), and gives up if it says so.
  Status copy_to(int fd);
  bool growth_waits() const { return growth_waits_.load(std::memory_order_relaxed); }

  // Odd while a checkpoint has written some of its parts and not the last: what is read then is no
  // state that the shard ever had. Any thread.
  uint64_t partly() const { return partly_.load(); }
  // Recovery: records were replayed; before the next checkpoint ends nobody knows whether an
  // earlier one did.
  void mark_partly() {
    if (partly() % 2 == 0) partly_.fetch_add(1);
  }

  // How long ago the oldest IndexWalk of now began; 0 without one. Any thread.
  uint64_t oldest_walk_ms() const;

  // How often a page or a row was met that is damaged, since the open. Any thread.
  uint64_t damage_met() const { return damage_met_.load(std::memory_order_relaxed); }

  unsigned shard() const { return options_.shard; }
  const std::string& directory() const { return options_.directory; }
  uint64_t map_bytes() const;

 private:
  friend class IndexReader;
  friend class IndexWalk;
  friend class IndexWriter;
  friend class OverlayCheckpoint;
  explicit Index(const Options& options);
  Status open_environment();
  Status load();
  Status create(MDB_txn* txn);
  Status grow();
  void reserve();
  // Counts it, logs what has not been logged, and says what to do.
  std::unexpected<Error> damaged(std::string_view what);
  std::unexpected<Error> damaged(const TreeCursor& cursor, std::string_view table);
  bool disk_is_full() const;
  void measure();

  Options options_;
  const Clock& clock_;
  uint64_t reserved_to_ = 0;  // the writer's
  Size size_;
  MDB_env* env_ = nullptr;
  std::array<MDB_dbi, kTableCount> tables_{};
  std::unique_ptr<IndexMap> map_;
  TreeGuard guard_;  // the writer's
  // After a failed write of a meta page LMDB refuses every transaction of the environment, readers
  // too. What is on the disk then is the state before or after that commit, both whole; nobody
  // writes any more, so it is read without a transaction.
  std::atomic<bool> writes_ended_{false};
  std::atomic<uint64_t> damage_met_{0};
  std::atomic<uint64_t> partly_{0};  // changed by recovery, then by the writer only
  std::mutex logged_mutex_;
  std::set<std::string, std::less<>> logged_;
  MDB_dbi sys_ = 0, seg_ = 0, cnt_ = 0;
  LogPosition applied_;
  std::map<uint32_t, FileSum> file_sums_;
  std::map<uint64_t, SpaceSum> space_sums_;
  // Held shared while a read transaction is active, exclusively while the map is moved: LMDB
  // demands that mdb_env_set_mapsize runs with no transaction in the process. Practically never
  // contended.
  std::shared_mutex map_mutex_;
  std::atomic<bool> growth_waits_{false};
  std::mutex walks_mutex_;
  std::multiset<uint64_t> walks_;            // when they began, ns
  std::atomic<uint64_t> oldest_walk_ns_{0};  // of them; 0: there are none
};

// Holds one read transaction over a walk through a whole index: scrub, snapshot, backup. While it
// does, LMDB reuses no page that was freed since, and the file grows with what is written
// (+800 MB in 128,000 updates). So a walk that keeps to a pace does so for kPacedWalkMsMax, and
// goes on as fast as the disk; when it took longer, the log says so. Look-ups and listings end
// theirs before the loop turns and are not counted. Any thread.
constexpr uint64_t kPacedWalkMsMax = 10'000;

class IndexWalk {
 public:
  explicit IndexWalk(Index& index);
  ~IndexWalk();
  IndexWalk(const IndexWalk&) = delete;
  IndexWalk& operator=(const IndexWalk&) = delete;

  // The pace ends.
  bool overdue() const;

 private:
  Index& index_;
  const uint64_t began_ns_;
};

// A read transaction that is renewed for each use, with a cursor a table. One thread at a time.
// Look-ups say kNotFound only of what is proven absent: the rows beside the gap are what was
// written.
class IndexReader {
 public:
  explicit IndexReader(Index& index);
  ~IndexReader();
  IndexReader(const IndexReader&) = delete;

  // A snapshot; everything read through it is valid until it goes. One at a time per reader; not
  // kept across turns.
  class Snapshot {
   public:
    ~Snapshot();
    Snapshot(Snapshot&& other) noexcept
        : reader_(std::exchange(other.reader_, nullptr)), lock_(std::move(other.lock_)) {}

    // Value bytes in the map (2-byte aligned only). kNotFound, kIo, kCorrupt.
    Result<Bytes> get(const KeyView& key);
    // LMDB's number of the commit that is seen.
    uint64_t transaction() const { return reader_->state_.transaction; }
    // The source for a SliceCursor over one table, positioned independently of other tables.
    SliceSource& source(Table table);

   private:
    friend class IndexReader;
    Snapshot(IndexReader* reader, std::shared_lock<std::shared_mutex> lock)
        : reader_(reader), lock_(std::move(lock)) {}
    IndexReader* reader_;
    std::shared_lock<std::shared_mutex> lock_;
  };
  Result<Snapshot> begin();

 private:
  class TableSource;
  int renew();
  Status see();
  Status bind(TreeCursor& cursor, Table table);

  Index& index_;
  MDB_txn* txn_ = nullptr;
  bool active_ = false;  // txn_
  bool frozen_ = false;  // state_ is the last there is (Index::writes_ended_)
  TreeState state_;
  std::array<TreeHead, kTableCount> heads_;
  std::array<bool, kTableCount> head_known_{};  // in state_
  TreeCursor cursor_;                           // of look-ups
  std::array<std::unique_ptr<TableSource>, kTableCount> sources_;
};

// One write transaction: begin(), changes, commit() or abort(), all on one thread.
class IndexWriter {
 public:
  explicit IndexWriter(Index& index);
  ~IndexWriter();
  IndexWriter(const IndexWriter&) = delete;

  Status begin();
  // Keeps the sums per file and per space. `value` as RecordEncoder made it.
  Status put(const KeyView& key, Bytes value);
  Status erase(const KeyView& key);  // of something absent: nothing
  Status set_applied(const LogPosition& position);
  // On failure nothing is changed and the transaction is gone. kNoSpace with map_full(): grow_map()
  // and do it again.
  Status commit();
  void abort();

  bool map_full() const { return map_full_; }
  Status grow_map();
  // At the end of a checkpoint, outside a transaction: allocates Options::reserve_bytes behind the
  // last page again, as far as the disk has them, and measures Index::size().
  void settle();

  // Changes of this transaction; valid after commit() until begin().
  const std::unordered_map<uint64_t, SpaceSum>& space_changes() const { return space_changes_; }

 private:
  class Store;
  friend class Store;
  Status account_old(const KeyView& key);
  void account(const KeyView& key, const RecordView& record, int64_t sign);
  Status write_sums();
  std::unexpected<Error> failed(int code, const char* what);
  Status cover(size_t table, Bytes key, bool removal);
  Status begin_checked();

  Index& index_;
  MDB_txn* txn_ = nullptr;
  std::array<std::unique_ptr<Store>, kTableCount> stores_;
  std::unordered_map<uint32_t, FileSum> file_changes_;
  std::unordered_map<uint64_t, SpaceSum> space_changes_;
  std::vector<uint64_t> scratch_;  // aligned copy of an old value
  uint64_t next_layer_ = 0;
  bool layers_changed_ = false;
  bool map_full_ = false;
};

}  // namespace basalt::storage
