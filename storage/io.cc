#include "storage/io.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>

#include "base/check.h"
#include "base/log.h"
#include "storage/io_backends.h"

namespace basalt::storage {

Io::Io() : event_fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  // Without it no completion could ever wake the loop; at start the process may as well say so and
  // end.
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

int64_t transfer(Disk& disk, IoOp& op, bool write) {
  while (op.done_bytes < op.length) {
    uint8_t* data = op.data + op.done_bytes;
    const size_t left = op.length - op.done_bytes;
    const uint64_t offset = op.offset + op.done_bytes;
    const int64_t got =
        write ? disk.write(op.fd, {data, left}, offset) : disk.read(op.fd, {data, left}, offset);
    if (got == -EINTR || got == -EAGAIN) continue;
    if (got < 0) return got;
    if (got == 0) {
      if (write) return -EIO;
      break;
    }
    op.done_bytes += static_cast<uint32_t>(got);
  }
  return op.done_bytes;
}

int64_t data_sync(Disk& disk, int fd) {
  for (;;) {
    const int result = disk.data_sync(fd);
    if (result != -EINTR) return result;
  }
}

int64_t carry_out(Disk& disk, IoOp& op) {
  switch (op.kind) {
    case IoOp::Kind::kRead:
      return transfer(disk, op, false);
    case IoOp::Kind::kWrite:
      return transfer(disk, op, true);
    case IoOp::Kind::kDataSync:
      return data_sync(disk, op.fd);
    case IoOp::Kind::kWriteDataSync: {
      const int64_t written = transfer(disk, op, true);
      if (written < 0) return written;
      const int64_t synced = data_sync(disk, op.fd);
      return synced < 0 ? synced : written;
    }
    case IoOp::Kind::kAllocate:
      for (;;) {
        const int result = disk.allocate(op.fd, op.offset);
        if (result != -EINTR) return result;
      }
  }
  return -EINVAL;
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
