#include "storage/checkpointer.h"

#include <fmt/format.h>

#include <chrono>
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
  const size_t entries_max = overlay.entries() > kCheckpointEntriesUnsplit
                                 ? kCheckpointEntriesPerPart
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
      if (!writer.map_full()) return status;
      // The same part again in a larger map.
      BASALT_CHECK_OK(writer.grow_map());
      continue;
    }
    for (const auto& [space, change] : writer.space_changes()) totals.add(space, change);
    if (last) return {};
    at = part_end;
  }
}

Checkpointer::Checkpointer(SpaceTotals& totals, EngineStats& stats, uint32_t tick_ms,
                           std::function<void()> wake)
    : totals_(totals), stats_(stats), tick_ms_(tick_ms), wake_(std::move(wake)) {
  thread_ = std::thread([this] { run(); });
}

Checkpointer::~Checkpointer() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void Checkpointer::start(const LogPosition& position, std::vector<ShardState*> shards) {
  BASALT_CHECK(!busy_);
  busy_ = true;
  {
    const std::lock_guard lock(mutex_);
    wanted_ = true;
    position_ = position;
    shards_ = std::move(shards);
  }
  changed_.notify_one();
}

std::optional<Checkpointer::Outcome> Checkpointer::take() {
  if (!busy_) return std::nullopt;
  const std::lock_guard lock(mutex_);
  if (!outcome_) return std::nullopt;
  busy_ = false;
  return std::exchange(outcome_, std::nullopt);
}

void Checkpointer::bury(std::unique_ptr<Overlay> overlay) {
  if (overlay == nullptr || overlay->empty()) return;
  {
    const std::lock_guard lock(mutex_);
    buried_.push_back(std::move(overlay));
  }
  changed_.notify_one();
}

void Checkpointer::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (!buried_.empty()) {
      auto buried = std::exchange(buried_, {});
      lock.unlock();
      buried.clear();
      lock.lock();
      continue;
    }
    if (wanted_) {
      wanted_ = false;
      const LogPosition position = position_;
      const std::vector<ShardState*> shards = std::exchange(shards_, {});
      lock.unlock();

      const auto started = std::chrono::steady_clock::now();
      Outcome outcome{{}, position};
      size_t entries = 0;
      for (ShardState* shard : shards) {
        const Overlay& frozen = *shard->frozen();
        entries += frozen.entries();
        outcome.status = checkpoint_overlay(shard->index(), frozen, &position, totals_);
        if (!outcome.status) {
          Error& error = outcome.status.error();
          error.detail =
              fmt::format("checkpoint of shard {}: {}", shard->index().shard(), error.detail);
          break;
        }
      }
      const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(
          std::chrono::steady_clock::now() - started);
      stats_.checkpoints.fetch_add(1, std::memory_order_relaxed);
      stats_.checkpoint_entries.fetch_add(entries, std::memory_order_relaxed);
      stats_.checkpoint_ms_total.fetch_add(static_cast<uint64_t>(took.count()),
                                           std::memory_order_relaxed);

      lock.lock();
      outcome_ = std::move(outcome);
      lock.unlock();
      wake_();
      lock.lock();
      continue;
    }
    if (stop_) return;
    if (changed_.wait_for(lock, std::chrono::milliseconds(tick_ms_)) == std::cv_status::timeout) {
      lock.unlock();
      wake_();
      lock.lock();
    }
  }
}

}  // namespace basalt::storage
