// Judge: stands between the mailboxes and the engine, and knows what every shard was asked and what
// it said.
//
// Calls of different cores overtake each other on their way, so the model is told where the order
// is decided: at the shard. What the shard said is kept until it comes out of the mailbox at the
// core that asked; it must be the same there, once, and nothing may stay behind.
#pragma once

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "shards/client.h"
#include "storage/engine.h"
#include "tests/sim/model.h"

namespace basalt::sim {

class World;

struct Condition {
  storage::Precondition::Kind kind = storage::Precondition::Kind::kExists;
  Key key;
  std::string tag;
  uint64_t seq = 0;
  uint64_t seq_value = 0;  // the value that was read with `seq`

  bool holds(const ValuePtr& value) const;
};

// Changes of records, from the task that makes them to the shard and back.
class Batch {
 public:
  explicit Batch(World& world) : world_(world) {}
  ~Batch();
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

  unsigned shard = 0;
  std::vector<std::pair<Key, ValuePtr>> changes;
  std::vector<Condition> conditions;

  // The task is about to send it; `mutations` stay in place.
  void sent(Bytes mutations);
  // The judge: it is at the shard; the shard answered.
  void arrived();
  // It left the gate, where new data waits for room: now it has its place in the lane's order.
  void entered();
  void decided(const storage::ApplyRequest& request);
  // The task: this came back. Whether it says success.
  bool returned(const Result<storage::Applied>& result, uint32_t failed_index);

  std::vector<storage::Precondition> preconditions() const;  // views of `conditions`

 private:
  World& world_;
  const void* mutations_ = nullptr;
  bool arrived_ = false, decided_ = false;
  bool may_fail_ = false, into_sealed_ = false;
  std::string answer_;
  FatePtr fate_;
};

class Judge {
 public:
  explicit Judge(World& world) : world_(world) {}

  // The engine of a core as its mailbox is to see it; `engine` may go earlier, when no call comes
  // any more.
  std::unique_ptr<storage::CoreEngine> between(storage::CoreEngine& engine, unsigned core);

  // --- What was asked and what was said, for calls that are no batch. A call that waits for an
  // answer has a name; several may have the same.
  void gave(const std::string& call, std::string answer) { given_[call].insert(std::move(answer)); }
  void came(const std::string& call, const std::string& answer);
  // A page is known by the memory of ScanRequest::options.after.
  void expect_page(const char* after) { pages_.insert(after); }
  void forget_page(const char* after) { pages_.erase(after); }
  bool page_expected(const char* after) const { return pages_.contains(after); }
  // An answer that never came back, or nothing.
  std::string left() const;

  void expect(const void* mutations, Batch& batch) { batches_[mutations] = &batch; }
  void forget(const void* mutations) { batches_.erase(mutations); }
  Batch* find(const void* mutations) const;

  // Batches at the gate of each shard, in order of their coming: those that its shard does not
  // count any more have left it. To be told after whatever lets some go.
  void came_to_gate(Batch& batch) { gates_[batch.shard].push_back(&batch); }
  void settle_gate(unsigned shard, size_t waiting);
  bool at_gate(Batch& batch) {
    const auto& gate = gates_[batch.shard];
    return std::ranges::find(gate, &batch) != gate.end();
  }
  void leave_gate(Batch& batch) { std::erase(gates_[batch.shard], &batch); }

  // Changes of control state that were made in this run of the engine, by sequence.
  std::map<uint64_t, std::vector<std::pair<Key, ValuePtr>>> control;
  void begin_run();

 private:
  World& world_;
  // Looked up only: addresses must not decide anything.
  std::unordered_map<const void*, Batch*> batches_;
  std::unordered_set<const char*> pages_;
  std::map<unsigned, std::deque<Batch*>> gates_;
  std::map<std::string, std::multiset<std::string>> given_;
};

// Names of calls, and answers as text.
std::string name_of_get(unsigned shard, const storage::KeyView& key);
std::string name_of_scan(const storage::ScanOptions& options);
std::string name_of_seal(unsigned shard, const storage::SealRequest& request);
std::string answer_of(const Result<storage::Record>& result);
std::string answer_of(const Result<storage::ScanPage>& result);
std::string answer_of(const Status& result);
std::string answer_of(const Result<storage::Applied>& result, uint32_t failed_index);
// Refused by the asking core itself: its slots, or the ring, were full.
bool refused_by_ring(const Error& error);

// A core's copy of the control state, which it is told of through the mailbox.
class Mirror final : public shards::ControlListener {
 public:
  explicit Mirror(World& world) : world_(world) {}
  struct Row {
    uint64_t value = 0;  // 0: erased
    uint64_t seq = 0;
  };
  void on_change(storage::Table table, std::string_view name, std::optional<Bytes> meta,
                 uint64_t seq) override;
  const std::map<Key, Row>& rows() const { return rows_; }
  bool loading = true;  // of the rows that are there at start

 private:
  World& world_;
  std::map<Key, Row> rows_;
  uint64_t last_seq_ = 0;
};

}  // namespace basalt::sim
