#include "storage/garbage.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "storage/key_slices.h"
#include "storage/record_codec.h"

namespace basalt::storage {

namespace {

constexpr uint32_t kCopyBytes = 512 * 1024;

}  // namespace

// --- One record on its way

// States: body (read what was beside the record) -> for each blob in a victim: create, {read,
// fill}, seal -> apply.
class Relocator::Move {
 public:
  Move(Relocator& owner, Relocation job)
      : owner_(owner),
        job_(std::move(job)),
        shard_(owner.shard_of_(job_.shard)),
        guard_(owner.blobs_.guard()) {
    read_.move = this;
    ready_.move = this;
    seal_.move = this;
    apply_.move = this;
  }

  bool done() const { return done_; }

  void start() {
    auto record = shard_.get_now(key());
    if (!record || record->view().seq != job_.seq) return end(false);
    record_ = std::move(*record);
    blobs_.assign(record_->blobs.begin(), record_->blobs.end());
    body_ = record_->body;
    bool touched = in_victim(body_);
    for (const BlobRef& blob : blobs_) touched |= in_victim(blob);
    if (!touched) return end(false);
    // A small object whose metadata was rewritten names its old body as a blob: it becomes a body
    // again.
    if (body_.kind == static_cast<uint8_t>(BlobKind::kNone) && !blobs_.empty() &&
        in_victim(blobs_.front()) && blobs_.front().kind == static_cast<uint8_t>(BlobKind::kLog)) {
      body_ = blobs_.front();
      blobs_.erase(blobs_.begin());
    }
    if (body_.kind == static_cast<uint8_t>(BlobKind::kLog)) {
      reading_ = body_;
      return read(body_, 0, static_cast<uint32_t>(body_.length), &Move::body_read);
    }
    body_bytes_.assign(record_->inline_body.begin(), record_->inline_body.end());
    next_blob();
  }

 private:
  struct Read : ReadBlob {
    Move* move = nullptr;
    void (Move::*then)() = nullptr;
    Read() : ReadBlob({}, 0, 0) {}
  };
  struct Ready : WriterReady {
    Move* move = nullptr;
  };
  struct Seal : SealBlob {
    Move* move = nullptr;
  };
  struct Apply : ApplyRequest {
    Move* move = nullptr;
    Apply() : ApplyRequest({}, {}, {}, true) {}
  };
  struct Written {
    std::unique_ptr<BlobWriter> writer;
    bool sealed = false;
  };

  KeyView key() const { return {job_.table, job_.space, job_.name}; }
  bool in_victim(const BlobRef& blob) const {
    return in_file(blob) && job_.victims->contains(blob.file);
  }

  void read(const BlobRef& blob, uint64_t offset, uint32_t length, void (Move::*then)()) {
    read_.blob = blob;
    read_.offset = offset;
    read_.length = length;
    read_.then = then;
    read_.fn = [](Completion& completion) {
      auto& self = static_cast<Read&>(static_cast<ReadBlob&>(completion));
      if (!self.result) return self.move->read_failed(self.result.error());
      (self.move->*self.then)();
    };
    owner_.blobs_.read(read_);
  }

  void read_failed(const Error& error) {
    if (error.code == Code::kCorrupt) {
      log_error("garbage collection found damaged data; it is left where it is",
                {{"file", reading_.file},
                 {"offset", reading_.offset},
                 {"shard", job_.shard},
                 {"key", printable(key())},
                 {"error", error.detail}});
      owner_.damaged_(reading_.file);
    }
    end(false);
  }

  void body_read() {
    body_bytes_.assign(read_.result->data.begin(), read_.result->data.end());
    bytes_ += body_bytes_.size();
    read_.result = BlobSlice{};
    next_blob();
  }

  void next_blob() {
    while (index_ < blobs_.size() && !in_victim(blobs_[index_])) ++index_;
    if (index_ == blobs_.size()) return apply();
    auto writer = owner_.blobs_.create_reclaiming(blobs_[index_].length);
    if (!writer) return end(false);
    written_.push_back({std::move(*writer)});
    offset_ = 0;
    reading_ = blobs_[index_];
    read_chunk();
  }

  void read_chunk() {
    const BlobRef& blob = blobs_[index_];
    if (offset_ == blob.length) return seal();
    const uint64_t left = blob.length - offset_;
    read(blob, offset_, static_cast<uint32_t>(std::min<uint64_t>(left, kCopyBytes)), &Move::fill);
  }

  // Copies the chunk that was read into the writer, waiting for room.
  void fill() {
    BlobWriter& writer = *written_.back().writer;
    while (filled_ < read_.result->data.size()) {
      const MutableBytes room = writer.room();
      if (room.empty()) {
        ready_.fn = [](Completion& completion) {
          auto& self = static_cast<Ready&>(static_cast<WriterReady&>(completion));
          if (!self.result) return self.move->end(false);
          self.move->fill();
        };
        return writer.wait(ready_);
      }
      const Bytes rest = read_.result->data.subspan(filled_);
      const size_t count = std::min(room.size(), rest.size());
      std::memcpy(room.data(), rest.data(), count);
      writer.advance(count);
      filled_ += count;
    }
    offset_ += filled_;
    bytes_ += filled_;
    filled_ = 0;
    read_.result = BlobSlice{};
    read_chunk();
  }

  void seal() {
    seal_.fn = [](Completion& completion) {
      auto& self = static_cast<Seal&>(static_cast<SealBlob&>(completion));
      Move& move = *self.move;
      if (!self.result) return move.end(false);
      move.written_.back().sealed = true;
      move.blobs_[move.index_++] = self.result->ref;
      move.next_blob();
    };
    written_.back().writer->seal(seal_);
  }

  void apply() {
    const bool has_body = body_.kind != static_cast<uint8_t>(BlobKind::kNone);
    builder_.put(
        key(), {.size = record_->size, .tag = record_->tag, .meta = record_->meta, .blobs = blobs_},
        has_body);
    condition_ = {.kind = Precondition::Kind::kSeqEquals, .key = key(), .seq = job_.seq};
    apply_.preconditions = {&condition_, 1};
    apply_.mutations = builder_.finish();
    apply_.body = body_bytes_;
    apply_.fn = [](Completion& completion) {
      auto& self = static_cast<Apply&>(static_cast<ApplyRequest&>(completion));
      Move& move = *self.move;
      const bool applied = self.result.has_value();
      for (Written& written : move.written_) {
        if (applied) {
          written.writer->recorded();
        } else if (written.sealed) {
          written.writer->discard();
        }
      }
      move.written_.clear();
      move.end(applied);
    };
    shard_.apply(apply_);
  }

  void end(bool moved) {
    for (Written& written : written_) {
      if (written.sealed) written.writer->discard();
    }
    written_.clear();
    done_ = true;
    owner_.bytes_moved_.fetch_add(bytes_, std::memory_order_relaxed);
    if (moved) owner_.moved_.fetch_add(1, std::memory_order_relaxed);
  }

  Relocator& owner_;
  const Relocation job_;
  MetaShard& shard_;
  std::unique_ptr<ReadGuard> guard_;
  Record record_;
  BlobRef body_;
  std::vector<BlobRef> blobs_;
  std::vector<uint8_t> body_bytes_;
  std::vector<Written> written_;
  BlobRef reading_;
  size_t index_ = 0;     // blob under way
  uint64_t offset_ = 0;  // in it
  size_t filled_ = 0;    // of the chunk that was read
  uint64_t bytes_ = 0;   // copied
  bool done_ = false;
  MutationBuilder builder_;
  Precondition condition_{};
  Read read_;
  Ready ready_;
  Seal seal_;
  Apply apply_;
};

Relocator::Relocator(ShardOf shard_of, BlobStore& blobs, Damaged damaged,
                     std::function<bool()> urgent)
    : shard_of_(std::move(shard_of)),
      blobs_(blobs),
      damaged_(std::move(damaged)),
      urgent_(std::move(urgent)) {}

Relocator::~Relocator() {
  BASALT_CHECK(std::ranges::all_of(moves_, [](const auto& move) { return move->done(); }));
}

bool Relocator::offer(Relocation relocation) {
  const std::lock_guard lock(mutex_);
  if (stopping_ || queue_.size() >= kRelocationsQueuedMax) return false;
  queue_.push_back(std::move(relocation));
  outstanding_.fetch_add(1, std::memory_order_release);
  return true;
}

bool Relocator::poll() {
  // A finished move is destroyed here and not in its own member function.
  if (!moves_.empty()) {
    const size_t gone = std::erase_if(moves_, [](const auto& move) { return move->done(); });
    outstanding_.fetch_sub(gone, std::memory_order_release);
  }
  if (outstanding() == moves_.size()) return false;
  bool did = false;
  for (const size_t max = urgent_ && urgent_() ? kMovesShortMax : kMovesMax; moves_.size() < max;) {
    Relocation job;
    {
      const std::lock_guard lock(mutex_);
      if (queue_.empty()) break;
      job = std::move(queue_.front());
      queue_.pop_front();
    }
    moves_.push_back(std::make_unique<Move>(*this, std::move(job)));
    moves_.back()->start();
    did = true;
  }
  return did;
}

void Relocator::stop() {
  const std::lock_guard lock(mutex_);
  stopping_ = true;
  outstanding_.fetch_sub(queue_.size(), std::memory_order_release);
  queue_.clear();
}

// --- The collector

GarbageCollector::GarbageCollector(Files& files, std::vector<Index*> indexes,
                                   const EngineOptions& options, Hooks hooks)
    : files_(files),
      indexes_(std::move(indexes)),
      live_ratio_max_(options.gc_live_ratio_max),
      sealed_age_ms_(options.gc_sealed_age_ms),
      interval_ms_(std::max<uint32_t>(1, options.gc_interval_ms)),
      hooks_(std::move(hooks)) {
  for (Index* index : indexes_) readers_.push_back(std::make_unique<IndexReader>(*index));
}

GarbageCollector::~GarbageCollector() { stop(); }

void GarbageCollector::start() {
  auto helper = files_.platform().helpers->start("collector", [this] { return work(); });
  BASALT_CHECK(helper.has_value());
  const std::lock_guard lock(mutex_);
  helper_ = std::move(*helper);
}

void GarbageCollector::stop() {
  std::unique_ptr<Helper> helper;
  {
    const std::lock_guard lock(mutex_);
    helper = std::move(helper_);
  }
}

void GarbageCollector::kick() {
  kicked_ = true;
  const std::lock_guard lock(mutex_);
  if (helper_ != nullptr) helper_->kick();
}

void GarbageCollector::file_damaged(uint32_t file) {
  const std::lock_guard lock(mutex_);
  damaged_.insert(file);
}

uint32_t GarbageCollector::work() {
  if (!pass_) {
    const uint32_t wait_ms = look();
    if (!pass_) return wait_ms;
  }
  return step().value_or(files_.space_is_short() ? kGarbageShortIntervalMs : kGarbageLookMs);
}

uint32_t GarbageCollector::look() {
  // The first call is the helper's start, and no reason to look.
  const bool first = std::exchange(first_, false);
  const bool urgent = files_.space_is_short();
  const uint64_t now = now_ms();
  const uint32_t again_ms = std::min(interval_ms_, kGarbageLookMs);
  if (first) look_after_ms_ = now + interval_ms_;
  if (!kicked_.exchange(false) && !urgent && now < look_after_ms_) return again_ms;
  look_after_ms_ = now + interval_ms_;
  if (first || !files_.healthy()) return again_ms;
  if (begin_pass()) return 0;
  if (!urgent) {
    fruitless_looks_ = 0;
    return again_ms;
  }
  note_look(false);
  return kFruitlessLookMs;
}

// Whether there is hope for those who wait for room.
void GarbageCollector::note_look(bool fruitful) {
  fruitless_looks_ = fruitful ? 0 : std::min(fruitless_looks_ + 1, kFruitlessLooks);
  if (fruitful || fruitless_looks_ == kFruitlessLooks) files_.set_collectable(fruitful);
}

size_t GarbageCollector::pass() {
  if (!begin_pass()) return 0;
  size_t offered = 0;
  for (;;) {
    const auto wait_ms = step();
    if (!wait_ms) return offered;
    offered = pass_->offered;
    if (*wait_ms != 0) std::this_thread::sleep_for(std::chrono::milliseconds(*wait_ms));
  }
}

bool GarbageCollector::begin_pass() {
  const uint64_t now = now_ms();
  const bool urgent = files_.space_is_short();
  if (files_.below_low_water() && !files_.room_to_collect()) return false;
  const double ratio = urgent ? std::max(live_ratio_max_, kGarbageShortRatio) : live_ratio_max_;
  const auto room_for = [&](FileKind kind) {
    return urgent ? files_.room_for_copies(kind) : UINT64_MAX;
  };
  const uint64_t log_room = room_for(FileKind::kLog), bulk_room = room_for(FileKind::kBulk);
  uint64_t copied = 0;
  std::erase_if(revisit_after_ms_, [now](const auto& entry) { return entry.second <= now; });
  auto chosen = std::make_shared<FileSet>();
  {
    const std::lock_guard lock(mutex_);
    const size_t skipped = damaged_.size() + revisit_after_ms_.size();
    for (const Files::Victim& victim :
         files_.victims(ratio, urgent ? 0 : sealed_age_ms_, kVictimsPerPassMax + skipped)) {
      if (damaged_.contains(victim.file) || revisit_after_ms_.contains(victim.file)) continue;
      // An empty one falls free by itself, an own file with its record.
      if (victim.live_bytes <= 0 || victim.kind == FileKind::kOwn) continue;
      const auto live = static_cast<uint64_t>(victim.live_bytes);
      const uint64_t room = victim.kind == FileKind::kLog ? log_room : bulk_room;
      if (chosen->size() == kVictimsPerPassMax || live > room) continue;
      if (!chosen->empty() && copied + live > room / 2) continue;
      chosen->insert(victim.file);
      copied += live;
    }
  }
  if (chosen->empty()) return false;
  pass_ = std::make_unique<Pass>();
  pass_->urgent = urgent;
  pass_->moved_before = hooks_.moved();
  pass_->victims = std::move(chosen);
  return true;
}

std::optional<uint32_t> GarbageCollector::step() {
  constexpr uint32_t kWaitMs = 5;
  constexpr int kTriesMax =
      6000;  // 30 s: a core that takes nothing for so long is stopping or stuck
  Pass& pass = *pass_;
  while (!pass.found.empty()) {
    if (!hooks_.offer(pass.found.front())) {
      if (++pass.tries < kTriesMax) return kWaitMs;
      pass.next_shard();
      return 0;
    }
    pass.found.pop_front();
    pass.tries = 0;
    ++pass.offered;
  }
  if (pass.shard < indexes_.size()) {
    if (const auto status = search(); !status) {
      log_error("garbage collection cannot read an index",
                {{"shard", pass.shard}, {"error", status.error().detail}});
      pass.next_shard();
    }
    return 0;
  }
  if (hooks_.outstanding() != 0) return kWaitMs;
  for (const uint32_t file : *pass.victims) {
    revisit_after_ms_[file] =
        now_ms() +
        (pass.urgent ? kGarbageShortRevisitMs : uint64_t{kGarbageRevisitIntervals} * interval_ms_);
  }
  if (pass.offered != 0) hooks_.request_checkpoints();
  if (pass.urgent) note_look(hooks_.moved() != pass.moved_before);
  log_info("garbage collection pass",
           {{"segments", pass.victims->size()}, {"records", pass.offered}});
  pass_.reset();
  return std::nullopt;
}

// Looks at up to kGarbageEntriesPerSnapshot entries, and leaves `table`, `space` and `resume` where
// the next call goes on; at the end of the last table the shard is done, once what was found has
// been handed out.
Status GarbageCollector::search() {
  Pass& pass = *pass_;
  BASALT_TRY(snapshot, readers_[pass.shard]->begin());
  SliceSource& source = snapshot.source(static_cast<Table>(pass.table));
  bool more = true;
  for (size_t budget = kGarbageEntriesPerSnapshot; budget != 0;) {
    // The first space at or after `space` that has names; layers (top bit set) come after all
    // spaces.
    uint8_t start[kLayerBytes];
    store_be64(start, pass.space);
    BASALT_TRY(any, source.seek(start));
    if (!any || (load_be64(source.key().data()) & kLayerBit) != 0) {
      more = false;
      break;
    }
    if (const uint64_t at = load_be64(source.key().data()); at != pass.space) {
      pass.space = at;
      pass.resume.clear();
    }
    SliceCursor cursor(source, pass.space);
    BASALT_CHECK_OK(cursor.seek(pass.resume));
    for (; cursor.valid() && budget != 0; --budget) {
      const Bytes value = cursor.value();
      scratch_.resize((value.size() + 7) / 8);
      std::memcpy(scratch_.data(), value.data(), value.size());
      const KeyView key{static_cast<Table>(pass.table), pass.space, cursor.name()};
      const auto record =
          decode_record(key, {reinterpret_cast<const uint8_t*>(scratch_.data()), value.size()});
      bool wanted = false;
      if (record) {
        for_each_file_blob(
            *record, [&](const BlobRef& blob) { wanted |= pass.victims->contains(blob.file); });
      }
      if (wanted) {
        pass.found.push_back(
            {pass.shard, key.table, pass.space, std::string(key.name), record->seq, pass.victims});
      }
      pass.resume.assign(cursor.name());
      pass.resume.push_back('\0');
      BASALT_CHECK_OK(cursor.next());
    }
    if (cursor.valid()) break;  // budget spent within the space
    pass.resume.clear();
    ++pass.space;
    if ((pass.space & kLayerBit) != 0) {
      more = false;
      break;
    }
    if (budget != 0) --budget;
  }
  if (more) return {};
  if (++pass.table < kTableCount) {
    pass.space = 0;
    pass.resume.clear();
    return {};
  }
  // What was found in the last piece is still of this shard.
  auto found = std::move(pass.found);
  pass.next_shard();
  pass.found = std::move(found);
  return {};
}

}  // namespace basalt::storage
