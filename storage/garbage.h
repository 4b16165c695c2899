// Garbage collection: segments with little live data are emptied by writing what still lives there
// again, as ordinary records and blobs; the space of the old copies falls free like that of any
// other replaced record.
//
// One thread per engine looks for victims and for the records that refer to them (in the indexes);
// the record's own core moves it, one at a time, so that the load stays small beside the clients'
// (several where space is short, and new data waits for what collection gives back).
// Nothing is ever deleted here: a source that fails its check stays where it is, is named in the
// log, and its segment is left alone until the next start.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/completion.h"
#include "storage/blob_store.h"
#include "storage/engine.h"
#include "storage/files.h"
#include "storage/index.h"
#include "storage/meta_shard.h"
#include "storage/mutation_builder.h"

namespace basalt::storage {

using FileSet = std::unordered_set<uint32_t>;

// A record that refers to a victim.
struct Relocation {
  unsigned shard = 0;
  Table table = Table::kCurrent;
  uint64_t space = 0;
  std::string name;
  uint64_t seq = 0;  // as found; a record that changed since is left alone
  std::shared_ptr<const FileSet> victims;
};

// Waiting relocations of one core.
constexpr size_t kRelocationsQueuedMax = 1024;
// Of them, under way at a time: where space is short, and otherwise.
constexpr size_t kMovesShortMax = 8;
constexpr size_t kMovesMax = 1;
constexpr size_t kVictimsPerPassMax = 8;
// How often the collector looks whether space is short, and then for segments to collect; else
// EngineOptions::gc_interval_ms.
constexpr uint32_t kGarbageLookMs = 250;
constexpr uint32_t kGarbageShortIntervalMs = 50;
// A segment that was emptied needs a checkpoint before it counts as empty; it is not looked at
// again before so many intervals have passed.
constexpr uint32_t kGarbageRevisitIntervals = 6;
// Where space is short it matters more than the work for it: fuller segments are collected, young
// ones too, sooner again; but only as many at a time as half of the room takes, because the copies
// need it before the originals give theirs back. A byte gained from a segment that is 90 % full
// costs nine copied ones: what is fuller is not garbage.
constexpr double kGarbageShortRatio = 0.9;
constexpr uint32_t kGarbageShortRevisitMs = 2'000;
// Nothing to collect is believed after so many looks, or passes that could not move anything:
// dropped bodies become garbage with a checkpoint only.
constexpr unsigned kFruitlessLooks = 4;
constexpr uint32_t kFruitlessLookMs = 500;
// Entries read in one snapshot: a long read transaction would keep LMDB from reusing pages.
constexpr size_t kGarbageEntriesPerSnapshot = 4096;

// Moves records of one core's shards. Core's thread, except where said.
class Relocator {
 public:
  using ShardOf = std::function<MetaShard&(unsigned)>;
  using Damaged = std::function<void(uint32_t file)>;
  // `urgent`: is space short? Then kMovesShortMax at a time.
  Relocator(ShardOf shard_of, BlobStore& blobs, Damaged damaged,
            std::function<bool()> urgent = nullptr);
  ~Relocator();

  bool offer(Relocation relocation);  // any thread; false: full, or stopping
  size_t outstanding() const { return outstanding_.load(std::memory_order_acquire); }  // any thread
  uint64_t moved() const { return moved_.load(std::memory_order_relaxed); }            // any thread
  uint64_t bytes_moved() const { return bytes_moved_.load(std::memory_order_relaxed); }
  bool poll();  // starts the next ones; true if it did
  void stop();  // what waits is dropped, what runs finishes
  bool idle() const { return moves_.empty(); }

 private:
  class Move;

  const ShardOf shard_of_;
  BlobStore& blobs_;
  const Damaged damaged_;
  const std::function<bool()> urgent_;
  std::vector<std::unique_ptr<Move>> moves_;

  std::mutex mutex_;
  std::deque<Relocation> queue_;
  bool stopping_ = false;
  std::atomic<size_t> outstanding_{0};
  std::atomic<uint64_t> moved_{0}, bytes_moved_{0};
};

class GarbageCollector {
 public:
  struct Hooks {
    // Gives a relocation to its core; false: not now (queue full) or there is no such core at the
    // moment.
    std::function<bool(const Relocation&)> offer;
    std::function<size_t()> outstanding;        // on all cores
    std::function<uint64_t()> moved;            // records, by all cores so far
    std::function<void()> request_checkpoints;  // on all cores
  };
  GarbageCollector(Files& files, std::vector<Index*> indexes, const EngineOptions& options,
                   Hooks hooks);
  ~GarbageCollector();

  void start();                      // the thread; fails as BASALT_CHECK
  void kick();                       // any thread: a pass soon
  void file_damaged(uint32_t file);  // any thread

  // One pass: returns how many relocations were handed out. For a test, instead of the thread.
  size_t pass();
  void stop();

 private:
  // A pass under way: victims, and how far the indexes were searched for what refers to them.
  struct Pass {
    std::shared_ptr<const FileSet> victims;
    bool urgent = false;
    unsigned shard = 0;
    size_t table = 0;
    uint64_t space = 0;
    std::string resume;            // next name to look at in `space`
    std::deque<Relocation> found;  // to be handed out before the search goes on
    int tries = 0;
    size_t offered = 0;
    uint64_t moved_before = 0;
    void next_shard() {
      ++shard;
      table = 0;
      space = 0;
      resume.clear();
      found.clear();
      tries = 0;
    }
  };
  uint32_t work();
  uint32_t look();  // for a pass to begin; the milliseconds until the next look
  bool begin_pass();
  // One step: returns the milliseconds until the next one is of use, or nothing: the pass is over.
  std::optional<uint32_t> step();
  void note_look(bool fruitful);
  Status search();  // a snapshot's worth
  uint64_t now_ms() const { return files_.platform().clock->monotonic_ns() / 1'000'000; }

  Files& files_;
  const std::vector<Index*> indexes_;
  const double live_ratio_max_;
  const uint32_t sealed_age_ms_;
  const uint32_t interval_ms_;
  const Hooks hooks_;
  std::vector<std::unique_ptr<IndexReader>> readers_;
  std::unordered_map<uint32_t, uint64_t> revisit_after_ms_;  // by file; collector's thread

  std::vector<uint64_t> scratch_;
  std::unique_ptr<Pass> pass_;
  bool first_ = true;  // call of work()
  uint64_t look_after_ms_ = 0;
  unsigned fruitless_looks_ = 0;  // in a row, while space is short

  std::mutex mutex_;
  FileSet damaged_;
  std::atomic<bool> kicked_{false};
  std::unique_ptr<Helper> helper_;
};

}  // namespace basalt::storage
