// The log: appends are durable in order, many share a flush, segments roll over and come back,
// failures are sticky.
#include "storage/lane.h"

#include <fcntl.h>
#include <unistd.h>

#include <deque>

#include "storage/files_local.h"
#include "tests/unit/storage/storage_fixture.h"

namespace basalt::storage {
namespace {

struct Record {
  std::vector<uint8_t> mutations, body;
  Waited<Append> append;
  Record(uint16_t shard, size_t mutations_bytes, size_t body_bytes, uint64_t seed)
      : mutations(pattern(mutations_bytes, seed)), body(pattern(body_bytes, seed + 1)) {
    append.shard = shard;
    append.mutations = mutations;
    append.body = body;
  }
};

class LaneTest : public ::testing::TestWithParam<bool> {
 protected:
  void open() {
    auto opened = Files::open(small_options(directory.path()));
    ASSERT_TRUE(opened) << opened.error().detail;
    files = std::move(*opened);
    core = std::make_unique<TestCore>(GetParam());
    lane = make_lane(*files, 0, *core->io, core->run_queue, core->stats);
  }
  void close() {
    lane.reset();
    core.reset();
    files.reset();
  }
  void TearDown() override { close(); }

  Record& append(size_t mutations_bytes, size_t body_bytes, uint16_t shard = 0) {
    Record& record = records.emplace_back(shard, mutations_bytes, body_bytes, records.size());
    lane->append(record.append);
    return record;
  }
  bool finish() {
    return core->turn_until([&] {
      for (auto& record : records) {
        if (!record.append.done) return false;
      }
      return true;
    });
  }
  size_t log_files() {
    size_t count = 0;
    for ([[maybe_unused]] auto& entry :
         std::filesystem::directory_iterator(directory.path() + "/log"))
      ++count;
    return count;
  }

  TemporaryDirectory directory;
  std::unique_ptr<Files> files;
  std::unique_ptr<TestCore> core;
  std::unique_ptr<Lane> lane;
  std::deque<Record> records;
};

TEST_P(LaneTest, AppendsAreNumberedAndDurable) {
  open();
  Record& first = append(100, 0);
  Record& second = append(100, 5000);
  EXPECT_EQ(first.append.lsn, (uint64_t{1} << kLsnEpochShift) + 1);
  EXPECT_EQ(second.append.lsn, first.append.lsn + 1);
  EXPECT_EQ(lane->queued(), 2u);
  ASSERT_TRUE(finish());
  EXPECT_TRUE(first.append.result);
  EXPECT_EQ(first.append.body_ref, BlobRef{});
  EXPECT_EQ(second.append.body_ref.length, 5000u);
  EXPECT_EQ(lane->durable_position().lsn, second.append.lsn);
  EXPECT_GT(lane->durable_position().file, 0u);
  EXPECT_EQ(lane->queued(), 0u);
  // The body lies where the reference says.
  std::string path =
      directory.path() + "/" + LocalFiles::path_of(FileKind::kLog, second.append.body_ref.file);
  int fd = ::open(path.c_str(), O_RDONLY);
  std::vector<uint8_t> back(5000);
  EXPECT_EQ(
      ::pread(fd, back.data(), back.size(), static_cast<off_t>(second.append.body_ref.offset)),
      5000);
  ::close(fd);
  EXPECT_EQ(back, second.body);
}

TEST_P(LaneTest, ManyAppendsShareAFlush) {
  open();
  append(100, 0);
  ASSERT_TRUE(finish());
  uint64_t before = core->stats.device_flushes;
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < 200; ++i) append(200, 300);
    core->io->poll();
    core->run_queue.run();
  }
  ASSERT_TRUE(finish());
  EXPECT_EQ(core->stats.log_records, 2001u);
  EXPECT_LE(core->stats.device_flushes - before, 20u);
  EXPECT_EQ(core->stats.log_batches, core->stats.device_flushes);
}

TEST_P(LaneTest, CompletesInOrderOverManySegments) {
  open();
  struct Ordered : Append {
    std::vector<uint64_t>* order = nullptr;
  };
  std::vector<uint64_t> order;
  std::deque<Ordered> appends;
  auto mutations = pattern(300, 1);
  auto body = pattern(kInlineBodyBytesMax, 2);
  for (size_t i = 0; i < 200; ++i) {  // 26 MB into segments of 4 MiB
    Ordered& one = appends.emplace_back();
    one.order = &order;
    one.fn = [](Completion& completion) {
      auto& self = static_cast<Ordered&>(completion);
      EXPECT_TRUE(self.result);
      self.order->push_back(self.lsn);
    };
    one.mutations = mutations;
    one.body = Bytes(body).first(i % 2 == 0 ? body.size() : 500 * i);
    lane->append(one);
  }
  ASSERT_TRUE(core->turn_until([&] { return order.size() == appends.size(); }));
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
  EXPECT_GE(log_files(), 5u);
}

TEST_P(LaneTest, EmptySegmentsAreRecycledAndSurplusUnlinked) {
  open();
  for (int i = 0; i < 400; ++i) {  // 40 MB; more than the queue takes at once
    append(300, 100'000);
    if (i % 100 == 99) ASSERT_TRUE(finish());
  }
  const size_t full = log_files();  // another spare may still be on its way
  EXPECT_GE(full, 9u);
  EXPECT_GT(lane->bytes_since_checkpoint(), 40'000'000u);
  std::vector<BlobRef> refs;
  for (auto& record : records) {
    files->add_live(record.append.body_ref);
    refs.push_back(record.append.body_ref);
  }
  files->drop_orphans();
  files->checkpointed(0, lane->durable_position().lsn);
  EXPECT_EQ(lane->bytes_since_checkpoint(), 0u);
  core->turn_for(std::chrono::milliseconds(250));
  EXPECT_GE(log_files(), full) << "live bodies are there";
  EXPECT_GE(files->victims(1.1, 0, 100).size(), 8u);
  EXPECT_TRUE(files->victims(0.1, 0, 100).empty());

  auto guard = files->guard(0);
  files->release(refs);
  core->turn_for(std::chrono::milliseconds(250));
  EXPECT_GE(log_files(), full) << "a reader may still look";
  guard.reset();
  ASSERT_TRUE(core->turn_until([&] { return log_files() <= 4; })) << log_files();
  files->release(refs);  // references to earlier generations or gone files do nothing
  // New records go into recycled segments, with new generations.
  records.clear();
  for (int i = 0; i < 100; ++i) append(300, 100'000);
  ASSERT_TRUE(finish());
  for (auto& record : records) EXPECT_TRUE(record.append.result);
  EXPECT_GE(files->space_use().segments_reused, 2u) << "spares that were never used came first";
}

TEST_P(LaneTest, RefusesWhatCannotBe) {
  open();
  Record& empty = append(0, 0);
  Record& large = append(kMutationsBytesMax + 1, 0);
  ASSERT_TRUE(finish());
  EXPECT_EQ(empty.append.result.error().code, Code::kInvalid);
  EXPECT_EQ(large.append.result.error().code, Code::kTooLarge);
  Record& largest = append(kMutationsBytesMax, kInlineBodyBytesMax);
  ASSERT_TRUE(finish());
  EXPECT_TRUE(largest.append.result);
}

TEST_P(LaneTest, HoldStopsBatchesAndTheQueueIsBounded) {
  open();
  lane->hold(true);
  std::vector<uint8_t> body = pattern(kInlineBodyBytesMax, 1);
  std::vector<uint8_t> mutations = pattern(100, 1);
  std::deque<Waited<Append>> appends;
  size_t busy = 0;
  for (int i = 0; i < 400; ++i) {
    auto& one = appends.emplace_back();
    one.mutations = mutations;
    one.body = body;
    lane->append(one);
    busy += one.lsn == 0;
  }
  EXPECT_GT(busy, 100u);
  core->turn_for(std::chrono::milliseconds(100));
  EXPECT_EQ(core->stats.log_batches, 0u);
  lane->hold(false);
  ASSERT_TRUE(core->turn_until(
      [&] { return std::all_of(appends.begin(), appends.end(), [](auto& a) { return a.done; }); }));
  for (auto& one : appends) {
    if (one.lsn == 0) {
      EXPECT_EQ(one.result.error().code, Code::kBusy);
    } else {
      EXPECT_TRUE(one.result);
    }
  }
}

TEST_P(LaneTest, DestroyedWithWorkLeftCompletesAll) {
  open();
  for (int i = 0; i < 300; ++i) append(100, 60'000);
  core->io->poll();
  core->run_queue.run();
  lane.reset();
  core->run_queue.run();
  size_t good = 0;
  for (auto& record : records) {
    EXPECT_TRUE(record.append.done);
    if (record.append.result) {
      ++good;
    } else {
      EXPECT_EQ(record.append.result.error().code, Code::kCancelled);
    }
  }
  EXPECT_LT(good, 300u);
}

TEST_P(LaneTest, APoisonedEngineTakesNoMore) {
  open();
  Record& good = append(10, 10);
  ASSERT_TRUE(finish());
  EXPECT_TRUE(good.append.result);
  files->poison("elsewhere");
  Record& bad = append(10, 10);
  ASSERT_TRUE(finish());
  EXPECT_EQ(bad.append.result.error().code, Code::kReadOnly);
}

// A checkpoint that failed leaves the overlay full, and the lane held: for good.
TEST_P(LaneTest, WhatIsHeldHearsOfTheEnd) {
  open();
  lane->hold(true);
  Record& forming = append(10, 10);
  for (int i = 0; i < 100; ++i) append(100, kInlineBodyBytesMax);  // some wait behind the batch
  core->turn_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(forming.append.done);
  files->poison("a checkpoint");
  ASSERT_TRUE(finish());
  for (auto& record : records) EXPECT_EQ(record.append.result.error().code, Code::kReadOnly);
  EXPECT_EQ(lane->queued(), 0u);
}

TEST_P(LaneTest, AFreshServerStaysSmall) {
  open();
  append(10, 10);
  ASSERT_TRUE(finish());
  core->turn_for(std::chrono::milliseconds(300));
  EXPECT_EQ(log_files(), 1u);
}

INSTANTIATE_TEST_SUITE_P(Backends, LaneTest, ::testing::Values(false, true),
                         [](const auto& info) { return info.param ? "threads" : "io_uring"; });

// A simulated disk in front of the real one: fails a chosen write.
class FailingIo final : public Io {
 public:
  FailingIo(RunQueue& run_queue, Io& real) : run_queue_(run_queue), real_(real) {}
  void submit(IoOp& op) override {
    if (op.kind == IoOp::Kind::kWriteDataSync && --good_writes < 0) {
      op.result = -EIO;
      run_queue_.post(op);
      return;
    }
    real_.submit(op);
  }
  bool poll() override {
    bool did = real_.poll();
    return drain_posted(run_queue_) || did;
  }
  size_t in_flight() const override { return real_.in_flight(); }
  size_t at_once_max() const override { return real_.at_once_max(); }
  std::string_view name() const override { return "failing"; }
  int good_writes = 0;

 private:
  RunQueue& run_queue_;
  Io& real_;
};

TEST(LaneFailure, FirstErrorEndsTheLane) {
  TemporaryDirectory directory;
  auto files = std::move(*Files::open(small_options(directory.path())));
  TestCore core;
  auto failing = std::make_unique<FailingIo>(core.run_queue, *core.io);
  failing->good_writes = 1;
  auto lane = make_lane(*files, 0, *failing, core.run_queue, core.stats);
  std::deque<Record> records;
  auto add = [&]() -> Record& {
    Record& record = records.emplace_back(0, 100, 100, records.size());
    lane->append(record.append);
    return record;
  };
  auto turn = [&](Record& record) {
    for (int i = 0; i < 20000 && !record.append.done; ++i) {
      failing->poll();
      core.run_queue.run();
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
    return record.append.done;
  };
  Record& first = add();
  ASSERT_TRUE(turn(first));
  EXPECT_TRUE(first.append.result);
  Record& second = add();
  Record& third = add();
  ASSERT_TRUE(turn(third));
  EXPECT_EQ(second.append.result.error().code, Code::kIo);
  EXPECT_EQ(third.append.result.error().code, Code::kIo);
  EXPECT_FALSE(files->healthy());
  EXPECT_EQ(lane->durable_position().lsn, first.append.lsn);
  failing->good_writes = 100;  // a later success changes nothing
  Record& fourth = add();
  ASSERT_TRUE(turn(fourth));
  EXPECT_EQ(fourth.append.result.error().code, Code::kReadOnly);
  EXPECT_EQ(core.stats.io_errors, 1u);
  lane.reset();
  failing.reset();
}

}  // namespace
}  // namespace basalt::storage
