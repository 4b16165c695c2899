// Clock: the only way to the time. Tests bring their own.
#pragma once

#include <atomic>
#include <cstdint>

namespace basalt {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual int64_t wall_ms() const = 0;        // milliseconds since 1970-01-01T00:00:00Z
  virtual uint64_t monotonic_ns() const = 0;  // from an arbitrary start, never backwards
};

class SystemClock final : public Clock {
 public:
  int64_t wall_ms() const override;
  uint64_t monotonic_ns() const override;
};

class ManualClock final : public Clock {
 public:
  explicit ManualClock(int64_t wall_ms) : wall_ms_(wall_ms) {}
  int64_t wall_ms() const override { return wall_ms_.load(std::memory_order_relaxed); }
  uint64_t monotonic_ns() const override { return static_cast<uint64_t>(wall_ms()) * 1'000'000; }
  void set_wall_ms(int64_t wall_ms) { wall_ms_.store(wall_ms, std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> wall_ms_;
};

}  // namespace basalt
