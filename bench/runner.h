// Runner: one measurement from the bucket to the result: prepare, warm up, measure, drain, clean
// up.
//
// The phases use the same workers' code with another Plan. While measuring, the calling thread
// takes a snapshot for the timeline once a second (more often in short runs) and reads the server's
// CPU and memory; twice a second it draws the progress on a terminal.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "bench/histogram.h"
#include "bench/options.h"
#include "bench/process_usage.h"

namespace basalt::bench {

struct OpResult {
  Histogram latency;
  Histogram service;
  uint64_t in_window = 0, failed = 0, unfinished = 0, bytes = 0;
};

// One sample of the timeline.
struct TimelinePoint {
  double at_s = 0;  // its end, since the measurement began
  double length_s = 0;
  uint64_t operations = 0, bytes = 0, failed = 0;
  uint64_t p50_ns = 0, p99_ns = 0, max_ns = 0;  // of what completed in it
  double server_cores = 0;
  uint64_t server_rss_bytes = 0;
};

struct RunResult {
  RunOptions options;
  int64_t started_wall_s = 0;
  double seconds = 0;  // of the measurement, without the drain
  std::array<OpResult, kOpCount> ops;
  std::map<std::string, uint64_t> failures;  // "status 503", "timeout", ...
  std::string first_failure;
  std::vector<TimelinePoint> timeline;
  double client_cpu_seconds = 0;
  double busiest_thread = 0;  // share of one core
  bool server_known = false;
  double server_cpu_seconds = 0;
  uint64_t server_rss_max = 0, server_rss_end = 0;
  bool interrupted = false;

  uint64_t completed() const;  // of the measured operations, inside the window
  uint64_t failed() const;
  uint64_t unfinished() const;
  uint64_t bytes() const;
  Histogram all() const;  // latencies of all measured operations
};

// Fails if the endpoint cannot be reached or prepared; operations that fail while measuring are
// part of the result.
Result<RunResult> run(const RunOptions& options);

// SIGINT and SIGTERM end the phase in progress; the results so far are reported. Once, before
// run().
void handle_signals();
bool interrupted();

}  // namespace basalt::bench
