// What base/ costs: the mailbox ring, CRC-32C, buffers.
#include <benchmark/benchmark.h>

#include <vector>

#include "base/buffer.h"
#include "base/check.h"
#include "base/crc32c.h"
#include "base/spsc_ring.h"

namespace basalt {
namespace {

// A message of a usual size, there and back out, on one thread: the work without the cache misses
// between two cores.
void ring_push_and_pop(benchmark::State& state) {
  SpscRing ring(256 * 1024);
  const std::vector<uint8_t> message(static_cast<size_t>(state.range(0)), 'x');
  for (auto _ : state) {
    BASALT_CHECK(ring.push(message));
    ring.drain(1, [](Bytes frame) { benchmark::DoNotOptimize(frame.data()); });
  }
}
BENCHMARK(ring_push_and_pop)->Arg(96)->Arg(1200);

void crc32c_of(benchmark::State& state) {
  const std::vector<uint8_t> bytes(static_cast<size_t>(state.range(0)), 'x');
  for (auto _ : state) benchmark::DoNotOptimize(crc32c(bytes));
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(crc32c_of)->Arg(128)->Arg(4096)->Arg(131072);

void buffer_take_and_release(benchmark::State& state) {
  BufferPool pool;
  for (auto _ : state) {
    Buffer buffer = pool.take(static_cast<size_t>(state.range(0)));
    benchmark::DoNotOptimize(buffer.data());
  }
}
BENCHMARK(buffer_take_and_release)->Arg(4096)->Arg(131072);

}  // namespace
}  // namespace basalt
