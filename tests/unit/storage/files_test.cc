// The data directory: what may be opened, what survives, when space comes back.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <fstream>

#include "storage/files_local.h"
#include "tests/unit/storage/storage_fixture.h"

namespace basalt::storage {
namespace {

namespace fs = std::filesystem;

class FilesTest : public ::testing::Test {
 protected:
  std::unique_ptr<Files> open(unsigned cores = 1) {
    auto files = Files::open(small_options(directory.path(), cores));
    EXPECT_TRUE(files) << files.error().detail;
    return files ? std::move(*files) : nullptr;
  }
  Error open_error() {
    auto files = Files::open(small_options(directory.path()));
    EXPECT_FALSE(files);
    return files ? Error{} : files.error();
  }
  template <class F>
  bool eventually(F done) {
    for (int i = 0; i < 4000 && !done(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return done();
  }
  size_t file_count(const char* sub) {
    size_t count = 0;
    for (auto& entry : fs::recursive_directory_iterator(directory.path() + "/" + sub))
      count += entry.is_regular_file();
    return count;
  }

  TemporaryDirectory directory;
};

TEST_F(FilesTest, FormatsAndReopensWithARaisedEpoch) {
  Superblock first;
  {
    auto files = open();
    first = files->superblock();
    EXPECT_EQ(first.epoch, 1u);
    EXPECT_EQ(first.shard_count, 4u);
    EXPECT_EQ(first.log_segment_bytes, 4u << 20);
    EXPECT_TRUE(fs::is_directory(files->shard_directory(3)));
    EXPECT_FALSE(fs::exists(files->shard_directory(4)));
  }
  auto files = open();
  EXPECT_EQ(files->superblock().epoch, 2u);
  EXPECT_EQ(files->superblock().uuid, first.uuid);
  EXPECT_EQ(files->superblock().hash_seed, first.hash_seed);
  EXPECT_GT(files->superblock().number_limit, first.number_limit);
}

TEST_F(FilesTest, SegmentSizesByDiskWhenNotGiven) {
  EngineOptions options = small_options(directory.path());
  options.log_segment_bytes = options.bulk_segment_bytes = 0;
  auto files = Files::open(options);
  ASSERT_TRUE(files);
  uint64_t bytes = (*files)->superblock().log_segment_bytes;
  EXPECT_GE(bytes, 8u << 20);
  EXPECT_LE(bytes, 256u << 20);
  EXPECT_EQ(bytes % 4096, 0u);
}

TEST_F(FilesTest, OneProcessAtATime) {
  auto files = open();
  EXPECT_EQ(open_error().code, Code::kBusy);
}

TEST_F(FilesTest, NeverFormatsOverAnythingUnknown) {
  std::ofstream(directory.path() + "/precious") << "x";
  EXPECT_EQ(open_error().code, Code::kInvalid);
  EXPECT_FALSE(fs::exists(directory.path() + "/superblock"));
  fs::remove(directory.path() + "/precious");
  fs::create_directories(directory.path() + "/shard/00");
  std::ofstream(directory.path() + "/shard/00/data.mdb") << "x";
  EXPECT_EQ(open_error().code, Code::kInvalid);
  fs::remove(directory.path() + "/shard/00/data.mdb");
  // What an interrupted format leaves is no obstacle.
  std::ofstream(directory.path() + "/superblock.tmp") << "half";
  fs::create_directories(directory.path() + "/log");
  EXPECT_NE(open(), nullptr);
}

TEST_F(FilesTest, RefusesANewerFormatInClearWords) {
  open();
  uint32_t version = 2;
  overwrite(directory.path() + "/superblock", 12, Bytes(reinterpret_cast<uint8_t*>(&version), 4));
  Error error = open_error();
  EXPECT_EQ(error.code, Code::kCorrupt);
  EXPECT_NE(error.detail.find("format 2"), std::string::npos) << error.detail;
}

TEST_F(FilesTest, OneGoodSuperblockIsEnough) {
  open();
  flip_bit(directory.path() + "/superblock", 60);
  {
    EXPECT_EQ(open()->superblock().epoch, 2u);
  }
  flip_bit(directory.path() + "/superblock", 4096 + 60);
  {
    EXPECT_EQ(open()->superblock().epoch, 3u);
  }
  flip_bit(directory.path() + "/superblock", 60);
  flip_bit(directory.path() + "/superblock", 4096 + 60);
  EXPECT_EQ(open_error().code, Code::kCorrupt);
}

TEST_F(FilesTest, OwnFilesWithoutRecordsAreOrphans) {
  OwnFile kept;
  {
    TestCore core;
    auto files = open();
    struct Client : SpaceClient {
      void space_changed() override {}
    } client;
    LocalFiles& disk = local(*files);
    disk.attach(0, LocalFiles::Role::kBlobs, *core.io, client);
    std::optional<OwnFile> first, second;
    ASSERT_TRUE(eventually([&] {
      if (!first) first = std::move(*disk.take_own_file(0));
      if (first && !second) second = std::move(*disk.take_own_file(0));
      return second.has_value();
    }));
    EXPECT_NE(first->number, second->number);
    kept.number = first->number;
    disk.detach(0, LocalFiles::Role::kBlobs);
    // As in a crash: neither is given back. The stock of unused ones goes with the clean end.
  }
  EXPECT_EQ(file_count("blob"), 2u);
  auto files = open();
  BlobRef ref;
  ref.file = kept.number;
  ref.length = 5000;
  ref.kind = static_cast<uint8_t>(BlobKind::kFile);
  files->set_live(kept.number, 5000);
  files->drop_orphans();
  EXPECT_TRUE(eventually([&] { return file_count("blob") == 1; }));
  EXPECT_EQ(files->space_use().own_files, 1u);
  // Released under a guard: there until the guard goes.
  auto guard = files->guard(0);
  files->release(std::array{ref});
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_EQ(file_count("blob"), 1u);
  guard.reset();
  EXPECT_TRUE(eventually([&] { return file_count("blob") == 0; }));
  files->release(std::array{ref});  // again, as after a crash: harmless
}

TEST_F(FilesTest, NumbersAreNotUsedAgain) {
  uint32_t before = 0;
  {
    before = open()->superblock().number_limit;
  }
  EXPECT_GT(open()->superblock().number_limit, before);
}

TEST_F(FilesTest, PoisonIsSticky) {
  auto files = open();
  EXPECT_TRUE(files->healthy());
  EXPECT_EQ(files->health_text(), "ok");
  files->poison("disk on fire");
  files->poison("later");
  EXPECT_FALSE(files->healthy());
  EXPECT_EQ(files->health_text(), "disk on fire");
  EXPECT_EQ(local(*files).take_log_segment(0).error().code, Code::kReadOnly);
}

TEST(GuardEpochs, PassWhenEarlierGuardsAreGone) {
  GuardEpochs epochs(2);
  auto a = epochs.take(0);
  auto b = epochs.take(0);
  uint64_t stamp = epochs.advance();
  auto c = epochs.take(1);  // later: does not hold
  auto d = epochs.take(0);
  EXPECT_FALSE(epochs.passed(stamp));
  b.reset();
  EXPECT_FALSE(epochs.passed(stamp));
  a.reset();
  EXPECT_TRUE(epochs.passed(stamp));
  uint64_t later = epochs.advance();
  EXPECT_FALSE(epochs.passed(later));
  c.reset();
  d.reset();
  EXPECT_TRUE(epochs.passed(later));
}

TEST(GuardEpochs, NothingIsFreedUnderAReader) {
  // One thread replaces a value and frees the old one when its stamp has passed; readers look it up
  // under guards.
  GuardEpochs epochs(2);
  constexpr int kRounds = 20000;
  std::vector<std::atomic<int>> freed(kRounds + 1);
  std::atomic<int> current{0};
  std::atomic<bool> stop{false};
  std::atomic<int> bad{0};
  auto reader = [&](unsigned core) {
    while (!stop.load()) {
      auto guard = epochs.take(core);
      int seen = current.load();
      for (int i = 0; i < 20; ++i) {
        if (freed[static_cast<size_t>(seen)].load() != 0) bad.fetch_add(1);
      }
    }
  };
  std::thread one(reader, 0), two(reader, 1);
  std::deque<std::pair<int, uint64_t>> waiting;
  for (int i = 1; i <= kRounds; ++i) {
    current.store(i);
    waiting.emplace_back(i - 1, epochs.advance());
    while (!waiting.empty() && epochs.passed(waiting.front().second)) {
      freed[static_cast<size_t>(waiting.front().first)].store(1);
      waiting.pop_front();
    }
  }
  stop.store(true);
  one.join();
  two.join();
  EXPECT_EQ(bad.load(), 0);
}

}  // namespace
}  // namespace basalt::storage
