// Io: asynchronous file I/O of one core. Implementations: io_uring, a thread pool (where io_uring
// is denied; chosen at start, said in the log), a simulated disk in tests.
//
// An IoOp owns nothing: buffer and file stay valid until its completion ran. Results are the
// kernel's: short reads and writes, -EINTR and -EAGAIN are handled here (the rest is resubmitted),
// so result is the full length, or a negative errno; a read may end short only at the end of the
// file. Thread: the core's own. Completions are posted to the core's run queue by poll().
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string_view>

#include "base/completion.h"
#include "base/poller.h"
#include "base/result.h"

namespace basalt::storage {

struct IoOp : Completion {
  enum class Kind : uint8_t {
    kRead,
    kWrite,
    kDataSync,       // fdatasync(2) of what completed before it was submitted
    kWriteDataSync,  // write, then fdatasync: success only if both are; used by the log
    kAllocate,       // fallocate(2) from the start of the file to `offset`; result 0
  };
  Kind kind = Kind::kRead;
  int fd = -1;
  uint8_t* data = nullptr;
  uint32_t length = 0;
  uint64_t offset = 0;

  int64_t result = 0;  // bytes, or -errno

  // Internal to the implementation.
  uint32_t done_bytes = 0;
  int32_t main_result = 0;
  int32_t sync_result = 0;
  uint8_t pending_cqes = 0;
};

// Operations submitted and not yet completed are bounded by the callers' own limits; here none is
// refused: what does not fit the kernel's queue waits. submit() queues, poll() and
// prepare_sleep() hand over to the kernel, so that the operations of a loop turn share a system
// call (reads go off by a few, so that the disk is at work meanwhile).
//
// The destructor waits until every operation has ended (a buffer given to the kernel may not be
// freed before); their completions are in the run queue then.
class Io : public Poller {
 public:
  Io();
  ~Io() override;
  Io(const Io&) = delete;
  Io& operator=(const Io&) = delete;

  virtual void submit(IoOp& op) = 0;
  virtual size_t in_flight() const = 0;
  // So many are with the kernel, or with threads, at once at most; the others wait for their turn.
  virtual size_t at_once_max() const = 0;
  virtual std::string_view name() const = 0;  // "io_uring" or "threads"

  // Any thread: hands `completion` to the core; its next poll() posts it to the run queue. Wakes
  // the loop.
  void post_from_any_thread(Completion& completion);

  int wake_fd() const override { return event_fd_; }
  void woke() override { clear_wake(); }

 protected:
  // For poll() of an implementation: moves what post_from_any_thread brought to `run_queue`.
  bool drain_posted(RunQueue& run_queue);
  bool has_posted() const { return posted_.load(std::memory_order_acquire) != nullptr; }
  void clear_wake();

 private:
  int event_fd_ = -1;
  // A stack linked by Completion::next: pushed with a compare-and-swap by any thread, taken whole
  // by the core.
  std::atomic<Completion*> posted_{nullptr};
};

// Made on the core's thread. io_uring where the kernel allows it, else threads. `force_threads` for
// tests.
Result<std::unique_ptr<Io>> make_io(RunQueue& run_queue, bool force_threads);

}  // namespace basalt::storage
