// hash_lanes: every kernel this processor can run gives the same state as OpenSSL's single stream,
// for random states, data, offsets and numbers of blocks; and the 16-lane transposition of the
// AVX-512 kernels does, with AVX2 instructions where there is no AVX-512.
#include "auth/hash_lanes.h"

#include <gtest/gtest.h>

#include <array>
#include <random>
#include <vector>

#include "auth/hash_lanes_isa.h"

namespace basalt::auth {
namespace {

void expect_as_single(LaneHash hash, const LaneKernel& kernel) {
  SCOPED_TRACE(std::string(kernel.name));
  std::mt19937 random(kernel.lanes);
  const LaneKernel& single = lane_kernels(hash).front();
  const size_t words = hash == LaneHash::kMd5 ? 4 : 8;
  std::vector<uint8_t> data(64 * 1024);
  for (uint8_t& byte : data) byte = static_cast<uint8_t>(random());
  for (const size_t blocks : {1u, 2u, 3u, 7u, 16u, 61u}) {
    std::array<std::array<uint32_t, 8>, kHashLanesMax> states, expected;
    std::array<HashLane, kHashLanesMax> lanes;
    for (size_t i = 0; i < kHashLanesMax; ++i) {
      for (uint32_t& word : states[i]) word = random();
      expected[i] = states[i];
      const size_t offset = random() % (data.size() - blocks * kHashBlockBytes);
      lanes[i] = {states[i].data(), data.data() + offset};
      if (i >= kernel.lanes) continue;
      const HashLane lane{expected[i].data(), lanes[i].data};
      single.compress(&lane, blocks);
    }
    kernel.compress(lanes.data(), blocks);
    for (size_t i = 0; i < kernel.lanes; ++i) {
      for (size_t w = 0; w < words; ++w) {
        EXPECT_EQ(states[i][w], expected[i][w])
            << "lane " << i << " word " << w << " of " << blocks;
      }
    }
  }
}

TEST(HashLanes, EveryKernelAsOpenSsl) {
  for (const LaneHash hash : {LaneHash::kMd5, LaneHash::kSha256}) {
    const auto kernels = lane_kernels(hash);
    ASSERT_FALSE(kernels.empty());
    EXPECT_EQ(kernels.front().lanes, 1u);
    unsigned lanes = 0;
    for (const LaneKernel& kernel : kernels) {
      EXPECT_GT(kernel.lanes, lanes);  // in order
      EXPECT_LE(kernel.lanes, kHashLanesMax);
      lanes = kernel.lanes;
      expect_as_single(hash, kernel);
    }
  }
}

#if defined(__x86_64__)
TEST(HashLanes, TheTranspositionOfWideVectors) {
  if (!__builtin_cpu_supports("avx2")) GTEST_SKIP() << "no AVX2";
  expect_as_single(LaneHash::kMd5, {"wide", 16, md5_avx2_wide_16});
  expect_as_single(LaneHash::kMd5, {"two chains", 16, md5_avx2_16});
  expect_as_single(LaneHash::kSha256, {"wide", 16, sha256_avx2_wide_16});
}
#endif

// Lanes of both at once give the same as each by itself, over different messages.
TEST(HashLanes, JointKernelsAsOpenSsl) {
  std::mt19937 random(5);
  std::vector<uint8_t> data(64 * 1024);
  for (uint8_t& byte : data) byte = static_cast<uint8_t>(random());
  for (const JointKernel& kernel : joint_kernels()) {
    SCOPED_TRACE(std::string(kernel.name));
    const std::array<size_t, kLaneHashCount> counts = {kernel.md5, kernel.sha256};
    for (const size_t blocks : {1u, 2u, 3u, 7u, 61u}) {
      std::array<std::array<std::array<uint32_t, 8>, kHashLanesMax>, kLaneHashCount> states,
          expected;
      std::array<std::array<HashLane, kHashLanesMax>, kLaneHashCount> lanes;
      for (size_t hash = 0; hash < kLaneHashCount; ++hash) {
        for (size_t i = 0; i < counts[hash]; ++i) {
          for (uint32_t& word : states[hash][i]) word = random();
          expected[hash][i] = states[hash][i];
          const size_t offset = random() % (data.size() - blocks * kHashBlockBytes);
          lanes[hash][i] = {states[hash][i].data(), data.data() + offset};
          const HashLane lane{expected[hash][i].data(), data.data() + offset};
          lane_kernels(static_cast<LaneHash>(hash)).front().compress(&lane, blocks);
        }
      }
      kernel.compress(lanes[0].data(), lanes[1].data(), blocks);
      for (size_t hash = 0; hash < kLaneHashCount; ++hash) {
        for (size_t i = 0; i < counts[hash]; ++i) {
          EXPECT_EQ(states[hash][i], expected[hash][i])
              << hash << " lane " << i << " of " << blocks;
        }
      }
    }
  }
}

}  // namespace
}  // namespace basalt::auth
