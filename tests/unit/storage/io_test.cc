// Both implementations of Io keep the same promises: whole transfers, errors as they are, waking
// from any thread.
#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <deque>

#include "tests/unit/storage/storage_fixture.h"

namespace basalt::storage {
namespace {

class IoTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    ASSERT_NE(core.io, nullptr);
    if (!GetParam() && core.io->name() != "io_uring") GTEST_SKIP() << "io_uring is denied here";
    if (GetParam()) ASSERT_EQ(core.io->name(), "threads");
    path = directory.path() + "/file";
    fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ASSERT_GE(fd, 0);
  }
  void TearDown() override {
    core.io.reset();
    if (fd >= 0) ::close(fd);
  }
  int64_t run(IoOp::Kind kind, uint8_t* data, uint32_t length, uint64_t offset, int on = -2) {
    Waited<IoOp> op;
    op.kind = kind;
    op.fd = on == -2 ? fd : on;
    op.data = data;
    op.length = length;
    op.offset = offset;
    core.io->submit(op);
    EXPECT_EQ(core.io->in_flight(), 1u);
    EXPECT_TRUE(core.turn_until([&] { return op.done; }));
    EXPECT_EQ(core.io->in_flight(), 0u);
    return op.result;
  }

  TemporaryDirectory directory;
  TestCore core{GetParam()};
  std::string path;
  int fd = -1;
};

TEST_P(IoTest, WritesSyncsAndReadsBack) {
  auto data = pattern(300'000, 1);
  EXPECT_EQ(run(IoOp::Kind::kWriteDataSync, data.data(), 300'000, 0), 300'000);
  EXPECT_EQ(run(IoOp::Kind::kWrite, data.data(), 4096, 300'000), 4096);
  EXPECT_EQ(run(IoOp::Kind::kDataSync, nullptr, 0, 0), 0);
  std::vector<uint8_t> back(300'000);
  EXPECT_EQ(run(IoOp::Kind::kRead, back.data(), 300'000, 0), 300'000);
  EXPECT_EQ(back, data);
}

TEST_P(IoTest, ReadEndsShortOnlyAtTheEndOfTheFile) {
  auto data = pattern(10'000, 2);
  ASSERT_EQ(run(IoOp::Kind::kWrite, data.data(), 10'000, 0), 10'000);
  std::vector<uint8_t> back(8192);
  EXPECT_EQ(run(IoOp::Kind::kRead, back.data(), 8192, 6000), 4000);
  EXPECT_EQ(run(IoOp::Kind::kRead, back.data(), 8192, 20'000), 0);
}

TEST_P(IoTest, ErrorsAreTheKernels) {
  uint8_t byte = 0;
  EXPECT_EQ(run(IoOp::Kind::kRead, &byte, 1, 0, -1), -EBADF);
  EXPECT_EQ(run(IoOp::Kind::kWriteDataSync, &byte, 1, 0, -1), -EBADF);
  int read_only = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  EXPECT_EQ(run(IoOp::Kind::kWriteDataSync, &byte, 1, 0, read_only), -EBADF);
  ::close(read_only);
  // A pipe can be written but not synced: the linked fdatasync's error must not be lost.
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  EXPECT_LT(run(IoOp::Kind::kWriteDataSync, &byte, 1, 0, ends[1]), 0);
  ::close(ends[0]);
  ::close(ends[1]);
}

// A write that the system cuts off is no reason to flush: the rest is written first, or its error
// is the answer.
TEST_P(IoTest, AWriteThatIsCutOffIsNotSynced) {
  constexpr uint64_t kLimit = 6000;
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit cut = before;
  cut.rlim_cur = kLimit;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &cut), 0);
  auto data = pattern(8192, 6);
  const int64_t all = run(IoOp::Kind::kWriteDataSync, data.data(), 8192, 0);
  const int64_t behind = run(IoOp::Kind::kWriteDataSync, data.data(), 4096, 8192);
  const int64_t within = run(IoOp::Kind::kWriteDataSync, data.data(), 4096, 0);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(all, -EFBIG);
  EXPECT_EQ(behind, -EFBIG);
  EXPECT_EQ(within, 4096);
  struct stat info{};
  ASSERT_EQ(::fstat(fd, &info), 0);
  EXPECT_EQ(info.st_size, static_cast<off_t>(kLimit));
}

TEST_P(IoTest, AllocatesSpace) {
  EXPECT_EQ(run(IoOp::Kind::kAllocate, nullptr, 0, 1 << 20), 0);
  struct stat info{};
  ASSERT_EQ(::fstat(fd, &info), 0);
  EXPECT_EQ(info.st_size, 1 << 20);
  EXPECT_GE(info.st_blocks * 512, 1 << 20);
}

TEST_P(IoTest, TakesFarMoreThanTheKernelQueueHolds) {
  auto data = pattern(4096, 3);
  std::deque<Waited<IoOp>> ops;
  for (uint64_t i = 0; i < 3000; ++i) {
    auto& op = ops.emplace_back();
    op.kind = i % 3 == 0 ? IoOp::Kind::kWriteDataSync : IoOp::Kind::kWrite;
    op.fd = fd;
    op.data = data.data();
    op.length = 512;
    op.offset = i * 512;
    core.io->submit(op);
  }
  EXPECT_TRUE(
      core.turn_until([&] { return core.io->in_flight() == 0 && core.run_queue.empty(); }, 60));
  for (auto& op : ops) {
    EXPECT_TRUE(op.done);
    EXPECT_EQ(op.result, 512);
  }
}

TEST_P(IoTest, DestructorWaitsForWhatIsUnderWay) {
  auto data = pattern(1 << 20, 4);
  std::deque<Waited<IoOp>> ops;
  for (uint64_t i = 0; i < 20; ++i) {
    auto& op = ops.emplace_back();
    op.kind = IoOp::Kind::kWriteDataSync;
    op.fd = fd;
    op.data = data.data();
    op.length = 1 << 20;
    op.offset = i << 20;
    core.io->submit(op);
  }
  core.io->poll();
  core.io.reset();
  core.run_queue.run();
  for (auto& op : ops) {
    EXPECT_TRUE(op.done);
    EXPECT_EQ(op.result, 1 << 20);
  }
}

TEST_P(IoTest, OtherThreadsPostAndWake) {
  constexpr int kCount = 2000;
  std::deque<Waited<Completion>> posts(2 * kCount);
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kCount; ++i)
        core.io->post_from_any_thread(posts[static_cast<size_t>(t * kCount + i)]);
    });
  }
  auto all = [&] {
    for (auto& post : posts) {
      if (!post.done) return false;
    }
    return true;
  };
  // As a loop does it: sleep only after prepare_sleep() agreed, and be woken for everything that
  // comes later.
  auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!all() && std::chrono::steady_clock::now() < end) {
    core.io->poll();
    core.run_queue.run();
    if (all() || !core.run_queue.empty() || !core.io->prepare_sleep()) continue;
    pollfd wait{core.io->wake_fd(), POLLIN, 0};
    ASSERT_EQ(::poll(&wait, 1, 5000), 1);
    core.io->woke();
  }
  for (auto& thread : threads) thread.join();
  EXPECT_TRUE(all());
}

TEST_P(IoTest, CompletionsWakeASleepingLoop) {
  auto data = pattern(4096, 5);
  for (int i = 0; i < 50; ++i) {
    Waited<IoOp> op;
    op.kind = IoOp::Kind::kWriteDataSync;
    op.fd = fd;
    op.data = data.data();
    op.length = 4096;
    core.io->submit(op);
    while (!op.done) {
      core.io->poll();
      core.run_queue.run();
      if (op.done || !core.io->prepare_sleep()) continue;
      pollfd wait{core.io->wake_fd(), POLLIN, 0};
      ASSERT_EQ(::poll(&wait, 1, 5000), 1) << "lost wake-up in round " << i;
      core.io->woke();
    }
    EXPECT_EQ(op.result, 4096);
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, IoTest, ::testing::Values(false, true),
                         [](const auto& info) { return info.param ? "threads" : "io_uring"; });

}  // namespace
}  // namespace basalt::storage
