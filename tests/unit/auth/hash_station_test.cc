// hash_station: digests equal OpenSSL's whatever the lengths, the pieces, their places in memory
// and the other streams of the core; what a stream says it has hashed is never read again; a
// dropped stream leaves nothing behind. And when it hashes: it waits for company, but for nobody
// for ever. Time is an alarm in the tests' hands.
#include "auth/hash_station.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <thread>

#include "base/check.h"

namespace basalt::auth {
namespace {

Algorithm algorithm_of(LaneHash hash) {
  return hash == LaneHash::kMd5 ? Algorithm::kMd5 : Algorithm::kSha256;
}

// A plan that uses the widest kernels from two streams on, or never; and kernels of both hashes
// whenever it can, or never.
HashPlan plan_with(size_t kernels_max, bool joint = false) {
  std::array<std::vector<HashPlan::Entry>, kLaneHashCount> entries;
  for (const LaneHash hash : {LaneHash::kMd5, LaneHash::kSha256}) {
    for (const LaneKernel& kernel : lane_kernels(hash)) {
      auto& list = entries[static_cast<size_t>(hash)];
      if (list.size() < kernels_max) list.push_back({kernel, 100});
    }
  }
  std::vector<HashPlan::JointEntry> joint_entries;
  for (const JointKernel& kernel : joint_kernels()) {
    if (joint) joint_entries.push_back({kernel, 1});
  }
  return HashPlan(entries[0], entries[1], joint_entries);
}

struct FakeAlarm final : HashAlarm {
  bool armed = false;
  void arm() override {
    EXPECT_FALSE(armed);
    armed = true;
  }
  void disarm() override {
    EXPECT_TRUE(armed);
    armed = false;
  }
};

struct Core {
  RunQueue run_queue;
  FakeAlarm alarm;
  HashStation station;
  explicit Core(const HashPlan& plan, bool patient = false, HashExchange* exchange = nullptr)
      : station(run_queue, plan, patient ? &alarm : nullptr, exchange) {}
  void ring() {
    ASSERT_TRUE(alarm.armed);
    alarm.armed = false;
    station.ring();
  }
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

void interleave(const HashPlan& plan, unsigned seed, size_t uploads_count, bool patient = false) {
  std::mt19937 random(seed);
  Core core(plan, patient);
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
    if (core.alarm.armed && random() % 20 == 0) core.ring();
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
    for (unsigned seed = 0; seed < 6; ++seed) {
      interleave(plan_with(kernels, true), seed, 1 + seed * 4, true);
    }
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

// Bytes of a few uploads, and the streams that hash them.
struct Few {
  const std::vector<uint8_t> bytes = std::vector<uint8_t>(100'000, 7);
  Core core{plan_with(kHashLanesMax), true};
  std::deque<HashStream> streams;
  explicit Few(size_t count) {
    for (size_t i = 0; i < count; ++i) streams.emplace_back(&core.station, LaneHash::kMd5);
  }
};

TEST(HashStation, OneUploadAloneNeverWaits) {
  Few few(1);
  few.streams[0].add(few.bytes);
  EXPECT_FALSE(few.core.station.prepare_sleep());
  EXPECT_GT(few.streams[0].hashed(), 0u);
  few.core.run();
  EXPECT_FALSE(few.core.alarm.armed);
  // Nor does it wait for one of the other hash, or for one that has gone.
  HashStream other(&few.core.station, LaneHash::kSha256);
  few.streams.emplace_back(&few.core.station, LaneHash::kMd5);
  few.streams.pop_back();
  few.streams[0].add(few.bytes);
  EXPECT_FALSE(few.core.station.prepare_sleep());
  EXPECT_GT(few.streams[0].hashed(), few.bytes.size());
}

// Three streams share a run only where a kernel has lanes for them (AVX2).
bool has_lanes_for_three() { return lane_kernels(LaneHash::kMd5).back().lanes >= 3; }

TEST(HashStation, AStreamWaitsForTheOthersOfItsCore) {
  if (!has_lanes_for_three()) GTEST_SKIP() << "no kernel with three lanes on this processor";
  Few few(3);
  HashStation& station = few.core.station;
  few.streams[0].add(few.bytes);
  few.streams[1].add(few.bytes);
  for (unsigned i = 0; i < 100; ++i) {  // however long the loop turns
    EXPECT_FALSE(station.poll());
    EXPECT_TRUE(station.prepare_sleep());
  }
  EXPECT_EQ(few.streams[0].hashed(), 0u);
  EXPECT_TRUE(few.core.alarm.armed);
  few.streams[2].add(few.bytes);
  EXPECT_FALSE(station.prepare_sleep());
  EXPECT_GT(few.streams[0].hashed(), 0u);
  for (const HashStream& stream : few.streams) {
    EXPECT_EQ(stream.hashed(), few.streams[0].hashed());
  }
  const auto& stats = station.stats().hashes[0];
  EXPECT_EQ(stats.lane_blocks.load(), 3 * stats.run_blocks.load());
  few.core.run();
  EXPECT_EQ(few.streams[2].hashed(), few.bytes.size() / 64 * 64);
  EXPECT_FALSE(few.core.alarm.armed);  // nothing is left to ring for
}

// An upload that stalls keeps nobody: whoever needs a digest waits for it, and so gets it.
TEST(HashStation, AWaiterEndsThePatience) {
  if (!has_lanes_for_three()) GTEST_SKIP() << "no kernel with three lanes on this processor";
  Few few(3);
  few.streams[0].add(few.bytes);
  few.streams[1].add(few.bytes);
  EXPECT_TRUE(few.core.station.prepare_sleep());
  few.streams[0].finish();
  Wait wait;
  few.streams[0].wait(wait, few.bytes.size());
  few.core.run();
  EXPECT_TRUE(wait.ended);
  EXPECT_TRUE(few.streams[0].done());
  // The other shared the runs, and has no more said to it.
  EXPECT_EQ(few.streams[1].hashed(), few.bytes.size() / 64 * 64);
  EXPECT_EQ(few.streams[2].hashed(), 0u);

  // Once nobody waits the rest is patient again.
  few.streams[0].clear();
  few.streams[0].add(few.bytes);
  few.streams[1].add(few.bytes);
  EXPECT_TRUE(few.core.station.prepare_sleep());
  Wait part;
  few.streams[0].wait(part, 64);
  EXPECT_FALSE(few.core.station.prepare_sleep());
  few.core.run_queue.run();
  EXPECT_TRUE(part.ended);
  EXPECT_LT(few.streams[0].hashed(), few.bytes.size() / 64 * 64);
  EXPECT_TRUE(few.core.station.prepare_sleep());
}

TEST(HashStation, AWaiterInALoopThatNeverRests) {
  Few few(2);
  if (plan_with(kHashLanesMax).enough(LaneHash::kMd5) < 2) GTEST_SKIP() << "no lanes";
  few.streams[0].add(few.bytes);
  Wait wait;
  few.streams[0].wait(wait, 64);
  unsigned polls = 0;
  while (few.streams[0].hashed() == 0 && polls <= HashStation::kPollsSkippedMax) {
    few.core.station.poll();
    ++polls;
  }
  few.core.run_queue.run();
  EXPECT_TRUE(wait.ended);
}

TEST(HashStation, TheAlarmEndsThePatience) {
  Few few(2);
  few.streams[0].add(few.bytes);
  EXPECT_TRUE(few.core.station.prepare_sleep());
  few.core.ring();
  few.core.run();
  EXPECT_EQ(few.streams[0].hashed(), few.bytes.size() / 64 * 64);
  EXPECT_FALSE(few.core.alarm.armed);
  // It rang for what was there, not for ever.
  few.streams[0].add(few.bytes);
  EXPECT_TRUE(few.core.station.prepare_sleep());
  EXPECT_TRUE(few.core.alarm.armed);
  // The upload that was waited for goes away.
  few.streams.pop_back();
  EXPECT_FALSE(few.core.station.prepare_sleep());
}

// With more streams than lanes those go first that somebody waits for.
TEST(HashStation, UrgentStreamsFirst) {
  Core core(plan_with(1), true);
  const std::vector<uint8_t> bytes(1 << 20, 3);
  std::deque<HashStream> streams;
  for (size_t i = 0; i < 4; ++i) {
    streams.emplace_back(&core.station, LaneHash::kSha256).add(bytes);
  }
  Wait wait;
  streams[2].wait(wait, bytes.size());
  EXPECT_FALSE(core.station.prepare_sleep());
  EXPECT_GT(streams[2].hashed(), 0u);
  EXPECT_EQ(streams[0].hashed(), 0u);
  while (!wait.ended) ASSERT_TRUE(core.turn());
  EXPECT_LT(streams[0].hashed() + streams[1].hashed() + streams[3].hashed(), bytes.size());
  core.run();
  EXPECT_EQ(streams[0].hashed(), bytes.size());
}

// --- Several cores

bool readable(int fd) {
  pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
  return poll(&entry, 1, 0) == 1;
}

struct TwoCores {
  const std::vector<uint8_t> bytes = std::vector<uint8_t>(100'000, 7);
  HashExchange exchange;
  Core a{plan_with(kHashLanesMax), true, &exchange};
  Core b{plan_with(kHashLanesMax), true, &exchange};
  std::deque<HashStream> of_a, of_b;
  TwoCores() {
    for (unsigned i = 0; i < 2; ++i) {
      of_a.emplace_back(&a.station, LaneHash::kMd5, true);
      of_b.emplace_back(&b.station, LaneHash::kMd5, true);
    }
  }
  static void fall_asleep(Core& core) { ASSERT_TRUE(core.station.prepare_sleep()); }
};

TEST(HashExchange, OneRunForTheStreamsOfTwoCores) {
  TwoCores two;
  if (plan_with(kHashLanesMax).enough(LaneHash::kMd5) < 4) GTEST_SKIP() << "no lanes";
  for (HashStream& stream : two.of_a) {
    stream.add(two.bytes);
    stream.finish();
  }
  two.fall_asleep(two.a);  // there are streams of the other core to wait for
  EXPECT_EQ(two.of_a[0].hashed(), 0u);
  for (HashStream& stream : two.of_b) {
    stream.add(two.bytes);
    stream.finish();
  }
  std::deque<Wait> waits(2);
  for (unsigned i = 0; i < 2; ++i) two.of_b[i].wait(waits[i], two.bytes.size());
  two.b.run();
  EXPECT_TRUE(waits[0].ended && waits[1].ended);
  const auto& stats = two.b.station.stats().hashes[0];
  EXPECT_GE(stats.bytes.load(), 4 * two.bytes.size() / 64 * 64);
  EXPECT_GT(stats.lane_blocks.load(), 3 * stats.run_blocks.load());
  // The owner is woken, and only now takes note.
  EXPECT_TRUE(readable(two.a.station.wake_fd()));
  EXPECT_EQ(two.of_a[0].hashed(), 0u);
  two.a.station.woke();
  EXPECT_FALSE(readable(two.a.station.wake_fd()));
  two.a.run();
  for (const HashStream& stream : two.of_a) {
    ASSERT_TRUE(stream.done());
    EXPECT_EQ(stream.digest(), digest(Algorithm::kMd5, two.bytes));
  }
  EXPECT_EQ(two.a.station.stats().hashes[0].bytes.load(), 0u);
}

TEST(HashExchange, WhatIsLentIsTakenBackWhenSomebodyWaits) {
  TwoCores two;
  two.of_a[0].add(two.bytes);
  two.of_a[0].finish();
  two.fall_asleep(two.a);
  two.a.station.woke();
  Wait wait;
  two.of_a[0].wait(wait, two.bytes.size());
  two.a.run();
  EXPECT_TRUE(wait.ended);
  EXPECT_EQ(two.of_a[0].digest(), digest(Algorithm::kMd5, two.bytes));
}

TEST(HashExchange, TheAlarmEndsThePatienceOfWhatIsLent) {
  TwoCores two;
  two.of_a[0].add(two.bytes);
  two.fall_asleep(two.a);
  two.a.station.woke();
  two.a.ring();
  two.a.run();
  EXPECT_EQ(two.of_a[0].hashed(), two.bytes.size() / 64 * 64);
  EXPECT_FALSE(two.a.alarm.armed);
}

TEST(HashExchange, ALentStreamIsDropped) {
  TwoCores two;
  two.of_a[0].add(two.bytes);
  two.of_a[1].add(two.bytes);
  two.fall_asleep(two.a);
  two.of_a[0].clear();
  two.of_a.pop_back();
  two.a.station.woke();
  two.of_a[0].add(two.bytes);
  two.of_a[0].finish();
  Wait wait;
  two.of_a[0].wait(wait, two.bytes.size());
  two.a.run();
  EXPECT_EQ(two.of_a[0].digest(), digest(Algorithm::kMd5, two.bytes));
}

TEST(HashExchange, ShortMessagesStayOnTheirCore) {
  TwoCores two;
  HashStream of_a(&two.a.station, LaneHash::kSha256);
  HashStream of_b(&two.b.station, LaneHash::kSha256, true);
  of_a.add(two.bytes);
  EXPECT_FALSE(two.a.station.prepare_sleep());  // alone on its core: nobody to wait for
  EXPECT_GT(of_a.hashed(), 0u);
}

// Threads that do what loops do, with uploads that come, stall, wait, are dropped and finish. Every
// digest is right and nobody waits for ever (the alarm rings when a thread has slept for a while).
TEST(HashExchange, CoresAsThreads) {
  HashExchange exchange;
  constexpr unsigned kUploads = 60;
  const auto core_main = [&](unsigned seed) {
    std::mt19937 random(seed);
    Core core(plan_with(1 + seed % 4, seed % 2 == 0), true, &exchange);
    struct Upload {
      std::vector<uint8_t> message;
      std::unique_ptr<HashStream> stream;
      LaneHash hash = LaneHash::kMd5;
      size_t sent = 0;
      bool finished = false;
      Wait wait;
      bool waiting = false;
    };
    std::deque<std::unique_ptr<Upload>> uploads;
    unsigned begun = 0;
    while (begun < kUploads || !uploads.empty()) {
      if (begun < kUploads && uploads.size() < 1 + random() % 4) {
        auto& upload = *uploads.emplace_back(std::make_unique<Upload>());
        upload.message = random_bytes(random, random() % 200'000);
        upload.hash = random() % 2 == 0 ? LaneHash::kMd5 : LaneHash::kSha256;
        upload.stream = std::make_unique<HashStream>(&core.station, upload.hash, random() % 8 != 0);
        ++begun;
      }
      for (size_t i = 0; i < uploads.size();) {
        Upload& upload = *uploads[i];
        const auto& message = upload.message;
        if (upload.sent < message.size()) {
          const size_t count =
              std::min<size_t>(random() % 60'000 + 1, message.size() - upload.sent);
          upload.stream->add({message.data() + upload.sent, count});
          upload.sent += count;
          if (!upload.waiting && random() % 4 == 0) {
            upload.waiting = true;
            upload.wait.ended = false;
            upload.stream->wait(upload.wait, random() % (upload.sent + 1));
          }
        } else if (!upload.finished) {
          upload.finished = true;
          upload.stream->finish();
        } else if (!upload.waiting && !upload.stream->done()) {
          upload.waiting = true;
          upload.wait.ended = false;
          upload.stream->wait(upload.wait, upload.sent);
        }
        if (upload.waiting && upload.wait.ended) upload.waiting = false;
        const bool dropped = !upload.waiting && random() % 40 == 0;
        if (upload.stream->done() && !upload.waiting) {
          EXPECT_EQ(upload.stream->digest(), digest(algorithm_of(upload.hash), message));
        }
        if (dropped || (upload.stream->done() && !upload.waiting)) {
          upload.stream.reset();
          std::fill(upload.message.begin(), upload.message.end(), 0);  // nobody reads it any more
          uploads.erase(uploads.begin() + static_cast<ptrdiff_t>(i));
          continue;
        }
        ++i;
      }
      bool busy = core.station.poll();
      busy |= core.run_queue.run() > 0;
      if (busy) continue;
      const bool sleeps = core.station.prepare_sleep();
      // Asleep only if nothing else can happen here.
      const bool idle = sleeps && core.run_queue.empty() &&
                        std::all_of(uploads.begin(), uploads.end(),
                                    [](const auto& upload) { return upload->waiting; });
      if (idle && (begun == kUploads || uploads.size() == 4)) {
        pollfd entry{.fd = core.station.wake_fd(), .events = POLLIN, .revents = 0};
        if (poll(&entry, 1, HashStation::kPatienceMs) == 0 && core.alarm.armed) core.ring();
      }
      core.station.woke();
      core.run_queue.run();
    }
  };
  std::vector<std::thread> threads;
  for (unsigned seed = 1; seed <= 3; ++seed) threads.emplace_back(core_main, seed);
  for (std::thread& thread : threads) thread.join();
}

TEST(HashPlan, TakesBothTogetherWhereThatIsFaster) {
  const LaneKernel single{"one", 1, nullptr}, eight{"eight", 8, nullptr}, two{"two", 2, nullptr};
  const std::vector<HashPlan::Entry> md5 = {{single, 94}, {two, 101}, {eight, 127}};
  const std::vector<HashPlan::Entry> sha256 = {{single, 40}, {two, 45}};
  const std::vector<HashPlan::JointEntry> joint = {{{"one of each", 1, 1, nullptr}, 102},
                                                   {{"two of each", 2, 2, nullptr}, 140}};
  const HashPlan plan(md5, sha256, joint);
  ASSERT_NE(plan.best_joint(1, 1), nullptr);
  EXPECT_EQ(plan.best_joint(1, 1)->kernel.name, "one of each");
  ASSERT_NE(plan.best_joint(2, 2), nullptr);
  EXPECT_EQ(plan.best_joint(2, 2)->kernel.name, "two of each");
  EXPECT_EQ(plan.best_joint(8, 8), nullptr);  // 2 x 127 / 8 + 45 is less
  EXPECT_EQ(plan.best_joint(1, 0), nullptr);
  EXPECT_EQ(HashPlan(md5, sha256).best_joint(1, 1), nullptr);
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
