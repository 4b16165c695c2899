#include "shards/fabric.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>

namespace basalt::shards {

Fabric::Fabric(unsigned core_count, size_t ring_bytes)
    : core_count_(core_count), bells_(std::make_unique<Bell[]>(core_count)) {
  rings_.reserve(size_t{core_count} * core_count);
  for (unsigned from = 0; from < core_count; ++from) {
    for (unsigned to = 0; to < core_count; ++to) {
      // A core does not write to itself: its own ring stays as small as rings get.
      rings_.push_back(std::make_unique<SpscRing>(from == to ? 256 : ring_bytes));
    }
  }
}

Result<std::unique_ptr<Fabric>> Fabric::create(unsigned core_count, size_t ring_bytes) {
  std::unique_ptr<Fabric> fabric(new Fabric(core_count, ring_bytes));
  for (unsigned core = 0; core < core_count; ++core) {
    fabric->bells_[core].fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fabric->bells_[core].fd < 0) return fail_errno(errno, "eventfd");
  }
  return fabric;
}

Fabric::~Fabric() {
  for (unsigned core = 0; core < core_count_; ++core) {
    if (bells_[core].fd >= 0) close(bells_[core].fd);
  }
}

void Fabric::ring_doorbell(unsigned core) {
  Bell& bell = bells_[core];
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (!bell.sleeping.load(std::memory_order_relaxed)) return;
  if (!bell.sleeping.exchange(false, std::memory_order_relaxed)) return;
  const uint64_t one = 1;
  // Fails only when the counter is full, and then the peer is being woken already.
  [[maybe_unused]] const ssize_t wrote = write(bell.fd, &one, sizeof one);
  rung_.fetch_add(1, std::memory_order_relaxed);
}

bool Fabric::prepare_sleep(unsigned core) {
  Bell& bell = bells_[core];
  bell.sleeping.store(true, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  for (unsigned from = 0; from < core_count_; ++from) {
    if (from == core) continue;
    if (!ring(from, core).empty()) {
      bell.sleeping.store(false, std::memory_order_relaxed);
      return false;
    }
  }
  return true;
}

void Fabric::woke(unsigned core) {
  Bell& bell = bells_[core];
  if (bell.sleeping.exchange(false, std::memory_order_relaxed)) return;  // nobody rang
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = read(bell.fd, &count, sizeof count);
}

}  // namespace basalt::shards
