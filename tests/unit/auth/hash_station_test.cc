// hash_station: digests equal OpenSSL's whatever the lengths, the pieces, their places in memory
// and the other streams of the core; what a stream says it has hashed is never read again; a
// dropped stream leaves nothing behind.
#include "auth/hash_station.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <random>

#include "base/check.h"

namespace basalt::auth {
namespace {

Algorithm algorithm_of(LaneHash hash) {
  return hash == LaneHash::kMd5 ? Algorithm::kMd5 : Algorithm::kSha256;
}

// A plan that uses the widest kernels from two streams on, or never.
HashPlan plan_with(size_t kernels_max) {
  std::array<std::vector<HashPlan::Entry>, kLaneHashCount> entries;
  for (const LaneHash hash : {LaneHash::kMd5, LaneHash::kSha256}) {
    for (const LaneKernel& kernel : lane_kernels(hash)) {
      auto& list = entries[static_cast<size_t>(hash)];
      if (list.size() < kernels_max) list.push_back({kernel, 100});
    }
  }
  return HashPlan(entries[0], entries[1]);
}

struct Core {
  RunQueue run_queue;
  HashStation station;
  explicit Core(const HashPlan& plan) : station(run_queue, plan) {}
  // A turn of a loop with nothing else to do.
  bool turn() {
    bool busy = station.poll();
    busy |= run_queue.run() > 0;
    if (!busy) busy = !station.prepare_sleep();
    return busy | (run_queue.run() > 0);
  }
  void run() {
    while (turn()) {
    }
  }
};

struct Wait : HashWait {
  bool ended = false;
  Wait() {
    fn = [](Completion& completion) { static_cast<Wait&>(completion).ended = true; };
  }
};

std::vector<uint8_t> random_bytes(std::mt19937& random, size_t size) {
  std::vector<uint8_t> bytes(size);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

// One upload: its message arrives in pieces in buffers that are overwritten as soon as the stream
// has let go of them.
struct Upload {
  static constexpr size_t kBufferBytes = 1000;
  const std::vector<uint8_t> message;
  std::unique_ptr<HashStream> stream;
  struct Piece {
    std::unique_ptr<uint8_t[]> buffer = std::make_unique<uint8_t[]>(kBufferBytes);
    size_t filled = 0;
    uint64_t end = 0;
  };
  std::deque<Piece> pieces;
  size_t sent = 0;
  bool finished = false;

  void free_hashed() {
    while (!pieces.empty() && pieces.front().end <= stream->hashed() &&
           (pieces.size() > 1 || pieces.front().filled == kBufferBytes)) {
      std::memset(pieces.front().buffer.get(), 0xee, kBufferBytes);
      pieces.pop_front();
    }
  }
  // A random number of bytes, behind the previous ones or somewhere else.
  void step(std::mt19937& random) {
    if (finished) return;
    if (sent == message.size()) {
      stream->finish();
      finished = true;
      return;
    }
    if (pieces.empty() || pieces.back().filled == kBufferBytes || random() % 4 == 0) {
      pieces.emplace_back();
    }
    Piece& piece = pieces.back();
    const size_t count =
        std::min<size_t>({random() % 400 + 1, kBufferBytes - piece.filled, message.size() - sent});
    std::memcpy(piece.buffer.get() + piece.filled, message.data() + sent, count);
    stream->add({piece.buffer.get() + piece.filled, count});
    piece.filled += count;
    sent += count;
    piece.end = sent;
    free_hashed();
  }
};

void interleave(const HashPlan& plan, unsigned seed, size_t uploads_count) {
  std::mt19937 random(seed);
  Core core(plan);
  std::vector<Upload> uploads;
  std::vector<LaneHash> hashes;
  for (size_t i = 0; i < uploads_count; ++i) {
    const size_t size = random() % 8 == 0 ? random() % 130 : random() % 20'000;
    uploads.push_back({.message = random_bytes(random, size), .stream = {}, .pieces = {}});
    hashes.push_back(random() % 3 == 0 ? LaneHash::kSha256 : LaneHash::kMd5);
    uploads.back().stream = std::make_unique<HashStream>(&core.station, hashes.back());
  }
  const auto all_done = [&] {
    return std::all_of(uploads.begin(), uploads.end(),
                       [](const Upload& upload) { return upload.stream->done(); });
  };
  while (!all_done()) {
    for (size_t i = 0; i < uploads.size(); ++i) uploads[random() % uploads.size()].step(random);
    if (random() % 3 == 0) core.station.poll();
    if (random() % 5 == 0) core.station.prepare_sleep();
    for (Upload& upload : uploads) upload.free_hashed();
  }
  for (size_t i = 0; i < uploads.size(); ++i) {
    EXPECT_EQ(uploads[i].stream->digest(), digest(algorithm_of(hashes[i]), uploads[i].message))
        << "seed " << seed << " upload " << i << " of " << uploads[i].message.size() << " bytes";
    EXPECT_EQ(uploads[i].stream->hashed(), uploads[i].message.size());
  }
}

TEST(HashStation, RandomInterleavings) {
  for (const size_t kernels : {1u, 2u, 3u}) {
    const HashPlan plan = plan_with(kernels);
    for (unsigned seed = 0; seed < 6; ++seed) interleave(plan, seed, 1 + seed * 8);
  }
  interleave(HashPlan::measure(), 99, 20);
}

TEST(HashStation, EveryLengthAroundABlock) {
  Core core(plan_with(2));
  std::mt19937 random(1);
  const std::vector<uint8_t> bytes = random_bytes(random, 300);
  for (const LaneHash hash : {LaneHash::kMd5, LaneHash::kSha256}) {
    for (size_t size = 0; size <= bytes.size(); ++size) {
      for (HashStation* station : {&core.station, static_cast<HashStation*>(nullptr)}) {
        HashStream stream(station, hash);
        stream.add(Bytes(bytes).first(size / 3));
        stream.add(Bytes(bytes).subspan(size / 3, size - size / 3));
        stream.finish();
        core.run();
        ASSERT_TRUE(stream.done());
        ASSERT_EQ(stream.digest(), digest(algorithm_of(hash), Bytes(bytes).first(size))) << size;
      }
    }
  }
}

TEST(HashStation, WithoutAStationBytesAreHashedAtOnce) {
  std::mt19937 random(2);
  std::vector<uint8_t> bytes = random_bytes(random, 1000);
  const Digest expected = digest(Algorithm::kMd5, bytes);
  HashStream stream(nullptr, LaneHash::kMd5);
  for (size_t at = 0; at < bytes.size(); at += 100) {
    stream.add(Bytes(bytes).subspan(at, 100));
    EXPECT_EQ(stream.hashed(), at + 100);
    std::memset(bytes.data() + at, 0, 100);
  }
  stream.finish();
  EXPECT_TRUE(stream.done());
  EXPECT_EQ(stream.digest(), expected);
}

TEST(HashStation, PollWaitsForEnoughLanesAndNotForEver) {
  Core core(plan_with(2));
  const HashPlan plan = plan_with(2);
  const size_t enough = plan.enough(LaneHash::kMd5);
  if (enough == 1) GTEST_SKIP() << "no lanes on this processor";
  const std::vector<uint8_t> bytes(64, 7);
  std::deque<HashStream> streams;
  for (size_t i = 0; i + 1 < enough; ++i) {
    streams.emplace_back(&core.station, LaneHash::kMd5).add(bytes);
  }
  EXPECT_FALSE(core.station.poll());
  EXPECT_EQ(streams.front().hashed(), 0u);
  streams.emplace_back(&core.station, LaneHash::kMd5).add(bytes);
  EXPECT_TRUE(core.station.poll());
  for (const HashStream& stream : streams) EXPECT_EQ(stream.hashed(), 64u);
  EXPECT_FALSE(core.station.poll());
  EXPECT_TRUE(core.station.prepare_sleep());  // nothing left

  // A loop that never rests does not leave a stream alone for ever.
  streams.front().add(bytes);
  unsigned polls = 0;
  while (streams.front().hashed() == 64 && polls <= HashStation::kPollsSkippedMax) {
    core.station.poll();
    ++polls;
  }
  EXPECT_EQ(streams.front().hashed(), 128u);
  const auto& stats = core.station.stats().hashes[0];
  EXPECT_EQ(stats.lane_blocks.load(), enough + 1);
  EXPECT_EQ(stats.run_blocks.load(), 2u);
}

TEST(HashStation, WaitersAreAnsweredThroughTheRunQueue) {
  Core core(plan_with(2));
  const std::vector<uint8_t> bytes(100'000, 9);
  HashStream stream(&core.station, LaneHash::kMd5);
  stream.add(bytes);
  Wait all;
  stream.wait(all, bytes.size());  // ends within a block: the tail is copied
  EXPECT_FALSE(all.ended);
  core.run();
  EXPECT_TRUE(all.ended);
  EXPECT_EQ(stream.hashed(), bytes.size());

  Wait at_once;
  stream.wait(at_once, 10);
  EXPECT_FALSE(at_once.ended);
  core.run_queue.run();
  EXPECT_TRUE(at_once.ended);

  stream.add(Bytes(bytes).first(50));
  Wait tail;
  stream.wait(tail, bytes.size() + 50);
  core.run();
  EXPECT_TRUE(tail.ended);

  stream.finish();
  Wait done;
  stream.wait(done, stream.added());
  core.run();
  EXPECT_TRUE(done.ended);
  EXPECT_TRUE(stream.done());
  std::vector<uint8_t> whole = bytes;
  whole.insert(whole.end(), 50, 9);
  EXPECT_EQ(stream.digest(), digest(Algorithm::kMd5, whole));
}

// One run of the station is bounded, however much is queued.
TEST(HashStation, ARunIsASlice) {
  Core core(plan_with(1));  // 100 ns a block, says the plan
  const std::vector<uint8_t> bytes(4 << 20, 1);
  HashStream stream(&core.station, LaneHash::kSha256);
  stream.add(bytes);
  EXPECT_FALSE(core.station.prepare_sleep());
  EXPECT_EQ(stream.hashed(), static_cast<uint64_t>(HashStation::kRunNsMax / 100) * 64);
  core.run();
  EXPECT_EQ(stream.hashed(), bytes.size());
}

// A stream that is dropped or cleared is out of the station, and its memory may go at once.
TEST(HashStation, DroppedStreams) {
  Core core(plan_with(3));
  std::mt19937 random(3);
  std::vector<std::unique_ptr<std::vector<uint8_t>>> memory;
  std::vector<std::unique_ptr<HashStream>> streams;
  for (size_t i = 0; i < 40; ++i) {
    memory.push_back(std::make_unique<std::vector<uint8_t>>(random_bytes(random, 5000)));
    streams.push_back(std::make_unique<HashStream>(
        &core.station, i % 2 == 0 ? LaneHash::kMd5 : LaneHash::kSha256));
    streams.back()->add(*memory.back());
  }
  for (size_t i = 0; i < 40; i += 3) {
    streams[i].reset();
    memory[i].reset();
  }
  streams[1]->clear();
  memory[1] = std::make_unique<std::vector<uint8_t>>(random_bytes(random, 77));
  streams[1]->add(*memory[1]);
  core.station.poll();
  core.station.prepare_sleep();
  streams[2].reset();
  memory[2].reset();
  for (auto& stream : streams) {
    if (stream) stream->finish();
  }
  core.run();
  for (size_t i = 0; i < 40; ++i) {
    if (!streams[i]) continue;
    EXPECT_EQ(streams[i]->digest(),
              digest(i % 2 == 0 ? Algorithm::kMd5 : Algorithm::kSha256, *memory[i]));
  }
}

TEST(HashPlan, TakesWhatIsFaster) {
  const LaneKernel single{"one", 1, nullptr}, eight{"eight", 8, nullptr}, wide{"wide", 16, nullptr};
  const std::vector<HashPlan::Entry> md5 = {{single, 100}, {eight, 130}, {wide, 200}};
  // SHA instructions: eight lanes are slower than one stream eight times.
  const std::vector<HashPlan::Entry> sha256 = {{single, 40}, {eight, 350}};
  const HashPlan plan(md5, sha256);
  EXPECT_EQ(plan.best(LaneHash::kMd5, 1).kernel.name, "one");
  EXPECT_EQ(plan.best(LaneHash::kMd5, 2).kernel.name, "eight");
  EXPECT_EQ(plan.best(LaneHash::kMd5, 8).kernel.name, "eight");
  EXPECT_EQ(plan.best(LaneHash::kMd5, 12).kernel.name, "eight");
  EXPECT_EQ(plan.best(LaneHash::kMd5, 13).kernel.name, "wide");
  EXPECT_EQ(plan.best(LaneHash::kMd5, 1000).kernel.name, "wide");
  EXPECT_EQ(plan.best(LaneHash::kSha256, 30).kernel.name, "one");
  EXPECT_EQ(plan.enough(LaneHash::kSha256), 1u);
  EXPECT_EQ(plan.enough(LaneHash::kMd5), 8u);
}

}  // namespace
}  // namespace basalt::auth
