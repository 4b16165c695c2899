// Fabric: the rings between the cores and their doorbells. One per process, made before the cores'
// threads start.
//
// One SPSC ring for each ordered pair of cores. A core that is about to sleep raises its flag and
// looks at its inboxes once more; a sender that finds the flag raised lowers it and rings the
// eventfd: no system call while the peer is busy. Memory order: flag store and inbox check, and
// push and flag load, are each separated by a sequentially consistent fence, so that at least one
// of the two sides sees the other.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/result.h"
#include "base/spsc_ring.h"

namespace basalt::shards {

// Bytes of one ring. A message is at most ~1.2 KiB (a key), usually 100 bytes.
constexpr size_t kRingBytes = 256 * 1024;

class Fabric {
 public:
  // `ring_bytes`: a power of two, and room for at least two messages (4 KiB); smaller ones are for
  // tests that want them full.
  static Result<std::unique_ptr<Fabric>> create(unsigned core_count,
                                                size_t ring_bytes = kRingBytes);
  ~Fabric();
  Fabric(const Fabric&) = delete;
  Fabric& operator=(const Fabric&) = delete;

  unsigned core_count() const { return core_count_; }
  SpscRing& ring(unsigned from, unsigned to) { return *rings_[from * core_count_ + to]; }

  // Sender, after a push.
  void ring_doorbell(unsigned core);
  // Receiver.
  int wake_fd(unsigned core) const { return bells_[core].fd; }
  bool prepare_sleep(unsigned core);  // false: a message arrived, do not sleep
  void woke(unsigned core);
  uint64_t doorbells_rung() const { return rung_.load(std::memory_order_relaxed); }

 private:
  struct alignas(64) Bell {
    int fd = -1;
    std::atomic<bool> sleeping{false};
  };
  Fabric(unsigned core_count, size_t ring_bytes);

  const unsigned core_count_;
  std::vector<std::unique_ptr<SpscRing>> rings_;
  std::unique_ptr<Bell[]> bells_;
  std::atomic<uint64_t> rung_{0};
};

}  // namespace basalt::shards
