#include "storage/io.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>

#include "base/check.h"
#include "base/log.h"
#include "storage/io_backends.h"

namespace basalt::storage {

Io::Io() : event_fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  // Without it no completion could ever wake the loop; at start the process may as well say so and end.
  BASALT_CHECK(event_fd_ >= 0);
}

Io::~Io() { ::close(event_fd_); }

void Io::post_from_any_thread(Completion& completion) {
  Completion* head = posted_.load(std::memory_order_relaxed);
  do {
    completion.next = head;
  } while (!posted_.compare_exchange_weak(head, &completion, std::memory_order_release,
                                          std::memory_order_relaxed));
  uint64_t one = 1;
  // Fails only when the counter is at its maximum, and then the descriptor is readable anyway.
  [[maybe_unused]] ssize_t written = ::write(event_fd_, &one, sizeof one);
}

bool Io::drain_posted(RunQueue& run_queue) {
  if (!has_posted()) return false;
  Completion* list = posted_.exchange(nullptr, std::memory_order_acquire);
  Completion* in_order = nullptr;
  while (list != nullptr) {
    Completion* next = list->next;
    list->next = in_order;
    in_order = list;
    list = next;
  }
  while (in_order != nullptr) {
    Completion* next = in_order->next;
    run_queue.post(*in_order);
    in_order = next;
  }
  return true;
}

void Io::clear_wake() {
  uint64_t count = 0;
  [[maybe_unused]] ssize_t got = ::read(event_fd_, &count, sizeof count);
}

Result<std::unique_ptr<Io>> make_io(RunQueue& run_queue, bool force_threads) {
  if (!force_threads) {
    auto uring = make_uring_io(run_queue);
    if (uring) return uring;
    log_info("io_uring is not available, file I/O goes through threads",
             {{"reason", uring.error().detail}});
  }
  return make_thread_pool_io(run_queue);
}

}  // namespace basalt::storage
