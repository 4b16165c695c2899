// The index over a real LMDB environment: records, sums, layers, positions, growth of the map,
// damaged bytes.
#include "storage/index.h"

#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <thread>

#include "storage/checkpointer.h"
#include "storage/generated/record_generated.h"
#include "storage/mutation_builder.h"
#include "storage/snapshots.h"
#include "tests/unit/storage/fakes.h"

namespace basalt::storage {
namespace {

using test::bulk_blob;
using test::TemporaryDirectory;

ValueBuffer encode(const KeyView& key, const NewRecord& record, uint64_t seq = 1) {
  MutationBuilder builder;
  builder.put(key, record);
  RecordEncoder encoder;
  const auto batch = verify_batch(builder.finish(), 0);
  return encoder.encode(key, seq, *(*batch)->mutations()->Get(0)->record(), {}, {});
}

std::unique_ptr<Index> open_index(const TemporaryDirectory& directory,
                                  uint64_t map_bytes = uint64_t{1} << 30, unsigned shard = 3) {
  auto index =
      Index::open({.directory = directory.path() + "/03", .shard = shard, .map_bytes = map_bytes});
  EXPECT_TRUE(index.has_value()) << (index ? "" : index.error().detail);
  return index ? std::move(*index) : nullptr;
}

TEST(Index, PutGetEraseWithSumsAndPosition) {
  const TemporaryDirectory directory;
  const std::string long_name(1041, '\xff');
  const std::vector<BlobRef> one = {bulk_blob(7, 0, 100)},
                             two = {bulk_blob(7, 100, 50), bulk_blob(8, 0, 5)};
  {
    auto index = open_index(directory);
    IndexWriter writer(*index);
    ASSERT_TRUE(writer.begin());
    const KeyView a{Table::kCurrent, 5, "a"}, b{Table::kCurrent, 5, long_name},
        part{Table::kPart, 5, "p"};
    ASSERT_TRUE(writer.put(a, encode(a, {.size = 100, .blobs = one}).view()));
    ASSERT_TRUE(writer.put(b, encode(b, {.size = 55, .blobs = two}).view()));
    ASSERT_TRUE(writer.put(part, encode(part, {.size = 9}).view()));
    ASSERT_TRUE(writer.set_applied({.epoch = 2, .lsn = 99, .file = 4, .offset = 8192}));
    ASSERT_TRUE(writer.commit());
    EXPECT_EQ(writer.space_changes().at(5).objects, 2);
  }
  {
    auto index = open_index(directory);
    EXPECT_EQ(index->applied().epoch, 2u);
    EXPECT_EQ(index->applied().lsn, 99u);
    EXPECT_EQ(index->applied().file, 4u);
    EXPECT_EQ(index->applied().offset, 8192u);
    EXPECT_EQ(index->file_sums().at(7).bytes, 150);
    EXPECT_EQ(index->file_sums().at(7).blobs, 2);
    EXPECT_EQ(index->file_sums().at(8).bytes, 5);
    EXPECT_EQ(index->space_sums().at(5).objects, 2);
    EXPECT_EQ(index->space_sums().at(5).bytes, 155);
    IndexReader reader(*index);
    auto snapshot = reader.begin();
    ASSERT_TRUE(snapshot.has_value());
    EXPECT_TRUE(snapshot->get({Table::kCurrent, 5, long_name}).has_value());
    EXPECT_EQ(snapshot->get({Table::kCurrent, 6, "a"}).error().code, Code::kNotFound);
    EXPECT_EQ(snapshot->get({Table::kUpload, 5, "a"}).error().code, Code::kNotFound);
  }
  {
    auto index = open_index(directory);
    IndexWriter writer(*index);
    ASSERT_TRUE(writer.begin());
    const KeyView a{Table::kCurrent, 5, "a"};
    ASSERT_TRUE(writer.put(a, encode(a, {.size = 1, .blobs = two}).view()));
    ASSERT_TRUE(writer.erase({Table::kCurrent, 5, long_name}));
    ASSERT_TRUE(writer.erase({Table::kCurrent, 5, "never there"}));
    ASSERT_TRUE(writer.commit());
    ASSERT_TRUE(index->reload());
    EXPECT_EQ(index->file_sums().at(7).bytes, 50);
    EXPECT_EQ(index->space_sums().at(5).objects, 1);
    EXPECT_EQ(index->space_sums().at(5).bytes, 1);
    ASSERT_TRUE(writer.begin());
    ASSERT_TRUE(writer.erase(a));
    ASSERT_TRUE(writer.commit());
    ASSERT_TRUE(index->reload());
    EXPECT_TRUE(index->file_sums().empty());
    EXPECT_TRUE(index->space_sums().empty());
  }
}

TEST(Index, AbortChangesNothing) {
  const TemporaryDirectory directory;
  auto index = open_index(directory);
  IndexWriter writer(*index);
  ASSERT_TRUE(writer.begin());
  const KeyView key{Table::kCurrent, 5, std::string_view("x")};
  ASSERT_TRUE(writer.put(key, encode(key, {.size = 1}).view()));
  writer.abort();
  ASSERT_TRUE(index->reload());
  EXPECT_TRUE(index->space_sums().empty());
  IndexReader reader(*index);
  auto snapshot = reader.begin();
  EXPECT_EQ(snapshot->get(key).error().code, Code::kNotFound);
}

TEST(Index, AnotherShardsDirectoryIsRefused) {
  const TemporaryDirectory directory;
  {
    open_index(directory);
  }
  const auto wrong =
      Index::open({.directory = directory.path() + "/03", .shard = 4, .map_bytes = 1 << 30});
  ASSERT_FALSE(wrong.has_value());
  EXPECT_EQ(wrong.error().code, Code::kCorrupt);
}

TEST(Index, MapGrowsUnderReaders) {
  const TemporaryDirectory directory;
  auto index = open_index(directory, 1 << 20);
  const uint64_t map_before = index->map_bytes();
  SpaceTotals totals;
  std::atomic<bool> stop{false};
  std::atomic<size_t> reads{0};
  std::thread reader_thread([&] {
    IndexReader reader(*index);
    while (!stop) {
      auto snapshot = reader.begin();
      ASSERT_TRUE(snapshot.has_value());
      SliceCursor cursor(snapshot->source(Table::kCurrent), 1);
      ASSERT_TRUE(cursor.seek("").has_value());
      for (int i = 0; i < 50 && cursor.valid(); ++i) {
        std::vector<uint64_t> copy((cursor.value().size() + 7) / 8);
        std::memcpy(copy.data(), cursor.value().data(), cursor.value().size());
        ASSERT_TRUE(decode_record({Table::kCurrent, 1, cursor.name()},
                                  {reinterpret_cast<uint8_t*>(copy.data()), cursor.value().size()})
                        .has_value());
        ASSERT_TRUE(cursor.next().has_value());
      }
      ++reads;
    }
  });
  const std::string meta(2000, 'm');
  for (int round = 0; round < 4; ++round) {
    Overlay overlay;
    for (int i = 0; i < 500; ++i) {
      const std::string name = std::to_string(round * 1000 + i);
      const KeyView key{Table::kCurrent, 1, name};
      overlay.put(key, encode(key, {.size = 10, .meta = as_bytes(meta)}));
    }
    const LogPosition position{.epoch = 1, .lsn = static_cast<uint64_t>(round)};
    const auto status = checkpoint_overlay(*index, overlay, &position, totals);
    ASSERT_TRUE(status.has_value()) << status.error().detail;
  }
  while (reads < 3) std::this_thread::yield();
  stop = true;
  reader_thread.join();
  EXPECT_GT(index->map_bytes(), map_before);
  EXPECT_EQ(totals.of(1).objects, 2000);
  EXPECT_EQ(totals.of(1).bytes, 20'000);
}

// A copy may take as long as its pace wants; a map that has to grow does not wait for it.
TEST(Index, AMapThatHasToGrowEndsASlowCopy) {
  const TemporaryDirectory directory;
  auto index = open_index(directory);
  const std::string meta(2000, 'm');
  std::deque<std::string> names;
  {
    IndexWriter writer(*index);
    ASSERT_TRUE(writer.begin());
    for (int i = 0; i < 4000; ++i) {
      const KeyView key{Table::kCurrent, 5, names.emplace_back("name" + std::to_string(i))};
      ASSERT_TRUE(writer.put(key, encode(key, {.size = 1, .meta = as_bytes(meta)}).view()));
    }
    ASSERT_TRUE(writer.commit());
  }
  std::atomic<bool> copying{false};
  Result<SnapshotFile> copied = SnapshotFile{};
  std::thread copier([&] {
    copied = copy_index(*index, directory.path() + "/copy", [&](size_t, bool) -> Status {
      copying = true;
      while (!index->growth_waits()) std::this_thread::yield();
      return {};
    });
  });
  while (!copying) std::this_thread::yield();
  const uint64_t before = index->map_bytes();
  IndexWriter writer(*index);
  EXPECT_TRUE(writer.grow_map());
  copier.join();
  EXPECT_EQ(index->map_bytes(), 2 * before);
  ASSERT_FALSE(copied.has_value());
  EXPECT_EQ(copied.error().code, Code::kBusy);
  EXPECT_TRUE(
      copy_index(*index, directory.path() + "/copy", [](size_t, bool) { return Status(); }));
}

// What holds a transaction of the index for long stops waiting, so that pages become free again.
TEST(Index, AWalkKeepsToItsPaceForSoLongOnly) {
  const TemporaryDirectory directory;
  ManualClock clock(1'000'000);
  auto opened = Index::open(
      {.directory = directory.path() + "/03", .shard = 3, .map_bytes = 1 << 28, .clock = &clock});
  ASSERT_TRUE(opened);
  Index& index = **opened;
  EXPECT_EQ(index.oldest_walk_ms(), 0);
  const std::string meta(2000, 'm');
  std::deque<std::string> names;
  IndexWriter writer(index);
  ASSERT_TRUE(writer.begin());
  for (int i = 0; i < 4000; ++i) {
    const KeyView key{Table::kCurrent, 5, names.emplace_back("name" + std::to_string(i))};
    ASSERT_TRUE(writer.put(key, encode(key, {.size = 1, .meta = as_bytes(meta)}).view()));
  }
  ASSERT_TRUE(writer.commit());
  std::vector<std::pair<uint64_t, bool>> seen;  // the walk's age, and whether it waits
  const auto pace = [&](size_t, bool waits) {
    seen.emplace_back(index.oldest_walk_ms(), waits);
    clock.set_wall_ms(clock.wall_ms() + kPacedWalkMsMax / 2 + 1);
    return Status();
  };
  EXPECT_TRUE(copy_index(index, directory.path() + "/copy", pace));
  ASSERT_GE(seen.size(), 3);
  bool waited = false, hurried = false;
  for (const auto& [age_ms, waits] : seen) {
    EXPECT_EQ(waits, age_ms <= kPacedWalkMsMax);
    (waits ? waited : hurried) = true;
  }
  EXPECT_TRUE(waited);
  EXPECT_TRUE(hurried);
  EXPECT_EQ(index.oldest_walk_ms(), 0);
  const IndexWalk first(index);
  clock.set_wall_ms(clock.wall_ms() + 3);
  const IndexWalk second(index);
  clock.set_wall_ms(clock.wall_ms() + 4);
  EXPECT_EQ(index.oldest_walk_ms(), 7);
}

TEST(Index, LargeCheckpointIsSplit) {
  const TemporaryDirectory directory;
  auto index = open_index(directory);
  SpaceTotals totals;
  Overlay overlay;
  RecordEncoder encoder;
  MutationBuilder builder;
  builder.put({Table::kCurrent, 1, "x"}, {.size = 1});
  const auto batch = verify_batch(builder.finish(), 0);
  for (size_t i = 0; i < kCheckpointEntriesPerPart + 5; ++i) {
    const std::string name = std::to_string(i);
    const KeyView key{Table::kCurrent, 1, name};
    overlay.put(key, encoder.encode(key, i, *(*batch)->mutations()->Get(0)->record(), {}, {}));
  }
  const LogPosition position{.epoch = 1, .lsn = 5};
  OverlayCheckpoint checkpoint(*index, overlay, &position, totals);
  for (bool last = false; !last;) {
    EXPECT_LE(totals.of(1).objects, static_cast<int64_t>(kCheckpointEntriesPerPart));
    const auto written = checkpoint.write_part();
    ASSERT_TRUE(written.has_value());
    last = *written;
  }
  ASSERT_TRUE(index->reload());
  EXPECT_EQ(index->applied().lsn, 5u);
  EXPECT_EQ(index->space_sums().at(1).objects, static_cast<int64_t>(kCheckpointEntriesPerPart + 5));
  EXPECT_EQ(totals.of(1).objects, static_cast<int64_t>(kCheckpointEntriesPerPart + 5));
}

// Each checkpoint rewrites every page. In one transaction it needed three times the pages: those
// before it, its own, and what the one before it freed.
TEST(Index, CheckpointsOfEverythingLeaveASmallFile) {
  const TemporaryDirectory directory;
  auto index = open_index(directory);
  SpaceTotals totals;
  for (uint64_t round = 1; round <= 8; ++round) {
    Overlay overlay;
    for (int i = 0; i < 5000; ++i) {
      const std::string name = std::to_string(i);
      const KeyView key{Table::kCurrent, 1, name};
      overlay.put(key, encode(key, {.size = round}));
    }
    const LogPosition position{.epoch = 1, .lsn = round};
    ASSERT_TRUE(checkpoint_overlay(*index, overlay, &position, totals));
  }
  EXPECT_EQ(totals.of(1).bytes, 5000 * 8);
  EXPECT_LT(index->size().file_bytes, index->size().used_bytes * 3 / 2);
}

// A checkpoint that ended after some of its parts left rows that its position does not cover.
TEST(Index, AnInterruptedCheckpointKeepsTheOldPosition) {
  const TemporaryDirectory directory;
  auto index = open_index(directory);
  SpaceTotals totals;
  for (uint64_t round = 1; round <= 2; ++round) {
    Overlay overlay;
    for (int i = 0; i < 1000; ++i) {
      const std::string name = std::to_string(i);
      const KeyView key{Table::kCurrent, 1, name};
      overlay.put(key, encode(key, {.size = round}));
    }
    const LogPosition position{.epoch = 1, .lsn = round};
    if (round == 1) {
      ASSERT_TRUE(checkpoint_overlay(*index, overlay, &position, totals));
      continue;
    }
    OverlayCheckpoint checkpoint(*index, overlay, &position, totals);
    const auto last = checkpoint.write_part();
    ASSERT_TRUE(last.has_value());
    EXPECT_FALSE(*last);
  }
  ASSERT_TRUE(index->reload());
  EXPECT_EQ(index->applied().lsn, 1u);
  const int64_t bytes = index->space_sums().at(1).bytes;
  EXPECT_GT(bytes, 1000);
  EXPECT_LT(bytes, 2000);
}

TEST(Index, ACopyWaitsForTheLastPartOfACheckpoint) {
  const TemporaryDirectory directory;
  auto index = open_index(directory);
  SpaceTotals totals;
  Overlay overlay;
  for (int i = 0; i < 1000; ++i) {
    const std::string name = std::to_string(i);
    const KeyView key{Table::kCurrent, 1, name};
    overlay.put(key, encode(key, {.size = 1}));
  }
  const LogPosition first{.epoch = 1, .lsn = 1}, second{.epoch = 1, .lsn = 2};
  ASSERT_TRUE(checkpoint_overlay(*index, overlay, &first, totals));
  OverlayCheckpoint checkpoint(*index, overlay, &second, totals);
  ASSERT_TRUE(checkpoint.write_part().has_value());
  ASSERT_EQ(index->partly() % 2, 1u);
  int waits = 0;
  const std::string path = directory.path() + "/copy";
  const auto copied = copy_index(*index, path, [&](size_t bytes, bool) -> Status {
    if (bytes != 0 || index->partly() % 2 == 0) return {};
    if (++waits == 1) return {};
    for (;;) {
      BASALT_TRY(last, checkpoint.write_part());
      if (last) return {};
    }
  });
  ASSERT_TRUE(copied.has_value()) << copied.error().detail;
  EXPECT_EQ(waits, 2);
  EXPECT_EQ(index->partly() % 2, 0u);
  const auto position = check_index_copy(path, 3);
  ASSERT_TRUE(position.has_value()) << position.error().detail;
  EXPECT_EQ(position->lsn, 2u);
}

// Flips bytes all over data.mdb: LMDB itself has no page checksums, so the promise is only that no
// record comes back other than it was written. (Whole-file structure damage may make LMDB fail; a
// read error is a legal answer.)
TEST(Index, FlippedValueBytesAreNeverServed) {
  const TemporaryDirectory directory;
  const std::string meta = "the-meta-data-of-this-record-0123456789";
  const KeyView key{Table::kCurrent, 1, "name"};
  {
    auto index = open_index(directory);
    IndexWriter writer(*index);
    ASSERT_TRUE(writer.begin());
    ASSERT_TRUE(writer.put(key, encode(key, {.size = 10, .meta = as_bytes(meta)}).view()));
    ASSERT_TRUE(writer.commit());
  }
  const std::string path = directory.path() + "/03/data.mdb";
  std::string file;
  {
    std::ifstream in(path, std::ios::binary);
    file.assign(std::istreambuf_iterator<char>(in), {});
  }
  size_t damaged = 0;
  for (size_t at = file.find(meta); at != std::string::npos; at = file.find(meta, at + 1)) {
    file[at + 4] ^= 1;
    ++damaged;
  }
  ASSERT_GT(damaged, 0u);
  {
    std::ofstream out(path, std::ios::binary | std::ios::trunc);
    out.write(file.data(), static_cast<std::streamsize>(file.size()));
  }
  auto index = open_index(directory);
  test::FakeFiles files;
  ShardState state(*index, files);
  EXPECT_EQ(state.get(key).error().code, Code::kCorrupt);
  // A listing survives, with an empty record.
  const auto page = state.scan({.space = 1});
  ASSERT_TRUE(page.has_value());
  ASSERT_EQ(page->entries.size(), 1u);
  EXPECT_EQ(page->entries[0].name, "name");
  EXPECT_EQ(page->entries[0].record.seq, 0u);
}

}  // namespace
}  // namespace basalt::storage
