// The shard over a lane that is durable only when told: pending state, order, failures, sealing,
// what is released when.
#include "storage/local_shard.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "storage/checkpointer.h"
#include "tests/unit/storage/fakes.h"

namespace basalt::storage {
namespace {

using test::bulk_blob;
using test::FakeFiles;
using test::FakeLane;
using test::TemporaryDirectory;
using test::Tracked;

class LocalShardTest : public ::testing::Test {
 protected:
  LocalShardTest() {
    index_ = std::move(
        *Index::open({.directory = directory_.path() + "/00", .shard = 0, .map_bytes = 1 << 28}));
    state_ = std::make_unique<ShardState>(*index_, files_);
    shard_ = std::make_unique<LocalShard>(*state_, files_, lane_, run_queue_);
  }
  ~LocalShardTest() override {
    lane_.flush();
    run();
  }
  void run() {
    while (run_queue_.run() != 0) {
    }
  }

  // One batch with its memory.
  struct Write {
    MutationBuilder builder;
    std::vector<Precondition> conditions;
    std::unique_ptr<Tracked<ApplyRequest>> request;
    Code code() const { return request->result ? Code{0xFF} : request->result.error().code; }
    bool ok() const { return request->done && request->result.has_value(); }
  };
  Write& write() { return writes_.emplace_back(); }
  Write& start(Write& w, Bytes body = {}, bool reclaiming = false) {
    w.request = std::make_unique<Tracked<ApplyRequest>>(std::span<const Precondition>(w.conditions),
                                                        w.builder.finish(), body, reclaiming);
    shard_->apply(*w.request);
    return w;
  }
  Write& put(const KeyView& key, std::string_view tag, std::vector<Precondition> conditions = {},
             std::vector<BlobRef> blobs = {}, bool keep = false) {
    Write& w = write();
    w.builder.put(key, {.size = 1, .tag = tag, .blobs = blobs}, false, keep);
    w.conditions = std::move(conditions);
    return start(w);
  }
  Write& erase(const KeyView& key) {
    Write& w = write();
    w.builder.erase(key);
    return start(w);
  }
  void flush() {
    lane_.flush();
    run();
  }
  std::vector<BlobRef> checkpoint() {
    state_->freeze();
    const LogPosition position{.lsn = lane_.lsn};
    EXPECT_TRUE(checkpoint_overlay(*index_, *state_->frozen(), &position, totals_).has_value());
    std::vector<BlobRef> dropped;
    state_->thaw(dropped);
    return dropped;
  }
  Status seal(SealRequest::Action action, uint64_t space) {
    Tracked<SealRequest> request(action, space);
    shard_->seal(request);
    for (int i = 0; i < 100 && !request.done; ++i) flush();
    EXPECT_TRUE(request.done);
    return request.result;
  }
  std::string tag(const KeyView& key) {
    const auto record = shard_->get_now(key);
    return record ? std::string(record->view().tag) : "-";
  }

  TemporaryDirectory directory_;
  FakeFiles files_;
  RunQueue run_queue_;
  FakeLane lane_{run_queue_};
  SpaceTotals totals_;
  std::unique_ptr<Index> index_;
  std::unique_ptr<ShardState> state_;
  std::unique_ptr<LocalShard> shard_;
  std::deque<Write> writes_;
};

const KeyView kA{Table::kCurrent, 1, "a"};

TEST_F(LocalShardTest, ReadersSeeOnlyWhatIsDurable) {
  Write& w = put(kA, "one");
  run();
  EXPECT_FALSE(w.request->done);
  EXPECT_EQ(tag(kA), "-");
  flush();
  EXPECT_TRUE(w.ok());
  EXPECT_EQ(tag(kA), "one");
}

// A refusal tells of the write that caused it. Before that is durable it would tell of a state that
// readers do not see, and that a crash could undo.
TEST_F(LocalShardTest, RefusalsWaitForTheirCause) {
  put(kA, "one");
  flush();
  erase(kA);
  Write& missing = put(kA, "two", {{Precondition::Kind::kExists, kA}});
  run();
  EXPECT_FALSE(missing.request->done);
  EXPECT_EQ(tag(kA), "one");
  flush();
  EXPECT_TRUE(missing.request->done);
  EXPECT_EQ(missing.code(), Code::kNotFound);
  EXPECT_EQ(tag(kA), "-");

  put(kA, "three");
  Write& refused = put(kA, "four", {{Precondition::Kind::kAbsent, kA}});
  lane_.flush(fail(Code::kIo, "the disk"));
  run();
  EXPECT_TRUE(refused.request->done);
  EXPECT_EQ(refused.code(), Code::kIo);
  EXPECT_EQ(tag(kA), "-");
}

TEST_F(LocalShardTest, PreconditionsSeePendingState) {
  put(kA, "one");
  Write& second = put(kA, "two", {{Precondition::Kind::kAbsent, kA}});
  Write& third = put(kA, "three", {{Precondition::Kind::kTagEquals, kA, "one"}});
  Write& fourth = put(kA, "four", {{Precondition::Kind::kTagEquals, kA, "one"}});
  Write& gone = erase(kA);
  Write& missing = put(kA, "five", {{Precondition::Kind::kExists, kA}});
  Write& fresh = put(kA, "six", {{Precondition::Kind::kAbsent, kA}});
  flush();
  EXPECT_EQ(second.code(), Code::kPreconditionFailed);
  EXPECT_TRUE(third.ok());
  EXPECT_EQ(fourth.code(), Code::kPreconditionFailed);
  EXPECT_TRUE(gone.ok());
  EXPECT_EQ(missing.code(), Code::kNotFound);
  EXPECT_TRUE(fresh.ok());
  EXPECT_EQ(tag(kA), "six");
}

TEST_F(LocalShardTest, PreconditionsOverCheckpointedState) {
  Write& first = put(kA, "one");
  flush();
  checkpoint();
  EXPECT_EQ(state_->entries(), 0u);
  const uint64_t seq = first.request->result->seq;
  EXPECT_EQ(
      put(kA, "x", {{.kind = Precondition::Kind::kSeqEquals, .key = kA, .seq = seq + 1}}).code(),
      Code::kPreconditionFailed);
  Write& good = put(kA, "two", {{.kind = Precondition::Kind::kSeqEquals, .key = kA, .seq = seq}});
  flush();
  EXPECT_TRUE(good.ok());
  state_->freeze();  // frozen, not yet in the index
  EXPECT_EQ(tag(kA), "two");
  erase(kA);
  flush();
  EXPECT_EQ(tag(kA), "-");
  std::vector<BlobRef> none;
  state_->thaw(none);
}

TEST_F(LocalShardTest, AFailedAppendFailsAndLeavesNoTrace) {
  Write& w = put(kA, "one");
  lane_.flush(fail(Code::kIo, "disk"));
  run();
  EXPECT_EQ(w.code(), Code::kIo);
  EXPECT_EQ(tag(kA), "-");
  Write& again = put(kA, "two", {{Precondition::Kind::kAbsent, kA}});
  flush();
  EXPECT_TRUE(again.ok());
}

TEST_F(LocalShardTest, NothingReliesOnAFailureThatIsStillInTheRunQueue) {
  put(kA, "one");
  lane_.flush(fail(Code::kNoSpace, "full"));  // posted, not run
  Write& next = put(kA, "two", {{Precondition::Kind::kTagEquals, kA, "one"}});
  flush();
  EXPECT_EQ(next.code(), Code::kNoSpace);
  EXPECT_EQ(tag(kA), "-");
}

TEST_F(LocalShardTest, ARefusedAppendIsNotPending) {
  lane_.refuse = fail(Code::kBusy);
  Write& refused = put(kA, "one");
  lane_.refuse = {};
  Write& next = put(kA, "two", {{Precondition::Kind::kAbsent, kA}});
  flush();
  EXPECT_EQ(refused.code(), Code::kBusy);
  EXPECT_TRUE(next.ok());
}

TEST_F(LocalShardTest, PendingIsBounded) {
  std::deque<std::string> names;
  for (size_t i = 0; i < kPendingAppliesMax; ++i)
    put({Table::kCurrent, 1, names.emplace_back(std::to_string(i))}, "t");
  Write& over = put(kA, "t");
  run();
  EXPECT_EQ(over.code(), Code::kBusy);
  flush();
  EXPECT_TRUE(writes_.front().ok());
  Write& now = put(kA, "t");
  flush();
  EXPECT_TRUE(now.ok());
}

TEST_F(LocalShardTest, RefusalsBySpaceAndHealth) {
  files_.low_water = true;
  EXPECT_EQ(put(kA, "t").code(), Code::kNoSpace);
  Write& w = write();
  w.builder.erase(kA);
  start(w, {}, true);
  flush();
  EXPECT_TRUE(w.ok());
  files_.low_water = false;
  files_.poisoned = "disk gone";
  EXPECT_EQ(put(kA, "t").code(), Code::kReadOnly);
  files_.poisoned.clear();
  shard_->stop();
  EXPECT_EQ(put(kA, "t").code(), Code::kCancelled);
  run();
}

TEST_F(LocalShardTest, NewDataWaitsForRoomInOrder) {
  files_.room = Room::kWait;
  Write& first = put(kA, "1");
  Write& second = put(kA, "2");
  Write& erase = write();
  erase.builder.erase(kA);
  start(erase, {}, true);
  flush();
  EXPECT_TRUE(erase.ok());  // gives space back: it passes the others
  files_.rooms_asked = 0;
  EXPECT_FALSE(shard_->drive());
  EXPECT_EQ(files_.rooms_asked, 2u);  // each has a place in the queue, and a time of its own
  EXPECT_EQ(shard_->waiting_for_room(), 2u);
  files_.room = Room::kYes;
  Write& third = put(kA, "3");  // behind those that waited
  EXPECT_EQ(shard_->waiting_for_room(), 0u);
  flush();
  EXPECT_TRUE(first.ok());
  EXPECT_TRUE(second.ok());
  EXPECT_TRUE(third.ok());
  EXPECT_EQ(shard_->get_now(kA)->view().tag, "3");

  files_.room = Room::kWait;
  Write& hopeless = put(kA, "4");
  files_.room = Room::kNone;
  EXPECT_TRUE(shard_->drive());
  run();
  EXPECT_EQ(hopeless.code(), Code::kNoSpace);

  files_.room = Room::kWait;
  Write& stopped = put(kA, "5");
  shard_->stop();
  run();
  EXPECT_EQ(stopped.code(), Code::kCancelled);
}

TEST_F(LocalShardTest, WhatWaitsForRoomHearsOfTheEnd) {
  files_.room = Room::kWait;
  Write& first = put(kA, "1");
  Write& second = put(kA, "2");
  files_.room = Room::kCrowd;
  EXPECT_TRUE(shard_->drive());
  run();
  EXPECT_EQ(first.code(), Code::kBusy);
  EXPECT_EQ(second.code(), Code::kBusy);
  files_.room = Room::kWait;
  Write& unhealthy = put(kA, "3");
  files_.poisoned = "disk gone";
  EXPECT_TRUE(shard_->drive());
  run();
  EXPECT_EQ(unhealthy.code(), Code::kReadOnly);
  files_.poisoned.clear();
  Write& ended = put(kA, "4");
  files_.room = Room::kEnded;
  EXPECT_TRUE(shard_->drive());
  run();
  EXPECT_EQ(ended.code(), Code::kBusy);
  EXPECT_EQ(shard_->waiting_for_room(), 0u);
}

TEST_F(LocalShardTest, DroppedBlobsAreReleasedAfterTheirCheckpoint) {
  put(kA, "one", {}, {bulk_blob(5, 0, 100)});
  flush();
  EXPECT_EQ(files_.live[5], 100);
  put(kA, "two", {}, {bulk_blob(6, 0, 10)});
  flush();
  // Replaced, but a crash could still replay the log up to the first record.
  EXPECT_EQ(files_.live[5], 100);
  EXPECT_EQ(files_.live[6], 10);
  auto dropped = checkpoint();
  ASSERT_EQ(dropped.size(), 1u);
  EXPECT_EQ(dropped[0], bulk_blob(5, 0, 100));
  erase(kA);
  flush();
  dropped = checkpoint();
  ASSERT_EQ(dropped.size(), 1u);
  EXPECT_EQ(dropped[0], bulk_blob(6, 0, 10));
  ASSERT_TRUE(index_->reload());
  EXPECT_TRUE(index_->file_sums().empty());
}

TEST_F(LocalShardTest, BodiesInTheLogAreLiveToo) {
  const std::vector<uint8_t> body(kIndexBodyBytesMax + 1, 'b'), tiny(kIndexBodyBytesMax, 't');
  Write& large = write();
  large.builder.put(kA, {.size = body.size()}, true);
  start(large, body);
  Write& small = write();
  small.builder.put({Table::kCurrent, 1, "tiny"}, {.size = tiny.size()}, true);
  start(small, tiny);
  flush();
  EXPECT_EQ(files_.live[1], static_cast<int64_t>(body.size()));
  EXPECT_EQ(shard_->get_now(kA)->view().body.kind, static_cast<uint8_t>(BlobKind::kLog));
  const auto record = shard_->get_now({Table::kCurrent, 1, "tiny"});
  EXPECT_EQ(record->view().body.kind, static_cast<uint8_t>(BlobKind::kIndex));
  EXPECT_EQ(record->view().inline_body.size(), tiny.size());
  erase(kA);
  flush();
  EXPECT_EQ(checkpoint().size(), 1u);
}

TEST_F(LocalShardTest, CompletingAnUploadMovesBlobs) {
  const BlobRef one = bulk_blob(5, 0, 100), two = bulk_blob(5, 100, 200),
                unused = bulk_blob(5, 300, 7);
  const KeyView part1{Table::kPart, 1, "u1"}, part2{Table::kPart, 1, "u2"},
      part3{Table::kPart, 1, "u3"};
  put(part1, "", {}, {one});
  put(part2, "", {}, {two});
  put(part3, "", {}, {unused});
  flush();
  Write& w = write();
  const std::vector<BlobRef> both = {one, two};
  w.builder.put(kA, {.size = 300, .blobs = both});
  w.builder.erase(part1, true);
  w.builder.erase(part2, true);
  w.builder.erase(part3);
  start(w);
  flush();
  EXPECT_EQ(files_.live[5], 307);
  const auto dropped = checkpoint();
  ASSERT_EQ(dropped.size(), 1u);
  EXPECT_EQ(dropped[0], unused);
  ASSERT_TRUE(index_->reload());
  EXPECT_EQ(index_->file_sums().at(5).bytes, 300);
  // A rewrite of the metadata that names the same blobs keeps them.
  put(kA, "new meta", {}, {one, two}, true);
  flush();
  EXPECT_TRUE(checkpoint().empty());
  EXPECT_EQ(files_.live[5], 307);
}

TEST_F(LocalShardTest, SealNeedsAnEmptySpace) {
  Write& pending = put(kA, "one");
  Tracked<SealRequest> early(SealRequest::Action::kSeal, 1u);
  shard_->seal(early);
  run();
  EXPECT_EQ(early.result.error().code, Code::kNotEmpty);
  flush();
  EXPECT_TRUE(pending.ok());
  EXPECT_EQ(seal(SealRequest::Action::kSeal, 1).error().code, Code::kNotEmpty);
  checkpoint();
  EXPECT_EQ(seal(SealRequest::Action::kSeal, 1).error().code, Code::kNotEmpty);
  erase(kA);
  flush();
  EXPECT_TRUE(seal(SealRequest::Action::kSeal, 1));
  EXPECT_EQ(put(kA, "x").code(), Code::kSealed);
  EXPECT_EQ(put({Table::kUpload, 1, "x"}, "x").code(), Code::kSealed);
  EXPECT_EQ(put({Table::kCurrent, 2, "x"}, "x").request->result.has_value(), true);
  EXPECT_TRUE(seal(SealRequest::Action::kUnseal, 1));
  Write& w = put(kA, "x");
  flush();
  EXPECT_TRUE(w.ok());
}

TEST_F(LocalShardTest, PurgeErasesUploadsAndWaitsForPendingOnes) {
  for (int i = 0; i < 2500; ++i)
    put({Table::kPart, 1, std::string(900, 'p') + std::to_string(i)}, "", {}, {bulk_blob(5, 0, 1)});
  flush();
  put({Table::kUpload, 1, "late"}, "");
  put({Table::kUpload, 2, "other space"}, "");
  Tracked<SealRequest> purge(SealRequest::Action::kPurge, 1u);
  shard_->seal(purge);
  run();
  EXPECT_FALSE(purge.done);
  for (int i = 0; i < 100 && !purge.done; ++i) flush();
  EXPECT_TRUE(purge.done);
  EXPECT_TRUE(purge.result.has_value());
  for (const Table table : {Table::kPart, Table::kUpload}) {
    EXPECT_TRUE(state_->scan({.table = table, .space = 1})->entries.empty());
  }
  EXPECT_EQ(state_->scan({.table = Table::kUpload, .space = 2})->entries.size(), 1u);
  EXPECT_EQ(checkpoint().size(), 2500u);
}

TEST_F(LocalShardTest, StopCancelsAWaitingPurge) {
  put({Table::kUpload, 1, "late"}, "");
  Tracked<SealRequest> purge(SealRequest::Action::kPurge, 1u);
  shard_->seal(purge);
  shard_->stop();
  run();
  EXPECT_TRUE(purge.done);
  EXPECT_EQ(purge.result.error().code, Code::kCancelled);
  EXPECT_FALSE(shard_->idle());
  flush();
  EXPECT_TRUE(shard_->idle());
}

TEST_F(LocalShardTest, ScanPageIsBoundedInBytes) {
  const std::vector<BlobRef> blobs(10'000, bulk_blob(5, 0, 1));
  for (int i = 0; i < 60; ++i)
    put({Table::kCurrent, 1, "manifest" + std::to_string(100 + i)}, "", {}, blobs);
  flush();
  std::string after;
  size_t total = 0, pages = 0;
  for (bool more = true; more; ++pages) {
    const auto page = state_->scan({.space = 1, .after = after});
    ASSERT_TRUE(page.has_value());
    ASSERT_FALSE(page->entries.empty());
    total += page->entries.size();
    after = std::string(page->entries.back().name);
    more = page->more;
    EXPECT_EQ(page->entries.back().record.blobs.size(), 10'000u);
  }
  EXPECT_EQ(total, 60u);
  EXPECT_GE(pages, 3u);
}

}  // namespace
}  // namespace basalt::storage
