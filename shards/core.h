// CoreShards: one core's end of the shards: its Client, its inbox, and the hosting of its own
// shards.
//
// Calls of this core to other cores wait in a slot {index, generation}; at most kCallsInFlightMax
// at once, then kBusy. Answers that find the ring full wait in a backlog, which is bounded by the
// peer's calls in flight. The home core (0) orders changes of control state: apply on shard 0, tell
// every core, wait for all, answer.
#pragma once

#include <flatbuffers/flatbuffers.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "base/poller.h"
#include "shards/client.h"
#include "shards/fabric.h"
#include "shards/generated/messages_generated.h"
#include "storage/engine.h"

namespace basalt::shards {

// Calls of one core that wait for other cores.
constexpr uint32_t kCallsInFlightMax = 8192;

struct CoreShardsStats {
  std::atomic<uint64_t> local_calls{0}, remote_calls{0}, served_calls{0}, refused_full{0},
      answers_kept{0};  // in the backlog, for a while
};

class CoreShards final : public Client, public Poller {
 public:
  struct Parts {
    Fabric& fabric;
    unsigned core;
    storage::Engine& engine;
    storage::CoreEngine& core_engine;
    RunQueue& run_queue;
    BufferPool& buffers;
    ControlListener& listener;
    uint32_t calls_in_flight_max = kCallsInFlightMax;  // tests want fewer
  };
  explicit CoreShards(const Parts& parts);
  ~CoreShards() override;

  unsigned core() const override { return parts_.core; }
  unsigned core_count() const override { return parts_.fabric.core_count(); }
  unsigned shard_count() const override { return shard_count_; }
  unsigned shard_of(uint64_t space, std::string_view object_key) const override;
  void start(unsigned shard, ApplyRequest& request) override;
  void start(unsigned shard, GetRequest& request) override;
  void start(unsigned shard, ScanRequest& request) override;
  void start(unsigned shard, SealRequest& request) override;
  void start(ControlRequest& request) override;
  void start_on_core(unsigned core, ScanRequest& request) override;
  std::optional<Result<storage::Record>> get_now(unsigned shard,
                                                 const storage::KeyView& key) override;
  storage::BlobStore& blobs() override { return parts_.core_engine.blobs(); }
  BufferPool& buffers() override { return parts_.buffers; }

  bool poll() override;
  bool prepare_sleep() override;
  void woke() override { parts_.fabric.woke(parts_.core); }
  int wake_fd() const override { return parts_.fabric.wake_fd(parts_.core); }

  const CoreShardsStats& stats() const { return stats_; }
  uint32_t calls_in_flight() const { return calls_in_flight_; }
  // Answers and news that wait for room in a ring: who has some does not sleep. For tests.
  size_t backlog_frames() const;

 private:
  struct Served;
  struct SentRecord;
  struct ServedApply;
  struct ServedScan;
  struct ServedSeal;
  struct HomeChange;
  struct Slot;
  struct Outgoing;

  unsigned owner(unsigned shard) const { return shard % core_count(); }
  storage::MetaShard& local(unsigned shard) { return parts_.core_engine.shard(shard); }

  template <class Request>
  bool start_local(unsigned shard, Request& request);
  template <class Request>
  void send_call(unsigned core, Request& request, const Outgoing& message);
  Slot* take_slot();
  Bytes encode(const Outgoing& message);  // valid until the next one
  bool try_push(unsigned core, const Outgoing& message);
  void push_or_keep(unsigned core, const Outgoing& message);
  bool flush_backlog();
  void receive(unsigned from, Bytes frame);
  void receive_done(const fb::Message& message);
  void apply_change(Bytes mutations, uint64_t seq);
  void begin_change(HomeChange& change);
  void change_applied(HomeChange& change);
  void change_seen(HomeChange& change);

  Parts parts_;
  const unsigned shard_count_;
  uint64_t hash_seed_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_slots_;
  uint32_t calls_in_flight_ = 0;
  flatbuffers::FlatBufferBuilder builder_;
  std::vector<std::deque<std::vector<uint8_t>>> backlog_;  // one per core
  CoreShardsStats stats_;
};

// Hands every row of the control tables to the listener; once per core at start, before it serves
// requests.
Task<Status> load_control(Client& client, ControlListener& listener);

}  // namespace basalt::shards
