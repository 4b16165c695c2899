// A scrub finds every kind of damage, names file, offset and key, finds nothing where nothing is
// wrong (also while the data changes), and its position and findings survive a restart.
#include "storage/scrub.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <set>

#include "storage/files_local.h"
#include "storage/maintenance.h"
#include "tests/unit/storage/driver.h"
#include "tests/unit/storage/storage_fixture.h"

namespace basalt::storage {
namespace {

using test::LocalDriver;

std::string random_bytes(std::mt19937_64& random, size_t size) {
  std::string out(size, 0);
  for (char& c : out) c = static_cast<char>(random());
  return out;
}

class ScrubTest : public ::testing::Test {
 protected:
  Scrub& scrub() { return driver_.engine().maintenance()->scrub(); }
  ScrubStatus run(ScrubMode mode) {
    EXPECT_TRUE(scrub().start(mode, 0).has_value());
    EXPECT_TRUE(driver_.spin([&] { return scrub().status(false).state == ScrubState::kIdle; }));
    return scrub().status(true);
  }
  std::string directory() { return driver_.options().directory; }
  std::string path_of(const BlobRef& blob) {
    return directory() + "/" +
           LocalFiles::path_of(file_kind_of(static_cast<BlobKind>(blob.kind)), blob.file);
  }
  void put(const std::string& name, const std::string& body) {
    ASSERT_TRUE(driver_.put(0, {Table::kCurrent, 1, name}, {.size = body.size()}, as_bytes(body))
                    .has_value());
  }
  BlobRef put_blob(const std::string& name, size_t size) {
    const std::string bytes = random_bytes(random_, size);
    const auto blob = driver_.write_blob(as_bytes(bytes));
    EXPECT_TRUE(blob.has_value());
    EXPECT_TRUE(driver_.put(0, {Table::kCurrent, 1, name}, {.size = size, .blobs = {&*blob, 1}})
                    .has_value());
    return *blob;
  }
  static std::set<std::string> keys_of(const ScrubStatus& status) {
    std::set<std::string> keys;
    for (const Finding& finding : status.findings) {
      if (finding.key) keys.insert(finding.key->name);
    }
    return keys;
  }
  LocalDriver driver_{1};
  std::mt19937_64 random_{3};
};

TEST_F(ScrubTest, FindsNothingWhereNothingIsWrong) {
  for (int i = 0; i < 200; ++i)
    put("small " + std::to_string(i), random_bytes(random_, 100 + 500 * (i % 200)));
  put_blob("bulk", 300'000);
  put_blob("own", 6'000'000);
  const ScrubStatus light = run(ScrubMode::kLight);
  EXPECT_EQ(light.finding_count, 0u) << light.findings.front().what;
  EXPECT_GE(light.records, 202u);
  EXPECT_EQ(light.blobs, 0u);
  const ScrubStatus deep = run(ScrubMode::kDeep);
  EXPECT_EQ(deep.finding_count, 0u) << deep.findings.front().what;
  EXPECT_GE(deep.blobs, 190u);
  EXPECT_GT(deep.bytes, 6'300'000u);
  EXPECT_GT(deep.last_deep_ms, 0);
  EXPECT_FALSE(deep.files.empty());
}

TEST_F(ScrubTest, NamesWhatIsDamaged) {
  std::vector<BlobRef> bodies;
  for (int i = 0; i < 50; ++i) {
    const std::string name = "small " + std::to_string(i);
    put(name, random_bytes(random_, 20'000));
    bodies.push_back(driver_.core().shard(0).get_now({Table::kCurrent, 1, name})->view().body);
  }
  const BlobRef bulk = put_blob("bulk", 300'000), own = put_blob("own", 6'000'000);
  const BlobRef table = put_blob("table", 500'000), gone = put_blob("gone", 5'000'000);
  const BlobRef cut = put_blob("cut", 5'000'000);
  put_blob("good", 300'000);
  driver_.checkpoint();
  flip_bit(path_of(bodies[7]), bodies[7].offset + 19'999);
  flip_bit(path_of(bulk), bulk.offset + 123'456);
  flip_bit(path_of(own), own.offset + 5'999'999);
  flip_bit(path_of(table), table.offset + chunk_table_offset(BlobKind::kBulk, table.length) + 5);
  std::filesystem::remove(path_of(gone));
  std::filesystem::resize_file(path_of(cut), 4'000'000);
  flip_bit(directory() + "/superblock", 4096 + 30);
  flip_bit(path_of(bulk), 50);
  const ScrubStatus status = run(ScrubMode::kDeep);
  EXPECT_EQ(keys_of(status),
            (std::set<std::string>{"small 7", "bulk", "own", "table", "gone", "cut"}));
  std::set<Finding::Kind> kinds;
  for (const Finding& finding : status.findings) {
    kinds.insert(finding.kind);
    if (finding.key && finding.key->name == "bulk") {
      EXPECT_EQ(finding.offset, bulk.offset + 65536);
      EXPECT_EQ(finding.file, LocalFiles::path_of(FileKind::kBulk, bulk.file));
    }
  }
  EXPECT_TRUE(kinds.contains(Finding::Kind::kSuperblock));
  EXPECT_TRUE(kinds.contains(Finding::Kind::kSegment));
  EXPECT_TRUE(kinds.contains(Finding::Kind::kMissing));
  EXPECT_TRUE(kinds.contains(Finding::Kind::kBlob));
  // A light scrub sees what needs no reading.
  EXPECT_EQ(keys_of(run(ScrubMode::kLight)), (std::set<std::string>{"gone", "cut"}));
  // Replaced, the damage is gone with the object.
  for (const char* name : {"bulk", "own", "table", "gone", "cut", "small 7"}) put(name, "new");
  EXPECT_EQ(keys_of(run(ScrubMode::kDeep)), std::set<std::string>());
}

TEST_F(ScrubTest, FindsADamagedRecordOfTheIndex) {
  for (int i = 0; i < 300; ++i) put("key " + std::to_string(i), "inline body of the object");
  driver_.checkpoint();
  // A byte of an inline body: where the text stands in the file.
  const std::string path = directory() + "/shard/00/data.mdb";
  driver_.close(true);
  std::string content;
  {
    FILE* file = std::fopen(path.c_str(), "rb");
    content.resize(std::filesystem::file_size(path));
    ASSERT_EQ(std::fread(content.data(), 1, content.size(), file), content.size());
    std::fclose(file);
  }
  ASSERT_NE(content.find("inline body"), std::string::npos);
  for (size_t at = content.find("inline body"); at != std::string::npos;
       at = content.find("inline body", at + 1)) {
    flip_bit(path, at + 3);  // stale copies in free pages too
  }
  ASSERT_TRUE(driver_.open().has_value());
  const ScrubStatus status = run(ScrubMode::kLight);
  EXPECT_EQ(keys_of(status).size(), 300u);
  EXPECT_EQ(status.findings.front().kind, Finding::Kind::kRecord);
  EXPECT_EQ(status.findings.front().file, "shard/00/data.mdb");
}

TEST_F(ScrubTest, NothingIsFalselyAccusedWhileTheDataChanges) {
  driver_.options().gc_interval_ms = 10;
  for (int round = 0; round < 4; ++round) {
    ASSERT_TRUE(scrub().start(ScrubMode::kDeep, 0).has_value());
    int i = 0;
    ASSERT_TRUE(driver_.spin([&] {
      const std::string name = "key " + std::to_string(random_() % 60);
      if (random_() % 5 == 0) {
        EXPECT_TRUE(driver_.erase(0, {Table::kCurrent, 1, name}).has_value());
      } else if (random_() % 10 == 0) {
        put_blob(name, 200'000 + random_() % 400'000);
      } else {
        put(name, random_bytes(random_, 40'000 + random_() % 80'000));
      }
      if (++i % 50 == 0) driver_.checkpoint();
      return i > 120 && scrub().status(false).state == ScrubState::kIdle;
    }));
    const ScrubStatus status = scrub().status(true);
    EXPECT_EQ(status.finding_count, 0u) << status.findings.front().what;
  }
}

TEST_F(ScrubTest, PausesResumesAndSurvivesARestart) {
  put_blob("own", 6'000'000);
  const BlobRef bad = put_blob("bad", 300'000);
  driver_.checkpoint();
  flip_bit(path_of(bad), bad.offset + 1);
  EXPECT_FALSE(scrub().pause().has_value());
  EXPECT_FALSE(scrub().resume().has_value());
  // So slow that it cannot end.
  ASSERT_TRUE(scrub().start(ScrubMode::kDeep, 1).has_value());
  EXPECT_EQ(scrub().start(ScrubMode::kDeep, 0).error().code, Code::kBusy);
  ASSERT_TRUE(scrub().pause().has_value());
  EXPECT_EQ(scrub().status(false).state, ScrubState::kPaused);
  driver_.reopen();
  EXPECT_EQ(scrub().status(false).state, ScrubState::kPaused);
  ASSERT_TRUE(scrub().resume().has_value());
  driver_.reopen();
  EXPECT_EQ(scrub().status(false).state, ScrubState::kRunning);
  ASSERT_TRUE(scrub().cancel().has_value());
  ASSERT_TRUE(driver_.spin([&] { return scrub().status(false).state == ScrubState::kIdle; }));
  EXPECT_EQ(keys_of(run(ScrubMode::kDeep)), std::set<std::string>{"bad"});
  driver_.reopen();
  const ScrubStatus status = scrub().status(true);
  EXPECT_EQ(keys_of(status), std::set<std::string>{"bad"});
  EXPECT_EQ(status.state, ScrubState::kIdle);
  EXPECT_GT(status.last_deep_ms, 0);
}

TEST_F(ScrubTest, ADamagedBatchOfTheActiveLogIsFound) {
  for (int i = 0; i < 10; ++i) put("key " + std::to_string(i), "small");
  driver_.checkpoint();
  // The segment that holds something; the others are spares.
  std::string log;
  for (const auto& entry : std::filesystem::directory_iterator(directory() + "/log")) {
    std::ifstream file(entry.path(), std::ios::binary);
    if (file.seekg(kSegmentDataOffset) && file.get() > 0) log = entry.path();
  }
  flip_bit(log, kSegmentDataOffset + 130);
  const ScrubStatus status = run(ScrubMode::kLight);
  ASSERT_EQ(status.finding_count, 1u);
  EXPECT_EQ(status.findings.front().kind, Finding::Kind::kLog);
  EXPECT_EQ(status.findings.front().offset, kSegmentDataOffset);
}

}  // namespace
}  // namespace basalt::storage
