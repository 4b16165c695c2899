// What the lane kernels cost: bytes a second over all filled lanes, the plan for a number of
// streams, and the station itself.
#include "auth/hash_lanes.h"

#include <benchmark/benchmark.h>

#include <array>
#include <deque>
#include <string>
#include <vector>

#include "auth/hash_station.h"

namespace basalt::auth {
namespace {

constexpr size_t kBlocks = 256;  // 16 KiB a lane

void lanes(benchmark::State& state, LaneKernel kernel) {
  const std::vector<uint8_t> bytes(kHashLanesMax * kBlocks * kHashBlockBytes, 'x');
  std::array<std::array<uint32_t, 8>, kHashLanesMax> states{};
  std::array<HashLane, kHashLanesMax> all;
  for (size_t i = 0; i < all.size(); ++i) {
    all[i] = {states[i].data(), bytes.data() + i * kBlocks * kHashBlockBytes};
  }
  for (auto _ : state) kernel.compress(all.data(), kBlocks);
  state.SetBytesProcessed(
      static_cast<int64_t>(state.iterations() * kernel.lanes * kBlocks * kHashBlockBytes));
}

// So many uploads of 64 KiB each through the station.
void station(benchmark::State& state, LaneHash hash) {
  const auto streams_count = static_cast<size_t>(state.range(0));
  constexpr size_t kSliceBytes = 64 * 1024;
  const std::vector<uint8_t> bytes(kSliceBytes, 'x');
  RunQueue run_queue;
  HashStation station(run_queue, HashPlan::measure());
  for (auto _ : state) {
    std::deque<HashStream> streams;
    for (size_t i = 0; i < streams_count; ++i) {
      streams.emplace_back(&station, hash).add(bytes);
      streams.back().finish();
    }
    while (!station.prepare_sleep()) {
    }
    benchmark::DoNotOptimize(streams.front().digest());
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * streams_count * kSliceBytes));
}

// Registered here, because which kernels there are is known when the program runs.
[[maybe_unused]] const bool registered = [] {
  for (const LaneHash hash : {LaneHash::kMd5, LaneHash::kSha256}) {
    const std::string name = hash == LaneHash::kMd5 ? "md5" : "sha256";
    for (const LaneKernel& kernel : lane_kernels(hash)) {
      const std::string full =
          name + "_lanes/" + std::string(kernel.name) + "/" + std::to_string(kernel.lanes);
      benchmark::RegisterBenchmark(full.c_str(), lanes, kernel);
    }
    benchmark::RegisterBenchmark((name + "_station").c_str(), station, hash)
        ->Arg(1)
        ->Arg(2)
        ->Arg(4)
        ->Arg(8)
        ->Arg(16);
  }
  return true;
}();

}  // namespace
}  // namespace basalt::auth
