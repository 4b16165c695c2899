#include "bench/options.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "bench/workload.h"

namespace basalt::bench {
namespace {

TEST(Options, Sizes) {
  EXPECT_EQ(*parse_size("4096"), 4096u);
  EXPECT_EQ(*parse_size("4KiB"), 4096u);
  EXPECT_EQ(*parse_size("1.5MiB"), 1572864u);
  EXPECT_EQ(*parse_size("10MB"), 10'000'000u);
  EXPECT_EQ(*parse_size("0"), 0u);
  for (const char* bad : {"", "x", "-1", "4 KiB", "4KiBx", "1e3", "6TiB", "nan", "inf"})
    EXPECT_FALSE(parse_size(bad)) << bad;
}

TEST(Options, Durations) {
  EXPECT_EQ(*parse_duration_ms("500ms"), 500u);
  EXPECT_EQ(*parse_duration_ms("2"), 2000u);
  EXPECT_EQ(*parse_duration_ms("1.5m"), 90'000u);
  for (const char* bad : {"", "s", "10d", "-1s", "200h"})
    EXPECT_FALSE(parse_duration_ms(bad)) << bad;
}

TEST(Options, SizeDistributions) {
  const Sizes range = *Sizes::parse("4KiB-1MiB");
  EXPECT_EQ(range.all().size(), Sizes::kRangeSteps);
  EXPECT_EQ(range.all().front(), 4096u);
  EXPECT_EQ(range.all().back(), 1048576u);
  const Sizes weighted = *Sizes::parse("4KiB:80,1MiB:20");
  std::map<uint64_t, int> seen;
  for (uint64_t i = 0; i < 10'000; ++i) ++seen[weighted.of(mix64(i))];
  EXPECT_NEAR(seen[4096], 8000, 200);
  EXPECT_NEAR(seen[1048576], 2000, 200);
  EXPECT_NEAR(static_cast<double>(weighted.mean()), 0.8 * 4096 + 0.2 * 1048576, 1);
  for (const char* bad : {"", "4KiB-", "8KiB-4KiB", "4KiB:x", "4KiB:0", "0-4KiB", ","})
    EXPECT_FALSE(Sizes::parse(bad)) << bad;
}

TEST(Options, Mixes) {
  const auto mix = parse_mix("get:70,put:20,delete:5,head");
  ASSERT_TRUE(mix);
  EXPECT_EQ(mix->size(), 4u);
  EXPECT_EQ((*mix)[3].weight, 1u);
  for (const char* bad : {"", "get:0", "multipart:1", "put:1,delete:2", "get:-1"})
    EXPECT_FALSE(parse_mix(bad)) << bad;
}

TEST(Options, Endpoints) {
  const Endpoint plain = *parse_endpoint("http://127.0.0.1:9000/");
  EXPECT_EQ(plain.host_header, "127.0.0.1:9000");
  EXPECT_EQ(plain.port, 9000);
  EXPECT_TRUE(plain.loopback);
  EXPECT_FALSE(plain.tls);
  const Endpoint full = *parse_endpoint("https://AK:s%2Fec:r@127.0.0.2");
  EXPECT_EQ(full.host_header, "127.0.0.2");
  EXPECT_EQ(full.port, 443);
  EXPECT_EQ(full.access_key, "AK");
  EXPECT_EQ(full.secret_key, "s/ec:r");
  EXPECT_EQ(full.url, "https://127.0.0.2");
  EXPECT_TRUE(full.tls);
  const Endpoint six = *parse_endpoint("http://[::1]:80");
  EXPECT_EQ(six.host, "::1");
  EXPECT_EQ(six.host_header, "[::1]");
  for (const char* bad : {"", "127.0.0.1", "ftp://x", "http://", "http://a/b", "http://127.0.0.1:0",
                          "http://127.0.0.1:x", "http://key@127.0.0.1"}) {
    EXPECT_FALSE(parse_endpoint(bad)) << bad;
  }
}

TEST(Workload, ZipfFollowsItsLaw) {
  const Zipf zipf(1000, 0.99);
  Random random(1);
  std::vector<double> seen(1000);
  constexpr int kDraws = 1'000'000;
  for (int i = 0; i < kDraws; ++i) {
    const uint64_t rank = zipf.next(random);
    ASSERT_LT(rank, 1000u);
    ++seen[rank];
  }
  double norm = 0;
  for (int k = 1; k <= 1000; ++k) norm += std::pow(k, -0.99);
  for (const size_t rank : {0u, 1u, 9u, 99u, 999u}) {
    const double expected = kDraws * std::pow(static_cast<double>(rank + 1), -0.99) / norm;
    EXPECT_NEAR(seen[rank], expected, 5 * std::sqrt(expected)) << rank;
  }
  const Zipf one(1, 1.0);
  EXPECT_EQ(one.next(random), 0u);
}

TEST(Workload, ObjectsFollowFromTheirNumber) {
  RunOptions options;
  options.sizes = *Sizes::parse("1KiB-100KiB");
  const Objects objects(options);
  EXPECT_EQ(objects.object(7).body.size, objects.object(7).body.size);
  std::string a, b;
  objects.append_key(1, a);
  objects.append_key(2, b);
  EXPECT_EQ(a.size(), 16u);
  options.folders = 10;
  std::string in_folder;
  objects.append_key(12, in_folder);
  EXPECT_TRUE(in_folder.starts_with("00000002/")) << in_folder;
  EXPECT_EQ(in_folder.size(), 25u);
  EXPECT_NE(a, b);
  std::map<uint32_t, int> variants;
  for (uint64_t i = 0; i < 1000; ++i) ++variants[objects.object(i).body.variant];
  EXPECT_EQ(variants.size(), Bodies::kVariantsMax);
}

}  // namespace
}  // namespace basalt::bench
