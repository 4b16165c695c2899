// What LocalFiles tells scrub and backup about the files there are. Any thread.
#include "storage/files_local.h"

namespace basalt::storage {

std::vector<LocalFiles::SegmentInfo> LocalFiles::segments() const {
  std::vector<SegmentInfo> list;
  std::unique_lock lock(mutex_);
  for (const auto& entry : segments_) {
    if (entry->state == SegmentEntry::State::kGone) continue;
    list.push_back({entry->number, entry->kind, entry->generation.load(std::memory_order_relaxed),
                    entry->state, entry->live.load(std::memory_order_relaxed), entry->size_bytes});
  }
  return list;
}

uint32_t LocalFiles::segment_generation(uint32_t number) const {
  const SegmentEntry* entry = find_segment(number);
  return entry == nullptr ? 0 : entry->generation.load(std::memory_order_relaxed);
}

std::vector<uint32_t> LocalFiles::own_files() const {
  std::vector<uint32_t> list;
  std::unique_lock lock(mutex_);
  for (const auto& [number, entry] : own_files_) {
    if (entry.live > 0) list.push_back(number);
  }
  return list;
}

void LocalFiles::retain_log(uint64_t lsn) {
  std::unique_lock lock(mutex_);
  retain_from_.store(lsn, std::memory_order_relaxed);
  reclaim_due_ = true;
  kick_locked();
}

uint64_t LocalFiles::log_bytes_retained() const {
  uint64_t bytes = 0;
  std::unique_lock lock(mutex_);
  for (const auto& entry : segments_) {
    if (is_retained(*entry) && is_dead(*entry)) bytes += entry->size_bytes;
  }
  return bytes;
}

bool LocalFiles::has_own_files() const {
  std::unique_lock lock(mutex_);
  return !own_files_.empty();
}

std::vector<LocalFiles::ActiveLog> LocalFiles::active_logs() const {
  std::vector<ActiveLog> list;
  std::unique_lock lock(mutex_);
  for (const auto& core : cores_) {
    if (core->log_active == nullptr) continue;
    list.push_back({core->log_active->number, core->log_active->generation,
                    core->log_active->position.load(std::memory_order_relaxed)});
  }
  return list;
}

}  // namespace basalt::storage
