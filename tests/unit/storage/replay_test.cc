// Recovery: what was acknowledged comes back after a crash, torn tails are dropped, damage is never
// passed over.
#include <fcntl.h>
#include <unistd.h>

#include <deque>
#include <map>

#include "storage/files_local.h"
#include "storage/lane.h"
#include "tests/unit/storage/storage_fixture.h"

namespace basalt::storage {
namespace {

struct Written {
  uint64_t lsn;
  uint16_t shard;
  std::vector<uint8_t> mutations, body;
  BlobRef ref;
};

class ReplayTest : public ::testing::Test {
 protected:
  std::unique_ptr<Files> open(unsigned cores = 1) {
    auto opened = Files::open(small_options(directory.path(), cores));
    EXPECT_TRUE(opened) << opened.error().detail;
    return std::move(*opened);
  }

  // Appends `count` records one batch each (or all in few batches) and remembers them. A "crash" is
  // just the end: nothing is checkpointed.
  void write(Files& files, unsigned core_number, size_t count, size_t body_bytes, bool one_by_one,
             std::function<void(Lane&)> at_end = {}) {
    TestCore core;
    auto lane = make_lane(files, core_number, *core.io, core.run_queue, core.stats);
    std::deque<Waited<Append>> appends;
    std::deque<Written> mine;
    for (size_t i = 0; i < count; ++i) {
      Written& record = mine.emplace_back();
      uint64_t seed = written.size() + mine.size();
      record.shard = static_cast<uint16_t>((core_number + i * files_cores) % 4);
      record.mutations = pattern(50 + i % 300, seed);
      record.body = pattern(body_bytes, seed + 7);
      auto& append = appends.emplace_back();
      append.shard = record.shard;
      append.mutations = record.mutations;
      append.body = record.body;
      lane->append(append);
      if (one_by_one) ASSERT_TRUE(core.turn_until([&] { return append.done; }));
    }
    ASSERT_TRUE(core.turn_until([&] { return appends.empty() || appends.back().done; }));
    for (size_t i = 0; i < count; ++i) {
      ASSERT_TRUE(appends[i].result);
      mine[i].lsn = appends[i].lsn;
      mine[i].ref = appends[i].body_ref;
      written.push_back(std::move(mine[i]));
    }
    if (at_end) at_end(*lane);
    lane.reset();
  }

  Status replay(Files& files, std::vector<LogPosition> applied = std::vector<LogPosition>(4)) {
    recovered.clear();
    return replay_log(files, applied, [this](const RecoveredRecord& record) -> Status {
      recovered.push_back({record.lsn,
                           record.shard,
                           {record.mutations.begin(), record.mutations.end()},
                           {record.body.begin(), record.body.end()},
                           record.body_ref});
      return {};
    });
  }

  // The recovered records are `written` from `first` up to `end`.
  void expect_range(size_t first, size_t end) {
    ASSERT_EQ(recovered.size(), end - first);
    for (size_t i = first; i < end; ++i) {
      const Written& got = recovered[i - first];
      ASSERT_EQ(got.lsn, written[i].lsn);
      EXPECT_EQ(got.shard, written[i].shard);
      EXPECT_EQ(got.mutations, written[i].mutations);
      EXPECT_EQ(got.body, written[i].body);
      EXPECT_EQ(got.ref, written[i].ref);
    }
  }

  std::vector<std::string> logs() {
    std::vector<std::string> paths;
    for (auto& entry : std::filesystem::directory_iterator(directory.path() + "/log"))
      paths.push_back(entry.path());
    std::sort(paths.begin(), paths.end());
    return paths;
  }
  // Where the records of `written` lie: every batch of the first log file, by offset.
  std::vector<std::pair<uint64_t, BatchHeader>> batches(const std::string& path) {
    std::vector<std::pair<uint64_t, BatchHeader>> list;
    int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    std::vector<uint8_t> block(kBlockBytes);
    EXPECT_TRUE(read_at(fd, block, 0));
    auto segment = parse_segment_header(block);
    uint64_t offset = kSegmentDataOffset;
    for (;;) {
      auto got = read_at(fd, block, offset);
      if (!got || *got < block.size()) break;
      auto header = parse_batch_header(block, segment->generation);
      if (!header) break;
      list.emplace_back(offset, *header);
      offset += header->bytes;
    }
    ::close(fd);
    return list;
  }

  TemporaryDirectory directory;
  unsigned files_cores = 1;
  std::vector<Written> written, recovered;
};

TEST_F(ReplayTest, EverythingComesBack) {
  {
    auto files = open();
    write(*files, 0, 50, 700, true);
  }
  auto files = open();
  ASSERT_TRUE(replay(*files));
  expect_range(0, 50);
}

TEST_F(ReplayTest, OverManySegmentsAndLanes) {
  files_cores = 2;
  {
    auto files = open(2);
    write(*files, 0, 150, 100'000, false);
    write(*files, 1, 60, 100'000, false);
  }
  EXPECT_GE(logs().size(), 5u);
  auto files = open(2);
  ASSERT_TRUE(replay(*files));
  expect_range(0, 210);
  // With another number of cores it is the same log.
  files.reset();
  files = open(1);
  ASSERT_TRUE(replay(*files));
  expect_range(0, 210);
}

TEST_F(ReplayTest, BeginsAtTheSmallestPosition) {
  LogPosition middle;
  {
    auto files = open();
    write(*files, 0, 20, 700, true, [&](Lane& lane) { middle = lane.durable_position(); });
  }
  const auto all = batches(logs().front());
  ASSERT_EQ(all.size(), 20u);
  // As a checkpoint behind the tenth record would have left it.
  middle.lsn = all[9].second.last_lsn();
  middle.offset = all[10].first;
  // What lies before is in the index and is not read: damage there is found by a read or a scrub.
  int fd = ::open(logs().front().c_str(), O_WRONLY | O_CLOEXEC);
  ASSERT_EQ(::pwrite(fd, "damage", 6, static_cast<off_t>(all[5].first) + 100), 6);
  ::close(fd);
  auto files = open();
  ASSERT_TRUE(replay(*files, std::vector<LogPosition>(4, middle)));
  expect_range(10, 20);
  // A position of the segment's earlier life names an offset that means nothing now.
  LogPosition stale = middle;
  stale.lsn = all[0].second.previous_lsn;
  EXPECT_FALSE(
      replay(*files, std::vector<LogPosition>(4, stale)));  // reads from the front: sees the damage
}

TEST_F(ReplayTest, EpochsComeInOrder) {
  {
    auto files = open();
    write(*files, 0, 10, 10, true);
  }
  {
    auto files = open();
    write(*files, 0, 10, 10, true);
  }
  auto files = open();
  ASSERT_TRUE(replay(*files));
  expect_range(0, 20);
  EXPECT_GT(recovered[10].lsn >> kLsnEpochShift, recovered[9].lsn >> kLsnEpochShift);
}

TEST_F(ReplayTest, AppliedRecordsAreSkipped) {
  {
    auto files = open();
    write(*files, 0, 40, 10, true);
  }
  auto files = open();
  std::vector<LogPosition> applied(4);
  for (auto& position : applied) position.lsn = written[24].lsn;
  ASSERT_TRUE(replay(*files, applied));
  expect_range(25, 40);
  for (auto& position : applied) position.lsn = files->superblock().epoch << kLsnEpochShift;
  ASSERT_TRUE(replay(*files, applied));
  EXPECT_TRUE(recovered.empty());
}

TEST_F(ReplayTest, TornTailIsDroppedQuietly) {
  {
    auto files = open();
    write(*files, 0, 10, 20'000, true);
  }
  std::string path = logs()[0];
  auto [offset, header] = batches(path).back();
  // Half of the last batch did not reach the disk. (It was acknowledged here, but nothing on the
  // disk says so.)
  std::vector<uint8_t> zeros(header.bytes - 8192);
  overwrite(path, offset + 8192, zeros);
  auto files = open();
  ASSERT_TRUE(replay(*files));
  expect_range(0, 9);
}

TEST_F(ReplayTest, TornAtEverySectorOfTheLastBatch) {
  {
    auto files = open();
    write(*files, 0, 3, 3000, true);
  }
  std::string path = logs()[0];
  auto [offset, header] = batches(path).back();
  std::vector<uint8_t> zeros(512);
  for (uint64_t at = 0; at < header.used_bytes; at += 512) {
    std::vector<uint8_t> saved(512);
    int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    ASSERT_EQ(::pread(fd, saved.data(), 512, static_cast<off_t>(offset + at)), 512);
    ::close(fd);
    overwrite(path, offset + at, zeros);
    {
      auto files = open();
      ASSERT_TRUE(replay(*files)) << at;
      expect_range(0, 2);
    }
    overwrite(path, offset + at, saved);
  }
  auto files = open();
  ASSERT_TRUE(replay(*files));
  expect_range(0, 3);
}

TEST_F(ReplayTest, DamageBeforeTheAcknowledgedEndIsCorrupt) {
  {
    auto files = open();
    write(*files, 0, 10, 2000, true);
  }
  std::string path = logs()[0];
  auto list = batches(path);
  ASSERT_EQ(list.size(), 10u);
  for (bool in_header : {true, false}) {
    uint64_t at = list[4].first + (in_header ? 40 : 1500);
    flip_bit(path, at);
    auto files = open();
    Status status = replay(*files);
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, Code::kCorrupt);
    EXPECT_NE(status.error().detail.find(path.substr(path.rfind('/') + 1)), std::string::npos)
        << status.error().detail;
    EXPECT_NE(status.error().detail.find(std::to_string(list[4].first)), std::string::npos)
        << status.error().detail;
    // What can be read is still handed over, before and behind the damage.
    ASSERT_EQ(recovered.size(), 9u);
    EXPECT_EQ(recovered[3].lsn, written[3].lsn);
    EXPECT_EQ(recovered[4].lsn, written[5].lsn);
    flip_bit(path, at);
  }
  auto files = open();
  EXPECT_TRUE(replay(*files));
}

TEST_F(ReplayTest, DamageInAnEarlierSegmentIsCorrupt) {
  {
    auto files = open();
    write(*files, 0, 100, 100'000, true);
  }
  auto paths = logs();
  ASSERT_GE(paths.size(), 3u);
  // The last batch of the first segment, the first batch of the second.
  for (auto [path, at] : {std::pair(paths[0], batches(paths[0]).back().first),
                          std::pair(paths[1], batches(paths[1]).front().first)}) {
    flip_bit(path, at + 5000);
    auto files = open();
    Status status = replay(*files);
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, Code::kCorrupt);
    EXPECT_EQ(recovered.size(), 99u);
    flip_bit(path, at + 5000);
  }
  // A whole segment gone.
  std::filesystem::remove(paths[1]);
  auto files = open();
  EXPECT_EQ(replay(*files).error().code, Code::kCorrupt);
}

TEST_F(ReplayTest, BothHeadersOfASegmentLostIsCorrupt) {
  {
    auto files = open();
    write(*files, 0, 5, 100, true);
  }
  std::string path = logs()[0];
  flip_bit(path, 20);
  {
    auto files = open();
    EXPECT_TRUE(replay(*files)) << "the second copy serves";
    expect_range(0, 5);
  }
  flip_bit(path, kBlockBytes + 20);
  auto files = open();
  EXPECT_EQ(replay(*files).error().code, Code::kCorrupt);
}

TEST_F(ReplayTest, UnacknowledgedBatchBehindATornOneIsDropped) {
  // Two batches in flight; the first is torn, the second whole. Its durable_lsn lies before the
  // first.
  {
    auto files = open();
    TestCore core;
    auto lane = make_lane(*files, 0, *core.io, core.run_queue, core.stats);
    auto mutations = pattern(100, 1);
    auto body = pattern(kInlineBodyBytesMax, 2);
    std::deque<Waited<Append>> appends;
    auto add = [&](Bytes with) {
      auto& append = appends.emplace_back();
      append.mutations = mutations;
      append.body = with;
      lane->append(append);
    };
    add({});
    ASSERT_TRUE(core.turn_until([&] { return appends.back().done; }));
    core.turn_for(std::chrono::milliseconds(200));  // zeros are written ahead by now
    add(body);
    core.run_queue.run();  // sent
    for (int i = 0; i < 3; ++i) add(body);
    core.run_queue.run();  // sent as the second, large enough
    ASSERT_EQ(core.stats.log_batches, 3u);
    ASSERT_TRUE(core.turn_until([&] { return appends.back().done; }));
    lane.reset();
  }
  std::string path = logs()[0];
  auto list = batches(path);
  ASSERT_EQ(list.size(), 3u);
  ASSERT_EQ(list[2].second.durable_lsn, list[0].second.last_lsn());
  flip_bit(path, list[1].first + 9000);
  auto files = open();
  ASSERT_TRUE(replay(*files));
  EXPECT_EQ(recovered.size(), 1u);
}

TEST_F(ReplayTest, RecycledSegmentsLeaveNoTraceOfTheirEarlierLife) {
  {
    auto files = open();
    files->drop_orphans();
    finish_replay(*files);
    write(*files, 0, 100, 100'000, false,
          [&](Lane& lane) { files->checkpointed(0, lane.durable_position().lsn); });
    std::this_thread::sleep_for(
        std::chrono::milliseconds(400));  // nothing live: recycled or unlinked
    EXPECT_LE(logs().size(), 4u);
  }
  std::vector<LogPosition> applied(4);
  for (auto& position : applied) position.lsn = written.back().lsn;
  size_t before = written.size();
  {
    auto files = open();
    ASSERT_TRUE(replay(*files, applied));
    EXPECT_TRUE(recovered.empty());
    files->drop_orphans();
    finish_replay(*files);
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    write(*files, 0, 5, 100, true);
  }
  auto files = open();
  for (auto& position : applied) position.lsn = (uint64_t{2}) << kLsnEpochShift;
  ASSERT_TRUE(replay(*files, applied)) << "gaps where checkpointed segments were are no damage";
  expect_range(before, before + 5);
}

TEST_F(ReplayTest, GapsOfRecycledSegmentsInTheSameEpochAreNoDamage) {
  {
    auto files = open();
    files->drop_orphans();
    finish_replay(*files);
    TestCore core;
    auto lane = make_lane(*files, 0, *core.io, core.run_queue, core.stats);
    auto mutations = pattern(100, 1);
    auto body = pattern(100'000, 2);
    std::deque<Waited<Append>> appends;
    for (int i = 0; i < 120; ++i) {
      auto& append = appends.emplace_back();
      append.shard = 1;
      append.mutations = mutations;
      append.body = body;
      lane->append(append);
      ASSERT_TRUE(core.turn_until([&] { return append.done; }));
      written.push_back({append.lsn, 1, mutations, body, append.body_ref});
      // The first and third segment keep something alive, the second goes.
      if (i == 5 || i == 90) files->add_live(append.body_ref);
    }
    // Checkpointed up to 100, and no batch after that to tell of it.
    files->checkpointed(0, appends[100].lsn);
    core.turn_for(std::chrono::milliseconds(400));
    lane.reset();
  }
  // Shard 1 is at 100, the idle ones never had a checkpoint.
  std::vector<LogPosition> applied(4);
  applied[1].lsn = written[100].lsn;
  auto files = open();
  Status status = replay(*files, applied);
  ASSERT_TRUE(status) << status.error().detail;
  expect_range(101, 120);
}

TEST_F(ReplayTest, ASecondLaneOfTheCoreGoesOnBehindTheFirst) {
  {
    auto files = open();
    write(*files, 0, 5, 10, true);
    write(*files, 0, 5, 10, true);
  }
  auto files = open();
  ASSERT_TRUE(replay(*files));
  expect_range(0, 10);
}

TEST_F(ReplayTest, VisitErrorsEndTheReplay) {
  {
    auto files = open();
    write(*files, 0, 10, 10, true);
  }
  auto files = open();
  int seen = 0;
  std::vector<LogPosition> applied(4);
  Status status = replay_log(*files, applied, [&](const RecoveredRecord&) -> Status {
    if (++seen == 3) return fail(Code::kInvalid, "enough");
    return {};
  });
  EXPECT_EQ(status.error().code, Code::kInvalid);
  EXPECT_EQ(seen, 3);
}

}  // namespace
}  // namespace basalt::storage
