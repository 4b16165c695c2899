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

// Entries from `at` on, up to the bounds of a part; `at` ends where the next part begins.
Status write_part(IndexWriter& writer, Overlay::Iterator& at, const Overlay::Iterator& end,
                  size_t entries_max) {
  size_t bytes = 0;
  for (size_t count = 0; at != end && count < entries_max && bytes < kCheckpointBytesPerPart;
       ++at, ++count) {
    const Overlay::Entry& entry = **at;
    if (entry.tombstone()) {
      BASALT_CHECK_OK(writer.erase(entry.key()));
    } else {
      BASALT_CHECK_OK(writer.put(entry.key(), entry.value()));
      bytes += entry.value().size();
    }
  }
  return {};
}

}  // namespace

Status checkpoint_overlay(Index& index, const Overlay& overlay, const LogPosition* position,
                          SpaceTotals& totals) {
  IndexWriter writer(index);
  size_t entries_max = overlay.entries() > kCheckpointEntriesUnsplit ? kCheckpointEntriesPerPart
                                                                     : kCheckpointEntriesUnsplit;
  Overlay::Iterator at = overlay.begin();
  for (;;) {
    Overlay::Iterator part_end = at;
    Status status = writer.begin();
    if (status) status = write_part(writer, part_end, overlay.end(), entries_max);
    const bool last = part_end == overlay.end();
    if (status && last && position != nullptr) status = writer.set_applied(*position);
    if (status) status = writer.commit();
    if (!status) {
      writer.abort();
      if (writer.map_full()) {
        // The same part again in a larger map.
        BASALT_CHECK_OK(writer.grow_map());
        continue;
      }
      if (status.error().code != Code::kNoSpace || entries_max == kCheckpointEntriesPerPartMin)
        return status;
      entries_max = std::max(entries_max / 8, kCheckpointEntriesPerPartMin);
      continue;
    }
    for (const auto& [space, change] : writer.space_changes()) totals.add(space, change);
    if (last) {
      writer.settle();
      return {};
    }
    at = part_end;
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

void Checkpointer::write_shard(Job& job, Outcome& outcome) {
  if (job.done == job.shards.size()) return;
  ShardState& shard = *job.shards[job.done++];
  const Overlay& frozen = *shard.frozen();
  job.entries += frozen.entries();
  outcome.status = checkpoint_overlay(shard.index(), frozen, &job.position, totals_);
  if (outcome.status) return;
  Error& error = outcome.status.error();
  error.detail = fmt::format("checkpoint of shard {}: {}", shard.index().shard(), error.detail);
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
  write_shard(*job, outcome);
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
