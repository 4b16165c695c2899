// write-sync: what one durable small write costs on this disk: pwrite of one block to the next
// place of a file that has been written before (so no allocation is part of it), then fdatasync.
#include <fmt/format.h>

#include "bench/yardstick/common.h"
#include "bench/yardstick/written_file.h"

namespace basalt::bench::yardstick {

int write_sync(const Options& options) {
  const auto file = WrittenFile::open(options.directory, "write-sync");
  if (!file) return 1;
  std::vector<uint64_t> took;
  const uint64_t cpu_before = process_cpu_ns();
  const uint64_t begin = wall_ns();
  const uint64_t end = begin + static_cast<uint64_t>(options.seconds * 1e9);
  for (uint64_t now = begin; now < end;) {
    if (!file->write(options.size)) return 1;
    const uint64_t after = wall_ns();
    took.push_back(after - now);
    now = after;
  }
  const double count = static_cast<double>(took.size());
  fmt::print(
      "{{\"operations\": {}, \"rate\": {:.1f}, \"p50_us\": {:.1f}, \"p99_us\": {:.1f}, \"cpu_us\": "
      "{:.2f}}}\n",
      took.size(), count * 1e9 / static_cast<double>(wall_ns() - begin), quantile_us(took, 0.5),
      quantile_us(took, 0.99), static_cast<double>(process_cpu_ns() - cpu_before) / 1e3 / count);
  return 0;
}

}  // namespace basalt::bench::yardstick
