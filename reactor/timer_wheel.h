// TimerWheel: one level of slots, one tick apart; what lies beyond the horizon waits in the last
// slot and is put on again when that comes up. Removal and insertion are O(1); a timer whose
// deadline moved later is not touched until its old slot comes up (most deadlines are moved or
// dropped long before they pass).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "reactor/loop.h"

namespace basalt::reactor {

class TimerWheel {
 public:
  static constexpr uint64_t kTickMs = Timer::kResolutionMs;
  static constexpr size_t kSlots =
      2048;  // horizon 8.2 s: a 60 s idle deadline is looked at 8 times
  static constexpr uint64_t kNever = UINT64_MAX;

  void arm(Timer& timer, uint64_t now_ms, uint64_t after_ms);
  void remove(Timer& timer);
  // Fires what is due.
  void run(uint64_t now_ms);
  // When the next slot with a timer comes up (its timers may turn out to be moved or disarmed), or
  // kNever.
  uint64_t next_due_ms() const;

 private:
  void insert(Timer& timer);
  static uint64_t tick_of(uint64_t deadline_ms) { return (deadline_ms + kTickMs - 1) / kTickMs; }

  std::array<Timer*, kSlots> slots_{};
  std::array<uint64_t, kSlots / 64> occupied_{};  // a bit a slot
  size_t count_ = 0;
  uint64_t current_tick_ = 0;  // slots up to here have been served
};

}  // namespace basalt::reactor
