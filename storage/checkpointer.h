// Checkpointer: writes frozen overlays into the indexes, on a thread of its own (one per core),
// because a commit syncs and nothing that syncs may run on a loop.
//
// The core freezes its shards and calls start(); the thread commits each shard and wakes the core;
// the core calls take().
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "storage/engine.h"
#include "storage/files.h"
#include "storage/index.h"
#include "storage/overlay.h"
#include "storage/shard_state.h"

namespace basalt::storage {

// A checkpoint is written in parts, each a transaction over its share of the keys. LMDB takes up
// what a commit freed two commits later, so a part that changes a 16th of the pages leaves a file
// of 1.2 times its pages, where one that changes all of them needs three times
// (docs/reliability.md, "Bounded costs"). Nor may a transaction be too large (LMDB 0.9.24: at most
// 131,071 dirty pages). Only the last part moves `applied`: what a crash leaves of the others is
// written again by the replay.
constexpr size_t kCheckpointPartsPerIndex = 16;
constexpr size_t kCheckpointEntriesPerPart = 64 * 1024;
constexpr size_t kCheckpointBytesPerPart = 128u << 20;
// On a full disk parts shrink down to this: a commit frees the pages that the one before it
// replaced, so small ones get by with the few that are reserved (Index::Options::reserve_bytes).
constexpr size_t kCheckpointEntriesPerPartMin = 32;

// Objects and bytes per space over all shards, as of the last checkpoints. Any thread.
class SpaceTotals {
 public:
  void add(uint64_t space, const SpaceSum& change);
  SpaceSum of(uint64_t space) const;

 private:
  mutable std::mutex mutex_;
  std::unordered_map<uint64_t, SpaceSum> sums_;
};

// Writes `overlay` into `index`, part by part; with `position`, everything up to there is in the
// index after the last. Blocks; on failure what was committed is legal (see above) and nothing else
// changed.
class OverlayCheckpoint {
 public:
  OverlayCheckpoint(Index& index, const Overlay& overlay, const LogPosition* position,
                    SpaceTotals& totals);
  Result<bool> write_part();  // true: it was the last

 private:
  Status fill(Overlay::Iterator& at);

  Index& index_;
  const Overlay& overlay_;
  const LogPosition* position_;
  SpaceTotals& totals_;
  IndexWriter writer_;
  Overlay::Iterator at_;
  size_t entries_max_;
};

// All parts.
Status checkpoint_overlay(Index& index, const Overlay& overlay, const LogPosition* position,
                          SpaceTotals& totals);

class Checkpointer {
 public:
  // `wake` is called on the checkpointer's thread: when a checkpoint is done, and every `tick_ms`
  // so that a sleeping core looks at its interval.
  Checkpointer(Files& files, SpaceTotals& totals, EngineStats& stats, uint32_t tick_ms,
               std::function<void()> wake);
  ~Checkpointer();  // waits for the part that is being written; the rest is left to the replay

  // Core's thread; not while busy(). Each shard has a frozen overlay that nobody touches until
  // take().
  void start(const LogPosition& position, std::vector<ShardState*> shards);
  bool busy() const { return busy_; }
  struct Outcome {
    Status status;
    LogPosition position;
  };
  std::optional<Outcome> take();
  // Destroys an overlay, and releases what its checkpoint let go of, on the thread: 100,000 entries
  // would stall the loop.
  void bury(std::unique_ptr<Overlay> overlay, std::vector<BlobRef> dropped);

 private:
  // What start() asked for; the helper's own while it works.
  struct Job {
    LogPosition position;
    std::vector<ShardState*> shards;
    size_t done = 0;
    std::optional<OverlayCheckpoint> current;  // of shards[done]
    size_t entries = 0;
    uint64_t started_ns = 0;
  };
  uint32_t work();  // one part of one shard
  void write_part(Job& job, Outcome& outcome);

  Files& files_;
  const Platform& platform_;
  SpaceTotals& totals_;
  EngineStats& stats_;
  const uint32_t tick_ms_;
  const std::function<void()> wake_;
  bool busy_ = false;  // core's thread

  std::mutex mutex_;
  std::unique_ptr<Job> job_;
  std::optional<Outcome> outcome_;
  struct Grave {
    std::unique_ptr<Overlay> overlay;
    std::vector<BlobRef> dropped;
  };
  std::vector<Grave> buried_;
  std::unique_ptr<Helper> helper_;
};

}  // namespace basalt::storage
