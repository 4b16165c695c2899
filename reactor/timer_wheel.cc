#include "reactor/timer_wheel.h"

#include <algorithm>
#include <bit>

namespace basalt::reactor {

void TimerWheel::arm(Timer& timer, uint64_t now_ms, uint64_t after_ms) {
  timer.deadline_ms_ = std::max<uint64_t>(now_ms + after_ms, 1);
  if (timer.link_ != nullptr) {
    if (timer.tick_ <= tick_of(timer.deadline_ms_))
      return;  // looked at again when its slot comes up
    remove(timer);
  }
  // An empty wheel does not turn; bring it to the present first, so that the horizon counts from
  // now.
  if (count_ == 0) current_tick_ = std::max(current_tick_, now_ms / kTickMs);
  insert(timer);
}

void TimerWheel::insert(Timer& timer) {
  timer.tick_ =
      std::clamp(tick_of(timer.deadline_ms_), current_tick_ + 1, current_tick_ + kSlots - 1);
  const size_t slot = timer.tick_ % kSlots;
  timer.next_ = slots_[slot];
  if (timer.next_ != nullptr) timer.next_->link_ = &timer.next_;
  slots_[slot] = &timer;
  timer.link_ = &slots_[slot];
  occupied_[slot / 64] |= uint64_t{1} << (slot % 64);
  ++count_;
}

void TimerWheel::remove(Timer& timer) {
  if (timer.link_ == nullptr) return;
  *timer.link_ = timer.next_;
  if (timer.next_ != nullptr) timer.next_->link_ = timer.link_;
  timer.next_ = nullptr;
  timer.link_ = nullptr;
  --count_;
  const size_t slot = timer.tick_ % kSlots;
  if (slots_[slot] == nullptr) occupied_[slot / 64] &= ~(uint64_t{1} << (slot % 64));
}

void TimerWheel::run(uint64_t now_ms) {
  const uint64_t now_tick = now_ms / kTickMs;
  if (now_tick > current_tick_ + kSlots)
    current_tick_ = now_tick - kSlots;  // each slot once is enough
  while (current_tick_ < now_tick && count_ != 0) {
    ++current_tick_;
    const size_t slot = current_tick_ % kSlots;
    if ((occupied_[slot / 64] >> (slot % 64) & 1) == 0) continue;
    // The slot's list is moved to a head of its own: a callback may remove any timer from it, or
    // arm into this slot.
    Timer* due = slots_[slot];
    due->link_ = &due;
    slots_[slot] = nullptr;
    while (due != nullptr) {
      Timer& timer = *due;
      remove(timer);
      if (timer.deadline_ms_ == 0) continue;
      if (timer.deadline_ms_ > now_ms) {
        insert(timer);
        continue;
      }
      timer.deadline_ms_ = 0;
      timer.fn_(timer.argument_);  // may destroy the timer
    }
  }
  current_tick_ = std::max(current_tick_, now_tick);
}

uint64_t TimerWheel::next_due_ms() const {
  if (count_ == 0) return kNever;
  const uint64_t first = current_tick_ + 1;
  const size_t start = first % kSlots;
  for (size_t word_count = 0; word_count <= occupied_.size(); ++word_count) {
    const size_t index = (start / 64 + word_count) % occupied_.size();
    uint64_t word = occupied_[index];
    if (word_count == 0) word &= ~uint64_t{0} << (start % 64);
    if (word == 0) continue;
    const size_t slot = index * 64 + static_cast<size_t>(std::countr_zero(word));
    return (first + (slot + kSlots - start) % kSlots) * kTickMs;
  }
  return kNever;
}

}  // namespace basalt::reactor
