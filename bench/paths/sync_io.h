// SyncIo: file I/O that is carried out inside submit(), so that a run on it is the same every time.
//
// For counting instructions and allocations, not for keeping data: it flushes nothing.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "storage/io.h"

namespace basalt::bench {

class SyncIo final : public storage::Io {
 public:
  explicit SyncIo(RunQueue& run_queue) : run_queue_(run_queue) {}

  void submit(storage::IoOp& op) override {
    op.result = carry_out(op);
    op.next = nullptr;
    *tail_ = &op;
    tail_ = &op.next;
    ++in_flight_;
  }
  bool poll() override {
    bool did = drain_posted(run_queue_);
    Completion* list = std::exchange(head_, nullptr);
    tail_ = &head_;
    in_flight_ = 0;
    while (list != nullptr) {
      Completion* next = list->next;
      run_queue_.post(*list);
      list = next;
      did = true;
    }
    return did;
  }
  size_t in_flight() const override { return in_flight_; }
  size_t at_once_max() const override { return 1; }
  std::string_view name() const override { return "synchronous"; }

 private:
  static int64_t carry_out(const storage::IoOp& op) {
    using Kind = storage::IoOp::Kind;
    const auto offset = static_cast<off_t>(op.offset);
    ssize_t moved = 0;
    switch (op.kind) {
      case Kind::kRead:
        moved = ::pread(op.fd, op.data, op.length, offset);
        break;
      case Kind::kWrite:
      case Kind::kWriteDataSync:
        moved = ::pwrite(op.fd, op.data, op.length, offset);
        break;
      case Kind::kDataSync:
        break;
      case Kind::kAllocate:
        moved = ::fallocate(op.fd, 0, 0, offset);
        break;
    }
    return moved < 0 ? -errno : moved;
  }

  RunQueue& run_queue_;
  Completion* head_ = nullptr;
  Completion** tail_ = &head_;
  size_t in_flight_ = 0;
};

}  // namespace basalt::bench
