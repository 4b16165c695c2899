// What clients do: writes with and without large bodies, conditional, of several records,
// abandoned; reads that hold their guard for long; pages of listings; sealing and purging of
// spaces.
#include <algorithm>
#include <cstring>
#include <optional>

#include "storage/mutation_builder.h"
#include "storage/record_codec.h"
#include "tests/sim/world.h"

namespace basalt::sim {
namespace {

using storage::ApplyRequest;
using storage::BlobRef;
using storage::BlobWriter;
using storage::KeyView;
using storage::Precondition;
using storage::ReadBlob;
using storage::ReadGuard;
using storage::RecordView;
using storage::SealBlob;
using storage::SealRequest;
using storage::Table;
using storage::WriterReady;

class Write final : public Task {
 public:
  explicit Write(World& world) : Task(world) {
    ready_.task = seal_.task = this;
    ready_.fn = [](Completion& completion) {
      static_cast<Ready&>(static_cast<WriterReady&>(completion)).task->room_came();
    };
    seal_.fn = [](Completion& completion) {
      static_cast<Seal&>(static_cast<SealBlob&>(completion)).task->sealed();
    };
    plan();
  }

  void cancel() override {
    cancelled_ = true;
    if (waiting_) return;
    if (state_ == Step::kBlobs) return drop();
    // The machine is gone; what it held in memory goes in any order.
    if (world_.dead()) writers_.clear();
  }
  bool pinned() const override { return waiting_; }

  void go_on() override {
    if (done_ || waiting_ || state_ != Step::kBlobs) return;
    if (abandon_ && world_.chance().happens(0.1)) return drop();
    write_blobs();
  }

 private:
  enum class Step : uint8_t { kBlobs, kApplying };
  struct Ready : WriterReady {
    Write* task = nullptr;
  };
  struct Seal : SealBlob {
    Write* task = nullptr;
  };
  struct Apply : ApplyRequest {
    using ApplyRequest::ApplyRequest;
    Write* task = nullptr;
  };
  struct Change {
    Key key;
    ValuePtr value;  // null: erase
    std::vector<BlobRef> old_blobs;
    bool has_body = false;
    bool keep_blobs = false;
  };
  struct Condition {
    Precondition::Kind kind;
    Key key;
    std::string tag;
    uint64_t seq = 0;
    uint64_t seq_value = 0;  // the value that was read with `seq`
  };

  void plan() {
    Chance& chance = world_.chance();
    const Mix& mix = world_.mix();
    if (chance.happens(mix.rewrite) && plan_rewrite()) return;
    if (chance.happens(mix.compose) && plan_compose()) return;
    const auto first = world_.pick_place();
    shard_ = first.shard;
    const bool erase = chance.happens(mix.erase);
    if (erase) {
      changes_.push_back({first.key, nullptr, {}});
      reclaiming_ = true;
    } else {
      add_put(first.key);
    }
    if (chance.happens(mix.batch)) {
      for (uint64_t more = chance.between(1, 3); more > 0; --more) {
        auto place = world_.pick_place();
        if (place.shard != shard_ ||
            std::ranges::any_of(changes_, [&](const Change& c) { return c.key == place.key; })) {
          continue;
        }
        changes_.push_back({place.key, nullptr, {}});
        if (chance.happens(0.3)) continue;
        auto value = world_.make_value();
        changes_.back().value = value;
        reclaiming_ = false;
      }
    }
    if (chance.happens(mix.conditional)) {
      Condition condition{static_cast<Precondition::Kind>(chance.below(5)), first.key, {}, 0, 0};
      // Mostly about what is there, so that most conditions hold or fail by race.
      const auto record = world_.shard(shard_).get_now(condition.key.view());
      if (record) {
        condition.tag = std::string(record->view().tag);
        condition.seq = record->view().seq;
        if (const ValuePtr value = world_.judge_record(shard_, condition.key, &record->view())) {
          condition.seq_value = value->id;
        }
      } else {
        condition.kind = chance.happens(0.7) ? Precondition::Kind::kAbsent : condition.kind;
      }
      if (chance.happens(0.2)) condition.tag = "other";
      conditions_.push_back(condition);
    }
  }

  void add_put(const Key& key) {
    Chance& chance = world_.chance();
    auto value = world_.make_value();
    Change change{key, nullptr, {}};
    const bool part = key.table == Table::kPart;
    if (!part && chance.happens(0.7)) {
      const uint64_t bytes = chance.happens(0.4) ? chance.between(1, 512)
                                                 : chance.between(1, world_.mix().body_bytes_max);
      value->pieces.push_back({value->id * 16, bytes});
      body_ = pattern(value->pieces.back());
      change.has_body = true;
    }
    if (part || chance.happens(world_.mix().blob)) {
      for (uint64_t i = 0; i < chance.between(1, 2); ++i) {
        value->pieces.push_back(
            {value->id * 16 + 1 + i, chance.between(1, world_.mix().blob_bytes_max)});
        to_write_.push_back(value->pieces.back());
      }
      abandon_ = chance.happens(world_.mix().abandon);
    }
    for (const Piece& piece : value->pieces) value->size += piece.length;
    world_.remember(value);
    change.value = value;
    changes_.push_back(std::move(change));
  }

  // The same content under new metadata.
  bool plan_rewrite() {
    const auto place = world_.pick_existing();
    const auto record = world_.shard(place.shard).get_now(place.key.view());
    if (!record) return false;
    const ValuePtr old = world_.judge_record(place.shard, place.key, &record->view());
    if (old == nullptr) return false;
    shard_ = place.shard;
    auto value = world_.make_value();
    value->pieces = old->pieces;
    value->size = old->size;
    Change change{place.key, value, {}};
    if (in_file(record->view().body)) change.old_blobs.push_back(record->view().body);
    for (const BlobRef& blob : record->view().blobs) change.old_blobs.push_back(blob);
    if (!record->view().inline_body.empty()) {
      body_ = as_text(record->view().inline_body);
      change.has_body = true;
    }
    world_.remember(value);
    changes_.push_back(std::move(change));
    conditions_.push_back(
        {Precondition::Kind::kSeqEquals, place.key, {}, record->view().seq, old->id});
    return true;
  }

  // Two parts become one object, as when an upload completes.
  bool plan_compose() {
    const auto target = world_.pick_place();
    if (target.key.table != Table::kCurrent) return false;
    shard_ = target.shard;
    auto value = world_.make_value();
    Change change{target.key, nullptr, {}};
    for (const auto& [key, old] : world_.model().acknowledged(shard_)) {
      if (key.table != Table::kPart || key.space != target.key.space) continue;
      const auto record = world_.shard(shard_).get_now(key.view());
      if (!record) continue;
      const ValuePtr shown = world_.judge_record(shard_, key, &record->view());
      if (shown == nullptr || record->view().blobs.empty()) continue;
      for (const BlobRef& blob : record->view().blobs) change.old_blobs.push_back(blob);
      value->pieces.insert(value->pieces.end(), shown->pieces.begin(), shown->pieces.end());
      value->size += shown->size;
      conditions_.push_back(
          {Precondition::Kind::kSeqEquals, key, {}, record->view().seq, shown->id});
      changes_.push_back({key, nullptr, {}, false, true});
      if (changes_.size() == 3) break;
    }
    if (changes_.empty()) return false;
    world_.remember(value);
    change.value = value;
    changes_.push_back(std::move(change));
    return true;
  }

  void write_blobs() {
    while (true) {
      if (writer_ == nullptr) {
        if (written_.size() == to_write_.size()) return apply();
        const Piece& piece = to_write_[written_.size()];
        writer_core_ = static_cast<unsigned>(world_.chance().below(world_.core_count()));
        const uint64_t size = world_.chance().happens(0.8) ? piece.length : storage::kSizeUnknown;
        auto writer = world_.core(writer_core_).engine->blobs().create(size);
        if (!writer) {
          world_.judge_refusal("create", writer.error());
          return drop();
        }
        writer_ = std::move(*writer);
        bytes_ = pattern(piece);
        at_ = 0;
      }
      while (at_ < bytes_.size()) {
        const MutableBytes room = writer_->room();
        if (room.empty()) {
          waiting_ = true;
          return writer_->wait(ready_);
        }
        const size_t count = std::min(room.size(), bytes_.size() - at_);
        std::memcpy(room.data(), bytes_.data() + at_, count);
        writer_->advance(count);
        at_ += count;
        if (abandon_ && world_.chance().happens(0.3)) return drop();
      }
      waiting_ = true;
      return writer_->seal(seal_);
    }
  }

  void room_came() {
    waiting_ = false;
    if (!ready_.result) {
      world_.judge_refusal("blob write", ready_.result.error());
      return drop();
    }
    if (cancelled_) return drop();
    write_blobs();
  }

  void sealed() {
    waiting_ = false;
    if (!seal_.result) {
      world_.judge_refusal("seal blob", seal_.result.error());
      return drop();
    }
    written_.push_back(seal_.result->ref);
    writers_.push_back(std::move(writer_));
    if (cancelled_ || (abandon_ && world_.chance().happens(0.5))) return drop();
    if (world_.chance().happens(0.5)) write_blobs();  // else in a later turn
  }

  void apply() {
    state_ = Step::kApplying;
    std::vector<std::pair<Key, ValuePtr>> model_changes;
    for (Change& change : changes_) {
      into_sealed_ |= change.value != nullptr && change.key.table <= Table::kPart &&
                      world_.sealed().contains({shard_, change.key.space});
      model_changes.emplace_back(change.key, change.value);
      if (change.value == nullptr) {
        builder_.erase(change.key.view(), change.keep_blobs);
        continue;
      }
      std::vector<BlobRef> blobs = change.old_blobs;
      if (&change == &changes_.front()) blobs.insert(blobs.end(), written_.begin(), written_.end());
      builder_.put(change.key.view(),
                   {.size = change.value->size,
                    .tag = change.value->tag,
                    .meta = as_bytes(change.value->meta),
                    .blobs = blobs},
                   change.has_body);
    }
    for (const Condition& condition : conditions_) {
      preconditions_.push_back({.kind = condition.kind,
                                .key = condition.key.view(),
                                .tag = condition.tag,
                                .seq = condition.seq});
    }
    core_ = world_.core_of(shard_);
    // Some state that the batch may meet fails a condition (collection changes a record's sequence,
    // too).
    for (const Condition& condition : conditions_) {
      may_fail_ |= condition.kind == Precondition::Kind::kSeqEquals;
      for (const ValuePtr& value : world_.model().candidates(core_, shard_, condition.key)) {
        may_fail_ |= !holds(condition, value);
      }
    }
    fate_ = world_.model().submitted(core_, shard_, std::move(model_changes));
    request_.emplace(std::span<const Precondition>(preconditions_), builder_.finish(),
                     as_bytes(body_), reclaiming_);
    request_->task = this;
    request_->fn = [](Completion& completion) {
      static_cast<Apply&>(static_cast<ApplyRequest&>(completion)).task->applied();
    };
    world_.trace().event("apply", fate_->id, shard_, changes_.size(), body_.size());
    world_.shard(shard_).apply(*request_);
  }

  bool holds(const Condition& condition, const ValuePtr& value) const {
    switch (condition.kind) {
      case Precondition::Kind::kAbsent:
        return value == nullptr;
      case Precondition::Kind::kExists:
        return value != nullptr;
      case Precondition::Kind::kTagEquals:
        return value != nullptr && value->tag == condition.tag;
      case Precondition::Kind::kTagDiffers:
        return value == nullptr || value->tag != condition.tag;
      case Precondition::Kind::kSeqEquals:
        return value != nullptr && value->id == condition.seq_value;
    }
    return false;
  }

  void applied() {
    Model& model = world_.model();
    const auto& result = request_->result;
    world_.trace().event("applied", fate_->id,
                         result ? 0 : 1 + static_cast<uint64_t>(result.error().code));
    if (result) {
      const State& state = model.acknowledged(shard_);
      for (const Condition& condition : conditions_) {
        const auto found = state.find(condition.key);
        if (!holds(condition, found == state.end() ? nullptr : found->second)) {
          world_.fail("a batch succeeded although its precondition does not hold");
        }
      }
      if (into_sealed_) world_.fail("a record was written into a sealed space");
      if (std::string wrong = model.succeeded(core_, fate_); !wrong.empty()) world_.fail(wrong);
    } else if (result.error().code == Code::kIo) {
      world_.judge_refusal("apply", result.error());
      fate_->maybe_refused = !conditions_.empty();
      model.unknown(core_, fate_);
    } else {
      if (result.error().code == Code::kPreconditionFailed ||
          result.error().code == Code::kNotFound) {
        if (!may_fail_) world_.fail("a precondition failed that holds");
      } else if (result.error().code == Code::kSealed) {
        if (!into_sealed_) world_.fail("a write was refused as sealed that is not");
      } else {
        world_.judge_refusal("apply", result.error());
      }
      model.refused(core_, fate_);
    }
    for (auto& writer : writers_) result ? writer->recorded() : writer->discard();
    drop();
  }

  void drop() {
    writer_.reset();
    writers_.clear();
    done_ = true;
  }

  unsigned shard_ = 0;
  unsigned core_ = 0;
  std::vector<Change> changes_;
  std::vector<Condition> conditions_;
  std::string body_;
  std::vector<Piece> to_write_;
  std::vector<BlobRef> written_;
  bool abandon_ = false;
  bool reclaiming_ = false;
  bool cancelled_ = false;
  bool waiting_ = false;
  bool may_fail_ = false;
  bool into_sealed_ = false;
  Step state_ = Step::kBlobs;

  unsigned writer_core_ = 0;
  std::unique_ptr<BlobWriter> writer_;
  std::vector<std::unique_ptr<BlobWriter>> writers_;
  std::string bytes_;
  size_t at_ = 0;
  Ready ready_;
  Seal seal_;

  storage::MutationBuilder builder_;
  std::vector<Precondition> preconditions_;
  std::optional<Apply> request_;
  FatePtr fate_;
};

// A look-up, then the content piece by piece, perhaps much later, under one guard.
class Read final : public Task {
 public:
  explicit Read(World& world) : Task(world), request_(*this) { begin(world); }

  void begin(World& world) {
    const auto place = world.pick_existing();
    core_ = static_cast<unsigned>(world.chance().below(world.core_count()));
    guard_ = world.core(core_).engine->blobs().guard();
    key_ = place.key;
    const auto record = world.shard(place.shard).get_now(key_.view());
    if (!record) {
      if (record.error().code == Code::kNotFound) {
        world.judge_record(place.shard, key_, nullptr);
      } else {
        world.judge_refusal("get", record.error());
      }
      return end();
    }
    value_ = world.judge_record(place.shard, key_, &record->view());
    if (value_ == nullptr) return end();
    uint64_t at = record->view().inline_body.size();
    if (at != 0 && !matches_content(0, record->view().inline_body)) {
      return world.fail("the inline body of a record is wrong");
    }
    const auto add = [&](const BlobRef& blob) {
      blobs_.push_back({blob, at});
      at += blob.length;
    };
    if (in_file(record->view().body)) add(record->view().body);
    for (const BlobRef& blob : record->view().blobs) add(blob);
    if (at != value_->size)
      return world.fail("the content of a record is shorter or longer than it was");
    if (blobs_.empty()) return end();
    left_ = world.chance().between(1, 6);
    patience_ = world.chance().happens(0.3) ? 0.02 : 0.5;
  }

  void go_on() override {
    if (done_ || reading_ || !world_.chance().happens(patience_)) return;
    if (left_ == 0) return end();
    --left_;
    Chance& chance = world_.chance();
    const auto& [blob, at] = blobs_[chance.below(blobs_.size())];
    request_.blob = blob;
    request_.offset = chance.happens(0.5) ? 0 : chance.below(blob.length);
    const uint64_t most =
        std::min<uint64_t>(blob.length - request_.offset, storage::kBlobReadBytesMax);
    request_.length = static_cast<uint32_t>(chance.happens(0.5) ? most : chance.between(1, most));
    at_ = at + request_.offset;
    reading_ = true;
    world_.core(core_).engine->blobs().read(request_);
  }
  void cancel() override {
    if (!reading_) return end();
    left_ = 0;
    patience_ = 1;
    cancelled_ = true;
  }
  bool pinned() const override { return reading_; }

 private:
  struct Request : ReadBlob {
    explicit Request(Read& owner) : ReadBlob({}, 0, 0), read(owner) {
      fn = [](Completion& completion) {
        static_cast<Request&>(static_cast<ReadBlob&>(completion)).read.came();
      };
    }
    Read& read;
  };

  bool matches_content(uint64_t offset, Bytes bytes) const {
    uint64_t start = 0;
    for (const Piece& piece : value_->pieces) {
      if (bytes.empty()) break;
      if (offset < start + piece.length) {
        const uint64_t in_piece = offset - start;
        const size_t count = std::min<uint64_t>(piece.length - in_piece, bytes.size());
        if (!matches(piece, in_piece, bytes.first(count))) return false;
        bytes = bytes.subspan(count);
        offset += count;
      }
      start += piece.length;
    }
    return bytes.empty();
  }

  void came() {
    reading_ = false;
    if (!request_.result) {
      const Error& error = request_.result.error();
      if (error.code == Code::kCorrupt && !world_.is_damaged(request_.blob)) {
        return world_.fail("bytes are said to be damaged that nobody damaged: " + error.detail);
      }
      if (error.code != Code::kCorrupt) world_.judge_refusal("read", error);
    } else if (!matches_content(at_, request_.result->data)) {
      return world_.fail("a read returned wrong bytes");
    }
    request_.result = storage::BlobSlice{};
    if (cancelled_) end();
  }

  void end() {
    guard_.reset();
    done_ = true;
  }

  Key key_;
  ValuePtr value_;
  unsigned core_ = 0;
  std::unique_ptr<ReadGuard> guard_;
  std::vector<std::pair<BlobRef, uint64_t>> blobs_;
  uint64_t left_ = 0;
  double patience_ = 1;
  uint64_t at_ = 0;
  bool reading_ = false;
  bool cancelled_ = false;
  Request request_;
};

// One page, against the model.
class Scan final : public Task {
 public:
  explicit Scan(World& world) : Task(world) { begin(world); }
  void cancel() override { done_ = true; }

 private:
  void begin(World& world) {
    Chance& chance = world.chance();
    const auto from = world.pick_place();
    const unsigned shard = from.shard;
    storage::ScanOptions options{.table = from.key.table, .space = from.key.space};
    options.limit = static_cast<uint32_t>(chance.between(1, 40));
    const std::string after = chance.happens(0.5) ? from.key.name : "";
    options.after = after;
    if (chance.happens(0.2)) options.prefix = std::string_view(from.key.name).substr(0, 1);
    const bool rolled = chance.happens(0.2);
    if (rolled) options.delimiter = "/";
    struct Request : storage::ScanRequest {
      using ScanRequest::ScanRequest;
      bool came = false;
    } request(options);
    request.fn = [](Completion& completion) {
      static_cast<Request&>(static_cast<storage::ScanRequest&>(completion)).came = true;
    };
    auto& core = world.core(world.core_of(shard));
    world.shard(shard).scan(request);
    for (int i = 0; i < 1000 && !request.came; ++i) core.run_queue.run();
    done_ = true;
    if (!request.came) return world.fail("a scan was not answered");
    if (!request.result) return world.judge_refusal("scan", request.result.error());
    world.trace().event("scan", shard, request.result->entries.size(), request.result->more);
    rolled ? judge_rolled(shard, options, *request.result) : judge(shard, options, *request.result);
  }
  static bool in_range(const Key& key, const storage::ScanOptions& options) {
    return key.table == options.table && key.space == options.space &&
           key.name.starts_with(options.prefix) && key.name > options.after;
  }

  void judge(unsigned shard, const storage::ScanOptions& options, const storage::ScanPage& page) {
    Model& model = world_.model();
    const unsigned core = world_.core_of(shard);
    std::string_view last = options.after;
    std::set<std::string> shown;
    for (const auto& entry : page.entries) {
      const Key key{options.table, options.space, std::string(entry.name)};
      if (entry.name <= last && !(last.empty() && &entry == &page.entries.front())) {
        return world_.fail("a page is out of order");
      }
      last = entry.name;
      if (!in_range(key, options)) return world_.fail("a page holds a name it was not asked for");
      if (world_.judge_record(shard, key, &entry.record) == nullptr) return;
      shown.insert(key.name);
    }
    if (page.more && page.entries.empty())
      return world_.fail("an empty page says that there is more");
    // What was not shown, up to the end of the page, must not be there.
    bool beyond = false;
    for (const auto& [key, value] : model.acknowledged(shard)) {
      if (!in_range(key, options)) continue;
      if (page.more && key.name > last) {
        beyond = true;
        continue;
      }
      if (shown.contains(key.name)) continue;
      if (std::string wrong = model.observed(core, shard, key, 0); !wrong.empty()) {
        return world_.fail("not listed: " + wrong);
      }
    }
    if (page.more && !beyond && !model.busy_space(core, shard, options.space)) {
      world_.fail("a page says that there is more, and there is not");
    }
  }

  // Rolled-up names: exactly what the model says, when nothing is under way.
  void judge_rolled(unsigned shard, const storage::ScanOptions& options,
                    const storage::ScanPage& page) {
    if (world_.model().busy_space(world_.core_of(shard), shard, options.space)) return;
    // `after` inside a common prefix: the whole of it was shown by the page before.
    std::string hidden;
    const auto roll = [&](std::string_view name) -> std::string {
      const size_t at = name.find('/', options.prefix.size());
      return at == std::string_view::npos ? std::string() : std::string(name.substr(0, at + 1));
    };
    if (options.after.starts_with(options.prefix)) hidden = roll(options.after);
    std::vector<std::string> expected;
    for (const auto& [key, value] : world_.model().acknowledged(shard)) {
      if (!in_range(key, options)) continue;
      const std::string rolled = roll(key.name);
      if (!rolled.empty() && rolled == hidden) continue;
      std::string shown = rolled.empty() ? key.name : rolled;
      if (expected.empty() || expected.back() != shown) expected.push_back(std::move(shown));
    }
    std::vector<std::string> found;
    for (const auto& entry : page.entries) found.emplace_back(entry.name);
    if (found.size() > expected.size() || page.more != (found.size() < expected.size()) ||
        !std::equal(found.begin(), found.end(), expected.begin())) {
      world_.fail("a rolled-up page is not what the model says");
    }
  }
};

// Seals a space of a shard; when it is sealed, purges it, or takes it back, or both.
class SealSpace final : public Task {
 public:
  explicit SealSpace(World& world) : Task(world) { begin(world); }
  void cancel() override {}

 private:
  void begin(World& world) {
    Chance& chance = world.chance();
    shard_ = static_cast<unsigned>(chance.below(world.shards()));
    core_ = world.core_of(shard_);
    space_ = world.spaces()[chance.below(world.spaces().size())];
    if (world.sealed().contains({shard_, space_})) {
      if (chance.happens(0.5)) return call(SealRequest::Action::kUnseal);
      Model& model = world.model();
      if (model.busy_space(core_, shard_, space_)) {
        done_ = true;
        return;
      }
      std::vector<std::pair<Key, ValuePtr>> changes;
      for (const auto& [key, value] : model.acknowledged(shard_)) {
        if (key.space == space_ && (key.table == Table::kUpload || key.table == Table::kPart)) {
          changes.emplace_back(key, nullptr);
        }
      }
      fate_ = model.submitted(core_, shard_, std::move(changes), true);
      return call(SealRequest::Action::kPurge);
    }
    busy_ = world.model().busy_space(core_, shard_, space_);
    for (const auto& [key, value] : world.model().acknowledged(shard_)) {
      objects_ |=
          key.space == space_ && (key.table == Table::kCurrent || key.table == Table::kVersion);
    }
    call(SealRequest::Action::kSeal);
  }
  struct Request : SealRequest {
    using SealRequest::SealRequest;
    SealSpace* task = nullptr;
  };
  void call(SealRequest::Action action) {
    request_.emplace(action, space_);
    request_->task = this;
    request_->fn = [](Completion& completion) {
      static_cast<Request&>(static_cast<SealRequest&>(completion)).task->answered();
    };
    world_.shard(shard_).seal(*request_);
    // In force at once; only the answer comes later.
    if (action == SealRequest::Action::kSeal && request_->result)
      world_.sealed().insert({shard_, space_});
    if (action == SealRequest::Action::kUnseal) world_.sealed().erase({shard_, space_});
  }
  void answered() {
    done_ = true;
    const Status& result = request_->result;
    world_.trace().event("seal", static_cast<uint64_t>(request_->action), shard_, space_,
                         result ? 0 : 1 + static_cast<uint64_t>(result.error().code));
    if (request_->action == SealRequest::Action::kSeal) {
      if (!result && result.error().code == Code::kNotEmpty) {
        if (!objects_ && !busy_) world_.fail("an empty space is said to hold objects");
      } else if (!result) {
        world_.judge_refusal("seal", result.error());
      } else if (objects_ && !busy_) {
        world_.fail("a space with objects was sealed");
      }
    } else if (fate_ != nullptr) {
      if (result) {
        if (std::string wrong = world_.model().succeeded(core_, fate_); !wrong.empty())
          world_.fail(wrong);
      } else if (result.error().code == Code::kIo) {
        world_.judge_refusal("purge", result.error());
        world_.model().unknown(core_, fate_);
      } else {
        world_.judge_refusal("purge", result.error());
        // kCancelled may come after the batch, before the look that finds nothing left.
        result.error().code == Code::kCancelled ? world_.model().unknown(core_, fate_)
                                                : world_.model().refused(core_, fate_);
      }
    }
  }

  unsigned shard_ = 0, core_ = 0;
  uint64_t space_ = 0;
  bool objects_ = false, busy_ = false;
  FatePtr fate_;
  std::optional<Request> request_;
};

}  // namespace

std::unique_ptr<Task> make_write(World& world) { return std::make_unique<Write>(world); }
std::unique_ptr<Task> make_read(World& world) { return std::make_unique<Read>(world); }
std::unique_ptr<Task> make_scan(World& world) { return std::make_unique<Scan>(world); }
std::unique_ptr<Task> make_seal(World& world) { return std::make_unique<SealSpace>(world); }

}  // namespace basalt::sim
