// SharedFlush: one fdatasync for all that wait for one of the same file.
//
// A flush speaks only for what had been written when it was submitted, so whoever comes while one
// is under way waits for the next one. That is where sharing comes from; nobody is kept waiting for
// company: alone, a flush goes off with the turn that asked for it. What it says, also a failure,
// is said to everyone it was submitted for.
//
// Owned by the core's blob store. Thread: the core's.
#pragma once

#include <array>
#include <vector>

#include "base/completion.h"
#include "storage/engine.h"
#include "storage/io.h"

namespace basalt::storage {

// One would make whoever just misses it wait for two.
constexpr size_t kFlushesAtOnceMax = 2;

class SharedFlush {
 public:
  // `fd` stays open while something waits.
  SharedFlush(int fd, Io& io, RunQueue& run_queue, EngineStats& stats);
  SharedFlush(const SharedFlush&) = delete;
  SharedFlush& operator=(const SharedFlush&) = delete;
  ~SharedFlush();  // idle

  // Every write that `call` is to make durable has completed. It completes through the run queue,
  // with `result` of the flush; the rest of it is not looked at.
  void add(IoOp& call);
  bool idle() const { return !starting_ && under_way_ == 0; }

 private:
  struct Start : Completion {
    SharedFlush* flush = nullptr;
  };
  struct Op : IoOp {
    SharedFlush* flush = nullptr;
    std::vector<IoOp*> served;  // not empty while it is under way
  };
  void start();
  void ended(Op& op);

  Io& io_;
  RunQueue& run_queue_;
  EngineStats& stats_;
  Start start_;
  std::array<Op, kFlushesAtOnceMax> ops_;
  bool starting_ = false;  // start_ is in the run queue
  size_t under_way_ = 0;
  std::vector<IoOp*> waiting_;
};

}  // namespace basalt::storage
