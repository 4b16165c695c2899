// Worker: one thread with one loop and its share of the connections; draws operations, sends them,
// records what came of them.
//
// Closed loop: each connection sends its next operation when the last is answered. Open loop:
// operations are due at fixed times (or at a Poisson process's) whatever the server does; one that
// finds all connections busy waits its turn, and its latency counts from when it was due. So a
// server that stalls is charged for everybody it kept waiting (no coordinated omission).
//
// What is recorded: in a closed loop what completes inside the window; in an open loop what was due
// inside it, also if it completes after it; what is still not done drain_ms later is counted as
// unfinished, with the latency it had by then. With a count: what was begun with one of the
// tickets.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "bench/client.h"
#include "bench/histogram.h"
#include "bench/options.h"
#include "bench/signer.h"
#include "bench/workload.h"

namespace basalt::bench {

uint64_t monotonic_ns();

// What operations a phase consists of.
struct Plan {
  enum class Kind : uint8_t {
    kMeasure,
    kEnsureBucket,
    kEnsureObjects,
    kDeleteObjects
  } kind = Kind::kMeasure;
  uint64_t objects = 0;  // all but kMeasure: numbers 0 to objects - 1, each once
  std::vector<std::pair<uint64_t, uint64_t>> also;  // kDeleteObjects: further [first, end) ranges
  bool overwrite = false;                           // kEnsureObjects: put all, look at none
};

// Set before begin(), in monotonic nanoseconds.
struct Window {
  uint64_t begin_ns = 0;          // when operations start to be sent
  uint64_t measure_begin_ns = 0;  // end of the warm-up
  uint64_t measure_end_ns = UINT64_MAX;
};

// Written by the worker, read by anybody.
struct OpStats {
  SharedHistogram latency;             // open loop: since due; closed: since sent
  SharedHistogram service;             // since sent
  std::atomic<uint64_t> in_window{0};  // completed inside the window: for throughput
  std::atomic<uint64_t> failed{0};
  std::atomic<uint64_t> unfinished{0};
  std::atomic<uint64_t> bytes{
      0};  // of objects or parts moved by what completed in the window; LIST: of the answers
};

struct WorkerStats {
  std::array<OpStats, kOpCount> ops;
  // Failures inside the window, by what the server answered and by what else happened.
  std::array<std::atomic<uint64_t>, 600> by_status{};
  std::array<std::atomic<uint64_t>, kFailureCount> by_failure{};
  std::atomic<uint64_t> last_done_ns{0};
  std::atomic<uint64_t> written_end{0};  // mixed: one past the last object number written
};

class Worker {
 public:
  // `number` of `options.threads`. Everything referred to outlives the worker.
  Worker(uint32_t number, const RunOptions& options, const Bodies& bodies, const Plan& plan,
         SharedProgress& progress, SSL_CTX* tls);
  ~Worker();  // joins

  // Starts the thread, which opens all connections and waits.
  Status start();
  // How many of its connections are open or have failed, and whether all are done with it.
  bool ready() const { return ready_.load(std::memory_order_acquire); }
  void begin(const Window& window);  // after ready()
  void stop();                       // as if the window ended now
  bool finished() const { return finished_.load(std::memory_order_acquire); }
  const WorkerStats& stats() const { return *stats_; }
  std::string first_failure() const;  // in words, or ""
  uint64_t cpu_ns();                  // of the thread so far; any thread may ask

 private:
  enum class Step : uint8_t { kOnly, kCreate, kPart, kComplete, kCheck, kWrite };
  struct Slot final : Client::Handler {
    Slot(Worker& owner, Client::Shared& shared);
    void connected(Client&) override { worker.connected(); }
    void answered(Client&) override { worker.answered(*this); }
    void failed(Client&, Failure failure, const std::string& detail) override {
      worker.failed(*this, failure, detail);
    }
    Worker& worker;
    Client client;
    reactor::Timer pause;  // before another attempt after a failed connect
    bool idle = true;
    Op op = Op::kGet;
    Step step = Step::kOnly;
    Object object;
    uint64_t due_ns = 0, sent_ns = 0, step_sent_ns = 0;
    bool counted = false;   // with --count: has a ticket
    std::string upload_id;  // percent-encoded
    std::vector<std::string> etags;
    std::string text;  // an XML body
  };
  static constexpr uint64_t kPauseMs = 50;
  static constexpr size_t kDeletableMax = 1 << 20;

  void run();
  void connected();
  void answered(Slot& slot);
  void failed(Slot& slot, Failure failure, const std::string& detail);

  void begin_in_loop(const Window& window);
  void next(Slot& slot);
  bool draw(Slot& slot);  // false: nothing is left to do
  uint64_t draw_key();
  void send(Slot& slot);
  void send_upload_part(Slot& slot);
  void send_complete(Slot& slot);
  bool step_done(Slot& slot);  // true: the operation is complete
  void record(Slot& slot, uint64_t now_ns);
  void record_step(Slot& slot, Op op, uint64_t now_ns, uint64_t bytes);
  void record_failure(Slot& slot, std::atomic<uint64_t>& kind, const std::string& what);
  bool counts(const Slot& slot, uint64_t now_ns) const;  // for the latencies and failures
  std::string check(const Slot& slot) const;             // "" or what is wrong with the answer
  void become_idle(Slot& slot);
  void end_of_window();
  void give_up();
  void finish_if_idle();
  void set_due();
  void arm_due_timer();
  void on_due();
  bool open_loop() const { return options_.rate > 0 && plan_.kind == Plan::Kind::kMeasure; }
  uint32_t part_count(uint64_t size) const;
  Body part_body(const Slot& slot, uint32_t part) const;
  bool in_window(uint64_t ns) const {
    return ns >= window_.measure_begin_ns && ns < window_.measure_end_ns;
  }

  const uint32_t number_;
  const RunOptions& options_;
  const Bodies& bodies_;
  const Plan& plan_;
  SharedProgress& progress_;
  SSL_CTX* const tls_;
  const uint32_t connections_;
  std::unique_ptr<WorkerStats> stats_;
  std::thread thread_;
  std::unique_ptr<reactor::Loop> loop_;
  std::unique_ptr<Client::Shared> shared_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::vector<Slot*> idle_;
  Objects objects_;
  Signer signer_;
  Random random_;
  std::unique_ptr<Zipf> zipf_;
  uint32_t mix_weight_ = 0;
  std::string path_prefix_;  // "/bucket/prefix", encoded
  std::string path_, query_, key_;

  Window window_;
  bool begun_ = false;
  bool draining_ = false;
  uint32_t outstanding_ = 0;  // connections that are not ready yet
  uint32_t busy_ = 0;
  std::unique_ptr<reactor::Timer> end_timer_;
  uint64_t next_written_;
  std::deque<uint64_t> deletable_;

  // Open loop.
  double interval_ns_ = 0;
  double due_exact_ns_ = 0;
  uint64_t due_ns_ = UINT64_MAX;
  int timer_fd_ = -1;
  event due_event_;

  std::atomic<bool> ready_{false};
  std::atomic<bool> finished_{false};
  mutable std::mutex failure_mutex_;
  std::string first_failure_;
};

}  // namespace basalt::bench
