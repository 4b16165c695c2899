#include "bench/histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace basalt::bench {
namespace {
constexpr uint64_t kSteps = uint64_t{1} << Histogram::kStepBits;
}

size_t Histogram::index_of(uint64_t ns) {
  if (ns < kSteps) return ns;
  const auto top = static_cast<uint32_t>(std::bit_width(ns) - 1);
  if (top >= kOctavesMax) return kBuckets - 1;
  const uint32_t shift = top - kStepBits;
  return ((shift + 1) << kStepBits) + ((ns >> shift) - kSteps);
}

uint64_t Histogram::lower_bound(size_t index) {
  if (index < kSteps) return index;
  const uint64_t shift = (index >> kStepBits) - 1;
  return (kSteps + (index & (kSteps - 1))) << shift;
}

uint64_t Histogram::upper_bound(size_t index) {
  if (index < kSteps) return index;
  return lower_bound(index) + (uint64_t{1} << ((index >> kStepBits) - 1)) - 1;
}

void Histogram::add(uint64_t ns, uint64_t count) {
  if (count == 0) return;
  counts_[index_of(ns)] += count;
  count_ += count;
  sum_ += ns * count;
  min_ = std::min(min_, ns);
  max_ = std::max(max_, ns);
}

void Histogram::merge(const Histogram& other) {
  for (size_t i = 0; i < kBuckets; ++i) counts_[i] += other.counts_[i];
  count_ += other.count_;
  sum_ += other.sum_;
  min_ = std::min(min_, other.min_);
  max_ = std::max(max_, other.max_);
}

Histogram Histogram::since(const Histogram& earlier) const {
  Histogram out;
  for (size_t i = 0; i < kBuckets; ++i) {
    const uint64_t count = counts_[i] - earlier.counts_[i];
    if (count == 0) continue;
    out.counts_[i] = count;
    out.count_ += count;
    out.min_ = std::min(out.min_, lower_bound(i));
    out.max_ = std::min(upper_bound(i), max_);
  }
  out.sum_ = sum_ - earlier.sum_;
  return out;
}

uint64_t Histogram::quantile(double q) const {
  if (count_ == 0) return 0;
  const auto wanted = std::clamp<uint64_t>(
      static_cast<uint64_t>(std::ceil(q * static_cast<double>(count_) - 1e-9)), 1, count_);
  uint64_t seen = 0;
  for (size_t i = 0; i < kBuckets; ++i) {
    seen += counts_[i];
    if (seen >= wanted) return std::clamp(upper_bound(i), min_, max_);
  }
  return max_;
}

void SharedHistogram::add_to(Histogram& out) const {
  for (size_t i = 0; i < Histogram::kBuckets; ++i) {
    const uint64_t count = counts_[i].load(std::memory_order_relaxed);
    out.counts_[i] += count;
    out.count_ += count;
  }
  out.sum_ += sum_.load(std::memory_order_relaxed);
  out.min_ = std::min(out.min_, min_.load(std::memory_order_relaxed));
  out.max_ = std::max(out.max_, max_.load(std::memory_order_relaxed));
}

}  // namespace basalt::bench
