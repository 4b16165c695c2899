// Histogram: log-linear counts of latencies, 128 steps to an octave, so that every quantile is
// right to two significant digits (0.8 %) from nanoseconds to over an hour. Values add up:
// histograms of threads and rounds merge without loss.
//
// SharedHistogram is the same with one writer and any number of readers: the worker records with
// plain relaxed stores, and whoever draws the progress takes a snapshot. The difference of two
// snapshots is the histogram of the time between.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace basalt::bench {

class Histogram {
 public:
  static constexpr uint32_t kStepBits = 7;
  static constexpr uint32_t kOctavesMax =
      42;  // 2^42 ns = 73 minutes; longer ones are counted as that
  static constexpr size_t kBuckets = (kOctavesMax - kStepBits + 1) << kStepBits;

  static size_t index_of(uint64_t ns);
  static uint64_t lower_bound(size_t index);
  static uint64_t upper_bound(size_t index);  // the highest value of the bucket

  Histogram() : counts_(kBuckets) {}
  void add(uint64_t ns, uint64_t count = 1);
  void merge(const Histogram& other);
  // What came since `earlier`, a snapshot of the same histogram. Minimum and maximum are those of
  // the buckets.
  Histogram since(const Histogram& earlier) const;

  uint64_t count() const { return count_; }
  uint64_t min() const { return count_ == 0 ? 0 : min_; }
  uint64_t max() const { return max_; }
  double mean() const {
    return count_ == 0 ? 0 : static_cast<double>(sum_) / static_cast<double>(count_);
  }
  // The value that a share `q` (0 to 1) of all values does not exceed; 0 if there are none.
  uint64_t quantile(double q) const;
  uint64_t count_at(size_t index) const { return counts_[index]; }

 private:
  friend class SharedHistogram;
  std::vector<uint64_t> counts_;
  uint64_t count_ = 0;
  uint64_t sum_ = 0;
  uint64_t min_ = UINT64_MAX;
  uint64_t max_ = 0;
};

class SharedHistogram {
 public:
  // The writer's thread only.
  void add(uint64_t ns) {
    bump(counts_[Histogram::index_of(ns)], 1);
    bump(sum_, ns);
    if (ns > max_.load(std::memory_order_relaxed)) max_.store(ns, std::memory_order_relaxed);
    if (ns < min_.load(std::memory_order_relaxed)) min_.store(ns, std::memory_order_relaxed);
  }
  // Any thread. A value that is being recorded may be in the counts and not yet in the sum.
  void add_to(Histogram& out) const;

 private:
  static void bump(std::atomic<uint64_t>& counter, uint64_t by) {
    counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
  }
  std::array<std::atomic<uint64_t>, Histogram::kBuckets> counts_{};
  std::atomic<uint64_t> sum_{0}, max_{0}, min_{UINT64_MAX};
};

}  // namespace basalt::bench
