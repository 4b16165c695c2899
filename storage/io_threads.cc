// Io over a few threads that make blocking calls, for hosts that deny io_uring. Slower, with the
// same promises.
#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "storage/io_backends.h"

namespace basalt::storage {
namespace {

// Per core. Two log batches and their neighbours' blob writes keep this many busy; more only add
// context switches.
constexpr unsigned kThreads = 6;

class ThreadPoolIo final : public Io {
 public:
  explicit ThreadPoolIo(RunQueue& run_queue) : run_queue_(run_queue) {}

  Status init() {
    try {
      for (unsigned i = 0; i < kThreads; ++i) threads_.emplace_back([this] { work(); });
    } catch (const std::system_error& error) {
      return fail(Code::kIo, std::string("cannot start an I/O thread: ") + error.what());
    }
    return {};
  }

  ~ThreadPoolIo() override {
    {
      std::unique_lock lock(mutex_);
      stopping_ = true;
    }
    work_added_.notify_all();
    for (auto& thread : threads_) thread.join();  // each leaves only when the queue is empty
    drain_posted(run_queue_);
    while (!done_.empty()) run_queue_.post(done_.pop());
  }

  void submit(IoOp& op) override {
    op.done_bytes = 0;
    ++in_flight_;
    {
      std::unique_lock lock(mutex_);
      queue_.push(op);
    }
    work_added_.notify_one();
  }

  bool poll() override {
    bool did = drain_posted(run_queue_);
    size_t ended = 0;
    {
      std::unique_lock lock(mutex_);
      while (!done_.empty()) {
        run_queue_.post(done_.pop());
        ++ended;
      }
    }
    in_flight_ -= ended;
    did |= ended > 0;
    if (did) clear_wake();
    return did;
  }

  bool prepare_sleep() override {
    std::unique_lock lock(mutex_);
    return done_.empty() && !has_posted();
  }

  size_t in_flight() const override { return in_flight_; }
  size_t at_once_max() const override { return kThreads; }
  std::string_view name() const override { return "threads"; }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      work_added_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;
      IoOp& op = queue_.pop();
      lock.unlock();
      op.result = carry_out(system_disk(), op);
      lock.lock();
      bool first = done_.empty();
      done_.push(op);
      if (first) {
        // Under the lock, so that the poll() that empties the list is not followed by a stale wake
        // it did not clear.
        uint64_t one = 1;
        [[maybe_unused]] ssize_t written = ::write(wake_fd(), &one, sizeof one);
      }
    }
  }

  RunQueue& run_queue_;
  size_t in_flight_ = 0;
  std::mutex mutex_;  // guards the lists and stopping_
  std::condition_variable work_added_;
  IoOpList queue_;
  IoOpList done_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace

Result<std::unique_ptr<Io>> make_thread_pool_io(RunQueue& run_queue) {
  auto io = std::make_unique<ThreadPoolIo>(run_queue);
  BASALT_CHECK_OK(io->init());
  return io;
}

}  // namespace basalt::storage
