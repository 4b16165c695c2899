// LocalCore: what one core has of the local engine: its lane, its blob store, its shards, its
// checkpointer.
//
// Thread: the core's; offer() and request_checkpoint() from any.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "storage/checkpointer.h"
#include "storage/engine.h"
#include "storage/garbage.h"
#include "storage/lane.h"
#include "storage/local_shard.h"
#include "storage/shard_state.h"

namespace basalt::storage {

class LocalCore final : public CoreEngine {
 public:
  struct Parts {
    const EngineOptions& options;
    const Clock& clock;
    Files& files;
    SpaceTotals& totals;
    std::vector<std::unique_ptr<ShardState>>& states;  // of all shards; this core uses its own
    Relocator::Damaged damaged;
    std::function<void(LocalCore&)> detach;  // called first by the destructor
    // Its shards hold records of earlier epochs, or positions, that no checkpoint has written yet:
    // the first one is made at once, and then recovered() is called.
    bool recovering = false;
    std::function<void()> recovered;
  };
  LocalCore(const Parts& parts, unsigned core, Io& io, RunQueue& run_queue, BufferPool& buffers);
  ~LocalCore() override;

  MetaShard& shard(unsigned shard) override;
  Result<ScanPage> scan(const ScanOptions& options) override;
  BlobStore& blobs() override { return *blobs_; }
  const EngineStats& stats() const override { return stats_; }
  void stop(Completion& stopped) override;

  bool poll() override;
  int wake_fd() const override { return event_fd_; }

  // Any thread.
  bool offer(const Relocation& relocation);
  size_t relocations_outstanding() const { return relocator_->outstanding(); }
  uint64_t records_moved() const { return relocator_->moved(); }      // any thread
  uint64_t bytes_moved() const { return relocator_->bytes_moved(); }  // any thread
  void request_checkpoint();
  // Everything whose completion was posted before the call is in the index once flushed(ticket). A
  // core with nothing to write is flushed at its next turn.
  uint64_t request_flush();
  bool flushed(uint64_t ticket) const;

 private:
  // A checkpoint starts by taking the lane's position and posting a marker: when it runs, every
  // completion posted before has run, so the active overlays hold everything up to that position
  // and can be frozen.
  struct Marker : Completion {
    LocalCore* core = nullptr;
  };
  enum class Phase : uint8_t { kIdle, kMarking, kWriting, kStalled, kFailed };

  void wake();
  bool drive_checkpoint();
  void drive_flush();
  bool checkpoint_wanted(const LogPosition& position);
  void begin_checkpoint(const LogPosition& position);
  void freeze();
  void write_frozen();
  void end_checkpoint(Checkpointer::Outcome outcome);
  void count_overlay();
  void drive_stop();

  const Parts parts_;
  const unsigned core_;
  RunQueue& run_queue_;
  Io& io_;
  BufferPool& buffers_;
  EngineStats stats_;
  int event_fd_ = -1;
  std::atomic<bool> woken_{false};
  std::unique_ptr<Lane> lane_;
  std::unique_ptr<BlobStore> blobs_;
  std::vector<unsigned> own_shards_;
  std::vector<ShardState*> own_states_;
  std::vector<std::unique_ptr<LocalShard>> shards_;  // by shard / core_count
  std::unique_ptr<Checkpointer> checkpointer_;
  std::unique_ptr<Relocator> relocator_;

  Phase phase_ = Phase::kIdle;
  Marker marker_;
  LogPosition marked_;
  bool recovering_ = false;
  uint64_t checkpointed_lsn_ = 0;
  uint64_t checkpoint_ended_ns_ = 0;
  std::atomic<bool> checkpoint_requested_{false};
  // Tickets of request_flush(): given out, seen by the core, flushed.
  std::atomic<uint64_t> flush_asked_{0}, flush_done_{0};
  uint64_t flush_seen_ = 0;
  uint64_t flush_lsn_ = 0;  // a checkpoint up to here fulfils flush_seen_
  bool held_ = false;

  Completion* stopped_ = nullptr;
  bool stop_done_ = false;
};

}  // namespace basalt::storage
