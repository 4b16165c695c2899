// The engine as a whole: recovery from the log, clean stops, read-only opening of damage, limits,
// other core counts.
#include "storage/engine.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/unit/storage/driver.h"

namespace basalt::storage {
namespace {

using test::LocalDriver;

std::string name_of(int i) { return "object-" + std::to_string(i); }

// Every log segment of the directory.
std::vector<std::filesystem::path> log_segments(const std::string& directory) {
  std::vector<std::filesystem::path> out;
  for (const auto& entry : std::filesystem::directory_iterator(directory + "/log")) {
    if (entry.is_regular_file()) out.push_back(entry.path());
  }
  return out;
}

TEST(Engine, AcknowledgedWritesComeBackFromTheLog) {
  LocalDriver driver(2);
  const std::string body(20'000, 'b');
  for (int i = 0; i < 300; ++i) {
    const std::string name = name_of(i);
    ASSERT_TRUE(driver
                    .put(i % 2, {Table::kCurrent, 1, name}, {.size = body.size(), .tag = "t"},
                         as_bytes(body))
                    .has_value());
    if (i % 3 == 0) ASSERT_TRUE(driver.erase(i % 2, {Table::kCurrent, 1, name}).has_value());
    if (i == 150) driver.checkpoint();
  }
  for (int round = 0; round < 3; ++round) {
    driver.crash();
    for (int i = 0; i < 300; ++i) {
      const std::string name = name_of(i);
      const auto content = driver.content(i % 2, {Table::kCurrent, 1, name});
      ASSERT_EQ(content.has_value(), i % 3 != 0) << i << (content ? "" : content.error().detail);
      if (content) ASSERT_TRUE(*content == body);
    }
    // Counted by the first checkpoint, which comes after the start.
    EXPECT_TRUE(driver.spin([&] { return driver.engine().space_objects(1) == 200; }));
    EXPECT_TRUE(driver.spin([&] { return driver.engine().space_bytes(1) == 200 * body.size(); }));
    EXPECT_TRUE(driver.engine().healthy());
  }
}

TEST(Engine, SequencesRiseOverRestarts) {
  LocalDriver driver(1);
  uint64_t last = 0;
  for (int round = 0; round < 4; ++round) {
    const auto applied = driver.put(0, {Table::kCurrent, 1, "k"}, {});
    ASSERT_TRUE(applied.has_value());
    EXPECT_GT(applied->seq, last);
    last = applied->seq;
    round % 2 == 0 ? driver.crash() : driver.reopen();
  }
}

TEST(Engine, AnIdleEngineWritesNoCheckpoints) {
  EngineOptions options = LocalDriver::default_options(2);
  options.checkpoint_interval_ms = 20;
  LocalDriver driver(options);
  // The one of the start.
  ASSERT_TRUE(driver.spin([&] { return driver.core().stats().checkpoints == 1; }));
  ASSERT_TRUE(driver.put(0, {Table::kCurrent, 1, "k"}, {}).has_value());
  ASSERT_TRUE(driver.spin([&] { return driver.core().stats().checkpoints == 2; }));
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(200);
  (void)driver.spin([&] { return std::chrono::steady_clock::now() > until; });
  EXPECT_EQ(driver.core().stats().checkpoints, 2u);
  EXPECT_EQ(driver.core().stats().overlay_entries, 0u);
}

TEST(Engine, ACheckpointWakesASleepingCore) {
  EngineOptions options = LocalDriver::default_options(1);
  options.checkpoint_interval_ms = 50;
  LocalDriver driver(options);
  ASSERT_TRUE(driver.spin([&] { return driver.core().stats().checkpoints == 1; }));
  ASSERT_TRUE(driver.put(0, {Table::kCurrent, 1, "k"}, {}).has_value());
  // Only as a loop would: poll when a descriptor is readable.
  bool done = false;
  for (int i = 0; i < 200 && !done; ++i) {
    fd_set set;
    FD_ZERO(&set);
    FD_SET(driver.core().wake_fd(), &set);
    timeval timeout{0, 500'000};
    ASSERT_EQ(::select(driver.core().wake_fd() + 1, &set, nullptr, nullptr, &timeout), 1);
    driver.turn();
    done = driver.core().stats().checkpoints == 2 && driver.core().stats().overlay_entries == 0;
  }
  EXPECT_TRUE(done);
}

TEST(Engine, OverlayBoundHoldsWritesUntilTheCheckpoint) {
  EngineOptions options = LocalDriver::default_options(1);
  options.overlay_bytes_max = 64 * 1024;
  LocalDriver driver(options);
  const std::string meta(1000, 'm');
  struct Write {
    MutationBuilder builder;
    std::string name;
    std::unique_ptr<test::Tracked<ApplyRequest>> request;
  };
  std::deque<Write> writes;
  for (int i = 0; i < 2000; ++i) {
    Write& write = writes.emplace_back();
    write.name = name_of(i);
    write.builder.put({Table::kCurrent, 1, write.name}, {.meta = as_bytes(meta)});
    write.request = std::make_unique<test::Tracked<ApplyRequest>>(std::span<const Precondition>(),
                                                                  write.builder.finish(), Bytes());
    driver.core().shard(0).apply(*write.request);
    if (i % 100 == 0) ASSERT_TRUE(driver.spin([&] { return write.request->done; }));
  }
  ASSERT_TRUE(driver.spin(
      [&] { return std::ranges::all_of(writes, [](const Write& w) { return w.request->done; }); }));
  for (const Write& write : writes) EXPECT_TRUE(write.request->result.has_value());
  EXPECT_GE(driver.core().stats().checkpoints, 2u);
  ASSERT_TRUE(driver.spin(
      [&] { return driver.core().stats().overlay_bytes <= options.overlay_bytes_max; }));
  EXPECT_EQ(driver.scan(0, {.space = 1, .limit = 10'000})->entries.size(), 2000u);
}

TEST(Engine, StopRefusesNewWritesAndFinishesOldOnes) {
  LocalDriver driver(1);
  MutationBuilder builder, late;
  builder.put({Table::kCurrent, 1, "k"}, {});
  test::Tracked<ApplyRequest> request(std::span<const Precondition>(), builder.finish(), Bytes());
  driver.core().shard(0).apply(request);
  struct Stopped : Completion {
    bool done = false;
  } stopped;
  stopped.fn = [](Completion& completion) { static_cast<Stopped&>(completion).done = true; };
  driver.core().stop(stopped);
  EXPECT_EQ(driver.apply(0, (late.put({Table::kCurrent, 1, "late"}, {}), late)).error().code,
            Code::kCancelled);
  ASSERT_TRUE(driver.spin([&] { return stopped.done; }));
  EXPECT_TRUE(request.done);
  EXPECT_TRUE(request.result.has_value());
  EXPECT_EQ(driver.core().stats().overlay_entries, 0u);
  driver.crash();
  EXPECT_TRUE(driver.core().shard(0).get_now({Table::kCurrent, 1, "k"}).has_value());
}

TEST(Engine, AnotherCoreCountFindsEverything) {
  const test::TemporaryDirectory directory;
  EngineOptions options = LocalDriver::default_options(4);
  options.directory = directory.path() + "/data";
  {
    LocalDriver driver(options);
    for (unsigned shard = 0; shard < 4; ++shard)
      ASSERT_TRUE(driver.put(shard, {Table::kCurrent, 1, "k"}, {.size = shard}).has_value());
    driver.close(false);
  }
  options.core_count = 2;
  SystemClock clock;
  auto engine = Engine::open(options, clock);
  ASSERT_TRUE(engine.has_value()) << engine.error().detail;
  EXPECT_EQ((*engine)->shard_count(), 4u);
  BufferPool buffers;
  RunQueue queues[2];
  std::unique_ptr<Io> ios[2];
  std::unique_ptr<CoreEngine> cores[2];
  for (unsigned core = 0; core < 2; ++core) {
    ios[core] = std::move(*make_io(queues[core], false));
    cores[core] = (*engine)->attach(core, *ios[core], queues[core], buffers);
    for (unsigned shard = core; shard < 4; shard += 2) {
      const auto record = cores[core]->shard(shard).get_now({Table::kCurrent, 1, "k"});
      ASSERT_TRUE(record.has_value());
      EXPECT_EQ(record->view().size, shard);
    }
  }
  for (unsigned core = 0; core < 2; ++core) {
    cores[core].reset();
    while (queues[core].run() != 0) {
    }
    ios[core].reset();
  }
}

// Case H: a record that was acknowledged (later batches prove it) is damaged on disk.
TEST(Engine, DamageInTheAcknowledgedLogOpensReadOnly) {
  LocalDriver driver(1);
  for (int i = 0; i < 50; ++i) {
    const std::string name = name_of(i);
    const std::string meta = "metadata-of-" + name + "-" + std::string(500, 'x');
    ASSERT_TRUE(driver.put(0, {Table::kCurrent, 1, name}, {.meta = as_bytes(meta)}).has_value());
  }
  driver.close(false);
  bool damaged = false;
  for (const auto& path : log_segments(driver.options().directory)) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)), {});
    const size_t at = bytes.find("metadata-of-object-10-");
    if (at == std::string::npos) continue;
    file.clear();
    file.seekp(static_cast<std::streamoff>(at + 3));
    file.put('#');
    damaged = true;
  }
  ASSERT_TRUE(damaged);
  for (int round = 0; round < 2; ++round) {  // stable over restarts
    ASSERT_TRUE(driver.open().has_value());
    EXPECT_FALSE(driver.engine().healthy());
    EXPECT_FALSE(driver.engine().health_text().empty());
    EXPECT_TRUE(driver.core().shard(0).get_now({Table::kCurrent, 1, "object-3"}).has_value());
    EXPECT_EQ(driver.core().shard(0).get_now({Table::kCurrent, 1, "object-10"}).error().code,
              Code::kNotFound);
    EXPECT_EQ(driver.put(0, {Table::kCurrent, 1, "new"}, {}).error().code, Code::kReadOnly);
    driver.close(true);
  }
}

// A torn tail was never acknowledged: zeroing the last batch loses it quietly.
TEST(Engine, ATornTailIsDropped) {
  LocalDriver driver(1);
  for (int i = 0; i < 10; ++i) {
    const std::string name = name_of(i);
    ASSERT_TRUE(driver.put(0, {Table::kCurrent, 1, name}, {.meta = as_bytes("torn-" + name + "-")})
                    .has_value());
  }
  driver.close(false);
  for (const auto& path : log_segments(driver.options().directory)) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)), {});
    const size_t at = bytes.find("torn-object-9-");
    if (at == std::string::npos) continue;
    file.clear();
    file.seekp(static_cast<std::streamoff>(at));
    file.put('#');
  }
  ASSERT_TRUE(driver.open().has_value());
  EXPECT_TRUE(driver.engine().healthy());
  EXPECT_TRUE(driver.core().shard(0).get_now({Table::kCurrent, 1, "object-8"}).has_value());
  EXPECT_FALSE(driver.core().shard(0).get_now({Table::kCurrent, 1, "object-9"}).has_value());
  EXPECT_TRUE(driver.put(0, {Table::kCurrent, 1, "new"}, {}).has_value());
}

TEST(Engine, ALongLogIsReplayedInBoundedMemory) {
  LocalDriver driver(1);
  const std::string meta(2000, 'm');
  for (int i = 0; i < 1500; ++i) {
    const std::string name = name_of(i % 700);
    ASSERT_TRUE(driver
                    .put(0, {Table::kCurrent, 1, name},
                         {.size = static_cast<uint64_t>(i), .meta = as_bytes(meta)})
                    .has_value());
  }
  driver.options().overlay_bytes_max = 256 * 1024;
  driver.crash();
  // Written in pieces before the first request, and not held.
  EXPECT_LE(driver.core().stats().overlay_bytes, driver.options().overlay_bytes_max);
  EXPECT_EQ(driver.engine().space_objects(1), 700u);
  EXPECT_EQ(driver.core().shard(0).get_now({Table::kCurrent, 1, "object-5"})->view().size, 1405u);
}

// A page that a checkpoint needs is damaged. What the log has stays in memory, more of it than the
// bound, and is served; what is damaged is an error, and writing has ended.
TEST(Engine, AStartServesWhatItCannotIndex) {
  LocalDriver driver(1);
  constexpr int kNames = 1100, kDamaged = 101;
  const std::string meta(500, 'm');
  const auto put = [&](MutationBuilder& builder, int i, uint64_t size) {
    const std::string name = name_of(i), text = name + meta;
    builder.put({Table::kCurrent, 1, name}, {.size = size, .meta = as_bytes(text)});
    if (builder.count() == (size == 1 ? 50 : 1)) ASSERT_TRUE(driver.apply(0, builder).has_value());
  };
  MutationBuilder builder;
  for (int i = 0; i < kNames; ++i) put(builder, i, 1);
  driver.checkpoint();
  for (int i = 0; i < kNames; ++i) {
    if (i != kDamaged) put(builder, i, 2);
  }
  driver.close(false);
  const std::string path = driver.options().directory + "/shard/00/data.mdb";
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  int damaged = 0;  // in freed pages, too
  for (size_t at = 0; (at = bytes.find("object-101m", at)) != std::string::npos; ++at) {
    file.clear();
    file.seekp(static_cast<std::streamoff>(at / 4096 * 4096));
    file.write(std::string(64, '\xff').data(), 64);
    ++damaged;
  }
  ASSERT_GT(damaged, 0);
  file.close();
  driver.options().overlay_bytes_max = 64 * 1024;
  for (int round = 0; round < 2; ++round) {
    const auto opened = driver.open();
    ASSERT_TRUE(opened.has_value()) << opened.error().detail;
    EXPECT_FALSE(driver.engine().healthy());
    for (int i = 0; i < kNames; ++i) {
      const auto record = driver.core().shard(0).get_now({Table::kCurrent, 1, name_of(i)});
      if (i == kDamaged) {
        ASSERT_FALSE(record.has_value());
        EXPECT_EQ(record.error().code, Code::kCorrupt);
      } else {
        ASSERT_TRUE(record.has_value()) << i;
        EXPECT_EQ(record->view().size, 2u) << i;
      }
    }
    EXPECT_EQ(driver.put(0, {Table::kCurrent, 1, "new"}, {}).error().code, Code::kReadOnly);
    driver.close(round == 0);
  }
}

// A start does not wait for the index: what the log has is served from the overlays, and a crash
// before the first checkpoint finds the logs of two epochs.
TEST(Engine, TheFirstCheckpointComesAfterTheStart) {
  LocalDriver driver(1);
  constexpr int kNames = 300;
  const std::string body(2000, 'b');
  const auto put_all = [&](int round) {
    for (int i = round; i < kNames; i += 2) {
      const std::string name = name_of(i);
      ASSERT_TRUE(driver
                      .put(0, {Table::kCurrent, 1, name},
                           {.size = static_cast<uint64_t>(round * kNames + i)}, as_bytes(body))
                      .has_value());
    }
  };
  const auto expect_all = [&](int rounds) {
    for (int i = 0; i < kNames; ++i) {
      const std::string name = name_of(i);
      const uint64_t size = i % 2 == 1 && rounds > 1 ? kNames + i : i;
      const auto record = driver.core().shard(0).get_now({Table::kCurrent, 1, name});
      ASSERT_EQ(record.has_value(), i % 2 == 0 || rounds > 1) << i;
      if (record) EXPECT_EQ(record->view().size, size) << i;
    }
  };
  ASSERT_TRUE(driver.spin([&] { return driver.core().stats().checkpoints == 1; }));
  put_all(0);
  driver.crash();
  EXPECT_EQ(driver.core().stats().checkpoints, 0u);
  EXPECT_EQ(driver.engine().space_objects(1), 0u);  // counted by checkpoints
  expect_all(1);
  put_all(1);
  driver.crash();
  expect_all(2);
  ASSERT_TRUE(driver.spin([&] { return driver.core().stats().checkpoints == 1; }));
  ASSERT_TRUE(driver.spin([&] { return driver.core().stats().overlay_entries == 0; }));
  EXPECT_EQ(driver.engine().space_objects(1), static_cast<uint64_t>(kNames));
  expect_all(2);
  driver.crash();
  expect_all(2);
}

TEST(Engine, OrphanedBlobsOfACrashAreFreed) {
  LocalDriver driver(1);
  const std::string large(5u << 20, 'L');
  const auto kept = driver.write_blob(as_bytes(large));
  ASSERT_TRUE(kept.has_value());
  ASSERT_TRUE(
      driver.put(0, {Table::kCurrent, 1, "kept"}, {.size = kept->length, .blobs = {&*kept, 1}})
          .has_value());
  driver.close(false);
  // A crash between a body's last byte and its record leaves a file like this one.
  const std::string orphan = driver.options().directory + "/blob/00/000000f0";
  std::ofstream(orphan) << large;
  ASSERT_TRUE(driver.open().has_value());
  EXPECT_EQ(driver.engine().space_use().own_files, 1u);
  EXPECT_TRUE(driver.spin([&] { return !std::filesystem::exists(orphan); }));
  EXPECT_TRUE(*driver.content(0, {Table::kCurrent, 1, "kept"}) == large);
}

// The last record of an own file goes: after the checkpoint the file does too.
TEST(Engine, AnErasedOwnFileIsUnlinked) {
  LocalDriver driver(1);
  const std::string large(5u << 20, 'L');
  const auto blob = driver.write_blob(as_bytes(large));
  ASSERT_TRUE(blob.has_value());
  const KeyView key{Table::kCurrent, 1, "k"};
  ASSERT_TRUE(driver.put(0, key, {.size = blob->length, .blobs = {&*blob, 1}}).has_value());
  driver.checkpoint();
  ASSERT_TRUE(driver.erase(0, key).has_value());
  EXPECT_EQ(driver.engine().space_use().own_files, 1u);
  driver.checkpoint();
  EXPECT_TRUE(driver.spin([&] { return driver.engine().space_use().own_files == 0; }));
}

TEST(Engine, TheSameDirectoryTwiceIsRefused) {
  LocalDriver driver(1);
  SystemClock clock;
  EXPECT_FALSE(Engine::open(driver.options(), clock).has_value());
}

TEST(Engine, WorksOnThreadsInsteadOfIoUring) {
  LocalDriver driver(LocalDriver::default_options(2), true);
  for (int i = 0; i < 100; ++i) {
    const std::string name = name_of(i);
    ASSERT_TRUE(driver.put(i % 2, {Table::kCurrent, 1, name}, {}).has_value());
  }
  driver.crash();
  EXPECT_TRUE(driver.spin([&] { return driver.engine().space_objects(1) == 100; }));
}

}  // namespace
}  // namespace basalt::storage
