// CPU time and memory of processes, from /proc. Linux.
#pragma once

#include <cstdint>
#include <vector>

namespace basalt::bench {

struct ProcessUsage {
  double cpu_seconds = 0;  // user and system, all threads
  uint64_t rss_bytes = 0;
};
// The sum over `pids`; processes that are gone, or not ours to look at, count nothing.
ProcessUsage process_usage(const std::vector<int>& pids);

// This process (the load generator itself), precise to the microsecond.
ProcessUsage own_usage();

// Every process that holds a socket listening on this TCP port of this machine (nginx: the master
// and its workers). Only processes of the same user can be seen, unless we are root.
std::vector<int> processes_listening_on(uint16_t port);

}  // namespace basalt::bench
