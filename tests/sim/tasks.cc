// What clients do: writes with and without large bodies, conditional, of several records,
// abandoned; reads that hold their guard for long. Each runs on one core, and asks the shards
// through that core's client.
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
using storage::GetRequest;
using storage::Precondition;
using storage::ReadBlob;
using storage::ReadGuard;
using storage::RecordView;
using storage::SealBlob;
using storage::Table;
using storage::WriterReady;

class Write final : public Task {
 public:
  explicit Write(World& world) : Task(world), home_(world.pick_core()), batch_(world) {
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
    world_.awake(home_);
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
      const auto record = world_.look_up(shard_, condition.key.view());
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
      batch_.conditions.push_back(condition);
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
    if (place.key.table == Table::kIdentity) return false;  // control state has its own way
    const auto record = world_.look_up(place.shard, place.key.view());
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
    batch_.conditions.push_back(
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
      const auto record = world_.look_up(shard_, key.view());
      if (!record) continue;
      const ValuePtr shown = world_.judge_record(shard_, key, &record->view());
      if (shown == nullptr || record->view().blobs.empty()) continue;
      for (const BlobRef& blob : record->view().blobs) change.old_blobs.push_back(blob);
      value->pieces.insert(value->pieces.end(), shown->pieces.begin(), shown->pieces.end());
      value->size += shown->size;
      batch_.conditions.push_back(
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
        const uint64_t size = world_.chance().happens(0.8) ? piece.length : storage::kSizeUnknown;
        auto writer = world_.awake(home_).client->blobs().create(size);
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
    batch_.shard = shard_;
    for (Change& change : changes_) {
      batch_.changes.emplace_back(change.key, change.value);
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
    preconditions_ = batch_.preconditions();
    request_.emplace(std::span<const Precondition>(preconditions_), builder_.finish(),
                     as_bytes(body_), reclaiming_);
    request_->task = this;
    request_->fn = [](Completion& completion) {
      static_cast<Apply&>(static_cast<ApplyRequest&>(completion)).task->applied();
    };
    batch_.sent(request_->mutations);
    world_.trace().event("sent", home_, shard_, changes_.size(), body_.size());
    world_.awake(home_).client->start(shard_, *request_);
  }

  void applied() {
    const bool good = batch_.returned(request_->result, request_->failed_index);
    world_.trace().event("returned", home_, shard_, good);
    for (auto& writer : writers_) good ? writer->recorded() : writer->discard();
    drop();
  }

  void drop() {
    writer_.reset();
    writers_.clear();
    done_ = true;
  }

  const unsigned home_;
  Batch batch_;
  unsigned shard_ = 0;
  std::vector<Change> changes_;
  std::string body_;
  std::vector<Piece> to_write_;
  std::vector<BlobRef> written_;
  bool abandon_ = false;
  bool reclaiming_ = false;
  bool cancelled_ = false;
  bool waiting_ = false;
  Step state_ = Step::kBlobs;

  std::unique_ptr<BlobWriter> writer_;
  std::vector<std::unique_ptr<BlobWriter>> writers_;
  std::string bytes_;
  size_t at_ = 0;
  Ready ready_;
  Seal seal_;

  storage::MutationBuilder builder_;
  std::vector<Precondition> preconditions_;
  std::optional<Apply> request_;
};

// A look-up, then the content piece by piece, perhaps much later, under one guard.
class Read final : public Task {
 public:
  explicit Read(World& world)
      : Task(world), home_(world.pick_core()), lookup_(*this), request_(*this) {
    const auto place = world.pick_existing();
    shard_ = place.shard;
    key_ = place.key;
    shards::Client& client = *world.awake(home_).client;
    guard_ = client.blobs().guard();  // before the look-up
    if (world.chance().happens(0.5)) {
      if (auto record = client.get_now(shard_, key_.view())) {
        world.judge().came(name_of_get(shard_, key_.view()), answer_of(*record));
        use(*record);
        return;
      }
    }
    lookup_.key = key_.view();
    looking_ = true;
    client.start(shard_, lookup_);
  }

  void go_on() override {
    if (done_ || looking_ || reading_ || !world_.chance().happens(patience_)) return;
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
    world_.awake(home_).client->blobs().read(request_);
  }
  void cancel() override {
    if (looking_) {
      guard_.reset();
      cancelled_ = true;
      return;
    }
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
  struct Lookup : GetRequest {
    explicit Lookup(Read& owner) : GetRequest({}), read(owner) {
      fn = [](Completion& completion) {
        static_cast<Lookup&>(static_cast<GetRequest&>(completion)).read.found();
      };
    }
    Read& read;
  };

  // The answer of another core, or of this one's queue.
  void found() {
    looking_ = false;
    const auto& result = lookup_.result;
    if (result || !refused_by_ring(result.error())) {
      world_.judge().came(name_of_get(shard_, key_.view()), answer_of(result));
    }
    if (cancelled_) return end();
    use(result);
  }

  void use(const Result<storage::Record>& record) {
    if (!record) return end();  // judged at the shard
    uint64_t id = 0;
    if (record->view().meta.size() >= 8) std::memcpy(&id, record->view().meta.data(), 8);
    value_ = world_.value_of(id);
    if (value_ == nullptr) return end();
    uint64_t at = record->view().inline_body.size();
    if (at != 0 && !matches_content(0, record->view().inline_body)) {
      return world_.fail("the inline body of a record is wrong");
    }
    const auto add = [&](const BlobRef& blob) {
      blobs_.push_back({blob, at});
      at += blob.length;
    };
    if (in_file(record->view().body)) add(record->view().body);
    for (const BlobRef& blob : record->view().blobs) add(blob);
    if (at != value_->size)
      return world_.fail("the content of a record is shorter or longer than it was");
    if (blobs_.empty()) return end();
    left_ = world_.chance().between(1, 6);
    patience_ = world_.chance().happens(0.3) ? 0.02 : 0.5;
  }

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

  const unsigned home_;
  unsigned shard_ = 0;
  Key key_;
  ValuePtr value_;
  std::unique_ptr<ReadGuard> guard_;
  std::vector<std::pair<BlobRef, uint64_t>> blobs_;
  uint64_t left_ = 0;
  double patience_ = 1;
  uint64_t at_ = 0;
  bool looking_ = false;
  bool reading_ = false;
  bool cancelled_ = false;
  Lookup lookup_;
  Request request_;
};

}  // namespace

std::unique_ptr<Task> make_write(World& world) { return std::make_unique<Write>(world); }
std::unique_ptr<Task> make_read(World& world) { return std::make_unique<Read>(world); }

}  // namespace basalt::sim
