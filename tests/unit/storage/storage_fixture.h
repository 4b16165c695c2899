// A data directory of its own, and hand-driven loops, for the tests of storage/. Not in memory:
// O_DIRECT, fallocate and holes should be the real ones, so the directory is made under $TMPDIR, or
// where the test runs.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/bytes.h"
#include "base/completion.h"
#include "storage/engine.h"
#include "storage/files.h"
#include "storage/io.h"
#include "storage/lane.h"

namespace basalt::storage {

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    const char* base = std::getenv("TMPDIR");
    std::string pattern = std::string(base != nullptr ? base : ".") + "/basalt-test-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline EngineOptions small_options(const std::string& directory, unsigned cores = 1) {
  EngineOptions options;
  options.directory = directory;
  options.core_count = cores;
  options.shard_count_at_format = 4;
  options.log_segment_bytes = 4u << 20;
  options.bulk_segment_bytes = 8u << 20;
  return options;
}

// One core's loop, turned by hand.
struct TestCore {
  explicit TestCore(bool force_threads = false) {
    auto made = make_io(run_queue, force_threads);
    if (made) io = std::move(*made);
  }
  // Turns until `done()`; false after `seconds`.
  bool turn_until(const std::function<bool()>& done, int seconds = 20) {
    auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
    while (!done()) {
      bool did = io->poll();
      did |= run_queue.run() > 0;
      if (!did) std::this_thread::sleep_for(std::chrono::microseconds(50));
      if (std::chrono::steady_clock::now() > end) return false;
    }
    return true;
  }
  void turn_for(std::chrono::milliseconds time) {
    auto end = std::chrono::steady_clock::now() + time;
    turn_until([&] { return std::chrono::steady_clock::now() > end; });
  }

  RunQueue run_queue;
  BufferPool buffers;
  EngineStats stats;
  std::unique_ptr<Io> io;
};

// A completion that remembers that it ran.
template <class Request>
struct Waited : Request {
  template <class... Args>
  explicit Waited(Args&&... args) : Request{std::forward<Args>(args)...} {
    this->fn = [](Completion& completion) {
      static_cast<Waited&>(static_cast<Request&>(completion)).done = true;
    };
  }
  bool done = false;
};

// `length` bytes that differ by place and seed.
inline std::vector<uint8_t> pattern(size_t length, uint64_t seed) {
  std::vector<uint8_t> bytes(length);
  uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
  for (auto& byte : bytes) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    byte = static_cast<uint8_t>(state);
  }
  return bytes;
}

// Writes over bytes of a file and makes sure that the next read sees the disk.
void overwrite(const std::string& path, uint64_t offset, Bytes bytes);
void flip_bit(const std::string& path, uint64_t offset);

}  // namespace basalt::storage
