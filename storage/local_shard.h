// LocalShard: MetaShard over the log, the overlay and the index.
//
// A batch is checked, its preconditions are evaluated against durable and pending state, then it
// goes to the lane; when the lane says that it is durable it enters the overlay, all mutations at
// once, and the caller is answered. The lane completes in order and fails everything after a
// failure, so a precondition that relied on a pending batch never outlives it.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/completion.h"
#include "storage/files.h"
#include "storage/lane.h"
#include "storage/meta_shard.h"
#include "storage/mutation_builder.h"
#include "storage/shard_state.h"

namespace basalt::storage {

// Batches of one shard that are on their way to the disk; beyond it kBusy.
constexpr size_t kPendingAppliesMax = 4096;
// Records erased by one batch of a purge, and bytes of their names (a lane takes batches up to
// kMutationsBytesMax).
constexpr uint32_t kPurgeBatchRecords = 1000;
constexpr size_t kPurgeBatchNameBytes = kMutationsBytesMax / 4;

class LocalShard final : public MetaShard {
 public:
  LocalShard(ShardState& state, Files& files, Lane& lane, RunQueue& run_queue);
  ~LocalShard() override;

  void apply(ApplyRequest& request) override;
  void get(GetRequest& request) override;
  void scan(ScanRequest& request) override;
  void seal(SealRequest& request) override;
  Result<Record> get_now(const KeyView& key) override;

  // From now on apply() and purges answer kCancelled, also where they wait for room; what is under
  // way finishes.
  void stop();
  bool idle() const { return pending_applies_ == 0 && purges_.empty() && gated_.empty(); }

  // New data waits for room near the low-water mark, in order; each turn of the loop takes up what
  // may go on. True if it did anything.
  bool drive() { return !gated_.empty() && drive_gated(gated_.begin()); }
  size_t waiting_for_room() const { return gated_.size(); }

 private:
  struct Pending;
  struct PendingKey {
    Pending* last = nullptr;  // the last batch that changes the key
    bool exists = false;
    uint64_t seq = 0;
    std::string tag;
  };
  struct TextHash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  // Puts under way, by space (tables kCurrent to kPart): seal and purge must see them.
  struct PendingSpace {
    size_t objects = 0;  // kCurrent, kVersion
    size_t uploads = 0;  // kUpload, kPart
  };
  struct Purge;

  // A write that waits for room: nothing of it was looked at yet.
  struct Gated {
    Gated(ApplyRequest& r, uint64_t bytes, uint64_t held) : request(r), ticket(bytes, held) {}
    ApplyRequest& request;
    RoomTicket ticket;
  };

  bool drive_gated(std::list<Gated>::iterator from);
  void start(ApplyRequest& request);
  void refuse(ApplyRequest& request, Error error);
  Status admit(const fb::MutationBatch& batch);
  // On refusal `cause` is the batch under way that the refusal rests on, or null.
  Status check_preconditions(ApplyRequest& request, Pending*& cause);
  static void appended(Completion& completion);
  void finish(Pending& pending);
  PendingKey& pending_key(std::string_view full_key);
  PendingSpace& pending_space(uint64_t space);
  void advance(Purge& purge);
  void advance_waiting_purges();
  Status do_seal(uint64_t space);
  static void purge_applied(Completion& completion);

  ShardState& state_;
  Files& files_;
  Lane& lane_;
  RunQueue& run_queue_;
  bool stopping_ = false;
  size_t pending_applies_ = 0;
  size_t waiting_applies_ = 0;  // refused, see Pending::waiting
  std::list<Gated> gated_;      // the longest first
  using PendingKeys = std::unordered_map<std::string, PendingKey, TextHash, std::equal_to<>>;
  PendingKeys pending_keys_;
  // Nodes and their strings are used again: at most kSparesMax of each.
  static constexpr size_t kSparesMax = 256;
  std::vector<PendingKeys::node_type> spare_keys_;
  using PendingSpaces = std::unordered_map<uint64_t, PendingSpace>;
  PendingSpaces pending_spaces_;
  std::vector<PendingSpaces::node_type> spare_spaces_;
  std::vector<std::unique_ptr<Pending>> free_;
  std::unordered_set<uint64_t> sealed_;
  std::vector<std::unique_ptr<Purge>> purges_;
};

}  // namespace basalt::storage
