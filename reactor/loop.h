// Loop: one core's event loop: a libevent base, the run queue, and the pollers (io_uring,
// mailboxes, ...).
//
// Each turn: serve ready sockets, poll every poller, run the queue until both are quiet (bounded
// rounds), and only then sleep. Thread: created and used on its core's thread; stop() may be called
// from any thread or a signal handler's relay.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/completion.h"
#include "base/poller.h"
#include "base/result.h"

struct event_base;

namespace basalt::reactor {

class Lingerer;
class Loop;
class TimerWheel;

// A one-shot deadline, intrusive. Arming, moving and disarming cost no heap operation and no system
// call: the loop keeps a coarse wheel, an armed timer stays in its slot until that comes up, and
// only then is its deadline looked at again. So a connection may move its deadline with every
// request. Fires never early and at most kResolutionMs (plus the length of a turn) late, outside
// any event callback, disarmed: fn may arm, disarm or destroy any timer, this one too. Destroying
// an armed timer disarms it. Thread: the loop's.
class Timer {
 public:
  static constexpr uint64_t kResolutionMs = 4;

  Timer(Loop& loop, void (*fn)(void*), void* argument)
      : loop_(loop), fn_(fn), argument_(argument) {}
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  void arm(uint64_t after_ms);  // from the loop's cached time; re-arming moves it
  void disarm() { deadline_ms_ = 0; }
  bool armed() const { return deadline_ms_ != 0; }

 private:
  friend class TimerWheel;
  Loop& loop_;
  void (*fn_)(void*);
  void* argument_;
  uint64_t deadline_ms_ = 0;  // of the monotonic clock; 0: not armed
  uint64_t tick_ = 0;         // the wheel slot it stands in
  Timer* next_ = nullptr;
  Timer** link_ = nullptr;  // what points to this one; null: in no slot
};

// How long turns took, two buckets an octave: bucket i counts turns shorter than upper_bound_us(i)
// that the one before does not, the last one the rest. Written by the loop's thread, read by any.
class TurnHistogram {
 public:
  static constexpr unsigned kFirstShift = 6;  // the first bucket ends at 64 us
  static constexpr size_t kBuckets = 30;      // the last bound is 1.05 s
  static constexpr uint64_t upper_bound_us(size_t i) {
    return ((i % 2 == 0 ? uint64_t{2} : uint64_t{3}) << (kFirstShift - 1)) << i / 2;
  }
  static constexpr size_t bucket_of(uint64_t us) {
    if (us < upper_bound_us(0)) return 0;
    const auto octave = static_cast<unsigned>(std::bit_width(us)) - 1;
    const size_t upper_half = us >> (octave - 1) & 1;
    return std::min<size_t>(kBuckets, 2 * (octave - kFirstShift) + 1 + upper_half);
  }

  void record(uint64_t us) {
    auto& count = counts_[bucket_of(us)];
    count.store(count.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }
  uint64_t count(size_t i) const { return counts_[i].load(std::memory_order_relaxed); }

 private:
  std::array<std::atomic<uint64_t>, kBuckets + 1> counts_{};
};

struct LoopStats {
  std::atomic<uint64_t> turns{0}, sleeps{0};
  TurnHistogram turn_times;          // of a turn: what was done between two waits for events
  std::atomic<uint64_t> busy_ns{0};  // time not spent sleeping
  mutable std::atomic<uint64_t> longest_turn_us{0};  // since metrics last took it with exchange(0)
};

class Loop {
 public:
  // Also makes the process ignore SIGPIPE: sendfile(2) and OpenSSL have no flag for it.
  static Result<std::unique_ptr<Loop>> create();
  // After run() has returned. Functions that were handed over and have not run are dropped.
  ~Loop();

  RunQueue& run_queue() { return run_queue_; }
  event_base* base() { return base_; }
  void add_poller(Poller& poller);  // before run(); the poller outlives the loop's run
  // After run(): forgets the pollers and their descriptors, so that they may go before the loop
  // does.
  void remove_pollers();
  // Monotonic nanoseconds, refreshed once a turn (and by whoever asks first after the loop slept).
  uint64_t now_ns() const {
    if (now_stale_) [[unlikely]]
      refresh_now();
    return now_ns_;
  }
  void run();   // until stop(); returns at once if stop() came first
  void stop();  // any thread
  // Runs fn on the loop soon. Any thread; takes a lock: for start-up, shutdown and signals, not for
  // requests.
  void run_in_loop(std::move_only_function<void()> fn);
  // Runs fn in this turn or the next, outside any event callback. The loop's thread only.
  void defer(std::move_only_function<void()> fn);
  const LoopStats& stats() const { return stats_; }

  // For the reactor's own files.
  TimerWheel& timers();
  Lingerer& lingerer();

 private:
  Loop();
  void refresh_now() const;
  bool run_deferred();
  bool run_until_quiet();
  void wait_for_events(bool may_sleep);

  struct Impl;
  std::unique_ptr<Impl> impl_;
  event_base* base_ = nullptr;
  RunQueue run_queue_;
  mutable uint64_t now_ns_ = 0;
  mutable bool now_stale_ = true;
  LoopStats stats_;
};

}  // namespace basalt::reactor
