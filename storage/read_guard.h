// GuardEpochs: tells when every reader that could still see a dropped blob has gone.
//
// One counter for all cores. A guard takes its value and publishes it (per core, the smallest value
// of a guard that lives). Whoever drops blobs calls advance() after the drop is visible to new
// look-ups and keeps the returned stamp; once passed(stamp), every guard that lives was taken after
// the drop.
//
// Memory order: take() publishes with a sequentially consistent store before the reader's look-up;
// passed() loads with sequential consistency. If passed() misses a guard, its publication comes
// later in the single order, and so the look-up behind it comes after the drop. A guard that read
// the counter before advance() and published after it has the smaller value, so it only delays.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "storage/blob_store.h"

namespace basalt::storage {

class GuardEpochs {
 public:
  explicit GuardEpochs(unsigned cores);
  ~GuardEpochs();

  // Thread of the core, also for the guard's destructor.
  std::unique_ptr<ReadGuard> take(unsigned core);
  // Any thread.
  uint64_t advance();
  bool passed(uint64_t stamp) const;

 private:
  class Guard;
  struct Node {
    uint64_t epoch;
    uint64_t count;
  };
  struct alignas(64) Core {
    std::atomic<uint64_t> oldest{UINT64_MAX};
    // By epoch; pushing and popping at the ends keeps references valid. One without guards may be
    // left over for the next.
    std::deque<Node> nodes;
  };

  std::atomic<uint64_t> epoch_{1};
  std::vector<std::unique_ptr<Core>> cores_;
};

}  // namespace basalt::storage
