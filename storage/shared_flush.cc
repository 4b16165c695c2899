#include "storage/shared_flush.h"

#include "base/check.h"

namespace basalt::storage {

SharedFlush::SharedFlush(int fd, Io& io, RunQueue& run_queue, EngineStats& stats)
    : io_(io), run_queue_(run_queue), stats_(stats) {
  start_.flush = this;
  start_.fn = [](Completion& completion) { static_cast<Start&>(completion).flush->start(); };
  for (Op& op : ops_) {
    op.flush = this;
    op.fn = [](Completion& completion) {
      auto& self = static_cast<Op&>(static_cast<IoOp&>(completion));
      self.flush->ended(self);
    };
    op.kind = IoOp::Kind::kDataSync;
    op.fd = fd;
  }
}

SharedFlush::~SharedFlush() { BASALT_CHECK(idle()); }

void SharedFlush::add(IoOp& call) {
  waiting_.push_back(&call);
  if (starting_ || under_way_ == kFlushesAtOnceMax) return;
  // Behind what is in the run queue already: writes that ended in the same turn.
  starting_ = true;
  run_queue_.post(start_);
}

void SharedFlush::start() {
  starting_ = false;
  for (Op& op : ops_) {
    if (!op.served.empty()) continue;
    op.served.swap(waiting_);
    ++under_way_;
    stats_.device_flushes.fetch_add(1, std::memory_order_relaxed);
    return io_.submit(op);
  }
  BASALT_CHECK(false);
}

void SharedFlush::ended(Op& op) {
  for (IoOp* call : op.served) {
    call->result = op.result;
    run_queue_.post(*call);
  }
  op.served.clear();
  --under_way_;
  if (!waiting_.empty() && !starting_) start();
}

}  // namespace basalt::storage
