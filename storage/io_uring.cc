// Io over io_uring. The pitfalls this file answers: short reads and writes, links that break,
// completions that only appear inside the kernel (COOP_TASKRUN), buffers that must outlive the
// kernel's use of them.
#include <fcntl.h>
#include <liburing.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>

#include "base/check.h"
#include "storage/io_backends.h"

namespace basalt::storage {
namespace {

constexpr unsigned kSubmissionEntries = 256;
constexpr unsigned kCompletionEntries = 4 * kSubmissionEntries;
// Completions of the kernel to come. Half of the completion queue, so that it cannot overflow.
constexpr unsigned kKernelOpsMax = kCompletionEntries / 2;
// Marks the completion of the fdatasync that is linked to a write; IoOp is aligned, so the bit is
// free.
constexpr uint64_t kSyncTag = 1;
// Reads of a turn go to the kernel by so many: enough to share what telling a virtual disk costs,
// few enough for the disk to be at work while the loop goes through the rest of its connections.
constexpr unsigned kReadsAtOnce = 8;

class UringIo final : public Io {
 public:
  explicit UringIo(RunQueue& run_queue) : run_queue_(run_queue) {}

  ~UringIo() override {
    if (!ring_ready_) return;
    while (in_flight_ > 0) {
      push_pending();
      if (in_kernel_ > 0) {
        io_uring_cqe* cqe = nullptr;
        io_uring_wait_cqe(&ring_, &cqe);
      }
      reap();
    }
    io_uring_queue_exit(&ring_);
  }

  Status init() {
    // Completion work runs when this thread enters the kernel or sleeps there, never by an
    // interrupt of its own. Not DEFER_TASKRUN: behind a log batch's write the kernel starts the
    // linked fdatasync as such work, also while the loop sleeps in epoll_wait; deferred, it would
    // wait for the loop to wake up, look, and enter.
    unsigned best = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL |
                    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN |
                    IORING_SETUP_TASKRUN_FLAG;
    // Kernels before 6.0 do not know all of them.
    unsigned plain = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    int error = 0;
    for (unsigned flags : {best, plain}) {
      io_uring_params params{};
      params.flags = flags;
      params.cq_entries = kCompletionEntries;
      error = -io_uring_queue_init_params(kSubmissionEntries, &ring_, &params);
      if (error == 0) {
        ring_ready_ = true;
        quiet_success_ = (params.features & IORING_FEAT_CQE_SKIP) != 0;
        break;
      }
      if (error != EINVAL) break;
    }
    if (error != 0) return fail_errno(error, "io_uring_setup");
    io_uring_probe* probe = io_uring_get_probe_ring(&ring_);
    if (probe == nullptr) return fail(Code::kIo, "io_uring has no probe");
    bool complete = true;
    for (int opcode :
         {IORING_OP_READ, IORING_OP_WRITE, IORING_OP_FSYNC, IORING_OP_FALLOCATE, IORING_OP_NOP}) {
      complete = complete && io_uring_opcode_supported(probe, opcode);
    }
    io_uring_free_probe(probe);
    if (!complete) return fail(Code::kIo, "io_uring lacks an operation");
    // A filter may allow io_uring_setup and deny io_uring_enter: one round trip tells.
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    io_uring_prep_nop(sqe);
    io_uring_sqe_set_data64(sqe, 0);
    int submitted = io_uring_submit_and_wait(&ring_, 1);
    if (submitted < 0) return fail_errno(-submitted, "io_uring_enter");
    io_uring_cqe* cqe = nullptr;
    if (int waited = io_uring_wait_cqe(&ring_, &cqe); waited < 0)
      return fail_errno(-waited, "io_uring_enter");
    io_uring_cqe_seen(&ring_, cqe);
    if (int registered = io_uring_register_eventfd(&ring_, wake_fd()); registered < 0) {
      return fail_errno(-registered, "io_uring_register_eventfd");
    }
    return {};
  }

  void submit(IoOp& op) override {
    BASALT_CHECK(std::this_thread::get_id() == thread_);
    op.done_bytes = 0;
    op.pending_cqes = 0;
    ++in_flight_;
    pending_.push(op);
    if (op.kind == IoOp::Kind::kRead && ++reads_pending_ == kReadsAtOnce) push_pending();
  }

  bool poll() override {
    BASALT_CHECK(std::this_thread::get_id() == thread_);
    bool woken = drain_posted(run_queue_);
    const bool sent = push_pending();
    get_events();
    if (reap()) {
      woken = true;
      push_pending();  // the rest of short operations, and what waited for room
    }
    // Every completion and every post made the eventfd readable. Read, so that what was found in a
    // turn that began without it does not end the next sleep.
    if (woken) clear_wake();
    return woken || sent;
  }

  bool prepare_sleep() override {
    push_pending();
    get_events();
    // Entries that the kernel would not take now have nobody to wake us for them.
    bool handed_over = io_uring_sq_ready(&ring_) == 0 && (pending_.empty() || in_kernel_ > 0);
    return io_uring_cq_ready(&ring_) == 0 && !has_posted() && handed_over;
  }

  // Nothing to read: the loop watches the eventfd edge-triggered.
  void woke() override {}

  size_t in_flight() const override { return in_flight_; }
  size_t at_once_max() const override { return kKernelOpsMax; }
  std::string_view name() const override { return "io_uring"; }

 private:
  // Runs the completion work that waits for this thread to enter the kernel, if there is any.
  void get_events() {
    if (in_kernel_ == 0) return;
    unsigned flags = __atomic_load_n(ring_.sq.kflags, __ATOMIC_ACQUIRE);
    if ((flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0) io_uring_get_events(&ring_);
  }

  bool push_pending() {
    reads_pending_ = 0;
    while (!pending_.empty()) {
      IoOp& op = pending_.front();
      unsigned entries = op.kind == IoOp::Kind::kWriteDataSync ? 2 : 1;
      if (io_uring_sq_space_left(&ring_) < entries) {
        if (!enter()) break;
        if (io_uring_sq_space_left(&ring_) < entries) break;
      }
      if (in_kernel_ + entries > kKernelOpsMax) break;
      pending_.pop();
      prepare(op);
    }
    return io_uring_sq_ready(&ring_) > 0 && enter();
  }

  bool enter() {
    int submitted = io_uring_submit(&ring_);
    if (submitted >= 0) {
      BASALT_CHECK(!link_is_cut());
      return true;
    }
    // Transient: the entries stay in the ring and go with the next turn. Anything else means that
    // the ring is broken, and with it every promise about what was written.
    BASALT_CHECK(submitted == -EAGAIN || submitted == -EBUSY || submitted == -EINTR ||
                 submitted == -ENOMEM);
    return false;
  }

  // The kernel stops early where it has no memory for a request. If it has taken a write and not
  // the fdatasync that is linked to it, the write went off alone, and the fdatasync would not wait
  // for it: what it says would be worth nothing.
  bool link_is_cut() const {
    if (io_uring_sq_ready(&ring_) == 0) return false;
    const io_uring_sqe& first = ring_.sq.sqes[*ring_.sq.khead & *ring_.sq.kring_mask];
    const uint64_t tag = first.user_data;
    if ((tag & kSyncTag) == 0) return false;
    const IoOp& op = *reinterpret_cast<const IoOp*>(tag & ~kSyncTag);
    return op.done_bytes < op.length;  // else there was nothing left to write: it has no link
  }

  void prepare(IoOp& op) {
    uint64_t tag = reinterpret_cast<uint64_t>(&op);
    uint8_t* data = op.data + op.done_bytes;
    uint32_t left = op.length - op.done_bytes;
    uint64_t offset = op.offset + op.done_bytes;
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    op.pending_cqes = 1;
    op.main_result = 0;
    op.sync_result = 0;
    switch (op.kind) {
      case IoOp::Kind::kRead:
        io_uring_prep_read(sqe, op.fd, data, left, offset);
        break;
      case IoOp::Kind::kWrite:
        io_uring_prep_write(sqe, op.fd, data, left, offset);
        break;
      case IoOp::Kind::kDataSync:
        io_uring_prep_fsync(sqe, op.fd, IORING_FSYNC_DATASYNC);
        break;
      case IoOp::Kind::kAllocate:
        io_uring_prep_fallocate(sqe, op.fd, 0, 0, static_cast<off_t>(op.offset));
        break;
      case IoOp::Kind::kWriteDataSync:
        if (left > 0) {
          io_uring_prep_write(sqe, op.fd, data, left, offset);
          sqe->flags |= IOSQE_IO_LINK;
          io_uring_sqe_set_data64(sqe, tag);
          if (quiet_success_) {
            // One completion: the write's if it failed or was short (the kernel then drops the
            // fdatasync, silently), else the fdatasync's, which only runs behind a whole write.
            sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
            op.main_result = static_cast<int32_t>(left);
            op.sync_result = -ECANCELED;
          } else {
            op.pending_cqes = 2;
            ++in_kernel_;
          }
          sqe = io_uring_get_sqe(&ring_);
        }
        // With nothing left to write only an interrupted fdatasync is repeated.
        io_uring_prep_fsync(sqe, op.fd, IORING_FSYNC_DATASYNC);
        tag |= kSyncTag;
        break;
    }
    io_uring_sqe_set_data64(sqe, tag);
    ++in_kernel_;
  }

  bool reap() {
    bool any = false;
    io_uring_cqe* cqe = nullptr;
    while (io_uring_peek_cqe(&ring_, &cqe) == 0 && cqe != nullptr) {
      uint64_t tag = io_uring_cqe_get_data64(cqe);
      int32_t result = cqe->res;
      io_uring_cqe_seen(&ring_, cqe);
      --in_kernel_;
      any = true;
      IoOp& op = *reinterpret_cast<IoOp*>(tag & ~kSyncTag);
      ((tag & kSyncTag) != 0 ? op.sync_result : op.main_result) = result;
      if (--op.pending_cqes == 0) ended(op);
    }
    return any;
  }

  static bool again(int32_t result) { return result == -EINTR || result == -EAGAIN; }

  // Every completion of `op` is there: finish it or send the rest.
  void ended(IoOp& op) {
    int32_t main = op.main_result;
    if (again(main)) return pending_.push(op);
    if (main < 0) return finish(op, main);
    switch (op.kind) {
      case IoOp::Kind::kDataSync:
      case IoOp::Kind::kAllocate:
        return finish(op, 0);
      case IoOp::Kind::kRead:
        op.done_bytes += static_cast<uint32_t>(main);
        if (main > 0 && op.done_bytes < op.length) return pending_.push(op);
        return finish(op, op.done_bytes);
      case IoOp::Kind::kWrite:
      case IoOp::Kind::kWriteDataSync:
        if (main == 0 && op.done_bytes < op.length) return finish(op, -EIO);
        op.done_bytes += static_cast<uint32_t>(main);
        if (op.done_bytes < op.length)
          return pending_.push(op);  // a short write; its fdatasync does not count
        if (op.kind == IoOp::Kind::kWrite) return finish(op, op.length);
        if (again(op.sync_result)) return pending_.push(op);
        // A cancelled fdatasync behind a whole write: something broke the link, so nothing is known
        // to be durable.
        if (op.sync_result == -ECANCELED) return finish(op, -EIO);
        return finish(op, op.sync_result < 0 ? op.sync_result : static_cast<int64_t>(op.length));
    }
  }

  void finish(IoOp& op, int64_t result) {
    op.result = result;
    --in_flight_;
    run_queue_.post(op);
  }

  RunQueue& run_queue_;
  const std::thread::id thread_ = std::this_thread::get_id();
  io_uring ring_{};
  bool ring_ready_ = false;
  bool quiet_success_ = false;  // a write before a linked fdatasync is only heard of if it failed
  IoOpList pending_;
  unsigned reads_pending_ = 0;
  size_t in_flight_ = 0;    // IoOps
  unsigned in_kernel_ = 0;  // completions to come; a kWriteDataSync is one or two
};

}  // namespace

Result<std::unique_ptr<Io>> make_uring_io(RunQueue& run_queue) {
  auto io = std::make_unique<UringIo>(run_queue);
  BASALT_CHECK_OK(io->init());
  return io;
}

}  // namespace basalt::storage
