// Workload: which object comes next. Key names, key distributions, mixes; shared counters of all
// workers.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

#include "bench/bodies.h"
#include "bench/options.h"

namespace basalt::bench {

// xoshiro-class quality is not needed to pick keys; splitmix64 is one multiplication chain and has
// no bad seeds.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() { return mix64(state_++ * 0x9e3779b97f4a7c15); }
  uint64_t below(uint64_t bound) {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(next()) * bound) >> 64);
  }
  double unit() { return static_cast<double>(next() >> 11) * 0x1p-53; }  // [0, 1)

 private:
  uint64_t state_;
};

// Zipf's law: rank k of 0..n-1 comes with weight 1 / (k + 1)^exponent. Rejection-inversion
// (Hoermann and Derflinger 1996): constant time and memory for any n.
class Zipf {
 public:
  Zipf(uint64_t count, double exponent);
  uint64_t next(Random& random) const;

 private:
  double integral(double x) const;
  double inverse(double x) const;
  double exponent_;
  double count_;
  double integral_first_, integral_count_, skip_;
};

// Object number i: its key, its size and its bytes follow from i alone.
struct Object {
  uint64_t number = 0;
  Body body;
};

class Objects {
 public:
  explicit Objects(const RunOptions& options) : options_(options) {}
  Object object(uint64_t number) const {
    const uint64_t random = mix64(number ^ 0x6f626a656374);
    return {number, Bodies::body(options_.sizes.of(random), random >> 32)};
  }
  // 16 hex digits that look random: neighbours by number are no neighbours in the server's index.
  // Behind the folder (8 hex digits and a slash) if there are folders.
  void append_key(uint64_t number, std::string& out) const;

 private:
  const RunOptions& options_;
};

// Numbers of objects that a mixed run writes lie behind those that it reads: worker w writes
// first_written(w), and on.
constexpr uint64_t kWrittenBase = uint64_t{1} << 40;
constexpr uint64_t kWrittenPerWorker = uint64_t{1} << 32;
constexpr uint64_t first_written(uint32_t worker) {
  return kWrittenBase + worker * kWrittenPerWorker;
}

// What the workers of one phase share.
struct SharedProgress {
  std::atomic<uint64_t> cursor{0};   // next key of sequential orders
  std::atomic<uint64_t> tickets{0};  // operations begun, with --count
};

}  // namespace basalt::bench
