// What any thread asks of LocalFiles: accounting, health, supply of the cores.
#include "storage/files_local.h"

#include <fmt/core.h>
#include <sys/mman.h>

#include <algorithm>

#include "base/check.h"
#include "base/log.h"
#include "storage/seeded_bugs.h"

namespace basalt::storage {

LocalFiles::~LocalFiles() {
  if (helper_ != nullptr) {
    helper_.reset();
    for (auto& core : cores_) {
      for (OwnFile& file : core->own_ready) remove_file(FileKind::kOwn, file.number);
    }
  }
  ::munmap(top_, (size_t{1} << (32 - kLeafBits)) * sizeof(std::atomic<Leaf*>));
  ::munmap(zeros_, kZeroStepBytes);
}

std::string LocalFiles::shard_directory(unsigned shard) const {
  return fmt::format("{}/shard/{:02}", options_.directory, shard);
}

std::string LocalFiles::path_of(FileKind kind, uint32_t number) {
  switch (kind) {
    case FileKind::kLog:
      return fmt::format("log/{:08x}", number);
    case FileKind::kBulk:
      return fmt::format("bulk/{:08x}", number);
    // Neighbours share a directory, so that one sync covers a handful of new files.
    case FileKind::kOwn:
      return fmt::format("blob/{:02x}/{:08x}", (number >> 8) & 0xff, number);
  }
  return {};
}

SegmentEntry* LocalFiles::find_segment(uint32_t number) const {
  Leaf* leaf = top_[number >> kLeafBits].load(std::memory_order_acquire);
  if (leaf == nullptr) return nullptr;
  return (*leaf)[number & ((size_t{1} << kLeafBits) - 1)].load(std::memory_order_acquire);
}

// --- Live bytes

void LocalFiles::set_live(uint32_t file, int64_t bytes) {
  if (SegmentEntry* entry = find_segment(file)) {
    entry->live.store(bytes, std::memory_order_relaxed);
    return;
  }
  std::unique_lock lock(mutex_);
  auto found = own_files_.find(file);
  if (found != own_files_.end()) {
    found->second.live = bytes;
  } else if (bytes > 0) {
    lock.unlock();
    log_error("the index names a file that is missing", {{"file", file}, {"live_bytes", bytes}});
  }
}

void LocalFiles::add_live(const BlobRef& blob) {
  switch (static_cast<BlobKind>(blob.kind)) {
    case BlobKind::kNone:
    case BlobKind::kIndex:
      return;
    case BlobKind::kLog:
    case BlobKind::kBulk:
      if (SegmentEntry* entry = find_segment(blob.file)) {
        entry->live.fetch_add(static_cast<int64_t>(blob.length), std::memory_order_relaxed);
        entry->added.fetch_add(static_cast<int64_t>(blob.length), std::memory_order_relaxed);
        return;
      }
      break;
    case BlobKind::kFile: {
      std::unique_lock lock(mutex_);
      auto found = own_files_.find(blob.file);
      if (found == own_files_.end()) break;
      found->second.live += static_cast<int64_t>(blob.length);
      return;
    }
  }
  log_error("a record names a file that is missing",
            {{"file", blob.file}, {"length", blob.length}});
}

void LocalFiles::release(std::span<const BlobRef> blobs) {
  if (blobs.empty()) return;
  uint64_t stamp = guards_.advance();
  bool emptied = false;
  for (const BlobRef& blob : blobs) {
    auto kind = static_cast<BlobKind>(blob.kind);
    if (kind == BlobKind::kLog || kind == BlobKind::kBulk) {
      SegmentEntry* entry = find_segment(blob.file);
      if (entry == nullptr || entry->generation.load(std::memory_order_relaxed) != blob.generation)
        continue;
      // The stamp first: whoever sees the live bytes at zero sees it too.
      uint64_t seen = entry->release_stamp.load(std::memory_order_relaxed);
      while (seen < stamp &&
             !entry->release_stamp.compare_exchange_weak(seen, stamp, std::memory_order_release)) {
      }
      int64_t length = static_cast<int64_t>(blob.length);
      emptied |= entry->live.fetch_sub(length, std::memory_order_acq_rel) <= length;
    } else if (kind == BlobKind::kFile) {
      std::unique_lock lock(mutex_);
      auto found = own_files_.find(blob.file);
      if (found == own_files_.end()) continue;
      OwnEntry& entry = found->second;
      entry.live -= static_cast<int64_t>(blob.length);
      entry.stamp = std::max(entry.stamp, stamp);
      if (entry.live <= 0 && !entry.held) queue_unlink_locked(blob.file, entry);
    }
  }
  if (emptied) {
    std::unique_lock lock(mutex_);
    reclaim_due_ = true;
    kick_locked();
  }
}

void LocalFiles::queue_unlink_locked(uint32_t number, OwnEntry& entry) {
  if (entry.queued) return;
  entry.queued = true;
  unlink_queue_.push_back({number, entry.stamp});
  kick_locked();
}

void LocalFiles::drop_orphans() {
  size_t orphans = 0;
  std::unique_lock lock(mutex_);
  for (uint32_t number : own_files_at_open_) {
    auto found = own_files_.find(number);
    if (found == own_files_.end() || found->second.live > 0 || found->second.queued) continue;
    queue_unlink_locked(number, found->second);
    ++orphans;
  }
  own_files_at_open_.clear();
  own_files_at_open_.shrink_to_fit();
  for (auto& entry : segments_) {
    if (entry->state != SegmentEntry::State::kDamaged) continue;
    int64_t live = entry->live.load(std::memory_order_relaxed);
    if (live <= 0) {
      entry->state = SegmentEntry::State::kSealed;
    } else {
      log_error("a segment with live data has no valid header; its data stays readable",
                {{"file", path_of(entry->kind, entry->number)}, {"live_bytes", live}});
    }
  }
  recovered_ = true;
  reclaim_due_ = true;
  kick_locked();
  lock.unlock();
  if (orphans > 0) log_info("files of unfinished uploads removed", {{"files", orphans}});
}

void LocalFiles::checkpointed(unsigned lane, uint64_t lsn) {
  if (lane >= core_count_) return;
  uint64_t seen = checkpointed_[lane].load(std::memory_order_relaxed);
  while (seen < lsn &&
         !checkpointed_[lane].compare_exchange_weak(seen, lsn, std::memory_order_release)) {
  }
  std::unique_lock lock(mutex_);
  reclaim_due_ = true;
  kick_locked();
}

bool LocalFiles::is_reclaimable(const SegmentEntry& entry) const {
  return is_dead(entry) && !is_retained(entry);
}

bool LocalFiles::is_retained(const SegmentEntry& entry) const {
  const uint64_t from = retain_from_.load(std::memory_order_relaxed);
  if (entry.kind != FileKind::kLog || from == UINT64_MAX || pace_.paced()) return false;
  return entry.foreign ? entry.epoch >= from >> kLsnEpochShift : entry.last_lsn > from;
}

bool LocalFiles::is_dead(const SegmentEntry& entry) const {
  if (entry.state != SegmentEntry::State::kSealed) return false;
  if (entry.foreign && !recovered_) return false;
  if (entry.kind == FileKind::kLog && !seeded::kEarlyRecycle) {
    bool applied =
        entry.foreign ? replay_finished_ : checkpointed_lsn(entry.lane) >= entry.last_lsn;
    if (!applied) return false;
  }
  // Pins first: a writer's bytes become live before it lets go of its place, and a sealed segment
  // gets no new ones.
  return entry.pins.load(std::memory_order_acquire) == 0 &&
         entry.live.load(std::memory_order_acquire) <= 0 &&
         guards_.passed(entry.release_stamp.load(std::memory_order_acquire));
}

std::vector<Files::Victim> LocalFiles::victims(double live_ratio_max, uint32_t sealed_age_ms,
                                               size_t count_max) {
  struct Rated {
    Victim victim;
    double ratio;
  };
  std::vector<Rated> rated;
  uint64_t now_ms = platform_.clock->monotonic_ns() / 1'000'000;
  {
    std::unique_lock lock(mutex_);
    if (!recovered_) return {};
    for (auto& entry : segments_) {
      if (entry->state != SegmentEntry::State::kSealed) continue;
      if (!entry->foreign && now_ms - entry->sealed_ms < sealed_age_ms) continue;
      if (entry->kind == FileKind::kLog) {
        bool applied =
            entry->foreign ? replay_finished_ : checkpointed_lsn(entry->lane) >= entry->last_lsn;
        if (!applied) continue;
      }
      int64_t live = entry->live.load(std::memory_order_relaxed);
      if (live <= 0) continue;  // empties by itself
      // Small records do not fill their segment with live bytes even where all of it lives:
      // copying that would gain nothing, again and again.
      const int64_t full = entry->foreign ? static_cast<int64_t>(entry->size_bytes)
                                          : entry->added.load(std::memory_order_relaxed);
      double ratio = static_cast<double>(live) / static_cast<double>(std::max<int64_t>(full, 1));
      if (ratio < live_ratio_max) rated.push_back({{entry->number, entry->kind, live}, ratio});
    }
  }
  std::sort(rated.begin(), rated.end(),
            [](const Rated& a, const Rated& b) { return a.ratio < b.ratio; });
  if (rated.size() > count_max) rated.resize(count_max);
  std::vector<Victim> result;
  for (const Rated& one : rated) result.push_back(one.victim);
  return result;
}

SpaceUse LocalFiles::space_use() const {
  SpaceUse use;
  std::unique_lock lock(mutex_);
  for (auto& entry : segments_) {
    if (entry->state == SegmentEntry::State::kGone) continue;
    ++(entry->kind == FileKind::kLog ? use.log_segments : use.bulk_segments);
    use.segment_live_bytes +=
        static_cast<uint64_t>(std::max<int64_t>(0, entry->live.load(std::memory_order_relaxed)));
  }
  for (auto& [number, entry] : own_files_) use.own_files += entry.live > 0;
  use.disk_bytes = disk_bytes_;
  use.disk_free_bytes = disk_free_bytes_;
  use.below_low_water = below_low_water();
  use.segments_reused = segments_reused_;
  use.writes_waiting = pace_.waiting();
  return use;
}

size_t LocalFiles::spare_log_segments() const {
  return std::clamp<size_t>(core_count_ + 1, kSpareLogSegmentsMin, kSpareLogSegmentsMax);
}

bool LocalFiles::room_to_collect() const {
  std::unique_lock lock(mutex_);
  return raw_log_.size() >= kSpareLogSegmentsMin ||
         disk_free_bytes_ >= kSpareLogSegmentsMin * superblock_.log_segment_bytes;
}

// In whole segments. The spare log segments that deletes need are left alone; what is missing of
// them is taken off free space.
uint64_t LocalFiles::room_for_copies(FileKind kind) const {
  std::unique_lock lock(mutex_);
  const size_t missing = kSpareLogSegmentsMin - std::min(kSpareLogSegmentsMin, raw_log_.size());
  const uint64_t kept = missing * superblock_.log_segment_bytes;
  const uint64_t free = disk_free_bytes_ > kept ? disk_free_bytes_ - kept : 0;
  const bool log = kind == FileKind::kLog;
  const uint64_t size = log ? superblock_.log_segment_bytes : superblock_.bulk_segment_bytes;
  const size_t raw = log ? std::max(kSpareLogSegmentsMin, raw_log_.size()) - kSpareLogSegmentsMin
                         : raw_bulk_.size();
  return (free / size + raw) * size;
}

void LocalFiles::end_waits() {
  pace_.end_waits(true);
  std::unique_lock lock(mutex_);
  for (auto& core : cores_) poke_locked(*core);
}

// --- Health

void LocalFiles::poison(std::string why) {
  bool first = false;
  {
    std::unique_lock lock(mutex_);
    first = healthy_.load(std::memory_order_relaxed);
    if (first) health_text_ = why;
    healthy_.store(false, std::memory_order_release);
    for (auto& core : cores_) poke_locked(*core);  // who waits for space hears kReadOnly
  }
  if (first) log_error("writes stop after an I/O error; reads go on", {{"reason", why}});
}

std::string LocalFiles::health_text() const {
  std::unique_lock lock(mutex_);
  return health_text_;
}

// --- Supply of the cores

void LocalFiles::kick_locked() {
  if (helper_ != nullptr) helper_->kick();
}

void LocalFiles::kick() {
  std::unique_lock lock(mutex_);
  kick_locked();
}

void LocalFiles::attach(unsigned number, Role role, Io& io, SpaceClient& client) {
  BASALT_CHECK(number < core_count_);
  pace_.end_waits(false);
  std::unique_lock lock(mutex_);
  Core& core = *cores_[number];
  SpaceClient*& slot = role == Role::kLane ? core.lane : core.blobs;
  BASALT_CHECK(slot == nullptr && (core.io == nullptr || core.io == &io));
  slot = &client;
  if (core.io == nullptr) {
    core.io = &io;
    // A fresh one: the old may still be linked in the queue of an Io that is gone.
    pokes_.push_back(std::make_unique<Poke>());
    core.poke = pokes_.back().get();
    core.poke->fn = &LocalFiles::run_poke;
    core.poke->files = this;
    core.poke->core = number;
  }
}

void LocalFiles::detach(unsigned number, Role role) {
  std::unique_lock lock(mutex_);
  Core& core = *cores_[number];
  (role == Role::kLane ? core.lane : core.blobs) = nullptr;
  if (role == Role::kLane) core.log_active.reset();
  if (core.lane == nullptr && core.blobs == nullptr) core.io = nullptr;
}

uint64_t LocalFiles::last_lsn(unsigned number) const {
  std::unique_lock lock(mutex_);
  return std::max(cores_[number]->last_lsn, superblock_.epoch << kLsnEpochShift);
}

void LocalFiles::set_last_lsn(unsigned number, uint64_t lsn) {
  std::unique_lock lock(mutex_);
  cores_[number]->last_lsn = lsn;
}

void LocalFiles::poke_locked(Core& core) {
  if (core.io == nullptr || core.poke->posted) return;
  core.poke->posted = true;
  core.io->post_from_any_thread(*core.poke);
}

void LocalFiles::run_poke(Completion& completion) {
  auto& poke = static_cast<Poke&>(completion);
  LocalFiles& files = *poke.files;
  Core& core = *files.cores_[poke.core];
  {
    std::unique_lock lock(files.mutex_);
    poke.posted = false;
    if (core.poke != &poke) return;  // of an earlier attachment
  }
  if (core.lane != nullptr) core.lane->space_changed();
  if (core.blobs != nullptr) core.blobs->space_changed();
}

// In the simulation: what is ready counts as not ready, and the core hears of it in its next turn.
// mutex_ held.
bool LocalFiles::postpone(Core& core) {
  if (!platform_.happens(Chaos::Point::kSegmentNotReady)) return false;
  poke_locked(core);
  return true;
}

Result<std::shared_ptr<LogSegment>> LocalFiles::take_log_segment(unsigned number) {
  if (!healthy()) return fail(Code::kReadOnly, health_text());
  std::unique_lock lock(mutex_);
  Core& core = *cores_[number];
  if (core.log.error) {
    Error error = *std::exchange(core.log.error, std::nullopt);
    return std::unexpected(std::move(error));
  }
  if (core.log.ready == nullptr || postpone(core)) {
    core.log.wanted = core.log.needed = true;
    kick_locked();
    return nullptr;
  }
  core.log_active = std::exchange(core.log.ready, nullptr);
  core.log_active->entry->state = SegmentEntry::State::kActive;
  kick_locked();  // zeros ahead
  return core.log_active;
}

Result<std::shared_ptr<BulkSegment>> LocalFiles::take_bulk_segment(unsigned number) {
  if (!healthy()) return fail(Code::kReadOnly, health_text());
  std::unique_lock lock(mutex_);
  Core& core = *cores_[number];
  if (core.bulk.error) {
    Error error = *std::exchange(core.bulk.error, std::nullopt);
    return std::unexpected(std::move(error));
  }
  if (core.bulk.ready == nullptr || postpone(core)) {
    core.bulk.wanted = core.bulk.needed = true;
    kick_locked();
    return nullptr;
  }
  core.bulk.ready->entry->state = SegmentEntry::State::kActive;
  return std::exchange(core.bulk.ready, nullptr);
}

Result<std::optional<OwnFile>> LocalFiles::take_own_file(unsigned number) {
  if (!healthy()) return fail(Code::kReadOnly, health_text());
  std::unique_lock lock(mutex_);
  Core& core = *cores_[number];
  if (core.own_error) {
    Error error = *std::exchange(core.own_error, std::nullopt);
    return std::unexpected(std::move(error));
  }
  if (core.own_ready.empty()) {
    // The stock ran dry: keep a larger one.
    core.own_target = std::min(std::max(1u, core.own_target * 2), kOwnFilesReadyMax);
    core.own_needed = true;
    kick_locked();
    return std::optional<OwnFile>();
  }
  std::optional<OwnFile> file = std::move(core.own_ready.back());
  core.own_ready.pop_back();
  if (core.own_ready.size() < core.own_target / 2 + 1) kick_locked();
  return file;
}

void LocalFiles::prefetch_log_segment(unsigned number) {
  std::unique_lock lock(mutex_);
  Core& core = *cores_[number];
  if (core.log.ready != nullptr || core.log.wanted) return;
  core.log.wanted = true;
  kick_locked();
}

void LocalFiles::prefetch_bulk_segment(unsigned number) {
  std::unique_lock lock(mutex_);
  Core& core = *cores_[number];
  if (core.bulk.ready != nullptr || core.bulk.wanted) return;
  core.bulk.wanted = true;
  kick_locked();
}

void LocalFiles::seal_log(LogSegment& segment, uint64_t last_lsn) {
  std::unique_lock lock(mutex_);
  SegmentEntry& entry = *segment.entry;
  entry.state = SegmentEntry::State::kSealed;
  entry.last_lsn = last_lsn;
  entry.sealed_ms = platform_.clock->monotonic_ns() / 1'000'000;
  Core& core = *cores_[entry.lane];
  if (core.log_active.get() == &segment) core.log_active.reset();
  reclaim_due_ = true;
}

void LocalFiles::seal_bulk(BulkSegment& segment) {
  std::unique_lock lock(mutex_);
  segment.entry->state = SegmentEntry::State::kSealed;
  segment.entry->sealed_ms = platform_.clock->monotonic_ns() / 1'000'000;
  reclaim_due_ = true;
}

void LocalFiles::unpin(SegmentEntry& entry) {
  if (entry.pins.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  if (entry.live.load(std::memory_order_relaxed) > 0) return;
  std::unique_lock lock(mutex_);
  reclaim_due_ = true;
}

void LocalFiles::end_own_file(OwnFile file) {
  file.fd.reset();
  std::unique_lock lock(mutex_);
  auto found = own_files_.find(file.number);
  if (found == own_files_.end()) return;
  found->second.held = false;
  if (found->second.live <= 0) queue_unlink_locked(file.number, found->second);
}

// --- Replay

std::vector<LocalFiles::LogFile> LocalFiles::log_files() const {
  std::vector<LogFile> list;
  std::unique_lock lock(mutex_);
  for (auto& entry : segments_) {
    if (entry->kind != FileKind::kLog || !entry->foreign ||
        entry->state == SegmentEntry::State::kGone)
      continue;
    LogFile file;
    file.number = entry->number;
    file.damaged = entry->state == SegmentEntry::State::kDamaged;
    file.header.number = entry->number;
    file.header.generation = entry->generation.load(std::memory_order_relaxed);
    file.header.lane = entry->lane;
    file.header.lane_count = entry->lane_count;
    file.header.epoch = entry->epoch;
    file.header.sequence = entry->sequence;
    file.header.size_bytes = entry->size_bytes;
    list.push_back(file);
  }
  return list;
}

void LocalFiles::finish_replay() {
  std::unique_lock lock(mutex_);
  replay_finished_ = true;
  reclaim_due_ = true;
  kick_locked();
}

// --- LogSegment

bool LogSegment::claim(uint64_t end) {
  std::unique_lock lock(mutex);
  if (end <= zeroed_to) return true;
  if (zeroing) {
    lane_waits = true;
    return false;
  }
  zeroed_to = end;
  return true;
}

LogSegment::Range LogSegment::begin_zeroing() {
  std::unique_lock lock(mutex);
  uint64_t at = position.load(std::memory_order_relaxed);
  uint64_t ahead = std::clamp(at, kZeroAheadBytesMin, kZeroAheadBytesMax);
  // In whole steps: topping up after every batch would cost a flush of its own each time.
  uint64_t limit = std::min(size, at + ahead);
  if (zeroed_to >= limit || (limit - zeroed_to < ahead / 2 && limit < size)) return {};
  zeroing = true;
  zeroing_to = std::min(zeroed_to + kZeroStepBytes, size);
  return {zeroed_to, zeroing_to};
}

bool LogSegment::end_zeroing(bool done) {
  std::unique_lock lock(mutex);
  zeroing = false;
  if (done) zeroed_to = zeroing_to;
  return std::exchange(lane_waits, false);
}

}  // namespace basalt::storage
