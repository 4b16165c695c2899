// basalt-sim: the storage engine on a simulated machine. One seed is one run, and runs again
// exactly.
//
//   basalt-sim --seeds FROM:COUNT [--twice] [--keep-going] [--tally] [--verbose]
//
// --twice runs every seed two times and compares their traces; --tally prints how often what
// happened. The exit status is 1 when a seed failed; its number and the end of its trace are
// printed.
#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "base/log.h"
#include "storage/seeded_bugs.h"
#include "tests/sim/world.h"

namespace {

using basalt::sim::Outcome;
using basalt::sim::World;

uint64_t g_seed = 0;  // for the signal handler only
World* g_world = nullptr;
std::map<std::string, uint64_t> g_tally;

void on_abort(int) {
  std::printf("seed %llu: the program ended itself (a CHECK, or a signal)\n",
              static_cast<unsigned long long>(g_seed));
  if (g_world != nullptr) g_world->trace().print_last(60);
  std::fflush(stdout);
  std::_Exit(1);
}

// Where the indexes go: memory if there is enough of it, because they are real files.
std::string work_directory() {
  std::string base = "/dev/shm";
  struct statvfs info{};
  if (::statvfs(base.c_str(), &info) != 0 || info.f_bavail * info.f_bsize < (32u << 20)) {
    base = std::filesystem::temp_directory_path().string();
  }
  return base + "/basalt-sim." + std::to_string(::getpid());
}

Outcome run_seed(uint64_t seed, const std::string& directory, bool verbose, bool print) {
  World world(seed, directory, verbose);
  g_seed = seed;
  g_world = &world;
  Outcome outcome = world.run();
  if (!outcome.error.empty() && print) {
    world.trace().print_last(60);
    std::printf("seed %llu FAILED: %s\n", static_cast<unsigned long long>(seed),
                outcome.error.c_str());
    std::fflush(stdout);
  }
  if (print) {
    for (const auto& [what, number] : world.trace().tally()) g_tally[std::string(what)] += number;
  }
  g_world = nullptr;
  return outcome;
}

}  // namespace

int main(int count_of_words, char** words) {
  uint64_t from = 1, count = 100;
  bool tally = false, twice = false, keep_going = false, verbose = false;
  for (int i = 1; i < count_of_words; ++i) {
    const std::string_view word = words[i];
    if (word == "--seeds" && i + 1 < count_of_words) {
      const std::string_view range = words[++i];
      const size_t colon = range.find(':');
      const char* end = range.data() + range.size();
      const char* middle = colon == std::string_view::npos ? end : range.data() + colon;
      count = 1;
      bool good = std::from_chars(range.data(), middle, from).ptr == middle;
      if (middle != end) good = good && std::from_chars(middle + 1, end, count).ptr == end;
      if (!good) {
        std::fprintf(stderr, "--seeds FROM:COUNT\n");
        return 2;
      }
    } else if (word == "--tally") {
      tally = true;
    } else if (word == "--twice") {
      twice = true;
    } else if (word == "--keep-going") {
      keep_going = true;
    } else if (word == "--verbose") {
      verbose = true;
    } else {
      std::fprintf(
          stderr, "basalt-sim --seeds FROM:COUNT [--twice] [--keep-going] [--tally] [--verbose]\n");
      return 2;
    }
  }
  if (!verbose) {
    // The engine says a lot when disks fail.
    const int null = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (null >= 0) ::dup2(null, STDERR_FILENO);
  }
  for (const int number : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE}) std::signal(number, on_abort);
  const std::string directory = work_directory();
  uint64_t failed = 0, events = 0, hash = 0, first_failed = 0;
  for (uint64_t seed = from; seed < from + count; ++seed) {
    const Outcome outcome = run_seed(seed, directory, verbose, true);
    bool good = outcome.error.empty();
    if (twice && good) {
      const Outcome again = run_seed(seed, directory, false, false);
      if (again.trace_hash != outcome.trace_hash || again.events != outcome.events) {
        good = false;
        std::printf(
            "seed %llu FAILED: it does not run the same way twice (%llu events, then %llu)\n",
            static_cast<unsigned long long>(seed), static_cast<unsigned long long>(outcome.events),
            static_cast<unsigned long long>(again.events));
      }
    }
    events += outcome.events;
    hash = hash * 31 + outcome.trace_hash;
    if (good) continue;
    if (failed++ == 0) first_failed = seed;
    if (!keep_going) break;
  }
  for (const auto& [what, number] : g_tally) {
    if (tally) std::printf("%12llu %s\n", static_cast<unsigned long long>(number), what.c_str());
  }
  std::printf("%llu seeds from %llu, %llu failed", static_cast<unsigned long long>(count),
              static_cast<unsigned long long>(from), static_cast<unsigned long long>(failed));
  if (failed > 0) std::printf(" (the first: %llu)", static_cast<unsigned long long>(first_failed));
  std::printf("; %llu events, trace %016llx%s%s\n", static_cast<unsigned long long>(events),
              static_cast<unsigned long long>(hash),
              basalt::storage::seeded_bug_name() == "none" ? "" : ", seeded bug ",
              basalt::storage::seeded_bug_name() == "none"
                  ? ""
                  : std::string(basalt::storage::seeded_bug_name()).c_str());
  return failed == 0 ? 0 : 1;
}
