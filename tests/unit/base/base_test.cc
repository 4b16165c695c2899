// base/: CRC vector, buffer pool bounds, run queue order, tasks and calls, and the ring under two
// threads.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/buffer.h"
#include "base/completion.h"
#include "base/crc32c.h"
#include "base/name_merge.h"
#include "base/random.h"
#include "base/result.h"
#include "base/spsc_ring.h"
#include "base/task.h"

namespace basalt {
namespace {

TEST(Crc32c, KnownValueAndContinuation) {
  EXPECT_EQ(crc32c(as_bytes("123456789")), 0xE3069283u);
  EXPECT_EQ(crc32c(as_bytes("6789"), crc32c(as_bytes("12345"))), 0xE3069283u);
}

TEST(Crc32c, EveryLengthAndPlaceAgreesWithTheDefinition) {
  uint8_t bytes[300];
  for (size_t i = 0; i < sizeof bytes; ++i) bytes[i] = static_cast<uint8_t>(i * 37 + i / 7);
  for (size_t from = 0; from < 9; ++from) {
    uint32_t expected = ~0x12345678u;  // bit by bit
    for (size_t size = 0; from + size < sizeof bytes; ++size) {
      ASSERT_EQ(crc32c(Bytes(bytes + from, size), 0x12345678), ~expected) << from << " " << size;
      expected ^= bytes[from + size];
      for (int bit = 0; bit < 8; ++bit)
        expected = expected >> 1 ^ ((expected & 1) != 0 ? 0x82F63B78u : 0);
    }
  }
}

struct NameCursor {
  std::vector<std::string> names;
  size_t at = 0;
  std::string_view name() const { return names[at]; }
};

// All names, in the order in which the merge shows them.
std::vector<std::string> merged(std::vector<NameCursor>& cursors, size_t prefix_bytes) {
  NameMerge<NameCursor> merge(cursors.size(), prefix_bytes);
  for (NameCursor& cursor : cursors) {
    if (!cursor.names.empty()) merge.add(cursor);
  }
  std::vector<std::string> found;
  while (!merge.empty()) {
    NameCursor& first = merge.first();
    found.emplace_back(first.name());
    if (++first.at == first.names.size()) {
      merge.drop();
    } else {
      merge.moved();
    }
  }
  return found;
}

TEST(NameMerge, TheSmallestNameIsFirst) {
  // Names that end within the eight bytes that are compared first, and that differ behind them.
  std::vector<NameCursor> cursors{
      {{"p/", "p/a", "p/abcdefgh1", "p/b"}},
      {{"p/abcdefgh", "p/abcdefgh2", std::string("p/b\0", 4)}},
      {{"p/aa", "p/abcdefgh0", "p/\xff"}},
      {{}},
  };
  std::vector<std::string> expected;
  for (const NameCursor& cursor : cursors)
    expected.insert(expected.end(), cursor.names.begin(), cursor.names.end());
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(merged(cursors, 2), expected);
}

TEST(NameMerge, OfManyCursors) {
  // Runs of neighbours by one cursor, then another: a cursor goes far at times.
  std::vector<NameCursor> cursors(40);
  std::vector<std::string> expected;
  for (unsigned i = 0; i < 4000; ++i) {
    expected.push_back("n" + std::to_string(100'000 + i));
    cursors[i / 3 * 17 % cursors.size()].names.push_back(expected.back());
  }
  EXPECT_EQ(merged(cursors, 0), expected);
}

TEST(BufferPool, AlignsReusesAndRefusesBeyondItsLimit) {
  BufferPool pool({.bytes_max = 200'000, .kept_bytes_max = 1 << 20});
  Buffer a = pool.take(100);
  ASSERT_TRUE(a);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(a.data()) % 4096, 0u);
  Buffer b = pool.take(131072);
  ASSERT_TRUE(b);
  EXPECT_FALSE(pool.take(131072));      // over the limit
  EXPECT_FALSE(pool.take(10'000'000));  // larger than any class
  uint8_t* address = b.data();
  b.release();
  EXPECT_EQ(pool.take(131072).data(), address);
}

// The largest are pairs; a page goes back to the system when both halves are free, and no sooner.
TEST(BufferPool, TheLargestShareHugePages) {
  constexpr size_t kLargest = BufferPool::kSizes.back();
  BufferPool pool({.bytes_max = 64 * kLargest, .kept_bytes_max = 2 * kLargest});
  const auto page_of = [](const Buffer& buffer) {
    return reinterpret_cast<uintptr_t>(buffer.data()) / BufferPool::kHugePageBytes;
  };
  std::vector<Buffer> buffers;
  std::map<uintptr_t, size_t> pages;
  for (size_t i = 0; i < 12; ++i) {
    buffers.push_back(pool.take(kLargest));
    ASSERT_TRUE(buffers.back());
    ASSERT_EQ(buffers.back().size(), kLargest);
    std::memset(buffers.back().data(), static_cast<int>(i), kLargest);
    ++pages[page_of(buffers.back())];
  }
  EXPECT_EQ(pages.size(), 6u);
  for (size_t i = 0; i < 12; ++i) {
    EXPECT_EQ(buffers[i].data()[0], i);
    EXPECT_EQ(buffers[i].data()[kLargest - 1], i);
  }
  // Every first half goes back, then the others in another order; what is used stays intact.
  for (size_t i = 0; i < 12; i += 2) buffers[i].release();
  for (const size_t i : {7u, 1u, 11u, 3u}) buffers[i].release();
  for (const size_t i : {5u, 9u}) EXPECT_EQ(buffers[i].data()[kLargest / 2], i);
  for (size_t i = 0; i < 3; ++i) {
    Buffer again = pool.take(kLargest);
    ASSERT_TRUE(again);
    std::memset(again.data(), 0xee, kLargest);
    EXPECT_NE(again.data(), buffers[5].data());
    EXPECT_NE(again.data(), buffers[9].data());
  }
  for (const size_t i : {5u, 9u}) EXPECT_EQ(buffers[i].data()[kLargest / 2], i);
  buffers.clear();
  EXPECT_EQ(pool.bytes_in_use(), 0u);
}

TEST(RunQueue, RunsInOrderAndLeavesNewWorkForTheNextRound) {
  struct Note : Completion {
    std::vector<int>* out;
    RunQueue* queue;
    Note* then;
    int number;
  };
  RunQueue queue;
  std::vector<int> out;
  auto run = [](Completion& c) {
    auto& note = static_cast<Note&>(c);
    note.out->push_back(note.number);
    if (note.then != nullptr) note.queue->post(*note.then);
  };
  Note third, second, first;
  for (Note* note : {&first, &second, &third}) {
    note->fn = run;
    note->out = &out;
    note->queue = &queue;
    note->then = nullptr;
  }
  first.number = 1, second.number = 2, third.number = 3;
  first.then = &third;
  queue.post(first);
  queue.post(second);
  EXPECT_EQ(queue.run(), 2u);
  EXPECT_EQ(out, (std::vector{1, 2}));
  EXPECT_EQ(queue.run(), 1u);
  EXPECT_EQ(out, (std::vector{1, 2, 3}));
}

struct Double : Completion {
  int in;
  Result<int> result;
  explicit Double(int value) : in(value) {}
};

Task<Result<int>> doubled(RunQueue& queue, int value) {
  Call<Double> call(
      [&](Double& request) {
        if (request.in < 0) {
          request.result = fail(Code::kInvalid, "negative");
        } else {
          request.result = request.in * 2;
        }
        queue.post(request);
      },
      value);
  CO_TRY(result, call);
  co_return result;
}

Task<Result<int>> four_times(RunQueue& queue, int value) {
  CO_TRY(once, doubled(queue, value));
  CO_TRY(twice, doubled(queue, once));
  co_return twice;
}

TEST(Task, AwaitsCallsAndPassesErrors) {
  RunQueue queue;
  auto good = four_times(queue, 5);
  good.start();
  while (!good.done()) ASSERT_GT(queue.run(), 0u);
  EXPECT_EQ(*good.result(), 20);
  auto bad = four_times(queue, -1);
  bad.start();
  while (!bad.done()) ASSERT_GT(queue.run(), 0u);
  ASSERT_FALSE(bad.result());
  EXPECT_EQ(bad.result().error().code, Code::kInvalid);
}

TEST(SpscRing, RefusesWhenFullAndWraps) {
  SpscRing ring(256);
  const std::vector<uint8_t> frame(56, 7);
  int pushed = 0;
  while (ring.push(frame)) ++pushed;
  EXPECT_EQ(pushed, 4);
  EXPECT_EQ(ring.drain(1, [&](Bytes bytes) { EXPECT_EQ(bytes.size(), 56u); }), 1u);
  EXPECT_TRUE(ring.push(frame));
  EXPECT_FALSE(ring.push(frame));
  EXPECT_EQ(ring.drain(100, [](Bytes) {}), 4u);
  EXPECT_TRUE(ring.empty());
}

TEST(SpscRing, CarriesEveryFrameBetweenThreads) {
  SpscRing ring(4096);
  constexpr uint32_t kFrames = 200'000;
  std::thread producer([&] {
    std::vector<uint8_t> frame;
    for (uint32_t i = 0; i < kFrames; ++i) {
      frame.assign(4 + i % 97, static_cast<uint8_t>(i));
      std::memcpy(frame.data(), &i, 4);
      while (!ring.push(frame)) std::this_thread::yield();
    }
  });
  uint32_t expected = 0;
  while (expected < kFrames) {
    const size_t got = ring.drain(64, [&](Bytes bytes) {
      uint32_t i = 0;
      std::memcpy(&i, bytes.data(), 4);
      ASSERT_EQ(i, expected);
      ASSERT_EQ(bytes.size(), 4 + i % 97);
      if (bytes.size() > 4) {
        ASSERT_EQ(bytes.back(), static_cast<uint8_t>(i));
      }
      ++expected;
    });
    if (got == 0) std::this_thread::yield();
  }
  producer.join();
}

TEST(Random, AlphanumericHasTheLengthAndVaries) {
  EXPECT_EQ(random_alphanumeric(40).size(), 40u);
  EXPECT_NE(random_alphanumeric(40), random_alphanumeric(40));
}

}  // namespace
}  // namespace basalt
