#include "storage/checkpointer.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/log.h"

namespace basalt::storage {

void SpaceTotals::add(uint64_t space, const SpaceSum& change) {
  const std::lock_guard lock(mutex_);
  const auto at = sums_.try_emplace(space).first;
  at->second.objects += change.objects;
  at->second.bytes += change.bytes;
  if (at->second.objects == 0 && at->second.bytes == 0) sums_.erase(at);
}

SpaceSum SpaceTotals::of(uint64_t space) const {
  const std::lock_guard lock(mutex_);
  const auto at = sums_.find(space);
  return at == sums_.end() ? SpaceSum{} : at->second;
}

namespace {

// So many that they change at most the 16th part of the index's pages: of entries in any place each
// changes a page.
size_t entries_per_part(const Index& index, size_t entries) {
  const uint64_t pages = index.size().used_pages;
  const uint64_t changed = std::min<uint64_t>(entries, pages);
  if (changed * kCheckpointPartsPerIndex <= pages) return kCheckpointEntriesPerPart;
  const uint64_t parts = (changed * kCheckpointPartsPerIndex + pages - 1) / pages;
  return std::clamp<uint64_t>((entries + parts - 1) / parts, kCheckpointEntriesPerPartMin,
                              kCheckpointEntriesPerPart);
}

}  // namespace

OverlayCheckpoint::OverlayCheckpoint(Index& index, const Overlay& overlay,
                                     const LogPosition* position, SpaceTotals& totals)
    : index_(index),
      overlay_(overlay),
      position_(position),
      totals_(totals),
      writer_(index),
      at_(overlay.begin()),
      entries_max_(entries_per_part(index, overlay.entries())) {}

// Entries from `at` on, up to the bounds of a part; `at` ends where the next part begins.
Status OverlayCheckpoint::fill(Overlay::Iterator& at) {
  size_t bytes = 0;
  for (size_t count = 0;
       at != overlay_.end() && count < entries_max_ && bytes < kCheckpointBytesPerPart;
       ++at, ++count) {
    const Overlay::Entry& entry = **at;
    if (entry.tombstone()) {
      BASALT_CHECK_OK(writer_.erase(entry.key()));
    } else {
      BASALT_CHECK_OK(writer_.put(entry.key(), entry.value()));
      bytes += entry.value().size();
    }
  }
  return {};
}

Result<bool> OverlayCheckpoint::write_part() {
  for (;;) {
    Overlay::Iterator part_end = at_;
    Status status = writer_.begin();
    if (status) status = fill(part_end);
    const bool last = part_end == overlay_.end();
    if (status && last && position_ != nullptr) status = writer_.set_applied(*position_);
    // Before the commit: whoever sees it sees this.
    if (status && !last) index_.mark_partly();
    if (status) status = writer_.commit();
    if (!status) {
      writer_.abort();
      if (writer_.map_full()) {
        // The same part again in a larger map.
        BASALT_CHECK_OK(writer_.grow_map());
        continue;
      }
      if (status.error().code != Code::kNoSpace || entries_max_ <= kCheckpointEntriesPerPartMin)
        return std::unexpected(status.error());
      entries_max_ = std::max(entries_max_ / 8, kCheckpointEntriesPerPartMin);
      continue;
    }
    for (const auto& [space, change] : writer_.space_changes()) totals_.add(space, change);
    at_ = part_end;
    if (last && index_.partly() % 2 == 1) index_.partly_.fetch_add(1);
    if (last) writer_.settle();
    return last;
  }
}

Status checkpoint_overlay(Index& index, const Overlay& overlay, const LogPosition* position,
                          SpaceTotals& totals) {
  OverlayCheckpoint checkpoint(index, overlay, position, totals);
  for (;;) {
    BASALT_TRY(last, checkpoint.write_part());
    if (last) return {};
  }
}

Checkpointer::Checkpointer(Files& files, SpaceTotals& totals, EngineStats& stats, uint32_t tick_ms,
                           std::function<void()> wake)
    : files_(files),
      platform_(files.platform()),
      totals_(totals),
      stats_(stats),
      tick_ms_(tick_ms),
      wake_(std::move(wake)) {
  auto helper = platform_.helpers->start("checkpoints", [this] { return work(); });
  BASALT_CHECK(helper.has_value());
  const std::lock_guard lock(mutex_);
  helper_ = std::move(*helper);
}

Checkpointer::~Checkpointer() { helper_.reset(); }

void Checkpointer::start(const LogPosition& position, std::vector<ShardState*> shards) {
  BASALT_CHECK(!busy_);
  busy_ = true;
  auto job = std::make_unique<Job>();
  job->position = position;
  job->shards = std::move(shards);
  job->started_ns = platform_.clock->monotonic_ns();
  {
    const std::lock_guard lock(mutex_);
    job_ = std::move(job);
  }
  helper_->kick();
}

std::optional<Checkpointer::Outcome> Checkpointer::take() {
  if (!busy_) return std::nullopt;
  const std::lock_guard lock(mutex_);
  if (!outcome_) return std::nullopt;
  busy_ = false;
  return std::exchange(outcome_, std::nullopt);
}

void Checkpointer::bury(std::unique_ptr<Overlay> overlay, std::vector<BlobRef> dropped) {
  if ((overlay == nullptr || overlay->empty()) && dropped.empty()) return;
  {
    const std::lock_guard lock(mutex_);
    buried_.push_back({std::move(overlay), std::move(dropped)});
  }
  helper_->kick();
}

void Checkpointer::write_part(Job& job, Outcome& outcome) {
  if (job.done == job.shards.size()) return;
  ShardState& shard = *job.shards[job.done];
  if (!job.current) {
    const Overlay& frozen = *shard.frozen();
    job.entries += frozen.entries();
    job.current.emplace(shard.index(), frozen, &job.position, totals_);
  }
  const Result<bool> last = job.current->write_part();
  if (!last) {
    outcome.status =
        fail(last.error().code,
             fmt::format("checkpoint of shard {}: {}", shard.index().shard(), last.error().detail));
  } else if (*last) {
    job.current.reset();
    ++job.done;
  }
}

uint32_t Checkpointer::work() {
  std::vector<Grave> buried;
  std::unique_ptr<Job> job;
  {
    const std::lock_guard lock(mutex_);
    buried.swap(buried_);
    job = std::move(job_);
  }
  for (const Grave& grave : buried) files_.release(grave.dropped);
  if (job == nullptr) {
    // With nothing to do it was the interval that called.
    if (buried.empty()) wake_();
    return tick_ms_;
  }
  Outcome outcome{{}, job->position};
  write_part(*job, outcome);
  if (outcome.status && job->done < job->shards.size()) {
    const std::lock_guard lock(mutex_);
    job_ = std::move(job);
    return 0;
  }
  const uint64_t took_ns = platform_.clock->monotonic_ns() - job->started_ns;
  stats_.checkpoints.fetch_add(1, std::memory_order_relaxed);
  stats_.checkpoint_entries.fetch_add(job->entries, std::memory_order_relaxed);
  stats_.checkpoint_ms_total.fetch_add(took_ns / 1'000'000, std::memory_order_relaxed);
  {
    const std::lock_guard lock(mutex_);
    outcome_ = std::move(outcome);
  }
  wake_();
  return tick_ms_;
}

}  // namespace basalt::storage
