// The rest of the simulated machine: time, helper threads that are called unit by unit, randomness,
// chaos, and an Io whose operations end in an order of the seed's choosing.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "storage/io_backends.h"
#include "storage/platform.h"
#include "tests/sim/chance.h"
#include "tests/sim/sim_disk.h"

namespace basalt::sim {

class SimClock final : public Clock {
 public:
  int64_t wall_ms() const override { return wall_ms_; }
  uint64_t monotonic_ns() const override { return now_ns_; }
  void advance_ns(uint64_t by) {
    now_ns_ += by;
    wall_ms_ += static_cast<int64_t>(by / 1'000'000);
  }
  void jump_wall(int64_t by_ms) { wall_ms_ += by_ms; }

 private:
  uint64_t now_ns_ = 1'000'000'000;
  int64_t wall_ms_ = 1'767'225'600'000;
};

class SimRandom final : public storage::Random {
 public:
  explicit SimRandom(Chance& chance) : chance_(chance) {}
  void fill(MutableBytes out) override {
    for (uint8_t& byte : out) byte = static_cast<uint8_t>(chance_.next() >> 24);
  }

 private:
  Chance& chance_;
};

class SimChaos final : public storage::Chaos {
 public:
  SimChaos(Chance& chance, Trace& trace) : chance_(chance), trace_(trace) {}
  bool happens(Point point) override {
    if (!enabled || !chance_.happens(probability[static_cast<size_t>(point)])) return false;
    trace_.event("chaos", static_cast<uint64_t>(point));
    return true;
  }
  double probability[static_cast<size_t>(Point::kCount)] = {};
  bool enabled = false;

 private:
  Chance& chance_;
  Trace& trace_;
};

class SimHelpers final : public storage::Helpers {
 public:
  SimHelpers(Chance& chance, Trace& trace, const SimClock& clock)
      : chance_(chance), trace_(trace), clock_(clock) {}

  Result<std::unique_ptr<storage::Helper>> start(const char* name,
                                                 std::function<uint32_t()> work) override {
    auto helper = std::make_unique<One>(*this, name, std::move(work));
    all_.push_back(helper.get());
    return helper;
  }
  unsigned parallel() const override { return 1; }

  // One unit of one helper that has something to do (any, with `early`); false: there is none.
  bool run_one(std::string_view without, bool early) {
    std::vector<One*> ready;
    for (One* one : all_) {
      if (!without.empty() && one->name_ == without) continue;
      if (early || one->kicked_ || one->due_ns_ <= clock_.monotonic_ns()) ready.push_back(one);
    }
    if (ready.empty()) return false;
    One& one = *ready[chance_.below(ready.size())];
    trace_.event(one.name_);
    one.kicked_ = false;
    one.due_ns_ = UINT64_MAX;
    const uint64_t wait_ns = uint64_t{one.work_()} * 1'000'000;
    one.due_ns_ = clock_.monotonic_ns() + wait_ns;
    return true;
  }
  size_t count() const { return all_.size(); }

 private:
  class One final : public storage::Helper {
   public:
    One(SimHelpers& owner, const char* name, std::function<uint32_t()> work)
        : owner_(owner), name_(name), work_(std::move(work)) {}
    ~One() override { std::erase(owner_.all_, this); }
    void kick() override { kicked_ = true; }

    SimHelpers& owner_;
    const std::string_view name_;
    const std::function<uint32_t()> work_;
    bool kicked_ = true;
    uint64_t due_ns_ = 0;
  };
  Chance& chance_;
  Trace& trace_;
  const SimClock& clock_;
  std::vector<One*> all_;
};

// Operations wait until poll() picks them, in any order; the two halves of a write with its sync
// are picked apart.
class SimIo final : public storage::Io {
 public:
  SimIo(Chance& chance, Trace& trace, SimDisk& disk, RunQueue& run_queue)
      : chance_(chance), trace_(trace), disk_(disk), run_queue_(run_queue) {}
  ~SimIo() override {
    while (!queue_.empty()) step(0);
    drain_posted(run_queue_);
  }

  double step_probability = 0.7;   // that poll() goes on with another operation
  double flush_probability = 1.0;  // that a sync which was picked ends: a slow flush

  void submit(storage::IoOp& op) override {
    op.done_bytes = 0;
    queue_.push_back({&op, false});
  }
  bool poll() override {
    bool did = drain_posted(run_queue_);
    if (did) clear_wake();
    while (!queue_.empty() && chance_.happens(step_probability)) {
      step(chance_.below(queue_.size()));
      did = true;
    }
    return did;
  }
  size_t in_flight() const override { return queue_.size(); }
  size_t at_once_max() const override { return SIZE_MAX; }
  std::string_view name() const override { return "simulated"; }

  void unwritten(std::vector<SimDisk::InFlight>& writes) const {
    for (const Waiting& waiting : queue_) {
      const storage::IoOp& op = *waiting.op;
      if (waiting.written || (op.kind != storage::IoOp::Kind::kWrite &&
                              op.kind != storage::IoOp::Kind::kWriteDataSync)) {
        continue;
      }
      writes.push_back({op.fd, {op.data, op.length}, op.offset});
    }
  }

 private:
  struct Waiting {
    storage::IoOp* op;
    bool written;
  };
  void step(size_t at) {
    Waiting& waiting = queue_[at];
    storage::IoOp& op = *waiting.op;
    if (op.kind == storage::IoOp::Kind::kWriteDataSync) {
      if (!waiting.written) {
        waiting.written = true;
        op.main_result = static_cast<int32_t>(storage::transfer(disk_, op, true));
        if (op.main_result == static_cast<int32_t>(op.length)) return;
        op.result = op.main_result;
      } else {
        if (!disk_.dead() && !chance_.happens(flush_probability)) return;
        const int64_t synced = storage::data_sync(disk_, op.fd);
        op.result = synced < 0 ? synced : op.main_result;
      }
    } else {
      const bool sync = op.kind == storage::IoOp::Kind::kDataSync;
      if (sync && !disk_.dead() && !chance_.happens(flush_probability)) return;
      op.result = storage::carry_out(disk_, op);
    }
    trace_.event("io", static_cast<uint64_t>(op.kind), op.offset, op.length,
                 static_cast<uint64_t>(op.result));
    queue_.erase(queue_.begin() + static_cast<ptrdiff_t>(at));
    run_queue_.post(op);
  }

  Chance& chance_;
  Trace& trace_;
  SimDisk& disk_;
  RunQueue& run_queue_;
  std::vector<Waiting> queue_;
};

}  // namespace basalt::sim
