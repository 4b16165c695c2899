// Streams over socket pairs: every call completes once, deadlines, aborts, backpressure, sendfile,
// lingering.
#include "reactor/stream.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "base/task.h"
#include "reactor/lingerer.h"
#include "tests/unit/reactor/net_test_util.h"

namespace basalt::reactor {
namespace {

struct Pair {
  int ours, theirs;
  Pair() {
    int fds[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    ours = fds[0];
    theirs = fds[1];
  }
};

auto read_call(Stream& stream, MutableBytes into, uint64_t timeout_ms = kNoDeadline) {
  return Call<ReadCall>([&stream](ReadCall& call) { stream.read(call); }, into, timeout_ms);
}
auto wait_call(Stream& stream, uint64_t timeout_ms = kNoDeadline) {
  return Call<WaitCall>([&stream](WaitCall& call) { stream.wait_readable(call); }, timeout_ms);
}
auto write_call(Stream& stream, Bytes data, uint64_t timeout_ms = kNoDeadline) {
  return Call<WriteCall>([&stream](WriteCall& call) { stream.write(call); },
                         std::initializer_list<Bytes>{data}, timeout_ms);
}

// Runs a test body that is a coroutine on a loop of its own, here.
template <class Body>
void on_loop(Body body) {
  auto loop = std::move(*Loop::create());
  struct Runner {
    static Detached run(Loop& loop, Body& body) {
      co_await body(loop);
      loop.stop();
    }
  };
  loop->run_in_loop([&] { Runner::run(*loop, body); });
  loop->run();
}

Task<> echo_body(Loop& loop) {
  Pair pair;
  auto stream = Stream::adopt(loop, pair.ours);
  test::Client peer(pair.theirs);
  uint8_t buffer[64];
  EXPECT_TRUE(stream->peer().starts_with("unix:uid="));
  EXPECT_EQ(stream->read_now(buffer).error().code, Code::kBusy);
  peer.send("hello");
  EXPECT_TRUE((co_await wait_call(*stream)).has_value());
  const auto now = stream->read_now(buffer);
  EXPECT_EQ(now.value(), 5u);
  EXPECT_EQ(stream->read_now(buffer).error().code, Code::kBusy);
  peer.send("world");
  const auto later = co_await read_call(*stream, buffer);
  EXPECT_EQ(later.value(), 5u);
  EXPECT_EQ(std::memcmp(buffer, "world", 5), 0);
  EXPECT_TRUE((co_await write_call(*stream, as_bytes("answer"))).has_value());
  EXPECT_EQ(peer.read(6), "answer");
  const iovec pieces[] = {{buffer, 2}, {buffer + 2, 3}};
  EXPECT_EQ(stream->write_now(pieces).value(), 5u);
  EXPECT_EQ(peer.read(5), "world");
  peer.send("last");
  peer.close();
  EXPECT_EQ((co_await read_call(*stream, buffer)).value(), 4u);
  EXPECT_EQ((co_await read_call(*stream, buffer)).value(), 0u);
  EXPECT_EQ((co_await read_call(*stream, buffer)).value(), 0u);
  EXPECT_TRUE((co_await wait_call(*stream)).has_value());
  EXPECT_FALSE((co_await write_call(*stream, as_bytes("x"))).has_value());
}
TEST(Stream, ReadsAndWrites) { on_loop(echo_body); }

Task<> deadlines_body(Loop& loop) {
  {
    Pair pair;
    auto stream = Stream::adopt(loop, pair.ours);
    test::Client peer(pair.theirs);
    uint8_t buffer[8];
    const auto result = co_await read_call(*stream, buffer, 30);
    EXPECT_EQ(result.error().code, Code::kTimeout);
    EXPECT_EQ((co_await wait_call(*stream)).error().code, Code::kTimeout);  // stays so
    // The write side of a stream whose reader was too slow still works.
    EXPECT_TRUE((co_await write_call(*stream, as_bytes("too slow"))).has_value());
    EXPECT_EQ(peer.read(8), "too slow");
  }
  {
    Pair pair;
    auto stream = Stream::adopt(loop, pair.ours);
    test::Client peer(pair.theirs);
    EXPECT_EQ((co_await wait_call(*stream, 30)).error().code, Code::kTimeout);
  }
  {
    Pair pair;
    auto stream = Stream::adopt(loop, pair.ours);
    test::Client peer(pair.theirs);
    const std::string large(8 << 20, 'x');  // does not fit into the socket
    EXPECT_EQ((co_await write_call(*stream, as_bytes(large), 50)).error().code, Code::kTimeout);
    EXPECT_FALSE((co_await write_call(*stream, as_bytes("x"), 50)).has_value());
  }
}
TEST(Stream, Deadlines) { on_loop(deadlines_body); }

Task<> large_body(Loop& loop) {
  Pair pair;
  auto stream = Stream::adopt(loop, pair.ours);
  std::string large(16 << 20, '\0');
  for (size_t i = 0; i < large.size(); ++i) large[i] = static_cast<char>(i * 2654435761u >> 13);
  std::string got;
  std::thread peer([&got, &large, fd = pair.theirs] { got = test::Client(fd).read(large.size()); });
  const Bytes all = as_bytes(large);
  Call<WriteCall> call([&](WriteCall& c) { stream->write(c); },
                       std::initializer_list<Bytes>{
                           all.first(3), all.subspan(3, 1 << 20), {}, all.subspan(3 + (1 << 20))},
                       uint64_t{5000}, false);
  const Status status = co_await call;
  EXPECT_TRUE(status.has_value());
  peer.join();
  EXPECT_TRUE(got == large);
}
TEST(Stream, LargeWriteWaitsForThePeer) { on_loop(large_body); }

Task<> sendfile_body(Loop& loop) {
  test::TempFolder folder;
  const int file = open(folder.file("f").c_str(), O_RDWR | O_CREAT, 0600);
  std::string content(5 << 20, '\0');
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 40503 >> 7);
  EXPECT_EQ(write(file, content.data(), content.size()), static_cast<ssize_t>(content.size()));
  Pair pair;
  auto stream = Stream::adopt(loop, pair.ours);
  EXPECT_TRUE(stream->can_sendfile());
  std::string got;
  std::thread peer([&got, fd = pair.theirs] { got = test::Client(fd).read_all(); });
  const auto part =
      co_await Call<SendFileCall>([&](SendFileCall& call) { stream->sendfile(call); }, file,
                                  uint64_t{1000}, content.size() - 1000, uint64_t{5000});
  EXPECT_TRUE(part.has_value());
  // Past the end: an error, no endless loop.
  const auto past =
      co_await Call<SendFileCall>([&](SendFileCall& call) { stream->sendfile(call); }, file,
                                  uint64_t{content.size() - 10}, uint64_t{20}, uint64_t{5000});
  EXPECT_FALSE(past.has_value());
  stream.reset();
  peer.join();
  EXPECT_TRUE(got == content.substr(1000) + content.substr(content.size() - 10));
  close(file);
}
TEST(Stream, SendFile) { on_loop(sendfile_body); }

// Bytes of a file that may have changed while the socket was full are asked about before they go.
Task<> checked_sendfile_body(Loop& loop) {
  class Check final : public FileCheck {
   public:
    bool still_there(uint64_t offset, uint64_t length) override {
      EXPECT_EQ(offset + length, end);
      return ++asked < refuse_at;
    }
    uint64_t end = 0;
    int asked = 0;
    int refuse_at = 0;
  };
  test::TempFolder folder;
  const int file = open(folder.file("f").c_str(), O_RDWR | O_CREAT, 0600);
  const std::string content(24 << 20, 'c');  // more than a socket takes
  EXPECT_EQ(write(file, content.data(), content.size()), static_cast<ssize_t>(content.size()));
  for (const int refuse_at : {1, 3, 1'000'000}) {
    Pair pair;
    auto stream = Stream::adopt(loop, pair.ours);
    std::string got;
    std::thread peer([&got, fd = pair.theirs] { got = test::Client(fd).read_all(); });
    Check check;
    check.end = content.size();
    check.refuse_at = refuse_at;
    const auto sent =
        co_await Call<SendFileCall>([&](SendFileCall& call) { stream->sendfile(call); }, file,
                                    uint64_t{0}, content.size(), uint64_t{60'000}, &check);
    EXPECT_TRUE(sent.has_value());
    EXPECT_EQ(check.unsent == 0, refuse_at == 1'000'000);
    if (refuse_at == 1) EXPECT_EQ(check.asked, 1);
    // The caller goes on with other bytes.
    const std::string rest(check.unsent, 'd');
    EXPECT_TRUE((co_await write_call(*stream, as_bytes(rest), uint64_t{60'000})).has_value());
    stream.reset();
    peer.join();
    EXPECT_EQ(got.size(), content.size());
    EXPECT_TRUE(got == content.substr(rest.size()) + rest);
    EXPECT_LT(rest.size(), content.size()) << "the first attempt goes without a question";
  }
  close(file);
}
TEST(Stream, SendFileAsksAfterAWait) { on_loop(checked_sendfile_body); }

Task<> linger_body(Loop& loop) {
  Pair pair;
  auto stream = Stream::adopt(loop, pair.ours);
  test::Client peer(pair.theirs);
  peer.send("never read");
  EXPECT_TRUE((co_await write_call(*stream, as_bytes("answer"))).has_value());
  stream->close_lingering(5000);
  EXPECT_EQ(loop.lingerer().count(), 1u);
  stream.reset();
  EXPECT_TRUE(peer.send("more"));  // still somebody there who reads
  EXPECT_EQ(peer.read_all(), "answer");
  EXPECT_TRUE(peer.clean_end);
  peer.close();
  Pair other;
  auto waker = Stream::adopt(loop, other.ours);
  EXPECT_FALSE((co_await wait_call(*waker, 50)).has_value());
  EXPECT_EQ(loop.lingerer().count(), 0u);
  close(other.theirs);
  // And one whose peer never ends.
  Pair stuck;
  auto last = Stream::adopt(loop, stuck.ours);
  last->close_lingering(30);
  Pair third;
  auto sleeper = Stream::adopt(loop, third.ours);
  EXPECT_FALSE((co_await wait_call(*sleeper, 100)).has_value());
  EXPECT_EQ(loop.lingerer().count(), 0u);
  close(third.theirs);
  close(stuck.theirs);
}
TEST(Stream, LingeringClose) { on_loop(linger_body); }

// --- Aborts at random points

struct Storm {
  Loop& loop;
  std::mt19937 random{11};
  int running = 0;
  int started = 0;
  int completed_calls = 0;
};

struct Subject {
  std::unique_ptr<Stream> stream;
  int peer = -1;
  int calls = 2;  // readers and writers that have not left
};

Detached storm_reader(Storm& storm, std::shared_ptr<Subject> subject) {
  uint8_t buffer[1000];
  for (;;) {
    const bool wait = storm.random() % 2;
    bool good;
    if (wait) {
      good = (co_await wait_call(*subject->stream,
                                 storm.random() % 3 ? kNoDeadline : 1 + storm.random() % 10))
                 .has_value();
    } else {
      const auto size = co_await read_call(
          *subject->stream, buffer, storm.random() % 3 ? kNoDeadline : 1 + storm.random() % 10);
      good = size.has_value() && *size != 0;
    }
    ++storm.completed_calls;
    if (wait && good) {
      const auto size = subject->stream->read_now(buffer);
      good = (size && *size != 0) || (!size && size.error().code == Code::kBusy);
    }
    if (!good) break;
  }
  subject->stream->abort();  // the writer leaves, too
  if (--subject->calls == 0) {
    subject->stream.reset();
    --storm.running;
  }
}

Detached storm_writer(Storm& storm, std::shared_ptr<Subject> subject, int file) {
  const std::string data(200'000, 'w');
  for (;;) {
    Status status;
    if (storm.random() % 4 == 0) {
      status =
          co_await Call<SendFileCall>([&](SendFileCall& call) { subject->stream->sendfile(call); },
                                      file, uint64_t{0}, uint64_t{3} << 20, kNoDeadline);
    } else {
      status = co_await write_call(*subject->stream,
                                   as_bytes(data).first(1 + storm.random() % data.size()),
                                   storm.random() % 3 ? kNoDeadline : 1 + storm.random() % 10);
    }
    ++storm.completed_calls;
    if (!status) break;
  }
  subject->stream->abort();
  if (--subject->calls == 0) {
    subject->stream.reset();
    --storm.running;
  }
}

Task<> storm_body(Loop& loop) {
#ifdef BASALT_SANITIZED
  constexpr int kTotal = 6000;
#else
  constexpr int kTotal = 20'000;
#endif
  test::TempFolder folder;
  const int file = open(folder.file("f").c_str(), O_RDWR | O_CREAT, 0600);
  EXPECT_EQ(ftruncate(file, 4 << 20), 0);
  Storm storm{loop};
  std::vector<std::shared_ptr<Subject>> subjects;
  std::string chunk(30'000, 'p');
  struct Breath : Completion {
    bool result = true;
  };
  while (storm.started < kTotal || storm.running > 0) {
    while (storm.started < kTotal && storm.running < 40) {
      auto subject = std::make_shared<Subject>();
      Pair pair;
      subject->stream = Stream::adopt(loop, pair.ours);
      subject->peer = pair.theirs;
      fcntl(pair.theirs, F_SETFL, O_NONBLOCK);
      ++storm.started;
      ++storm.running;
      subjects.push_back(subject);
      storm_reader(storm, subject);
      storm_writer(storm, subject, file);
    }
    for (auto& subject : subjects) {
      if (subject->peer < 0) continue;
      char sink[30'000];
      switch (storm.random() % 12) {
        case 0:
        case 1:
        case 2:
          (void)!send(subject->peer, chunk.data(), 1 + storm.random() % chunk.size(), MSG_NOSIGNAL);
          break;
        case 3:
        case 4:
        case 5:
        case 6:
          (void)!recv(subject->peer, sink, sizeof sink, 0);
          break;
        case 7:
          if (subject->stream) subject->stream->abort();
          break;
        case 8:
          shutdown(subject->peer, static_cast<int>(storm.random() % 3));
          break;
        case 9:
          close(std::exchange(subject->peer, -1));
          break;
        default:
          break;
      }
    }
    std::erase_if(subjects, [](auto& subject) {
      if (subject->stream) return false;
      if (subject->peer >= 0) close(subject->peer);
      return true;
    });
    // Every second turn nothing is in the run queue but this, so sockets are served between.
    co_await Call<Breath>([&](Breath& breath) { loop.run_queue().post(breath); });
    Pair sleeper;
    auto stream = Stream::adopt(loop, sleeper.ours);
    if (storm.random() % 8 == 0) co_await wait_call(*stream, 1);
    close(sleeper.theirs);
  }
  EXPECT_EQ(storm.running, 0);
  EXPECT_GT(storm.completed_calls, kTotal * 2);
  close(file);
}
TEST(Stream, RandomAborts) { on_loop(storm_body); }

}  // namespace
}  // namespace basalt::reactor
