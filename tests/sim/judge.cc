#include "tests/sim/judge.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "tests/sim/world.h"

namespace basalt::sim {

using storage::ApplyRequest;
using storage::GetRequest;
using storage::MetaShard;
using storage::Precondition;
using storage::ScanOptions;
using storage::ScanPage;
using storage::ScanRequest;
using storage::SealRequest;
using storage::Table;

namespace {

constexpr std::string_view kRingFull = "the queue to another core is full";
constexpr size_t kDetailBytes = 100;  // compared; messages carry no more than 512

std::string text_of(const Error& error) {
  return fmt::format("{} ({})", code_name(error.code),
                     std::string_view(error.detail).substr(0, kDetailBytes));
}

std::string text_of(const storage::RecordView& record) {
  uint64_t id = 0;
  if (record.meta.size() >= 8) std::memcpy(&id, record.meta.data(), 8);
  const auto hash = [](std::string_view text) { return std::hash<std::string_view>()(text); };
  return fmt::format(
      "value {} of {} bytes, sequence {}, {} blobs, {:x}", id, record.size, record.seq,
      record.blobs.size(),
      hash(record.tag) ^ hash(as_text(record.meta)) * 3 ^ hash(as_text(record.inline_body)) * 5 ^
          hash({reinterpret_cast<const char*>(record.blobs.data()), record.blobs.size_bytes()}) *
              7);
}

bool in_range(const Key& key, const ScanOptions& options) {
  return key.table == options.table && key.space == options.space &&
         key.name.starts_with(options.prefix) && key.name > options.after;
}

bool busy_space(World& world, const std::vector<unsigned>& shards, uint64_t space) {
  return std::ranges::any_of(shards, [&](unsigned shard) {
    return world.model().busy_space(world.core_of(shard), shard, space);
  });
}

// What the model has of these shards in the range, in order.
State acknowledged(World& world, const std::vector<unsigned>& shards, const ScanOptions& options) {
  State rows;
  for (const unsigned shard : shards) {
    for (const auto& [key, value] : world.model().acknowledged(shard)) {
      if (in_range(key, options)) rows.emplace(key, value);
    }
  }
  return rows;
}

// A plain page against the model: of one shard, or of several together.
void judge_page(World& world, const std::vector<unsigned>& shards, const ScanOptions& options,
                const ScanPage& page) {
  const auto place = [&](std::string_view name) {
    return shards.size() == 1 ? shards.front() : world.shard_of(name);
  };
  std::string_view last = options.after;
  std::set<std::string> shown;
  for (const auto& entry : page.entries) {
    const Key key{options.table, options.space, std::string(entry.name)};
    if (entry.name <= last && !(last.empty() && &entry == &page.entries.front())) {
      return world.fail("a page is out of order");
    }
    last = entry.name;
    if (!in_range(key, options)) return world.fail("a page holds a name it was not asked for");
    const unsigned shard = place(entry.name);
    if (std::ranges::find(shards, shard) == shards.end()) {
      return world.fail("a page holds a name of another core");
    }
    if (world.judge_record(shard, key, &entry.record) == nullptr) return;
    shown.insert(key.name);
  }
  if (page.more && page.entries.empty()) return world.fail("an empty page says that there is more");
  // What was not shown, up to the end of the page, must not be there.
  bool beyond = false;
  for (const auto& [key, value] : acknowledged(world, shards, options)) {
    if (page.more && key.name > last) {
      beyond = true;
      continue;
    }
    if (shown.contains(key.name)) continue;
    const unsigned shard = place(key.name);
    if (std::string wrong = world.model().observed(world.core_of(shard), shard, key, 0);
        !wrong.empty()) {
      return world.fail("not listed: " + wrong);
    }
  }
  if (page.more && !beyond && !busy_space(world, shards, options.space)) {
    world.fail("a page says that there is more, and there is not");
  }
}

// Rolled-up names: exactly what the model says, when nothing is under way.
void judge_rolled(World& world, const std::vector<unsigned>& shards, const ScanOptions& options,
                  const ScanPage& page) {
  if (busy_space(world, shards, options.space)) return;
  // `after` inside a common prefix: the whole of it was shown by the page before.
  std::string hidden;
  const auto roll = [&](std::string_view name) -> std::string {
    const size_t at = name.find('/', options.prefix.size());
    return at == std::string_view::npos ? std::string() : std::string(name.substr(0, at + 1));
  };
  if (options.after.starts_with(options.prefix)) hidden = roll(options.after);
  std::vector<std::string> expected;
  for (const auto& [key, value] : acknowledged(world, shards, options)) {
    const std::string rolled = roll(key.name);
    if (!rolled.empty() && rolled == hidden) continue;
    std::string shown = rolled.empty() ? key.name : rolled;
    if (expected.empty() || expected.back() != shown) expected.push_back(std::move(shown));
  }
  std::vector<std::string> found;
  for (const auto& entry : page.entries) found.emplace_back(entry.name);
  if (found.size() > expected.size() || page.more != (found.size() < expected.size()) ||
      !std::equal(found.begin(), found.end(), expected.begin())) {
    world.fail("a rolled-up page is not what the model says");
  }
}

void judge_scan(World& world, const std::vector<unsigned>& shards, const ScanOptions& options,
                const Result<ScanPage>& page) {
  if (!page) return world.judge_refusal("scan", page.error());
  world.trace().event("scan", shards.front(), page->entries.size(), page->more);
  options.delimiter.empty() ? judge_page(world, shards, options, *page)
                            : judge_rolled(world, shards, options, *page);
}

class JudgedShard final : public MetaShard {
 public:
  JudgedShard(World& world, MetaShard& shard, unsigned number)
      : world_(world), inner_(shard), number_(number) {}

  void apply(ApplyRequest& request) override {
    Batch* batch = world_.judge().find(request.mutations.data());
    if (batch == nullptr || batch->shard != number_) {
      world_.fail("a batch came to a shard that nobody sent there");
      return inner_.apply(request);
    }
    batch->arrived();
    if (request.reclaiming) {
      batch->entered();  // passes whatever waits for room
      return inner_.apply(*new WatchedApply(request, *batch));
    }
    world_.judge().came_to_gate(*batch);
    inner_.apply(*new WatchedApply(request, *batch));
    world_.settle_gate(number_);
    if (world_.judge().at_gate(*batch)) world_.trace().add("writes that waited for room", 1);
  }

  // The engine answers these at once; only their completion comes later.
  void get(GetRequest& request) override {
    inner_.get(request);
    judge(request.key, request.result);
  }
  Result<storage::Record> get_now(const storage::KeyView& key) override {
    auto result = inner_.get_now(key);
    judge(key, result);
    return result;
  }
  void scan(ScanRequest& request) override {
    inner_.scan(request);
    const ScanOptions& options = request.options;
    judge_scan(world_, {number_}, options, request.result);
    if (world_.judge().page_expected(options.after.data())) {
      world_.judge().gave(name_of_scan(options), answer_of(request.result));
    }
  }

  void seal(SealRequest& request) override {
    Model& model = world_.model();
    const unsigned core = world_.core_of(number_);
    const bool busy = model.busy_space(core, number_, request.space);
    FatePtr fate;
    if (request.action == SealRequest::Action::kPurge) {
      std::vector<std::pair<Key, ValuePtr>> changes;
      for (const auto& [key, value] : model.acknowledged(number_)) {
        if (key.space == request.space &&
            (key.table == Table::kUpload || key.table == Table::kPart)) {
          changes.emplace_back(key, nullptr);
        }
      }
      fate = model.submitted(core, number_, std::move(changes), true);
    }
    bool objects = false;
    for (const auto& [key, value] : model.acknowledged(number_)) {
      objects |= key.space == request.space &&
                 (key.table == Table::kCurrent || key.table == Table::kVersion);
    }
    auto& watched = *new WatchedSeal(world_, request, number_, fate);
    inner_.seal(watched);
    // In force at once; only the answer comes later.
    const std::pair place{number_, request.space};
    if (request.action == SealRequest::Action::kUnseal) world_.sealed().erase(place);
    if (request.action != SealRequest::Action::kSeal) return;
    if (watched.result) {
      world_.sealed().insert(place);
      if (objects && !busy) world_.fail("a space with objects was sealed");
    } else if (watched.result.error().code == Code::kNotEmpty) {
      if (!objects && !busy) world_.fail("an empty space is said to hold objects");
    } else {
      world_.judge_refusal("seal", watched.result.error());
    }
  }

 private:
  struct WatchedApply final : ApplyRequest {
    WatchedApply(ApplyRequest& a, Batch& b)
        : ApplyRequest(a.preconditions, a.mutations, a.body, a.reclaiming), asked(a), batch(b) {
      fn = [](Completion& completion) {
        std::unique_ptr<WatchedApply> self(static_cast<WatchedApply*>(&completion));
        ApplyRequest& answered = self->asked;
        self->batch.decided(*self);
        answered.result = std::move(self->result);
        answered.failed_index = self->failed_index;
        answered.fn(answered);
      };
    }
    ApplyRequest& asked;
    Batch& batch;
  };

  struct WatchedSeal final : SealRequest {
    WatchedSeal(World& w, SealRequest& a, unsigned s, FatePtr f)
        : SealRequest(a.action, a.space), world(w), asked(a), shard(s), fate(std::move(f)) {
      fn = [](Completion& completion) {
        std::unique_ptr<WatchedSeal> self(static_cast<WatchedSeal*>(&completion));
        self->decided();
        SealRequest& answered = self->asked;
        answered.result = std::move(self->result);
        answered.fn(answered);
      };
    }
    void decided() {
      world.trace().event("seal", static_cast<uint64_t>(action), shard, space,
                          result ? 0 : 1 + static_cast<uint64_t>(result.error().code));
      world.judge().gave(name_of_seal(shard, *this), answer_of(result));
      if (fate == nullptr) return;
      const unsigned core = world.core_of(shard);
      if (result) {
        if (std::string wrong = world.model().succeeded(core, fate); !wrong.empty())
          world.fail(wrong);
        return;
      }
      world.judge_refusal("purge", result.error());
      // kCancelled may come after the batch, before the look that finds nothing left.
      const bool unknown =
          result.error().code == Code::kIo || result.error().code == Code::kCancelled;
      unknown ? world.model().unknown(core, fate) : world.model().refused(core, fate);
    }
    World& world;
    SealRequest& asked;
    const unsigned shard;
    const FatePtr fate;
  };

  void judge(const storage::KeyView& view, const Result<storage::Record>& result) {
    const Key key{view.table, view.space, std::string(view.name)};
    if (result) {
      world_.judge_record(number_, key, &result->view());
    } else if (result.error().code == Code::kNotFound) {
      world_.judge_record(number_, key, nullptr);
    } else {
      world_.judge_refusal("get", result.error());
    }
    world_.judge().gave(name_of_get(number_, view), answer_of(result));
  }

  World& world_;
  MetaShard& inner_;
  const unsigned number_;
};

class JudgedEngine final : public storage::CoreEngine {
 public:
  JudgedEngine(World& world, storage::CoreEngine& engine, unsigned core)
      : world_(world), inner_(engine) {
    for (unsigned number = core; number < world.shards(); number += world.core_count_of_run()) {
      numbers_.push_back(number);
      shards_.emplace(number, std::make_unique<JudgedShard>(world, engine.shard(number), number));
    }
  }
  MetaShard& shard(unsigned number) override { return *shards_.at(number); }
  Result<ScanPage> scan(const ScanOptions& options) override {
    auto page = inner_.scan(options);
    judge_scan(world_, numbers_, options, page);
    return page;
  }
  storage::BlobStore& blobs() override { return inner_.blobs(); }
  const storage::EngineStats& stats() const override { return inner_.stats(); }
  void stop(Completion& stopped) override { inner_.stop(stopped); }
  bool poll() override { return inner_.poll(); }

 private:
  World& world_;
  storage::CoreEngine& inner_;
  std::vector<unsigned> numbers_;
  std::map<unsigned, std::unique_ptr<JudgedShard>> shards_;
};

}  // namespace

// --- Conditions and batches

bool Condition::holds(const ValuePtr& value) const {
  switch (kind) {
    case Precondition::Kind::kAbsent:
      return value == nullptr;
    case Precondition::Kind::kExists:
      return value != nullptr;
    case Precondition::Kind::kTagEquals:
      return value != nullptr && value->tag == tag;
    case Precondition::Kind::kTagDiffers:
      return value == nullptr || value->tag != tag;
    case Precondition::Kind::kSeqEquals:
      return value != nullptr && value->id == seq_value;
  }
  return false;
}

Batch::~Batch() {
  if (mutations_ != nullptr) world_.judge().forget(mutations_);
}

void Batch::sent(Bytes mutations) {
  mutations_ = mutations.data();
  world_.judge().expect(mutations_, *this);
}

std::vector<Precondition> Batch::preconditions() const {
  std::vector<Precondition> list;
  for (const Condition& condition : conditions) {
    list.push_back({.kind = condition.kind,
                    .key = condition.key.view(),
                    .tag = condition.tag,
                    .seq = condition.seq});
  }
  return list;
}

void Batch::arrived() {
  if (arrived_) return world_.fail("a batch came to its shard twice");
  arrived_ = true;
  world_.trace().event("came", shard, changes.size());
}

void Batch::entered() {
  const unsigned core = world_.core_of(shard);
  for (const auto& [key, value] : changes) {
    into_sealed_ |= value != nullptr && key.table <= Table::kPart &&
                    world_.sealed().contains({shard, key.space});
  }
  // Some state that the batch may meet fails a condition (collection changes a record's sequence,
  // too).
  for (const Condition& condition : conditions) {
    may_fail_ |= condition.kind == Precondition::Kind::kSeqEquals;
    for (const ValuePtr& value : world_.model().candidates(core, shard, condition.key)) {
      may_fail_ |= !condition.holds(value);
    }
  }
  fate_ = world_.model().submitted(core, shard, changes);
  world_.trace().event("apply", fate_->id, shard, changes.size());
}

void Batch::decided(const ApplyRequest& request) {
  if (decided_) return world_.fail("a shard answered a batch twice");
  decided_ = true;
  Model& model = world_.model();
  const unsigned core = world_.core_of(shard);
  const auto& result = request.result;
  answer_ = answer_of(result, request.failed_index);
  if (fate_ == nullptr) {  // the engine is gone, and with it the gate
    world_.judge().leave_gate(*this);
    if (result) return world_.fail("a batch succeeded that never went to its lane");
    return world_.judge_refusal("apply", result.error());
  }
  world_.trace().event("applied", fate_->id,
                       result ? 0 : 1 + static_cast<uint64_t>(result.error().code));
  if (result) {
    const State& state = model.acknowledged(shard);
    for (const Condition& condition : conditions) {
      const auto found = state.find(condition.key);
      if (!condition.holds(found == state.end() ? nullptr : found->second)) {
        world_.fail("a batch succeeded although its precondition does not hold");
      }
    }
    if (into_sealed_) world_.fail("a record was written into a sealed space");
    if (std::string wrong = model.succeeded(core, fate_); !wrong.empty()) world_.fail(wrong);
    if (!changes.empty() && changes.front().first.table == Table::kIdentity) {
      world_.judge().control[result->seq] = changes;
    }
    return;
  }
  if (result.error().code == Code::kIo) {
    world_.judge_refusal("apply", result.error());
    fate_->maybe_refused = !conditions.empty();
    model.unknown(core, fate_);
    return;
  }
  if (result.error().code == Code::kPreconditionFailed || result.error().code == Code::kNotFound) {
    if (!may_fail_) world_.fail("a precondition failed that holds");
  } else if (result.error().code == Code::kSealed) {
    if (!into_sealed_) world_.fail("a write was refused as sealed that is not");
  } else {
    world_.judge_refusal("apply", result.error());
  }
  model.refused(core, fate_);
}

bool Batch::returned(const Result<storage::Applied>& result, uint32_t failed_index) {
  const std::string answer = answer_of(result, failed_index);
  if (!arrived_) {
    if (result || !refused_by_ring(result.error())) {
      world_.fail("a batch that never came to its shard was answered: " + answer);
    }
    return false;
  }
  if (!decided_ || answer != answer_) {
    world_.fail(fmt::format("the shard said '{}', the mailbox '{}'", answer_, answer));
  }
  return result.has_value();
}

// --- Calls and answers

bool refused_by_ring(const Error& error) {
  return error.code == Code::kBusy && error.detail == kRingFull;
}

std::string name_of_get(unsigned shard, const storage::KeyView& key) {
  return fmt::format("get {} {} {} {}", shard, static_cast<int>(key.table), key.space, key.name);
}

std::string name_of_scan(const ScanOptions& options) {
  return fmt::format("scan {}", static_cast<const void*>(options.after.data()));
}

std::string name_of_seal(unsigned shard, const SealRequest& request) {
  return fmt::format("seal {} {} {}", shard, static_cast<int>(request.action), request.space);
}

std::string answer_of(const Result<storage::Record>& result) {
  return result ? text_of(result->view()) : text_of(result.error());
}

std::string answer_of(const Result<ScanPage>& result) {
  if (!result) return text_of(result.error());
  std::string text = result->more ? "more" : "all";
  for (const auto& entry : result->entries) {
    text +=
        fmt::format("\n{}{} {}", entry.name, entry.common_prefix ? "*" : "", text_of(entry.record));
  }
  return text;
}

std::string answer_of(const Status& result) { return result ? "done" : text_of(result.error()); }

std::string answer_of(const Result<storage::Applied>& result, uint32_t failed_index) {
  return result ? fmt::format("applied as {}", result->seq)
                : fmt::format("{}, condition {}", text_of(result.error()), failed_index);
}

std::unique_ptr<storage::CoreEngine> Judge::between(storage::CoreEngine& engine, unsigned core) {
  return std::make_unique<JudgedEngine>(world_, engine, core);
}

Batch* Judge::find(const void* mutations) const {
  const auto found = batches_.find(mutations);
  return found == batches_.end() ? nullptr : found->second;
}

void Judge::settle_gate(unsigned shard, size_t waiting) {
  auto& gate = gates_[shard];
  while (gate.size() > waiting) {
    Batch& batch = *gate.front();
    gate.pop_front();
    batch.entered();
  }
}

void Judge::came(const std::string& call, const std::string& answer) {
  const auto found = given_.find(call);
  if (found != given_.end()) {
    if (const auto said = found->second.find(answer); said != found->second.end()) {
      found->second.erase(said);
      if (found->second.empty()) given_.erase(found);
      return;
    }
  }
  world_.fail(fmt::format("{}: the mailbox brought what no shard said: {}", call.substr(0, 60),
                          answer.substr(0, 200)));
}

std::string Judge::left() const {
  return given_.empty() ? std::string() : given_.begin()->first.substr(0, 60);
}

void Judge::begin_run() {
  control.clear();
  given_.clear();
  gates_.clear();
}

// --- Control state

void Mirror::on_change(Table table, std::string_view name, std::optional<Bytes> meta,
                       uint64_t seq) {
  if (table != Table::kIdentity) return;
  uint64_t id = 0;
  if (meta && meta->size() >= 8) std::memcpy(&id, meta->data(), 8);
  const Key key{table, storage::kControlSpace, std::string(name)};
  world_.trace().event("control", id, seq);
  rows_[key] = {id, seq};
  if (loading) return;
  if (seq < last_seq_) return world_.fail("a core was told of control changes out of order");
  last_seq_ = seq;
  const auto found = world_.judge().control.find(seq);
  const bool known =
      found != world_.judge().control.end() &&
      std::ranges::any_of(found->second, [&](const auto& change) {
        return change.first == key && (change.second == nullptr ? 0 : change.second->id) == id;
      });
  if (!known) world_.fail("a core was told of a control change that was not made");
}

}  // namespace basalt::sim
