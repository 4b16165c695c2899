#include "bench/histogram.h"

#include <gtest/gtest.h>

namespace basalt::bench {
namespace {

TEST(Histogram, BucketsFollowEachOther) {
  uint64_t next = 0;
  for (size_t i = 0; i < Histogram::kBuckets; ++i) {
    ASSERT_EQ(Histogram::lower_bound(i), next);
    ASSERT_EQ(Histogram::index_of(Histogram::lower_bound(i)), i);
    ASSERT_EQ(Histogram::index_of(Histogram::upper_bound(i)), i);
    next = Histogram::upper_bound(i) + 1;
  }
  EXPECT_EQ(next, uint64_t{1} << Histogram::kOctavesMax);
  EXPECT_EQ(Histogram::index_of(UINT64_MAX), Histogram::kBuckets - 1);
}

TEST(Histogram, QuantilesAreRightToTwoDigits) {
  Histogram histogram;
  for (uint64_t i = 1; i <= 100'000; ++i) histogram.add(i * 1000);
  for (const double q : {0.01, 0.5, 0.9, 0.99, 0.999, 0.9999}) {
    EXPECT_NEAR(static_cast<double>(histogram.quantile(q)), q * 1e8, q * 1e8 * 0.008) << q;
  }
  EXPECT_EQ(histogram.quantile(1), 100'000'000u);
  EXPECT_EQ(histogram.quantile(0), 1003u);  // the first bucket's end
  EXPECT_EQ(histogram.min(), 1000u);
  EXPECT_EQ(histogram.max(), 100'000'000u);
  EXPECT_NEAR(histogram.mean(), 50'000'500, 1);
  EXPECT_EQ(Histogram().quantile(0.5), 0u);
}

TEST(Histogram, MergesAndSubtracts) {
  auto shared = std::make_unique<SharedHistogram>();
  for (uint64_t i = 0; i < 100; ++i) shared->add(500);
  Histogram earlier;
  shared->add_to(earlier);
  for (uint64_t i = 0; i < 10; ++i) shared->add(90'000);
  Histogram later;
  shared->add_to(later);
  EXPECT_EQ(later.count(), 110u);
  EXPECT_EQ(later.min(), 500u);
  EXPECT_EQ(later.max(), 90'000u);
  const Histogram between = later.since(earlier);
  EXPECT_EQ(between.count(), 10u);
  EXPECT_NEAR(static_cast<double>(between.quantile(0.5)), 90'000, 720);
  EXPECT_DOUBLE_EQ(between.mean(), 90'000);
  Histogram sum = earlier;
  sum.merge(between);
  EXPECT_EQ(sum.count(), later.count());
  EXPECT_EQ(sum.quantile(0.95), later.quantile(0.95));
}

}  // namespace
}  // namespace basalt::bench
