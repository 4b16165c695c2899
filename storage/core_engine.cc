#include "storage/core_engine.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "storage/scan.h"

namespace basalt::storage {

namespace {
// Where space is short, what was deleted or replaced waits for a checkpoint before its space is
// free: then it comes soon.
constexpr uint64_t kShortCheckpointNs = 250'000'000;
// A checkpoint that found no space is tried again so often.
constexpr uint64_t kStalledRetryNs = 1'000'000'000;
constexpr uint32_t kTickMsMax = 1'000;
}  // namespace

LocalCore::LocalCore(const Parts& parts, unsigned core, Io& io, RunQueue& run_queue,
                     BufferPool& buffers)
    : parts_(parts), core_(core), run_queue_(run_queue), io_(io), buffers_(buffers) {
  stats_.overlay_bytes_max = parts.options.overlay_bytes_max;
  stats_.buffer_bytes_max = buffers.bytes_max();
  stats_.io_at_once_max = io.at_once_max();
  event_fd_ = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  BASALT_CHECK(event_fd_ >= 0);
  lane_ = make_lane(parts_.files, core, io, run_queue, stats_);
  blobs_ = make_blob_store(parts_.files, core, parts_.options, io, run_queue, buffers, stats_);
  for (unsigned shard = core; shard < parts_.states.size(); shard += parts_.options.core_count) {
    own_shards_.push_back(shard);
    own_states_.push_back(parts_.states[shard].get());
    shards_.push_back(
        std::make_unique<LocalShard>(*parts_.states[shard], parts_.files, *lane_, run_queue));
  }
  recovering_ = parts_.recovering;
  checkpoint_requested_ = recovering_;
  // While recovering, even the position before the first record of the epoch is news.
  checkpointed_lsn_ = (parts_.files.superblock().epoch << kLsnEpochShift) - (recovering_ ? 1 : 0);
  checkpoint_ended_ns_ = parts_.clock.monotonic_ns();
  marker_.core = this;
  marker_.fn = [](Completion& completion) { static_cast<Marker&>(completion).core->freeze(); };
  const uint32_t tick_ms =
      std::clamp<uint32_t>(parts_.options.checkpoint_interval_ms / 2, 10, kTickMsMax);
  checkpointer_ = std::make_unique<Checkpointer>(parts_.files, parts_.totals, stats_, tick_ms,
                                                 [this] { wake(); });
  relocator_ = std::make_unique<Relocator>(
      [this](unsigned number) -> MetaShard& { return shard(number); }, *blobs_, parts_.damaged,
      [this] { return parts_.files.space_is_short(); });
}

LocalCore::~LocalCore() {
  parts_.detach(*this);
  while (phase_ == Phase::kMarking) run_queue_.run();
  checkpointer_.reset();  // waits for a checkpoint under way
  relocator_.reset();
  lane_.reset();
  // After stop() nothing is under way; without it the lane has just failed what was.
  for (auto& shard : shards_) shard->stop();
  const auto busy = [](const auto& shard) { return !shard->idle(); };
  while (std::ranges::any_of(shards_, busy)) run_queue_.run();
  blobs_.reset();
  shards_.clear();
  ::close(event_fd_);
}

MetaShard& LocalCore::shard(unsigned shard) {
  BASALT_CHECK(shard % parts_.options.core_count == core_ && shard < parts_.states.size());
  return *shards_[shard / parts_.options.core_count];
}

Result<ScanPage> LocalCore::scan(const ScanOptions& options) {
  return scan_shards(own_states_, options);
}

void LocalCore::wake() {
  // The eventfd first: poll() reads it when it sees the flag, and must find it written.
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(event_fd_, &one, sizeof one);
  woken_.store(true, std::memory_order_release);
}

bool LocalCore::offer(const Relocation& relocation) {
  if (parts_.files.platform().happens(Chaos::Point::kRelocationsFull)) return false;
  if (!relocator_->offer(relocation)) return false;
  wake();
  return true;
}

void LocalCore::request_checkpoint() {
  checkpoint_requested_.store(true, std::memory_order_release);
  wake();
}

uint64_t LocalCore::request_flush() {
  const uint64_t ticket = flush_asked_.fetch_add(1, std::memory_order_acq_rel) + 1;
  request_checkpoint();
  return ticket;
}

bool LocalCore::flushed(uint64_t ticket) const {
  return flush_done_.load(std::memory_order_acquire) >= ticket;
}

void LocalCore::drive_flush() {
  const uint64_t asked = flush_asked_.load(std::memory_order_acquire);
  if (asked == flush_done_.load(std::memory_order_relaxed)) return;
  if (asked != flush_seen_) {
    flush_seen_ = asked;
    flush_lsn_ = lane_->durable_position().lsn;
  }
  if (flush_lsn_ <= checkpointed_lsn_) {
    flush_done_.store(flush_seen_, std::memory_order_release);
  } else {
    checkpoint_requested_.store(true, std::memory_order_relaxed);
  }
}

bool LocalCore::poll() {
  bool did = lane_->poll();
  if (woken_.load(std::memory_order_relaxed) && woken_.exchange(false, std::memory_order_acquire)) {
    uint64_t count;
    [[maybe_unused]] const ssize_t got = ::read(event_fd_, &count, sizeof count);
    did = true;
  }
  did |= relocator_->poll();
  for (auto& shard : shards_) did |= shard->drive();
  drive_flush();
  did |= drive_checkpoint();
  if (stopped_ != nullptr) drive_stop();
  return did;
}

void LocalCore::count_overlay() {
  uint64_t entries = 0, bytes = 0, damage = 0, age_ms = 0;
  for (const unsigned shard : own_shards_) {
    const Index& index = parts_.states[shard]->index();
    entries += parts_.states[shard]->entries();
    bytes += parts_.states[shard]->bytes();
    damage += index.damage_met();
    age_ms = std::max(age_ms, index.oldest_walk_ms());
  }
  stats_.index_read_age_ms.store(age_ms, std::memory_order_relaxed);
  stats_.index_damage.store(damage, std::memory_order_relaxed);
  stats_.overlay_entries.store(entries, std::memory_order_relaxed);
  stats_.overlay_bytes.store(bytes, std::memory_order_relaxed);
  stats_.buffer_bytes.store(buffers_.bytes_in_use(), std::memory_order_relaxed);
  stats_.io_in_flight.store(io_.in_flight(), std::memory_order_relaxed);
}

bool LocalCore::checkpoint_wanted(const LogPosition& position) {
  // Nothing new in the log: then neither overlays nor positions have anything to say.
  if (position.lsn <= checkpointed_lsn_) {
    checkpoint_requested_.store(false, std::memory_order_relaxed);
    return false;
  }
  if (checkpoint_requested_.exchange(false, std::memory_order_acquire)) return true;
  const EngineOptions& options = parts_.options;
  size_t entries = 0;
  bool dropped = false;
  for (const unsigned shard : own_shards_) {
    entries += parts_.states[shard]->active_entries();
    dropped |= parts_.states[shard]->has_dropped();
  }
  const uint64_t since_ns = parts_.clock.monotonic_ns() - checkpoint_ended_ns_;
  return entries >= options.checkpoint_entries ||
         lane_->bytes_since_checkpoint() >= options.checkpoint_log_bytes ||
         // Half of the bound: so that writes need not wait while the other half is being written.
         stats_.overlay_bytes.load(std::memory_order_relaxed) >= options.overlay_bytes_max / 2 ||
         since_ns >= uint64_t{options.checkpoint_interval_ms} * 1'000'000 ||
         (dropped && since_ns >= kShortCheckpointNs && parts_.files.space_is_short());
}

bool LocalCore::drive_checkpoint() {
  bool did = false;
  if (auto outcome = checkpointer_->take()) {
    end_checkpoint(std::move(*outcome));
    did = true;
  }
  count_overlay();
  // A stop does not wait for a checkpoint that may wait for space: what the lane has gets written.
  const bool over = stopped_ == nullptr && stats_.overlay_bytes.load(std::memory_order_relaxed) >
                                               parts_.options.overlay_bytes_max;
  if (over != held_) {
    held_ = over;
    lane_->hold(over);
  }
  if (phase_ == Phase::kStalled && parts_.files.healthy() &&
      parts_.clock.monotonic_ns() - checkpoint_ended_ns_ >= kStalledRetryNs) {
    write_frozen();
    return true;
  }
  if (phase_ != Phase::kIdle || !parts_.files.healthy()) return did;
  const LogPosition position = lane_->durable_position();
  if (parts_.files.platform().happens(Chaos::Point::kLateCheckpoint)) return did;
  if (!checkpoint_wanted(position)) return did;
  begin_checkpoint(position);
  return true;
}

void LocalCore::begin_checkpoint(const LogPosition& position) {
  phase_ = Phase::kMarking;
  marked_ = position;
  run_queue_.post(marker_);
}

void LocalCore::freeze() {
  for (const unsigned shard : own_shards_) parts_.states[shard]->freeze();
  write_frozen();
}

void LocalCore::write_frozen() {
  std::vector<ShardState*> shards;
  for (const unsigned shard : own_shards_) shards.push_back(parts_.states[shard].get());
  phase_ = Phase::kWriting;
  // Shards with nothing new too: their position must move on, or the log could never be reused.
  checkpointer_->start(marked_, std::move(shards));
}

void LocalCore::end_checkpoint(Checkpointer::Outcome outcome) {
  checkpoint_ended_ns_ = parts_.clock.monotonic_ns();
  if (!outcome.status && outcome.status.error().code == Code::kNoSpace) {
    // A full disk passes. What is frozen stays readable, and durable in the log, until the next
    // try; deletes go on.
    phase_ = Phase::kStalled;
    log_warn("checkpoint waits for space",
             {{"core", core_}, {"error", outcome.status.error().detail}});
    return;
  }
  if (!outcome.status) {
    // The frozen overlays stay: they are durable in the log and readable, and a restart writes them
    // again.
    phase_ = Phase::kFailed;
    stats_.io_errors.fetch_add(1, std::memory_order_relaxed);
    log_error("checkpoint failed; writes stop",
              {{"core", core_}, {"error", outcome.status.error().detail}});
    parts_.files.poison(outcome.status.error().detail);
    return;
  }
  phase_ = Phase::kIdle;
  checkpointed_lsn_ = outcome.position.lsn;
  Index::Size size;
  for (const unsigned shard : own_shards_) {
    const Index::Size& one = parts_.states[shard]->index().size();
    size.file_bytes += one.file_bytes;
    size.used_bytes += one.used_bytes;
    size.reader_lag = std::max(size.reader_lag, one.reader_lag);
  }
  stats_.index_file_bytes.store(size.file_bytes, std::memory_order_relaxed);
  stats_.index_used_bytes.store(size.used_bytes, std::memory_order_relaxed);
  stats_.index_reader_lag.store(size.reader_lag, std::memory_order_relaxed);
  for (const unsigned shard : own_shards_) {
    std::vector<BlobRef> dropped;
    auto overlay = parts_.states[shard]->thaw(dropped);
    checkpointer_->bury(std::move(overlay), std::move(dropped));
  }
  parts_.files.checkpointed(core_, outcome.position.lsn);
  if (std::exchange(recovering_, false)) parts_.recovered();
}

void LocalCore::stop(Completion& stopped) {
  BASALT_CHECK(stopped_ == nullptr && !stop_done_);
  stopped_ = &stopped;
  parts_.files.end_waits();
  for (auto& shard : shards_) shard->stop();
  relocator_->stop();
  wake();
}

void LocalCore::drive_stop() {
  if (!relocator_->idle() || lane_->queued() != 0) return;
  for (const auto& shard : shards_) {
    if (!shard->idle()) return;
  }
  if (phase_ == Phase::kMarking || phase_ == Phase::kWriting) return;
  if (phase_ == Phase::kIdle && parts_.files.healthy()) {
    const LogPosition position = lane_->durable_position();
    if (position.lsn > checkpointed_lsn_) return begin_checkpoint(position);
  }
  stop_done_ = true;
  run_queue_.post(*std::exchange(stopped_, nullptr));
}

}  // namespace basalt::storage
