#include "bench/runner.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <memory>
#include <thread>

#include "bench/bodies.h"
#include "bench/client.h"
#include "bench/worker.h"

namespace basalt::bench {
namespace {

std::atomic<bool> interrupt_asked{false};

constexpr uint64_t kDrawNs = 500'000'000;

// The line that is drawn over and over.
class Progress {
 public:
  explicit Progress(bool quiet) : on_(!quiet && isatty(STDERR_FILENO) == 1) {}
  ~Progress() { clear(); }
  bool on() const { return on_; }
  void draw(const std::string& text) {
    if (!on_) return;
    fmt::print(stderr, "\r\x1b[K{}", text);
    std::fflush(stderr);
    drawn_ = true;
  }
  void clear() {
    if (!drawn_) return;
    fmt::print(stderr, "\r\x1b[K");
    std::fflush(stderr);
    drawn_ = false;
  }

 private:
  const bool on_;
  bool drawn_ = false;
};

// The workers of one phase.
struct Fleet {
  SharedProgress progress;
  std::vector<std::unique_ptr<Worker>> workers;

  Status start(const RunOptions& options, const Bodies& bodies, const Plan& plan, SSL_CTX* tls) {
    for (uint32_t i = 0; i < options.threads; ++i) {
      workers.push_back(std::make_unique<Worker>(i, options, bodies, plan, progress, tls));
      BASALT_CHECK_OK(workers.back()->start());
    }
    while (!std::ranges::all_of(workers, [](auto& worker) { return worker->ready(); })) {
      if (interrupted()) return fail(Code::kCancelled, "interrupted");
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    if (const std::string failure = first_failure(); !failure.empty()) {
      return fail(Code::kIo, fmt::format("{}: {}", options.endpoint.url, failure));
    }
    return {};
  }
  void begin(const Window& window) {
    for (auto& worker : workers) worker->begin(window);
  }
  void stop() {
    for (auto& worker : workers) worker->stop();
  }
  bool finished() const {
    return std::ranges::all_of(workers, [](auto& worker) { return worker->finished(); });
  }
  std::string first_failure() const {
    for (const auto& worker : workers) {
      if (std::string failure = worker->first_failure(); !failure.empty()) return failure;
    }
    return {};
  }
  uint64_t sum(Op op, std::atomic<uint64_t> OpStats::* member) const {
    uint64_t total = 0;
    for (const auto& worker : workers) {
      total +=
          (worker->stats().ops[static_cast<size_t>(op)].*member).load(std::memory_order_relaxed);
    }
    return total;
  }
  uint64_t sum_measured(std::atomic<uint64_t> OpStats::* member) const {
    uint64_t total = 0;
    for (size_t op = 0; op < kMeasuredOpCount; ++op) total += sum(static_cast<Op>(op), member);
    return total;
  }
  Histogram latencies() const {
    Histogram all;
    for (const auto& worker : workers) {
      for (size_t op = 0; op < kMeasuredOpCount; ++op) {
        // Each is 37 KB: skip those that are not in use.
        const OpStats& stats = worker->stats().ops[op];
        if (stats.in_window.load(std::memory_order_relaxed) != 0) stats.latency.add_to(all);
      }
    }
    return all;
  }
};

// The phases around the measurement: `op` is what is counted.
Status run_phase(const RunOptions& options, const Bodies& bodies, SSL_CTX* tls, const Plan& plan,
                 Op op, std::string_view what, bool failures_are_fatal) {
  RunOptions adapted = options;
  if (plan.kind == Plan::Kind::kEnsureBucket) adapted.connections = adapted.threads = 1;
  Fleet fleet;
  BASALT_CHECK_OK(fleet.start(adapted, bodies, plan, tls));
  uint64_t total = plan.objects;
  for (const auto& [first, end] : plan.also) total += end - first;
  Progress progress(options.quiet);
  fleet.begin({.begin_ns = monotonic_ns(), .measure_begin_ns = 0});
  uint64_t drawn_ns = 0;
  bool stopped = false;
  while (!fleet.finished()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    const uint64_t failed = fleet.sum(op, &OpStats::failed);
    if (!stopped && (interrupted() || (failures_are_fatal && failed != 0))) {
      fleet.stop();
      stopped = true;
    }
    if (const uint64_t now = monotonic_ns(); progress.on() && now - drawn_ns > kDrawNs) {
      drawn_ns = now;
      progress.draw(fmt::format("{}: {} of {}", what, fleet.sum(op, &OpStats::in_window), total));
    }
  }
  if (interrupted() && plan.kind != Plan::Kind::kDeleteObjects)
    return fail(Code::kCancelled, "interrupted");
  if (const uint64_t failed = fleet.sum(op, &OpStats::failed); failed != 0) {
    return fail(Code::kIo, fmt::format("{}: {} of {} failed, first: {}", what, failed, total,
                                       fleet.first_failure()));
  }
  return {};
}

bool reads_objects(const RunOptions& options) {
  if (!options.mixed) {
    return options.op == Op::kGet || options.op == Op::kHead || options.op == Op::kDelete ||
           options.op == Op::kList;
  }
  return std::ranges::any_of(options.mix, [](const MixShare& part) {
    return part.op == Op::kGet || part.op == Op::kHead || part.op == Op::kList;
  });
}

std::string progress_line(const RunOptions& options, double seconds, const TimelinePoint& last,
                          bool warming) {
  const double length = std::max(last.length_s, 1e-9);
  std::string text = warming ? std::string("warm-up") : fmt::format("{:5.1f} s", seconds);
  if (!warming && options.count == 0)
    text += fmt::format(" of {:g}", static_cast<double>(options.duration_ms) / 1000);
  text +=
      fmt::format("  {:9.0f} op/s  {:8.1f} MiB/s", static_cast<double>(last.operations) / length,
                  static_cast<double>(last.bytes) / length / 1048576);
  text += fmt::format("  p50 {:.0f} us  p99 {:.0f} us  failed {}",
                      static_cast<double>(last.p50_ns) / 1e3,
                      static_cast<double>(last.p99_ns) / 1e3, last.failed);
  return text;
}

void collect(const Fleet& fleet, RunResult& result) {
  for (const auto& worker : fleet.workers) {
    const WorkerStats& stats = worker->stats();
    for (size_t i = 0; i < kOpCount; ++i) {
      OpResult& out = result.ops[i];
      stats.ops[i].latency.add_to(out.latency);
      stats.ops[i].service.add_to(out.service);
      out.in_window += stats.ops[i].in_window.load(std::memory_order_relaxed);
      out.failed += stats.ops[i].failed.load(std::memory_order_relaxed);
      out.unfinished += stats.ops[i].unfinished.load(std::memory_order_relaxed);
      out.bytes += stats.ops[i].bytes.load(std::memory_order_relaxed);
    }
    for (size_t i = 0; i < stats.by_status.size(); ++i) {
      if (const uint64_t count = stats.by_status[i].load(std::memory_order_relaxed)) {
        result.failures[fmt::format("status {}", i)] += count;
      }
    }
    for (size_t i = 0; i < kFailureCount; ++i) {
      if (const uint64_t count = stats.by_failure[i].load(std::memory_order_relaxed)) {
        result.failures[std::string(failure_name(static_cast<Failure>(i)))] += count;
      }
    }
  }
  result.first_failure = fleet.first_failure();
}

// Samples the fleet once a second between the window's begin and its end.
class Sampler {
 public:
  Sampler(const Fleet& fleet, const RunOptions& options, RunResult& result)
      : fleet_(fleet), options_(options), result_(result) {}

  void begin(uint64_t now_ns) {
    begin_ns_ = last_ns_ = now_ns;
    client_begin_ = own_usage().cpu_seconds;
    server_begin_ = server_last_ = process_usage(options_.pids).cpu_seconds;
    for (const auto& worker : fleet_.workers) threads_begin_.push_back(worker->cpu_ns());
    operations_ = bytes_ = failed_ = 0;
    histogram_ = fleet_.latencies();
  }
  bool begun() const { return begin_ns_ != 0; }
  uint64_t last_ns() const { return last_ns_; }

  void sample(uint64_t now_ns) {
    TimelinePoint point;
    point.at_s = static_cast<double>(now_ns - begin_ns_) * 1e-9;
    point.length_s = static_cast<double>(now_ns - last_ns_) * 1e-9;
    const auto difference = [](uint64_t& last, uint64_t now) {
      return now - std::exchange(last, now);
    };
    point.operations = difference(operations_, fleet_.sum_measured(&OpStats::in_window));
    point.bytes = difference(bytes_, fleet_.sum_measured(&OpStats::bytes));
    point.failed = difference(failed_, fleet_.sum_measured(&OpStats::failed));
    Histogram histogram = fleet_.latencies();
    const Histogram recent = histogram.since(histogram_);
    histogram_ = std::move(histogram);
    point.p50_ns = recent.quantile(0.5);
    point.p99_ns = recent.quantile(0.99);
    point.max_ns = recent.max();
    if (!options_.pids.empty()) {
      const ProcessUsage usage = process_usage(options_.pids);
      point.server_cores = (usage.cpu_seconds - server_last_) / std::max(point.length_s, 1e-9);
      point.server_rss_bytes = usage.rss_bytes;
      server_last_ = usage.cpu_seconds;
      result_.server_rss_max = std::max(result_.server_rss_max, usage.rss_bytes);
      result_.server_rss_end = usage.rss_bytes;
    }
    last_ns_ = now_ns;
    result_.timeline.push_back(point);
  }

  // At the end of the window: the drain is nobody's cost.
  void end(uint64_t now_ns) {
    const double seconds = std::max(static_cast<double>(now_ns - begin_ns_) * 1e-9, 1e-9);
    result_.client_cpu_seconds = own_usage().cpu_seconds - client_begin_;
    result_.server_known = !options_.pids.empty();
    result_.server_cpu_seconds = process_usage(options_.pids).cpu_seconds - server_begin_;
    for (size_t i = 0; i < threads_begin_.size(); ++i) {
      const uint64_t used = fleet_.workers[i]->cpu_ns() - threads_begin_[i];
      result_.busiest_thread =
          std::max(result_.busiest_thread, static_cast<double>(used) * 1e-9 / seconds);
    }
  }

 private:
  const Fleet& fleet_;
  const RunOptions& options_;
  RunResult& result_;
  uint64_t begin_ns_ = 0, last_ns_ = 0;
  double client_begin_ = 0, server_begin_ = 0, server_last_ = 0;
  std::vector<uint64_t> threads_begin_;
  uint64_t operations_ = 0, bytes_ = 0, failed_ = 0;
  Histogram histogram_;
};

}  // namespace

void handle_signals() {
  for (const int number : {SIGINT, SIGTERM}) {
    // A second one ends the process.
    struct sigaction action{};
    action.sa_handler = [](int) { interrupt_asked.store(true, std::memory_order_relaxed); };
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    sigaction(number, &action, nullptr);
  }
}

bool interrupted() { return interrupt_asked.load(std::memory_order_relaxed); }

uint64_t RunResult::completed() const {
  uint64_t sum = 0;
  for (size_t i = 0; i < kMeasuredOpCount; ++i) sum += ops[i].in_window;
  return sum;
}
uint64_t RunResult::failed() const {
  uint64_t sum = 0;
  for (const OpResult& op : ops) sum += op.failed;
  return sum;
}
uint64_t RunResult::unfinished() const {
  uint64_t sum = 0;
  for (const OpResult& op : ops) sum += op.unfinished;
  return sum;
}
uint64_t RunResult::bytes() const {
  uint64_t sum = 0;
  for (size_t i = 0; i < kMeasuredOpCount; ++i) sum += ops[i].bytes;
  return sum;
}
Histogram RunResult::all() const {
  Histogram all;
  for (size_t i = 0; i < kMeasuredOpCount; ++i) all.merge(ops[i].latency);
  return all;
}

Result<RunResult> run(const RunOptions& options) {
  BASALT_TRY(bodies, Bodies::create());
  BASALT_TRY(tls, make_tls_context(options));
  std::vector<uint64_t> sizes = options.sizes.all();
  if (!options.mixed && options.op == Op::kMultipart) {
    std::vector<uint64_t> parts;
    for (const uint64_t size : sizes) {
      if (size >= options.part_bytes) parts.push_back(options.part_bytes);
      if (size % options.part_bytes != 0 || size == 0) parts.push_back(size % options.part_bytes);
    }
    sizes = parts;
  }
  bodies->prepare(sizes, options.signing);

  if (options.prepare != RunOptions::Prepare::kNever) {
    const Plan bucket{.kind = Plan::Kind::kEnsureBucket, .objects = 1};
    BASALT_CHECK_OK(
        run_phase(options, *bodies, tls.get(), bucket, Op::kEnsureBucket, "bucket", true));
    if (reads_objects(options)) {
      const Plan objects{.kind = Plan::Kind::kEnsureObjects,
                         .objects = options.keys,
                         .overwrite = options.prepare == RunOptions::Prepare::kAlways};
      BASALT_CHECK_OK(run_phase(options, *bodies, tls.get(), objects, Op::kEnsureObject,
                                "preparing objects", true));
    }
  }

  RunResult result;
  result.options = options;
  result.started_wall_s = time(nullptr);
  std::vector<std::pair<uint64_t, uint64_t>> written;
  {
    const Plan plan;
    Fleet fleet;
    BASALT_CHECK_OK(fleet.start(options, *bodies, plan, tls.get()));
    Progress progress(options.quiet);
    Window window;
    window.begin_ns = monotonic_ns() + 2'000'000;
    window.measure_begin_ns = window.begin_ns + options.warmup_ms * 1'000'000;
    if (options.count == 0)
      window.measure_end_ns = window.measure_begin_ns + options.duration_ms * 1'000'000;
    Sampler sampler(fleet, options, result);
    fleet.begin(window);
    // Once a second; short runs are sampled more often, so that there is something to draw.
    const uint64_t sample_ns =
        options.count != 0
            ? 250'000'000
            : std::clamp<uint64_t>(options.duration_ms * 50'000, 100'000'000, 1'000'000'000);
    bool ended = false, stopped = false;
    uint64_t drawn_ns = 0;
    while (!fleet.finished()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      const uint64_t now = monotonic_ns();
      if (interrupted() && !stopped) {
        stopped = result.interrupted = true;
        window.measure_end_ns = std::min(window.measure_end_ns, now);
        fleet.stop();
      }
      if (!sampler.begun() && now >= window.measure_begin_ns)
        sampler.begin(window.measure_begin_ns);
      if (sampler.begun() && !ended && now >= window.measure_end_ns) {
        sampler.sample(window.measure_end_ns);
        sampler.end(window.measure_end_ns);
        ended = true;
      }
      if (sampler.begun() && !ended && now - sampler.last_ns() >= sample_ns) sampler.sample(now);
      if (progress.on() && now - drawn_ns >= kDrawNs) {
        drawn_ns = now;
        const TimelinePoint last =
            result.timeline.empty() ? TimelinePoint{} : result.timeline.back();
        const double seconds =
            sampler.begun() ? static_cast<double>(now - window.measure_begin_ns) * 1e-9 : 0;
        progress.draw(ended ? "waiting for the last answers"
                            : progress_line(options, seconds, last, !sampler.begun()));
      }
    }
    uint64_t end_ns = window.measure_end_ns;
    if (!ended && monotonic_ns() >= window.measure_end_ns) {
      // The workers were done between the end of the window and our next look: it is whole all the
      // same.
      if (!sampler.begun()) sampler.begin(window.measure_begin_ns);
      sampler.sample(end_ns);
      sampler.end(end_ns);
      ended = true;
    }
    if (!ended) {
      // A count, or the keys, ran out: the measurement ended with the last answer.
      uint64_t last_done = 0;
      for (const auto& worker : fleet.workers) {
        last_done =
            std::max(last_done, worker->stats().last_done_ns.load(std::memory_order_relaxed));
      }
      if (!sampler.begun()) sampler.begin(window.measure_begin_ns);
      end_ns =
          std::clamp(last_done, sampler.last_ns() + 1, std::max(end_ns, sampler.last_ns() + 1));
      sampler.sample(end_ns);
      sampler.end(end_ns);
    }
    result.seconds = static_cast<double>(end_ns - std::min(end_ns, window.measure_begin_ns)) * 1e-9;
    collect(fleet, result);
    for (uint32_t i = 0; i < options.threads; ++i) {
      const uint64_t end = fleet.workers[i]->stats().written_end.load(std::memory_order_relaxed);
      if (end != 0) written.emplace_back(first_written(i), end);
    }
  }

  if (options.cleanup) {
    const bool wrote_keys = reads_objects(options) || !options.mixed;
    const Plan plan{.kind = Plan::Kind::kDeleteObjects,
                    .objects = wrote_keys ? options.keys : 0,
                    .also = written};
    BASALT_CHECK_OK(
        run_phase(options, *bodies, tls.get(), plan, Op::kDelete, "deleting objects", false));
  }
  return result;
}

}  // namespace basalt::bench
