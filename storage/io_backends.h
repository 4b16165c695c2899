// The two implementations of Io that make_io() chooses from.
#pragma once

#include "storage/disk.h"
#include "storage/io.h"

namespace basalt::storage {

// Fails where the kernel or a seccomp filter denies io_uring or lacks an operation we need.
Result<std::unique_ptr<Io>> make_uring_io(RunQueue& run_queue);
Result<std::unique_ptr<Io>> make_thread_pool_io(RunQueue& run_queue);

// An operation as blocking calls: short transfers, EINTR and EAGAIN are gone on with. transfer() is
// the first half of kWriteDataSync, data_sync() the second.
int64_t transfer(Disk& disk, IoOp& op, bool write);
int64_t data_sync(Disk& disk, int fd);
int64_t carry_out(Disk& disk, IoOp& op);

// Operations queued by a core, linked by Completion::next, first in first out.
class IoOpList {
 public:
  bool empty() const { return head_ == nullptr; }
  IoOp& front() const { return static_cast<IoOp&>(*head_); }
  void push(IoOp& op) {
    op.next = nullptr;
    *tail_ = &op;
    tail_ = &op.next;
  }
  IoOp& pop() {
    Completion* op = head_;
    head_ = op->next;
    if (head_ == nullptr) tail_ = &head_;
    op->next = nullptr;
    return static_cast<IoOp&>(*op);
  }

 private:
  Completion* head_ = nullptr;
  Completion** tail_ = &head_;
};

}  // namespace basalt::storage
