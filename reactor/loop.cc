#include "reactor/loop.h"

#include <event2/event.h>
#include <event2/event_struct.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <ctime>
#include <mutex>

#include "base/check.h"
#include "base/log.h"
#include "reactor/lingerer.h"
#include "reactor/timer_wheel.h"

namespace basalt::reactor {
namespace {

// Pollers and run queue are served at most so often before the sockets are looked at again.
constexpr int kRoundsMax = 16;

uint64_t monotonic_now_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

// Written by the loop's thread only: a plain load and store, no locked instruction.
void bump(std::atomic<uint64_t>& counter, uint64_t by = 1) {
  counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
}

void only_wake(evutil_socket_t, short, void*) {}

// libevent's clock is the coarse one, so this may come a few milliseconds early: the next turn then
// arms it anew.
void forget_due(evutil_socket_t, short, void* due_ms) {
  *static_cast<uint64_t*>(due_ms) = TimerWheel::kNever;
}

void clear_eventfd(evutil_socket_t fd, short, void*) {
  uint64_t count;
  [[maybe_unused]] const ssize_t size = read(fd, &count, sizeof count);
}

}  // namespace

struct Loop::Impl {
  struct Watched {
    Poller* poller;
    std::unique_ptr<event> wake;  // null: the poller has no descriptor
  };
  std::vector<Watched> pollers;
  std::atomic<bool> stop{false};
  int wake_fd = -1;
  event wake_event;
  event timer_event;  // only ends the sleep; the wheel is served by the turn
  uint64_t timer_due_ms = TimerWheel::kNever;
  TimerWheel wheel;
  std::vector<std::move_only_function<void()>> deferred;
  uint64_t woke_ns = 0;
  std::unique_ptr<Lingerer> lingerer;

  std::mutex mutex;  // guards handed_over
  std::vector<std::move_only_function<void()>> handed_over;
  std::atomic<bool> has_handed_over{false};

  bool prepare_sleep() {
    bool sleep = true;
    for (auto& watched : pollers) sleep &= watched.poller->prepare_sleep();
    return sleep;
  }
  void woke() {
    for (auto& watched : pollers) watched.poller->woke();
  }

  void wake() {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t size = write(wake_fd, &one, sizeof one);
  }
};

Timer::~Timer() { loop_.timers().remove(*this); }

void Timer::arm(uint64_t after_ms) {
  loop_.timers().arm(*this, loop_.now_ns() / 1'000'000, after_ms);
}

Loop::Loop() : impl_(std::make_unique<Impl>()) {}

Result<std::unique_ptr<Loop>> Loop::create() {
  std::signal(SIGPIPE, SIG_IGN);
  std::unique_ptr<Loop> loop(new Loop());
  event_config* config = event_config_new();
  if (config == nullptr) return fail(Code::kIo, "event_config_new");
  // One thread, so no locks; and no EVENT_NO* variables from the environment.
  event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
  event_config_set_flag(config, EVENT_BASE_FLAG_IGNORE_ENV);
  loop->base_ = event_base_new_with_config(config);
  event_config_free(config);
  if (loop->base_ == nullptr) return fail(Code::kIo, "event_base_new_with_config");
  Impl& impl = *loop->impl_;
  impl.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (impl.wake_fd < 0) return fail_errno(errno, "eventfd");
  event_assign(&impl.timer_event, loop->base_, -1, 0, forget_due, &impl.timer_due_ms);
  event_assign(&impl.wake_event, loop->base_, impl.wake_fd, EV_READ | EV_PERSIST, clear_eventfd,
               nullptr);
  if (event_add(&impl.wake_event, nullptr) != 0)
    return fail(Code::kIo, "event_add of the wake descriptor");
  impl.lingerer = std::make_unique<Lingerer>(*loop);
  return loop;
}

Loop::~Loop() {
  if (base_ != nullptr) {
    // What was handed over may own streams, which unregister from the base.
    impl_->deferred.clear();
    impl_->handed_over.clear();
    impl_->lingerer.reset();
    if (impl_->wake_fd >= 0) {
      event_del(&impl_->wake_event);
      event_del(&impl_->timer_event);
    }
    remove_pollers();
    event_base_free(base_);
  }
  if (impl_->wake_fd >= 0) close(impl_->wake_fd);
}

TimerWheel& Loop::timers() { return impl_->wheel; }
Lingerer& Loop::lingerer() { return *impl_->lingerer; }

void Loop::refresh_now() const {
  now_ns_ = monotonic_now_ns();
  now_stale_ = false;
}

void Loop::remove_pollers() {
  for (auto& watched : impl_->pollers) {
    if (watched.wake) event_del(watched.wake.get());
  }
  impl_->pollers.clear();
}

void Loop::add_poller(Poller& poller) {
  auto& watched = impl_->pollers.emplace_back(&poller, nullptr);
  if (poller.wake_fd() < 0) return;
  watched.wake = std::make_unique<event>();
  // Only to end the sleep: every turn calls poll() anyway. Edge-triggered, so that each write to
  // the descriptor ends one sleep whether the poller has read the earlier ones or not.
  event_assign(watched.wake.get(), base_, poller.wake_fd(), EV_READ | EV_PERSIST | EV_ET, only_wake,
               nullptr);
  BASALT_CHECK(event_add(watched.wake.get(), nullptr) == 0);
}

void Loop::stop() {
  impl_->stop.store(true, std::memory_order_release);
  impl_->wake();
}

void Loop::run_in_loop(std::move_only_function<void()> fn) {
  {
    std::lock_guard lock(impl_->mutex);
    impl_->handed_over.push_back(std::move(fn));
  }
  impl_->has_handed_over.store(true, std::memory_order_release);
  impl_->wake();
}

void Loop::defer(std::move_only_function<void()> fn) { impl_->deferred.push_back(std::move(fn)); }

bool Loop::run_deferred() {
  if (impl_->has_handed_over.load(std::memory_order_acquire)) {
    std::lock_guard lock(impl_->mutex);
    impl_->has_handed_over.store(false, std::memory_order_relaxed);
    for (auto& fn : impl_->handed_over) impl_->deferred.push_back(std::move(fn));
    impl_->handed_over.clear();
  }
  if (impl_->deferred.empty()) return false;
  auto list = std::move(impl_->deferred);
  impl_->deferred.clear();
  for (auto& fn : list) fn();
  return true;
}

bool Loop::run_until_quiet() {
  for (int round = 0; round < kRoundsMax; ++round) {
    bool busy = false;
    for (auto& watched : impl_->pollers) busy |= watched.poller->poll();
    busy |= run_queue_.run() != 0;
    busy |= run_deferred();
    if (!busy) return true;
  }
  return false;
}

void Loop::wait_for_events(bool sleep) {
  const uint64_t now_ns = monotonic_now_ns();
  if (sleep) {
    flush_log();
    const uint64_t due_ms = impl_->wheel.next_due_ms();
    // The event is moved only when an earlier slot was filled; left too early, it costs one idle
    // turn.
    if (due_ms < impl_->timer_due_ms) {
      const uint64_t wait_ns = due_ms * 1'000'000 > now_ns ? due_ms * 1'000'000 - now_ns : 0;
      const timeval wait{static_cast<time_t>(wait_ns / 1'000'000'000),
                         static_cast<suseconds_t>(wait_ns % 1'000'000'000 / 1000 + 1)};
      event_add(&impl_->timer_event, &wait);
      impl_->timer_due_ms = due_ms;
    }
    bump(stats_.sleeps);
  }
  const uint64_t busy_ns = now_ns - impl_->woke_ns;
  bump(stats_.turns);
  bump(stats_.busy_ns, busy_ns);
  stats_.turn_times.record(busy_ns / 1000);
  if (busy_ns / 1000 > stats_.longest_turn_us.load(std::memory_order_relaxed)) {
    stats_.longest_turn_us.store(busy_ns / 1000, std::memory_order_relaxed);
  }

  impl_->woke_ns = now_ns;
  now_stale_ = true;
  event_base_loop(base_, sleep ? EVLOOP_ONCE : EVLOOP_ONCE | EVLOOP_NONBLOCK);
  // The first callback asked for the time, so that it is the end of the sleep.
  const uint64_t woke_ns = this->now_ns();
  if (sleep) impl_->woke_ns = woke_ns;
}

void Loop::run() {
  refresh_now();
  impl_->woke_ns = now_ns_;
  while (!impl_->stop.load(std::memory_order_acquire)) {
    impl_->wheel.run(now_ns_ / 1'000'000);
    bool quiet = run_until_quiet();
    const auto ready_to_sleep = [&] {
      return impl_->prepare_sleep() && run_queue_.empty() && impl_->deferred.empty();
    };
    bool sleep = quiet && ready_to_sleep();
    if (quiet && !sleep && !run_queue_.empty()) {
      // prepare_sleep() may do last work of its own: a hash station empties its lanes there. What
      // waited for that goes on, once, before the sockets are asked again.
      impl_->woke();
      quiet = run_until_quiet();
      sleep = quiet && ready_to_sleep();
    }
    const bool stopped = impl_->stop.load(std::memory_order_acquire);
    if (!stopped) wait_for_events(sleep);
    if (quiet) impl_->woke();
    if (stopped) break;
  }
  impl_->stop.store(false, std::memory_order_release);
  flush_log();
}

}  // namespace basalt::reactor
