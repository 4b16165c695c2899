// Platform: what the engine takes from the machine besides Io and the clock it is given: the disk,
// randomness, helper threads. The simulation (tests/sim) brings its own, and with them decides what
// happens when; the engine's code is the same.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/result.h"
#include "storage/disk.h"

namespace basalt::storage {

// Work that may block, on a thread of its own.
class Helper {
 public:
  // Waits for a call of the work that is under way; none begins afterwards.
  virtual ~Helper() = default;
  virtual void kick() = 0;  // any thread: call the work soon
};

class Helpers {
 public:
  virtual ~Helpers() = default;
  // Calls `work` when kicked, and at the latest as many milliseconds after its last call as that
  // returned (0: at once; a unit of work after which a simulated machine may crash). The first call
  // comes at once. kIo: no thread.
  virtual Result<std::unique_ptr<Helper>> start(const char* name,
                                                std::function<uint32_t()> work) = 0;
  // How many threads a step of the recovery may use.
  virtual unsigned parallel() const = 0;
};

class Random {
 public:
  virtual ~Random() = default;
  virtual void fill(MutableBytes out) = 0;
  uint64_t u64() {
    uint64_t value = 0;
    fill({reinterpret_cast<uint8_t*>(&value), sizeof value});
    return value;
  }
};

// Rare branches, taken on purpose: the simulation makes common what hardly ever happens. Any branch
// named here must be harmless: the caller sees what it would see if the queue were full or the
// helper slow.
class Chaos {
 public:
  enum class Point : uint8_t {
    kLaneQueueFull,    // append answers kBusy
    kShardQueueFull,   // apply answers kBusy
    kLaneWaits,        // a batch that could leave waits for the next turn
    kSegmentNotReady,  // a prepared segment or own file is "not ready yet"
    kNoBuffer,         // a read finds no buffer: kBusy
    kLateCheckpoint,   // a checkpoint that is due does not start this turn
    kRelocationsFull,  // a core takes no relocation
    kCount,
  };
  virtual ~Chaos() = default;
  virtual bool happens(Point point) = 0;
};

struct Platform {
  Disk* disk;
  const Clock* clock;
  Random* random;
  Helpers* helpers;
  Chaos* chaos = nullptr;  // null but in the simulation

  bool happens(Chaos::Point point) const {
    if (chaos == nullptr) [[likely]]
      return false;
    return chaos->happens(point);
  }
};

// The machine itself.
const Platform& system_platform();

}  // namespace basalt::storage
