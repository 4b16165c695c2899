// Garbage collection: records leave their victims with the same content, changed ones are left
// alone, damage is kept.
#include "storage/garbage.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "tests/unit/storage/driver.h"

namespace basalt::storage {
namespace {

using test::LocalDriver;

std::string random_bytes(std::mt19937_64& random, size_t size) {
  std::string out(size, 0);
  for (char& c : out) c = static_cast<char>(random());
  return out;
}

// Drives a relocator as the collector's thread would.
class GarbageTest : public ::testing::Test {
 protected:
  bool relocate(const KeyView& key, std::initializer_list<uint32_t> victims, uint64_t seq = 0) {
    auto record = driver_.core().shard(0).get_now(key);
    EXPECT_TRUE(record.has_value());
    if (!record) return false;
    Relocation job{0,
                   key.table,
                   key.space,
                   std::string(key.name),
                   seq == 0 ? record->view().seq : seq,
                   std::make_shared<const FileSet>(victims)};
    const uint64_t moved = relocator_.moved();
    EXPECT_TRUE(relocator_.offer(job));
    EXPECT_TRUE(driver_.spin([&] {
      relocator_.poll();
      return relocator_.outstanding() == 0;
    }));
    return relocator_.moved() > moved;
  }
  LocalDriver driver_{1};
  std::vector<uint32_t> damaged_;
  Relocator relocator_{[this](unsigned shard) -> MetaShard& { return driver_.core().shard(shard); },
                       driver_.core().blobs(), [this](uint32_t file) { damaged_.push_back(file); }};
  std::mt19937_64 random_{11};
};

TEST_F(GarbageTest, BodyInTheLogMoves) {
  const KeyView key{Table::kCurrent, 1, "k"};
  const std::string body = random_bytes(random_, 100'000);
  ASSERT_TRUE(
      driver_.put(0, key, {.size = body.size(), .tag = "t", .meta = as_bytes("m")}, as_bytes(body))
          .has_value());
  const auto before = driver_.core().shard(0).get_now(key);
  const BlobRef old = before->view().body;
  EXPECT_FALSE(relocate(key, {old.file + 1000}));
  EXPECT_TRUE(relocate(key, {old.file}));
  const auto after = driver_.core().shard(0).get_now(key);
  EXPECT_FALSE(after->view().body == old);
  EXPECT_GT(after->view().seq, before->view().seq);
  EXPECT_EQ(after->view().tag, "t");
  EXPECT_EQ(as_text(after->view().meta), "m");
  EXPECT_EQ(after->view().size, body.size());
  EXPECT_TRUE(*driver_.content(0, key) == body);
  driver_.crash();
}

TEST_F(GarbageTest, BlobsMoveAndTheOthersStay) {
  const KeyView key{Table::kCurrent, 1, "k"};
  const std::string one = random_bytes(random_, 300'000), two = random_bytes(random_, 5'000'000),
                    three = random_bytes(random_, 1'500'000);
  const std::vector<BlobRef> blobs = {*driver_.write_blob(as_bytes(one)),
                                      *driver_.write_blob(as_bytes(two)),
                                      *driver_.write_blob(as_bytes(three))};
  const std::string body = "and a body";
  ASSERT_TRUE(driver_.put(0, key, {.size = 1, .blobs = blobs}, as_bytes(body)).has_value());
  ASSERT_TRUE(relocate(key, {blobs[0].file}));
  const auto after = driver_.core().shard(0).get_now(key);
  ASSERT_EQ(after->view().blobs.size(), 3u);
  EXPECT_FALSE(after->view().blobs[0] == blobs[0]);
  EXPECT_EQ(after->view().blobs[1], blobs[1]);
  EXPECT_EQ(after->view().blobs[2].file == blobs[2].file && after->view().blobs[2] == blobs[2],
            blobs[2].file != blobs[0].file);
  EXPECT_TRUE(*driver_.content(0, key) == body + one + two + three);
}

TEST_F(GarbageTest, ALogBlobOfARewrittenRecordBecomesABodyAgain) {
  const KeyView key{Table::kCurrent, 1, "k"};
  const std::string body = random_bytes(random_, 60'000);
  ASSERT_TRUE(driver_.put(0, key, {.size = body.size()}, as_bytes(body)).has_value());
  const BlobRef old = driver_.core().shard(0).get_now(key)->view().body;
  MutationBuilder builder;
  builder.put(key, {.size = body.size(), .meta = as_bytes("new"), .blobs = {&old, 1}}, false, true);
  ASSERT_TRUE(driver_.apply(0, builder).has_value());
  EXPECT_TRUE(*driver_.content(0, key) == body);
  ASSERT_TRUE(relocate(key, {old.file}));
  EXPECT_EQ(driver_.core().shard(0).get_now(key)->view().body.kind,
            static_cast<uint8_t>(BlobKind::kLog));
  EXPECT_TRUE(*driver_.content(0, key) == body);
}

TEST_F(GarbageTest, AChangedRecordIsLeftAlone) {
  const KeyView key{Table::kCurrent, 1, "k"};
  const std::string body = random_bytes(random_, 1000);
  ASSERT_TRUE(driver_.put(0, key, {.size = 1}, as_bytes(body)).has_value());
  const auto before = driver_.core().shard(0).get_now(key);
  EXPECT_FALSE(relocate(key, {before->view().body.file}, before->view().seq + 1));
  EXPECT_EQ(driver_.core().shard(0).get_now(key)->view().seq, before->view().seq);
}

TEST_F(GarbageTest, DamagedDataIsLeftWhereItIs) {
  const KeyView key{Table::kCurrent, 1, "k"};
  const std::string body = random_bytes(random_, 50'000);
  ASSERT_TRUE(driver_.put(0, key, {.size = 1}, as_bytes(body)).has_value());
  const BlobRef blob = driver_.core().shard(0).get_now(key)->view().body;
  for (const auto& entry :
       std::filesystem::directory_iterator(driver_.options().directory + "/log")) {
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(blob.offset + 10));
    if (file.get() != static_cast<unsigned char>(body[10])) continue;
    file.seekp(static_cast<std::streamoff>(blob.offset + 10));
    file.put(static_cast<char>(body[10] ^ 1));
  }
  EXPECT_EQ(driver_.content(0, key).error().code, Code::kCorrupt);
  EXPECT_FALSE(relocate(key, {blob.file}));
  EXPECT_EQ(damaged_, std::vector<uint32_t>{blob.file});
  EXPECT_EQ(driver_.core().shard(0).get_now(key)->view().body, blob);
}

// The whole way: overwrites leave segments mostly dead; the collector empties them and their space
// comes back.
TEST(Garbage, SegmentsAreEmptiedAndReused) {
  EngineOptions options = LocalDriver::default_options(2);
  options.checkpoint_interval_ms = 100;
  LocalDriver driver(options);
  std::mt19937_64 random(3);
  std::vector<std::string> contents(8);
  std::vector<BlobRef> written(8);
  for (int i = 0; i < 500; ++i) {
    // Every seventieth write is a survivor, the rest overwrite one key.
    const size_t survivor = static_cast<size_t>(i) / 70;
    const bool survives = i % 70 == 0;
    const std::string name = survives ? "survivor-" + std::to_string(survivor) : "churn";
    const std::string body = random_bytes(random, 120'000);
    if (survives) contents[survivor] = body;
    const KeyView key{Table::kCurrent, 1, name};
    ASSERT_TRUE(driver.put(i % 2, key, {.size = body.size()}, as_bytes(body)).has_value());
    if (survives) written[survivor] = driver.core().shard(i % 2).get_now(key)->view().body;
  }
  driver.checkpoint();
  // Each segment holds about one survivor among dead bodies. A pass comes within gc_interval_ms
  // and moves those of all sealed segments; then checkpoints free what it emptied.
  const auto moved = [&] {
    size_t count = 0;
    for (size_t i = 0; i < written.size(); ++i) {
      const std::string name = "survivor-" + std::to_string(i);
      const auto record = driver.core()
                              .shard(static_cast<unsigned>(i * 70 % 2))
                              .get_now({Table::kCurrent, 1, name});
      count += record.has_value() && !(record->view().body == written[i]);
    }
    return count;
  };
  EXPECT_TRUE(driver.spin([&] { return moved() >= 5; }));
  EXPECT_TRUE(driver.spin([&] { return driver.engine().space_use().log_segments <= 4; }))
      << driver.engine().space_use().log_segments;
  const auto check = [&] {
    for (size_t i = 0; i < contents.size(); ++i) {
      if (contents[i].empty()) continue;
      const std::string name = "survivor-" + std::to_string(i);
      const auto content =
          driver.content(static_cast<unsigned>(i * 70 % 2), {Table::kCurrent, 1, name});
      ASSERT_TRUE(content.has_value()) << name << content.error().detail;
      ASSERT_TRUE(*content == contents[i]);
    }
  };
  check();
  driver.crash();
  check();
}

}  // namespace
}  // namespace basalt::storage
