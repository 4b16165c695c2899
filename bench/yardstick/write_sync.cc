// write-sync: what one durable small write costs on this disk: pwrite of one block to the next
// place of a file that has been written before (so no allocation is part of it), then fdatasync.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <memory>

#include "bench/yardstick/common.h"

namespace basalt::bench::yardstick {

int write_sync(const Options& options) {
  constexpr size_t kFileBytes = 64u << 20;
  constexpr size_t kChunkBytes = 1u << 20;
  const std::string file = options.directory + "/write-sync";
  // O_DIRECT, as the log writes: the page cache would only add to it.
  const int fd = ::open(file.c_str(), O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
  if (fd < 0) {
    fmt::print(stderr, "{}: {}\n", file, std::strerror(errno));
    return 1;
  }
  const std::unique_ptr<void, void (*)(void*)> memory(std::aligned_alloc(4096, kChunkBytes),
                                                      std::free);
  std::memset(memory.get(), 'x', kChunkBytes);
  bool good = true;
  if (::lseek(fd, 0, SEEK_END) < static_cast<off_t>(kFileBytes)) {
    for (size_t at = 0; at < kFileBytes; at += kChunkBytes) {
      good &= ::pwrite(fd, memory.get(), kChunkBytes, static_cast<off_t>(at)) ==
              static_cast<ssize_t>(kChunkBytes);
    }
    good &= ::fsync(fd) == 0;
  }
  std::vector<uint64_t> took;
  const uint64_t cpu_before = process_cpu_ns();
  const uint64_t begin = wall_ns();
  const uint64_t end = begin + static_cast<uint64_t>(options.seconds * 1e9);
  size_t at = 0;
  for (uint64_t now = begin; now < end && good;) {
    good &= ::pwrite(fd, memory.get(), options.size, static_cast<off_t>(at)) ==
            static_cast<ssize_t>(options.size);
    good &= ::fdatasync(fd) == 0;
    const uint64_t after = wall_ns();
    took.push_back(after - now);
    now = after;
    at = (at + options.size) % (kFileBytes - options.size);
  }
  ::close(fd);
  if (!good) {
    fmt::print(stderr, "{}: a write or flush failed\n", file);
    return 1;
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
