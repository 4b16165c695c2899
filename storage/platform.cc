#include "storage/platform.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

#include "base/random.h"

namespace basalt::storage {
namespace {

class ThreadHelper final : public Helper {
 public:
  explicit ThreadHelper(std::function<uint32_t()> work) : work_(std::move(work)) {
    thread_ = std::thread([this] { run(); });
  }
  ~ThreadHelper() override {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_one();
    thread_.join();
  }
  void kick() override {
    {
      const std::lock_guard lock(mutex_);
      kicked_ = true;
    }
    changed_.notify_one();
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    while (!stop_) {
      kicked_ = false;
      lock.unlock();
      const uint32_t wait_ms = work_();
      lock.lock();
      if (wait_ms == 0) continue;
      changed_.wait_for(lock, std::chrono::milliseconds(wait_ms),
                        [this] { return kicked_ || stop_; });
    }
  }

  const std::function<uint32_t()> work_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool kicked_ = false;
  bool stop_ = false;
  std::thread thread_;
};

class ThreadHelpers final : public Helpers {
 public:
  Result<std::unique_ptr<Helper>> start(const char* name, std::function<uint32_t()> work) override {
    try {
      return std::make_unique<ThreadHelper>(std::move(work));
    } catch (const std::system_error& error) {
      return fail(Code::kIo,
                  std::string("cannot start the thread for ") + name + ": " + error.what());
    }
  }
  unsigned parallel() const override { return std::max(1u, std::thread::hardware_concurrency()); }
};

class KernelRandom final : public Random {
 public:
  void fill(MutableBytes out) override { fill_random(out); }
};

}  // namespace

const Platform& system_platform() {
  // Without state, like the disk.
  static SystemClock clock;
  static KernelRandom random;
  static ThreadHelpers helpers;
  static const Platform platform{&system_disk(), &clock, &random, &helpers};
  return platform;
}

}  // namespace basalt::storage
