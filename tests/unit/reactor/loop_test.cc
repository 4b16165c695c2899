// Loop and timers: order, lateness, moved and dropped deadlines, pollers' sleep protocol, hand-over
// from other threads.
#include "reactor/loop.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <map>
#include <random>
#include <thread>

#include "reactor/timer_wheel.h"
#include "tests/unit/reactor/net_test_util.h"

namespace basalt::reactor {
namespace {

TEST(TimerWheel, AgainstAModel) {
  auto loop = std::move(*Loop::create());
  TimerWheel wheel;
  struct Probe {
    uint64_t deadline = 0;  // 0: must not fire
    uint64_t fired_at = 0;
    uint64_t* now = nullptr;
  };
  uint64_t now = 1'000'000;
  constexpr size_t kCount = 200;
  std::vector<Probe> probes(kCount);
  std::vector<std::unique_ptr<Timer>> timers;
  int wrong = 0;
  for (auto& probe : probes) {
    probe.now = &now;
    timers.push_back(std::make_unique<Timer>(
        *loop,
        [](void* argument) {
          auto& fired = *static_cast<Probe*>(argument);
          fired.fired_at = *fired.now;
        },
        &probe));
  }
  std::mt19937_64 random(3);
  for (int step = 0; step < 200'000; ++step) {
    const size_t index = random() % kCount;
    Probe& probe = probes[index];
    switch (random() % 4) {
      case 0: {
        const uint64_t after = random() % (random() % 2 ? 50 : 30'000);
        probe.deadline = now + after;
        wheel.arm(*timers[index], now, after);
        break;
      }
      case 1:
        probe.deadline = 0;
        timers[index]->disarm();
        break;
      case 2:
        if (random() % 50 == 0) {
          wheel.remove(*timers[index]);
          timers[index]->disarm();
          probe.deadline = 0;
        }
        break;
      default: {
        now += random() % 100 == 0 ? random() % 20'000 : random() % 8;
        wheel.run(now);
        const uint64_t due = wheel.next_due_ms();
        for (size_t i = 0; i < kCount; ++i) {
          if (probes[i].fired_at != 0) {
            wrong += probes[i].deadline == 0 || now < probes[i].deadline || timers[i]->armed();
            probes[i] = {0, 0, &now};
          }
          // What is left is not late, and the wheel would be woken in time for it.
          wrong += probes[i].deadline != 0 && (probes[i].deadline + TimerWheel::kTickMs < now ||
                                               due > probes[i].deadline + 2 * TimerWheel::kTickMs);
        }
      }
    }
  }
  EXPECT_EQ(wrong, 0);
  for (auto& timer : timers) wheel.remove(*timer);
}

TEST(Loop, TimersFireInTime) {
  test::LoopThread thread;
  struct Shot {
    std::promise<uint64_t> done;
    Loop* loop;
    std::unique_ptr<Timer> timer;
  };
  Shot shot;
  shot.loop = &thread.loop();
  const uint64_t start = thread.run([&] {
    shot.timer = std::make_unique<Timer>(
        thread.loop(),
        [](void* argument) {
          auto& self = *static_cast<Shot*>(argument);
          self.timer.reset();                        // in its own callback
          self.done.set_value(self.loop->now_ns());  // last: the test ends then
        },
        &shot);
    shot.timer->arm(1000);
    shot.timer->arm(40);  // earlier
    return thread.loop().now_ns();
  });
  const uint64_t took_ms = (shot.done.get_future().get() - start) / 1'000'000;
  EXPECT_GE(took_ms, 39u);
  EXPECT_LT(took_ms, 1000u);  // the first deadline was not the one that fired
  thread.run([] {});          // the loop is out of the callback
}

TEST(Loop, MovedAndDisarmedTimers) {
  test::LoopThread thread;
  static std::atomic<int> fired;
  fired = 0;
  std::unique_ptr<Timer> moved;
  std::unique_ptr<Timer> dropped;
  thread.run([&] {
    const auto count = [](void*) { ++fired; };
    moved = std::make_unique<Timer>(thread.loop(), count, nullptr);
    dropped = std::make_unique<Timer>(thread.loop(), count, nullptr);
    moved->arm(30);
    moved->arm(150);
    dropped->arm(30);
    dropped->disarm();
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(80));
  EXPECT_EQ(fired, 0);
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_EQ(fired, 1);
  thread.run([&] {
    moved.reset();
    dropped.reset();
  });
}

TEST(Loop, HandOverFromManyThreads) {
  test::LoopThread thread;
  std::atomic<int> count = 0;
  std::vector<std::thread> others;
  for (int i = 0; i < 4; ++i) {
    others.emplace_back([&] {
      for (int j = 0; j < 500; ++j) thread.loop().run_in_loop([&] { ++count; });
    });
  }
  for (auto& other : others) other.join();
  thread.run([] {});
  EXPECT_EQ(count, 2000);
}

TEST(Loop, StopBeforeRunAndRunAgain) {
  auto loop = std::move(*Loop::create());
  loop->stop();
  loop->run();
  bool ran = false;
  loop->run_in_loop([&] {
    ran = true;
    loop->stop();
  });
  loop->run();
  EXPECT_TRUE(ran);
  loop->run_in_loop([] { FAIL() << "dropped with the loop"; });
}

// A poller that gets work from another thread and rings only when the loop sleeps.
class RingingPoller final : public Poller {
 public:
  RingingPoller() : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}
  ~RingingPoller() override { close(fd_); }
  bool poll() override {
    uint64_t count;
    if (asleep_seen_) [[maybe_unused]]
      const ssize_t size = read(fd_, &count, sizeof count);
    const uint64_t want = produced_.load(std::memory_order_acquire);
    if (want == consumed_) return false;
    consumed_ = want;
    done.store(consumed_, std::memory_order_release);
    return true;
  }
  bool prepare_sleep() override {
    asleep_seen_ = false;
    asleep_.store(true, std::memory_order_seq_cst);
    ++prepared;
    if (produced_.load(std::memory_order_seq_cst) == consumed_) return true;
    asleep_.store(false, std::memory_order_seq_cst);
    return false;
  }
  void woke() override {
    asleep_.store(false, std::memory_order_seq_cst);
    asleep_seen_ = true;
    ++woken;
  }
  int wake_fd() const override { return fd_; }
  void produce() {
    produced_.fetch_add(1, std::memory_order_seq_cst);
    if (asleep_.load(std::memory_order_seq_cst)) {
      const uint64_t one = 1;
      [[maybe_unused]] const ssize_t size = write(fd_, &one, sizeof one);
    }
  }
  std::atomic<uint64_t> done{0};
  uint64_t prepared = 0;
  uint64_t woken = 0;

 private:
  int fd_;
  std::atomic<uint64_t> produced_{0};
  std::atomic<bool> asleep_{false};
  uint64_t consumed_ = 0;
  bool asleep_seen_ = false;
};

TEST(Loop, PollersAreNeverLeftAsleepWithWork) {
  RingingPoller poller;
  auto loop = std::move(*Loop::create());
  loop->add_poller(poller);
  std::thread runner([&] { loop->run(); });
  for (uint64_t i = 1; i <= 20'000; ++i) {
    poller.produce();
    if (i % 64 == 0) {
      while (poller.done.load() < i) std::this_thread::yield();
    }
  }
  loop->stop();
  runner.join();
  EXPECT_GE(poller.done.load(), 20'000u / 64 * 64);
  EXPECT_EQ(poller.prepared, poller.woken);
  EXPECT_GT(loop->stats().sleeps.load(), 0u);
  EXPECT_GE(loop->stats().turns.load(), loop->stats().sleeps.load());
  EXPECT_GT(loop->stats().longest_turn_us.exchange(0) + 1, 0u);
}

TEST(Loop, TurnTimesAreCounted) {
  using Histogram = TurnHistogram;
  // Every bound is the first value of the next bucket, and all values have one.
  for (size_t i = 0; i < Histogram::kBuckets; ++i) {
    EXPECT_EQ(Histogram::bucket_of(Histogram::upper_bound_us(i) - 1), i);
    EXPECT_EQ(Histogram::bucket_of(Histogram::upper_bound_us(i)), i + 1);
  }
  EXPECT_EQ(Histogram::bucket_of(0), 0u);
  EXPECT_EQ(Histogram::bucket_of(UINT64_MAX), Histogram::kBuckets);
  test::LoopThread thread;
  thread.run([] { std::this_thread::sleep_for(std::chrono::milliseconds(20)); });
  thread.run([] {});
  uint64_t long_turns = 0;
  for (size_t i = Histogram::bucket_of(20'000); i <= Histogram::kBuckets; ++i) {
    long_turns += thread.loop().stats().turn_times.count(i);
  }
  EXPECT_GE(long_turns, 1u);
}

TEST(Loop, DeferRunsInTheLoop) {
  test::LoopThread thread;
  std::promise<void> done;
  thread.run([&] { thread.loop().defer([&] { thread.loop().defer([&] { done.set_value(); }); }); });
  EXPECT_EQ(done.get_future().wait_for(std::chrono::seconds(5)), std::future_status::ready);
  thread.run([] {});
}

}  // namespace
}  // namespace basalt::reactor
