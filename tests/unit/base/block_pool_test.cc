// Blocks: aligned, apart from each other, used again, bounded; given back on another thread or
// above the largest size they are freed like any other memory (the sanitized builds look for
// leaks).
#include "base/block_pool.h"

#include <gtest/gtest.h>

#include <cstring>
#include <set>
#include <thread>
#include <vector>

namespace basalt {
namespace {

TEST(BlockPool, BlocksAreApartAndWhole) {
  std::vector<std::pair<uint8_t*, size_t>> blocks;
  for (size_t bytes = 0; bytes <= kBlockBytesMax + 200; bytes += 7) {
    auto* block = static_cast<uint8_t*>(take_block(bytes));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(block) % 16, 0u);
    if (bytes != 0) std::memset(block, static_cast<int>(bytes & 0xff), bytes);
    blocks.emplace_back(block, bytes);
  }
  for (const auto& [block, bytes] : blocks) {
    for (size_t i = 0; i < bytes; ++i) ASSERT_EQ(block[i], bytes & 0xff);
    give_block(block, bytes);
  }
}

TEST(BlockPool, KeepsAtMostItsBound) {
  std::thread([] {  // whose lists are empty
    std::vector<void*> blocks;
    for (size_t i = 0; i < 2 * kBlocksKeptBytesMax / kBlockBytesMax; ++i)
      blocks.push_back(take_block(kBlockBytesMax));
    for (void* block : blocks) give_block(block, kBlockBytesMax);
    EXPECT_LE(block_bytes_kept(), kBlocksKeptBytesMax);
    if (block_bytes_kept() == 0) return;  // a sanitized build keeps nothing
    // What is kept is what is taken next.
    const std::set<void*> kept(blocks.begin(), blocks.end());
    void* again = take_block(kBlockBytesMax);
    EXPECT_TRUE(kept.contains(again));
    give_block(again, kBlockBytesMax);
  })
      .join();
}

TEST(BlockPool, BlocksMayEndOnAnotherThread) {
  std::vector<void*> blocks;
  std::thread taker([&] {
    for (int i = 0; i < 100; ++i) blocks.push_back(take_block(256));
    give_block(take_block(64), 64);  // freed with the thread's lists
  });
  taker.join();
  for (void* block : blocks) give_block(block, 256);
}

TEST(BlockPool, BytesMove) {
  BlockBytes bytes(10);
  std::memcpy(bytes.data(), "0123456789", 10);
  BlockBytes other = std::move(bytes);
  EXPECT_EQ(bytes.data(), nullptr);  // NOLINT(bugprone-use-after-move): that is what is tested
  EXPECT_EQ(other.size(), 10u);
  bytes = std::move(other);
  EXPECT_EQ(std::memcmp(bytes.data(), "0123456789", 10), 0);
}

}  // namespace
}  // namespace basalt
