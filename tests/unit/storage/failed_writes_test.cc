// What the simulation found (docs/reliability.md), each as a test of its own: a failed sync is
// heard by everyone whose bytes it may have lost, what may be needed is kept, and a signal is no
// failure.
#include <algorithm>
#include <array>
#include <cerrno>
#include <deque>
#include <filesystem>

#include "storage/core_engine.h"
#include "storage/lane.h"
#include "storage/mutation_builder.h"
#include "storage/segment_format.h"
#include "tests/unit/storage/hand_machine.h"

namespace basalt::storage {
namespace {

class FailedLaneTest : public ::testing::Test {
 protected:
  void SetUp() override {
    EngineOptions options = small_options(directory.path());
    options.platform = &machine.platform;
    auto opened = Files::open(options);
    ASSERT_TRUE(opened) << opened.error().detail;
    files = std::move(*opened);
    lane = make_lane(*files, 0, machine.io, machine.run_queue, stats);
  }
  void TearDown() override {
    machine.io.hold = false;
    lane.reset();
    machine.turn_until([&] { return machine.io.waiting.empty() && machine.run_queue.empty(); });
    files.reset();
  }
  Waited<Append>& append(size_t body_bytes) {
    const auto& body = bodies.emplace_back(pattern(body_bytes, bodies.size()));
    Waited<Append>& one = appends.emplace_back();
    one.mutations = mutations;
    one.body = body;
    lane->append(one);
    return one;
  }
  bool turn_until(const std::function<bool()>& done) {
    return machine.turn_until(done, [&] { lane->poll(); });
  }

  TemporaryDirectory directory;
  HandMachine machine;
  EngineStats stats;
  std::unique_ptr<Files> files;
  std::unique_ptr<Lane> lane;
  const std::vector<uint8_t> mutations = pattern(100, 9);
  std::deque<std::vector<uint8_t>> bodies;
  std::deque<Waited<Append>> appends;
};

TEST_F(FailedLaneTest, AnInterruptedAllocationIsTriedAgain) {
  machine.disk.allocations_interrupted = 5;
  auto& record = append(1000);
  ASSERT_TRUE(turn_until([&] { return record.done; }));
  EXPECT_TRUE(record.result);
  EXPECT_TRUE(files->healthy()) << files->health_text();
  EXPECT_EQ(machine.disk.allocations_interrupted, 0);
}

// The sync of the zeros says EIO, to the maintenance thread; the batch that lies in the same file
// was lost by it, and its own sync says nothing.
TEST_F(FailedLaneTest, AFailedSyncOfZerosAheadIsTheLanesFailureToo) {
  machine.io.hold = true;
  auto& record = append(1000);
  while (machine.io.waiting.empty()) {
    ASSERT_FALSE(record.done);
    machine.helpers.run();
    machine.io.poll();
    machine.run_queue.run();
    lane->poll();
  }
  machine.disk.sync_fails_once = "log/";
  ASSERT_TRUE(machine.turn_until([&] { return !files->healthy(); }));
  EXPECT_FALSE(record.done);
  machine.io.end(0);
  ASSERT_TRUE(turn_until([&] { return record.done; }));
  ASSERT_FALSE(record.result);
  EXPECT_EQ(record.result.error().code, Code::kIo);
}

TEST_F(FailedLaneTest, OfTwoBatchesInFlightTheLatersFailureIsTheEarliersToo) {
  auto& opening = append(1000);
  ASSERT_TRUE(turn_until([&] { return opening.done; }));
  machine.io.hold = true;
  auto& earlier = append(1000);
  ASSERT_TRUE(turn_until([&] { return machine.io.waiting.size() == 1; }));
  // Large enough to leave while the first is under way.
  auto& later = append(kInlineBodyBytesMax);
  for (int i = 0; i < 3; ++i) append(kInlineBodyBytesMax);
  ASSERT_TRUE(turn_until([&] { return machine.io.waiting.size() == 2; }));
  machine.io.end(1, EIO);
  machine.run_queue.run();
  EXPECT_FALSE(files->healthy());
  machine.io.end(0);  // its own sync went well
  machine.io.hold = false;
  ASSERT_TRUE(turn_until([&] { return earlier.done && later.done; }));
  EXPECT_FALSE(earlier.result);
  EXPECT_FALSE(later.result);
}

// A full disk passes, a failed flush does not: not with the next try, and not with the space that
// comes back.
TEST_F(FailedLaneTest, AFailedFlushOnAFullDiskIsNotTriedAgain) {
  auto& opening = append(1000);
  ASSERT_TRUE(turn_until([&] { return opening.done; }));
  ASSERT_TRUE(opening.result);
  machine.disk.full = true;
  for (int i = 0; i < 400; ++i) {  // the spare segments, too
    auto& filling = append(kInlineBodyBytesMax);
    ASSERT_TRUE(turn_until([&] { return filling.done; }));
    if (filling.result) continue;
    EXPECT_EQ(filling.result.error().code, Code::kNoSpace) << filling.result.error().detail;
    break;
  }
  ASSERT_FALSE(appends.back().result);
  EXPECT_TRUE(files->healthy()) << files->health_text();

  machine.disk.sync_fails_once = "log/";
  auto& failed = append(1000);  // fits the rest of the segment
  ASSERT_TRUE(turn_until([&] { return failed.done; }));
  ASSERT_FALSE(failed.result);
  EXPECT_EQ(failed.result.error().code, Code::kIo);
  EXPECT_FALSE(files->healthy());
  machine.disk.full = false;
  for (const size_t size : {size_t{1000}, kInlineBodyBytesMax, size_t{1000}}) {
    auto& later = append(size);
    ASSERT_TRUE(turn_until([&] { return later.done; }));
    ASSERT_FALSE(later.result);
    EXPECT_EQ(later.result.error().code, Code::kReadOnly);
  }
}

// The file system put off the allocation, and finds the disk full when it is to flush: the bytes
// are lost, and this is told once.
TEST_F(FailedLaneTest, AFlushThatFindsTheDiskFullIsAFailedFlush) {
  auto& opening = append(1000);
  ASSERT_TRUE(turn_until([&] { return opening.done; }));
  machine.disk.sync_fails_once = "log/";
  machine.disk.sync_error = ENOSPC;
  auto& failed = append(1000);
  ASSERT_TRUE(turn_until([&] { return failed.done; }));
  ASSERT_FALSE(failed.result);
  EXPECT_EQ(failed.result.error().code, Code::kIo);
  auto& later = append(1000);
  ASSERT_TRUE(turn_until([&] { return later.done; }));
  EXPECT_FALSE(later.result);
}

TEST(FailedWrites, ABlobsFlushThatFindsTheDiskFullEndsWriting) {
  TemporaryDirectory directory;
  HandMachine machine;
  EngineOptions options = small_options(directory.path());
  options.platform = &machine.platform;
  const SystemClock clock;
  auto opened = Engine::open(options, clock);
  ASSERT_TRUE(opened) << opened.error().detail;
  BufferPool buffers;
  auto core = (*opened)->attach(0, machine.io, machine.run_queue, buffers);
  const auto turn_until = [&](const std::function<bool()>& done) {
    return machine.turn_until(done, [&] { core->poll(); });
  };
  const auto bytes = pattern(200 * 1024, 4);
  // Two in one bulk segment: the second one's bytes may be what the first one's flush lost.
  auto first = core->blobs().create(bytes.size()), second = core->blobs().create(bytes.size());
  ASSERT_TRUE(first && second);
  for (auto* writer : {&*first, &*second}) {
    const MutableBytes room = (*writer)->room();
    ASSERT_GE(room.size(), bytes.size());
    std::memcpy(room.data(), bytes.data(), bytes.size());
    (*writer)->advance(bytes.size());
  }
  int turns = 0;
  ASSERT_TRUE(turn_until([&] { return ++turns == 50; }));
  machine.disk.sync_fails_once = "bulk/";
  machine.disk.sync_error = ENOSPC;
  Waited<SealBlob> seal, later;
  (*first)->seal(seal);
  ASSERT_TRUE(turn_until([&] { return seal.done; }));
  ASSERT_FALSE(seal.result);
  EXPECT_EQ(seal.result.error().code, Code::kIo) << seal.result.error().detail;
  EXPECT_FALSE((*opened)->healthy());
  (*second)->seal(later);
  ASSERT_TRUE(turn_until([&] { return later.done; }));
  EXPECT_FALSE(later.result);
  first->reset();
  second->reset();
  Waited<Completion> stopped;
  core->stop(stopped);
  ASSERT_TRUE(turn_until([&] { return stopped.done; }));
}

// Four bodies in one segment. What has been written when a flush is submitted shares it; what ends
// later does not. A failed flush fails all it was for.
class SharedFlushTest : public ::testing::Test {
 protected:
  void SetUp() override {
    options.platform = &machine.platform;
    auto opened = Engine::open(options, clock);
    ASSERT_TRUE(opened) << opened.error().detail;
    engine = std::move(*opened);
    core = engine->attach(0, machine.io, machine.run_queue, buffers);
    for (Body& body : bodies) {
      auto writer = core->blobs().create(bytes.size());
      ASSERT_TRUE(writer) << writer.error().detail;
      body.writer = std::move(*writer);
      const MutableBytes room = body.writer->room();
      ASSERT_GE(room.size(), bytes.size());
      std::memcpy(room.data(), bytes.data(), bytes.size());
    }
    turn(50);  // places, and whatever else a new engine writes
    machine.io.hold = true;
    for (Body& body : bodies) body.writer->advance(bytes.size());
    turn(1);
    ASSERT_EQ(writes().size(), bodies.size());
  }
  void TearDown() override {
    machine.io.hold = false;
    for (Body& body : bodies) body.writer.reset();
    Waited<Completion> stopped;
    core->stop(stopped);
    EXPECT_TRUE(machine.turn_until([&] { return stopped.done; }, [&] { core->poll(); }));
    core.reset();
    machine.run_queue.run();
    engine.reset();
  }
  void turn(int count) {
    machine.turn_until([&] { return --count < 0; }, [&] { core->poll(); });
  }
  std::vector<IoOp*> of_kind(IoOp::Kind kind) {
    std::vector<IoOp*> found;
    for (IoOp* op : machine.io.waiting) {
      if (op->kind == kind) found.push_back(op);
    }
    return found;
  }
  std::vector<IoOp*> writes() { return of_kind(IoOp::Kind::kWrite); }
  std::vector<IoOp*> flushes() { return of_kind(IoOp::Kind::kDataSync); }
  void end(IoOp* op, int error = 0) {
    const auto at = std::find(machine.io.waiting.begin(), machine.io.waiting.end(), op);
    ASSERT_NE(at, machine.io.waiting.end());
    machine.io.end(static_cast<size_t>(at - machine.io.waiting.begin()), error);
    turn(3);
  }

  void seal_all() {
    for (Body& body : bodies) body.writer->seal(body.seal);
    turn(3);
    begin = UINT64_MAX;
    for (IoOp* op : writes()) begin = std::min(begin, op->offset);
  }
  // Its data and its table of checksums.
  void end_writes_of(size_t body) {
    const uint64_t from = begin + body * stored_bytes(bytes.size());
    for (IoOp* op : writes()) {
      if (op->offset >= from && op->offset < from + stored_bytes(bytes.size())) end(op);
    }
  }

  struct Body {
    std::unique_ptr<BlobWriter> writer;
    Waited<SealBlob> seal;
  };
  bool sealed(size_t body) const { return bodies[body].seal.done && bodies[body].seal.result; }
  TemporaryDirectory directory;
  HandMachine machine;
  EngineOptions options = small_options(directory.path());
  const SystemClock clock;
  BufferPool buffers;
  std::unique_ptr<Engine> engine;
  std::unique_ptr<CoreEngine> core;
  const std::vector<uint8_t> bytes = pattern(200 * 1024, 4);
  std::array<Body, 4> bodies;
  uint64_t begin = 0;  // of the first body
};

TEST_F(SharedFlushTest, SpeaksForWhatWasWrittenWhenItWasSubmitted) {
  seal_all();
  end_writes_of(0);
  ASSERT_EQ(flushes().size(), 1u);
  end_writes_of(1);
  ASSERT_EQ(flushes().size(), 2u);
  const auto both = flushes();
  end_writes_of(2);
  end_writes_of(3);
  EXPECT_EQ(flushes(), both) << "they wait";
  end(both[0]);
  EXPECT_TRUE(sealed(0));
  EXPECT_FALSE(bodies[1].seal.done || bodies[2].seal.done || bodies[3].seal.done);
  ASSERT_EQ(flushes().size(), 2u) << "one for the two that waited";
  end(both[1]);
  EXPECT_TRUE(sealed(1));
  EXPECT_FALSE(bodies[2].seal.done || bodies[3].seal.done);
  ASSERT_EQ(flushes().size(), 1u);
  end(flushes().front());
  EXPECT_TRUE(sealed(2) && sealed(3));
  EXPECT_TRUE(flushes().empty());
}

TEST_F(SharedFlushTest, AFailureIsToldToAllItWasFor) {
  seal_all();
  for (size_t body = 0; body < bodies.size(); ++body) end_writes_of(body);
  ASSERT_EQ(flushes().size(), 2u);
  end(flushes().front());
  end(flushes().front());
  EXPECT_TRUE(sealed(0) && sealed(1));
  ASSERT_EQ(flushes().size(), 1u);
  end(flushes().front(), EIO);
  for (const size_t body : {2, 3}) {
    ASSERT_TRUE(bodies[body].seal.done);
    ASSERT_FALSE(bodies[body].seal.result);
    EXPECT_EQ(bodies[body].seal.result.error().code, Code::kIo);
  }
  EXPECT_FALSE(engine->healthy());
}

// Of a failure the kernel tells a file once: the flushes beside and after it end well, and are not
// believed.
TEST_F(SharedFlushTest, WhatIsBesideAndBehindAFailureFailsToo) {
  seal_all();
  for (size_t body = 0; body < bodies.size(); ++body) end_writes_of(body);
  ASSERT_EQ(flushes().size(), 2u);
  end(flushes().front(), EIO);
  while (!flushes().empty()) end(flushes().front());
  for (const Body& body : bodies) {
    ASSERT_TRUE(body.seal.done);
    EXPECT_FALSE(body.seal.result);
  }
}

// A caller that gives up while it waits for its flush costs the others nothing.
TEST_F(SharedFlushTest, OneIsDiscarded) {
  seal_all();
  for (size_t body = 0; body < bodies.size(); ++body) end_writes_of(body);
  bodies[2].writer->discard();
  turn(3);
  EXPECT_TRUE(bodies[2].seal.done);
  while (!flushes().empty()) end(flushes().front());
  EXPECT_TRUE(sealed(0) && sealed(1) && sealed(3));
  EXPECT_FALSE(bodies[2].seal.result);
}

// The record of a large body went to the log, and the flush failed: it may be there after a
// restart, so the body's file must be, too, although its writer gave it back.
TEST(FailedWrites, AFileWhoseRecordMayBeInTheLogIsKept) {
  TemporaryDirectory directory;
  HandMachine machine;
  EngineOptions options = small_options(directory.path());
  options.platform = &machine.platform;
  options.own_file_bytes_min = 256 * 1024;
  const SystemClock clock;
  auto opened = Engine::open(options, clock);
  ASSERT_TRUE(opened) << opened.error().detail;
  BufferPool buffers;
  auto core = (*opened)->attach(0, machine.io, machine.run_queue, buffers);
  const auto turn_until = [&](const std::function<bool()>& done) {
    return machine.turn_until(done, [&] { core->poll(); });
  };

  const auto bytes = pattern(300 * 1024, 4);
  auto writer = core->blobs().create(bytes.size());
  ASSERT_TRUE(writer) << writer.error().detail;
  for (size_t done = 0; done < bytes.size();) {
    const MutableBytes room = (*writer)->room();
    if (room.empty()) {
      Waited<WriterReady> ready;
      (*writer)->wait(ready);
      ASSERT_TRUE(turn_until([&] { return ready.done; }));
      ASSERT_TRUE(ready.result) << ready.result.error().detail;
      continue;
    }
    const size_t count = std::min(room.size(), bytes.size() - done);
    std::memcpy(room.data(), bytes.data() + done, count);
    (*writer)->advance(count);
    done += count;
  }
  Waited<SealBlob> seal;
  (*writer)->seal(seal);
  ASSERT_TRUE(turn_until([&] { return seal.done; }));
  ASSERT_TRUE(seal.result) << seal.result.error().detail;
  const BlobRef blob = seal.result->ref;
  ASSERT_EQ(blob.kind, static_cast<uint8_t>(BlobKind::kFile));

  MutationBuilder builder;
  builder.put({Table::kCurrent, 7, "name"}, {.size = bytes.size(), .blobs = {&blob, 1}});
  Waited<ApplyRequest> apply(std::span<const Precondition>(), builder.finish(), Bytes());
  machine.io.hold = true;
  core->shard(0).apply(apply);
  ASSERT_TRUE(turn_until([&] { return machine.io.waiting.size() == 1; }));
  machine.io.end(0, EIO);  // written, and not flushed, as far as anybody knows
  machine.io.hold = false;
  ASSERT_TRUE(turn_until([&] { return apply.done; }));
  ASSERT_FALSE(apply.result);
  EXPECT_EQ(apply.result.error().code, Code::kIo);
  (*writer)->discard();
  writer->reset();
  for (int i = 0; i < 100; ++i) {
    machine.helpers.run();
    core->poll();
    machine.run_queue.run();
  }
  core.reset();
  machine.run_queue.run();
  opened->reset();

  // The restart finds the record, and its bytes.
  opened = Engine::open(options, clock);
  ASSERT_TRUE(opened) << opened.error().detail;
  core = (*opened)->attach(0, machine.io, machine.run_queue, buffers);
  auto record = core->shard(0).get_now({Table::kCurrent, 7, "name"});
  ASSERT_TRUE(record);
  Waited<ReadBlob> read(record->view().blobs.front(), uint64_t{0}, uint32_t{100'000});
  core->blobs().read(read);
  ASSERT_TRUE(turn_until([&] { return read.done; }));
  ASSERT_TRUE(read.result) << read.result.error().detail;
  EXPECT_TRUE(std::equal(read.result->data.begin(), read.result->data.end(), bytes.begin()));
  read.result = BlobSlice{};
  core.reset();
  machine.run_queue.run();
}

}  // namespace
}  // namespace basalt::storage
