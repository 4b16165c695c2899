#include "bench/process_usage.h"

#include <dirent.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <memory>
#include <set>
#include <sstream>
#include <string>

namespace basalt::bench {
namespace {

struct CloseDir {
  void operator()(DIR* dir) const { closedir(dir); }
};
using Dir = std::unique_ptr<DIR, CloseDir>;

// Inodes of sockets in state LISTEN (0A) on `port`.
void listening_inodes(const char* table, uint16_t port, std::set<std::string>& out) {
  std::ifstream file(table);
  std::string line;
  std::getline(file, line);
  while (std::getline(file, line)) {
    std::istringstream fields(line);
    std::string slot, local, remote, state, queues, timer, retries, uid, timeout, inode;
    fields >> slot >> local >> remote >> state >> queues >> timer >> retries >> uid >> timeout >>
        inode;
    if (state == "0A" && local.ends_with(fmt::format(":{:04X}", port)))
      out.insert(fmt::format("socket:[{}]", inode));
  }
}

}  // namespace

ProcessUsage process_usage(const std::vector<int>& pids) {
  ProcessUsage sum;
  const auto ticks_per_second = static_cast<double>(sysconf(_SC_CLK_TCK));
  const auto page_bytes = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  for (const int pid : pids) {
    std::ifstream file(fmt::format("/proc/{}/stat", pid));
    std::string text((std::istreambuf_iterator<char>(file)), {});
    // The second field is the command in parentheses and may hold anything; count from behind it
    // (proc(5)).
    const size_t behind = text.rfind(')');
    if (behind == std::string::npos) continue;
    std::istringstream fields(text.substr(behind + 1));
    std::string field;
    double user = 0, system = 0;
    uint64_t pages = 0;
    for (int number = 3; number <= 24 && fields >> field; ++number) {
      if (number == 14) user = std::stod(field);
      if (number == 15) system = std::stod(field);
      if (number == 24) pages = std::stoull(field);
    }
    sum.cpu_seconds += (user + system) / ticks_per_second;
    sum.rss_bytes += pages * page_bytes;
  }
  return sum;
}

ProcessUsage own_usage() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return {.cpu_seconds = seconds(usage.ru_utime) + seconds(usage.ru_stime),
          .rss_bytes = process_usage({getpid()}).rss_bytes};
}

std::vector<int> processes_listening_on(uint16_t port) {
  std::set<std::string> wanted;
  listening_inodes("/proc/net/tcp", port, wanted);
  listening_inodes("/proc/net/tcp6", port, wanted);
  std::vector<int> pids;
  if (wanted.empty()) return pids;
  const Dir proc(opendir("/proc"));
  if (!proc) return pids;
  while (const dirent* entry = readdir(proc.get())) {
    int pid = 0;
    const std::string name = entry->d_name;
    if (std::from_chars(name.data(), name.data() + name.size(), pid).ptr !=
        name.data() + name.size())
      continue;
    const std::string folder = "/proc/" + name + "/fd";
    const Dir descriptors(opendir(folder.c_str()));
    if (!descriptors) continue;
    while (const dirent* fd = readdir(descriptors.get())) {
      char link[64];
      const ssize_t size = readlink((folder + "/" + fd->d_name).c_str(), link, sizeof link);
      if (size <= 0 || !wanted.contains(std::string(link, static_cast<size_t>(size)))) continue;
      pids.push_back(pid);
      break;
    }
  }
  std::ranges::sort(pids);
  return pids;
}

}  // namespace basalt::bench
