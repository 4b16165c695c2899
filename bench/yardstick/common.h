// What the yardsticks share: options, clocks, medians. Each prints one line of JSON.
#pragma once

#include <sys/resource.h>

#include <algorithm>
#include <cstdint>
#include <ctime>
#include <string>
#include <vector>

namespace basalt::bench::yardstick {

struct Options {
  std::string directory;  // scratch space on the disk that is measured, or the server's data
  std::string prefix;
  double seconds = 1;
  uint64_t records = 1000;
  uint32_t in_flight = 64;
  uint32_t size = 4096;
  uint32_t port = 0;
  // upload-floor: which parts of the work are done, in what steps.
  bool md5 = false, sha256 = false, write = false;
  uint32_t step = 256 * 1024;  // of hashing; a multiple of 64
  uint32_t low_water = 0;      // SO_RCVLOWAT of a body; 0: not set
};

inline uint64_t clock_ns(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}
inline uint64_t wall_ns() { return clock_ns(CLOCK_MONOTONIC); }
inline uint64_t process_cpu_ns() { return clock_ns(CLOCK_PROCESS_CPUTIME_ID); }
inline uint64_t thread_cpu_ns() { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }

inline double quantile_us(std::vector<uint64_t>& ns, double q) {
  if (ns.empty()) return 0;
  const auto at = static_cast<size_t>(q * static_cast<double>(ns.size() - 1));
  std::nth_element(ns.begin(), ns.begin() + static_cast<ptrdiff_t>(at), ns.end());
  return static_cast<double>(ns[at]) / 1e3;
}

// Each: 0, or a message on stderr and 1.
int write_sync(const Options& options);
int put_floor(const Options& options);  // serves until SIGTERM
int engine_put(const Options& options);
int upload_floor(const Options& options);  // until SIGTERM
int lmdb_scan(const Options& options);
int lmdb_seek(const Options& options);

}  // namespace basalt::bench::yardstick
