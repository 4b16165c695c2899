// Sessions over loopback: keep-alive, pipelines, bodies in and out, Expect, early answers,
// deadlines, drain, TLS, and thousands of clients that die at random points.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <random>

#include "protocol/session/exchange.h"
#include "reactor/listener.h"
#include "tests/unit/reactor/net_test_util.h"

namespace basalt::session {
namespace {

using test::Client;
using test::TlsClient;

// What the paths do:
//   /echo     the whole body back              /fill     the same, through fill() and
//   consume_buffered() /length   how many bytes the body had      /early    403 without reading
//   /chunked  answers 3 pieces, length unknown /file     sendfile of 3 MiB
//   /short    announces 10, sends 5            /silent   no answer at all
//   /stream   announces the body's length and sends it while it comes
//   /slow     answers after 100 ms             /none     204
//   /close    close_after                      /late     answers 400 when the body fails
class TestHandler final : public Handler {
 public:
  TestHandler(reactor::Loop& loop) : loop_(loop) {
    file_ = open(folder_.file("f").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>('a' + i * 31 % 23);
    EXPECT_EQ(::write(file_, content.data(), content.size()), static_cast<ssize_t>(content.size()));
  }
  ~TestHandler() override { close(file_); }

  Task<void> handle(Exchange& exchange) override {
    const std::string_view path = exchange.head().path;
    if (path == "/fill") co_return co_await fill(exchange);
    if (path == "/early") {
      exchange.response().status = 403;
      co_await exchange.send("denied");
      co_return;
    }
    if (path == "/chunked") {
      co_await exchange.begin(std::nullopt);
      for (const char* piece : {"one,", "two,", "three"}) {
        if (!co_await exchange.write(as_bytes(piece))) co_return;
      }
      co_await exchange.end();
      co_return;
    }
    if (path == "/file") {
      co_await exchange.begin(content.size());
      if (exchange.can_sendfile())
        co_await exchange.sendfile(file_, 0, content.size(), nullptr);
      else
        co_await exchange.write(as_bytes(content));
      co_await exchange.end();
      co_return;
    }
    if (path == "/short") {
      co_await exchange.begin(10);
      co_await exchange.write(as_bytes("12345"));
      EXPECT_FALSE((co_await exchange.end()).has_value());
      co_return;
    }
    if (path == "/silent") co_return;
    if (path == "/stream") co_return co_await stream(exchange);
    if (path == "/none") {
      exchange.response().status = 204;
      co_await exchange.send("never sent");
      co_return;
    }
    if (path == "/slow") {
      co_await Call<Sleep>([](Sleep&) {}, loop_, uint64_t{100});
      co_await exchange.send("slept");
      co_return;
    }
    if (path == "/close") exchange.close_after();
    std::string body;
    std::string piece(path == "/length" ? 300'000 : 10'000, '\0');
    for (;;) {
      const auto size =
          co_await exchange.read({reinterpret_cast<uint8_t*>(piece.data()), piece.size()});
      if (!size) {
        last_error = size.error().code;
        exchange.response().status = 400;
        co_await exchange.send(size.error().code == Code::kTimeout ? "slow" : "bad");
        co_return;
      }
      if (*size == 0) break;
      body.append(piece, 0, *size);
    }
    EXPECT_TRUE(exchange.body_done());
    EXPECT_EQ(exchange.bytes_received(), body.size());
    if (path == "/length") body = std::to_string(body.size());
    exchange.response().add("X-Query", exchange.head().query);
    co_await exchange.send(body);
    EXPECT_FALSE((co_await exchange.send("twice")).has_value());
  }

  Task<void> fill(Exchange& exchange) {
    std::string body;
    for (;;) {
      // Holds back: at least 1000 bytes at once if there are as many.
      const size_t have = exchange.buffered().size();
      const auto more = co_await exchange.fill();
      if (!more) co_return;
      EXPECT_TRUE(!*more || exchange.buffered().size() > have);
      if (exchange.buffered().size() < 1000 && *more) continue;
      const size_t take = *more ? exchange.buffered().size() / 2 : exchange.buffered().size();
      body += as_text(exchange.buffered().first(take));
      exchange.consume_buffered(take);
      if (!*more) break;
    }
    co_await exchange.send(body);
  }

  Task<void> stream(Exchange& exchange) {
    std::string piece(200'000, '\0');
    if (!co_await exchange.begin(exchange.head().content_length)) co_return;
    for (;;) {
      const auto size =
          co_await exchange.read({reinterpret_cast<uint8_t*>(piece.data()), piece.size()});
      if (!size || *size == 0) break;
      if (!co_await exchange.write(as_bytes(std::string_view(piece).substr(0, *size)))) co_return;
    }
    co_await exchange.end();
  }

  Task<void> bad_head(Exchange& exchange, int status, std::string_view reason) override {
    exchange.response().status = status;
    co_await exchange.send(reason);
  }

  std::string content = std::string(3 << 20, '\0');
  std::atomic<Code> last_error{Code::kNotFound};

 private:
  struct Sleep : Completion {
    Sleep(reactor::Loop& l, uint64_t ms)
        : loop(l),
          timer(
              l,
              [](void* self) {
                auto& sleep = *static_cast<Sleep*>(self);
                sleep.loop.run_queue().post(sleep);
              },
              this) {
      timer.arm(ms);
    }
    reactor::Loop& loop;
    reactor::Timer timer;
    bool result = true;
  };
  reactor::Loop& loop_;
  test::TempFolder folder_;
  int file_;
};

struct Drained : Completion {
  Drained() : Completion([](Completion& c) { static_cast<Drained&>(c).done.set_value(); }) {}
  std::promise<void> done;
};

class Server {
 public:
  explicit Server(const SessionLimits& limits = {},
                  std::shared_ptr<reactor::TlsContext> tls = nullptr,
                  BufferPool::Limits memory = {}) {
    thread.run([&] {
      buffers = std::make_unique<BufferPool>(memory);
      handler = std::make_unique<TestHandler>(thread.loop());
      pool = SessionPool::create(thread.loop(), *buffers, clock, limits, *handler);
      auto made =
          reactor::Listener::listen(thread.loop(), {.address = "127.0.0.1:0", .tls = tls},
                                    [this](auto stream) { pool->serve(std::move(stream)); });
      EXPECT_TRUE(made.has_value());
      listener = std::move(*made);
    });
    address = listener->bound_address();
  }
  ~Server() {
    if (!drained_already) drain(50);
    thread.run([&] {
      EXPECT_EQ(pool->stats().open, 0u);
      EXPECT_EQ(buffers->bytes_in_use(), 0u);
      listener.reset();
      pool.reset();
      handler.reset();
      buffers.reset();
    });
  }
  bool drain(uint64_t deadline_ms) {
    Drained drained;
    thread.run([&] { pool->drain(deadline_ms, drained); });
    drained_already = true;
    const bool good =
        drained.done.get_future().wait_for(std::chrono::seconds(20)) == std::future_status::ready;
    EXPECT_TRUE(good);
    thread.run([] {});  // the completion's call is over
    return good;
  }
  Client client() { return Client::to(address); }

  test::LoopThread thread;
  SystemClock clock;
  std::unique_ptr<BufferPool> buffers;
  std::unique_ptr<TestHandler> handler;
  std::unique_ptr<SessionPool> pool;
  std::unique_ptr<reactor::Listener> listener;
  std::string address;
  bool drained_already = false;
};

struct Response {
  int status = 0;
  std::string head;
  std::string body;
  bool has(std::string_view text) const { return head.find(text) != std::string::npos; }
};

template <class C>
Response read_response(C& client, bool head_only = false) {
  Response response;
  response.head = client.read_until("\r\n\r\n");
  if (response.head.size() < 12) return response;
  response.status = std::stoi(response.head.substr(9, 3));
  if (head_only || response.status == 100) return response;
  if (const size_t at = response.head.find("Content-Length: "); at != std::string::npos) {
    response.body = client.read(std::stoul(response.head.substr(at + 16)));
  } else if (response.has("Transfer-Encoding: chunked")) {
    for (;;) {
      const size_t size = std::stoul(client.read_until("\r\n"), nullptr, 16);
      response.body += client.read(size);
      client.read(2);
      if (size == 0) break;
    }
  }
  return response;
}

std::string request(std::string_view method, std::string_view target, std::string_view body = {},
                    std::string_view fields = {}) {
  std::string text(method);
  text += " ";
  text += target;
  text += " HTTP/1.1\r\nHost: a\r\n";
  text += fields;
  if (!body.empty()) text += "Content-Length: " + std::to_string(body.size()) + "\r\n";
  text += "\r\n";
  text += body;
  return text;
}

std::string chunked(std::string_view target, std::string_view body, size_t piece) {
  std::string text =
      "PUT " + std::string(target) + " HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
  char size[20];
  for (size_t at = 0; at < body.size(); at += piece) {
    const std::string_view part = body.substr(at, piece);
    std::snprintf(size, sizeof size, "%zx;x=y\r\n", part.size());
    text += size;
    text += part;
    text += "\r\n";
  }
  return text + "0\r\nTrailer: z\r\n\r\n";
}

std::string pattern(size_t size) {
  std::string text(size, '\0');
  for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * 2654435761u >> 9);
  return text;
}

TEST(Session, KeepAlive) {
  Server server;
  Client client = server.client();
  for (int i = 0; i < 50; ++i) {
    client.send(request("PUT", "/echo?q=" + std::to_string(i), "body" + std::to_string(i)));
    const Response response = read_response(client);
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.body, "body" + std::to_string(i));
    EXPECT_TRUE(response.has("X-Query: q=" + std::to_string(i)));
    EXPECT_TRUE(response.has("Server: Basalt\r\n"));
    EXPECT_FALSE(response.has("Connection:"));
  }
  EXPECT_EQ(server.pool->stats().requests, 50u);
  EXPECT_EQ(server.listener->stats().accepted, 1u);
  server.thread.run(
      [&] { EXPECT_EQ(server.buffers->bytes_in_use(), 0u) << "idle connections hold no buffer"; });
}

TEST(Session, ClientsWish) {
  Server server;
  {
    Client client = server.client();
    client.send(request("GET", "/echo", {}, "Connection: close\r\n"));
    EXPECT_TRUE(read_response(client).has("Connection: close\r\n"));
    EXPECT_EQ(client.read_all(), "");
    EXPECT_TRUE(client.clean_end);
  }
  {
    Client client = server.client();
    client.send("GET /echo HTTP/1.0\r\n\r\n");
    EXPECT_FALSE(read_response(client).has("Connection"));
    EXPECT_EQ(client.read_all(), "");
    EXPECT_TRUE(client.clean_end);
  }
  {
    Client client = server.client();
    for (int i = 0; i < 3; ++i) {
      client.send("GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
      EXPECT_TRUE(read_response(client).has("Connection: keep-alive\r\n"));
    }
  }
  Client client = server.client();
  client.send(request("GET", "/close"));
  EXPECT_TRUE(read_response(client).has("Connection: close\r\n"));
  EXPECT_EQ(client.read_all(), "");
}

TEST(Session, Pipelines) {
  Server server;
  Client client = server.client();
  std::string all;
  for (int i = 0; i < 300; ++i) {
    const std::string body = pattern(static_cast<size_t>(i * 7 % 400 + 1));
    all += i % 3 == 0 ? chunked("/echo", body, 50)
                      : request("PUT", i % 3 == 1 ? "/echo" : "/fill", body);
  }
  std::thread writer([&] { client.send(all); });
  for (int i = 0; i < 300; ++i) {
    const Response response = read_response(client);
    ASSERT_EQ(response.status, 200) << i;
    ASSERT_EQ(response.body, pattern(static_cast<size_t>(i * 7 % 400 + 1))) << i;
  }
  writer.join();
}

TEST(Session, RequestsInPieces) {
  Server server;
  for (const size_t piece : {1, 2, 7, 100}) {
    Client client = server.client();
    const std::string all = request("PUT", "/echo", pattern(300)) +
                            chunked("/fill", pattern(300), 33) + request("GET", "/none");
    for (size_t at = 0; at < all.size(); at += piece) {
      client.send(std::string_view(all).substr(at, piece));
      if (at % 50 < piece) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT_EQ(read_response(client).body, pattern(300));
    EXPECT_EQ(read_response(client).body, pattern(300));
    EXPECT_EQ(read_response(client).status, 204);
  }
}

TEST(Session, LargeBodies) {
  Server server;
  const std::string body = pattern(5'000'000);
  for (const char* path : {"/echo", "/fill", "/length", "/stream"}) {
    for (const bool by_chunks : {false, true}) {
      if (by_chunks && std::string_view(path) == "/stream") continue;
      Client client = server.client();
      std::thread writer([&] {
        client.send(by_chunks ? chunked(path, body, 70'001) : request("PUT", path, body));
      });
      const Response response = read_response(client);
      writer.join();
      if (std::string_view(path) == "/length")
        EXPECT_EQ(response.body, "5000000");
      else
        EXPECT_TRUE(response.body == body) << path << by_chunks << response.body.size();
      // An answer that began before its request's long body was read announced the end of the
      // connection.
      EXPECT_EQ(response.has("Connection: close"), std::string_view(path) == "/stream") << path;
      client.send(request("GET", "/echo"));
      EXPECT_EQ(read_response(client).status, response.has("Connection: close") ? 0 : 200);
    }
  }
}

TEST(Session, LargeHead) {
  Server server;
  Client client = server.client();
  const std::string fields = "X: " + std::string(30'000, 'x') + "\r\n";
  client.send(request("PUT", "/echo", pattern(40'000), fields) +
              request("PUT", "/fill", pattern(100'000), fields) + request("GET", "/echo"));
  EXPECT_EQ(read_response(client).body, pattern(40'000));
  EXPECT_EQ(read_response(client).body, pattern(100'000));
  EXPECT_EQ(read_response(client).status, 200);
}

TEST(Session, Answers) {
  Server server;
  Client client = server.client();
  client.send(request("GET", "/chunked"));
  Response response = read_response(client);
  EXPECT_TRUE(response.has("Transfer-Encoding: chunked"));
  EXPECT_EQ(response.body, "one,two,three");
  client.send(request("GET", "/file"));
  EXPECT_TRUE(read_response(client).body == server.handler->content);
  // HEAD: the length and nothing else, for each way to answer.
  client.send(request("HEAD", "/file"));
  EXPECT_TRUE(read_response(client, true).has("Content-Length: 3145728\r\n"));
  client.send(request("HEAD", "/early"));
  EXPECT_TRUE(read_response(client, true).has("Content-Length: 6\r\n"));
  client.send(request("HEAD", "/chunked"));
  EXPECT_TRUE(read_response(client, true).has("Transfer-Encoding: chunked\r\n"));
  client.send(request("GET", "/none"));
  response = read_response(client);
  EXPECT_EQ(response.status, 204);
  EXPECT_FALSE(response.has("Content-Length"));
  client.send(request("GET", "/echo"));
  EXPECT_EQ(read_response(client).status, 200);
  // Unknown length on HTTP/1.0: until the end of the connection.
  client.send("GET /chunked HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  response = read_response(client);
  EXPECT_FALSE(response.has("Transfer-Encoding") || response.has("keep-alive"));
  EXPECT_EQ(client.read_all(), "one,two,three");
}

TEST(Session, BrokenAnswersAreCut) {
  Server server;
  Client client = server.client();
  client.send(request("GET", "/short"));
  EXPECT_TRUE(client.read_all().ends_with("12345"));
  Client other = server.client();
  other.send(request("GET", "/silent"));
  EXPECT_EQ(other.read_all(), "");
}

TEST(Session, ExpectContinue) {
  Server server;
  Client client = server.client();
  for (int i = 0; i < 3; ++i) {
    client.send(
        "PUT /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    EXPECT_EQ(client.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello");
    EXPECT_EQ(read_response(client).body, "hello");
  }
  // Not sent to whom does not wait for it.
  client.send(
      "PUT /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello");
  EXPECT_EQ(read_response(client).body, "hello");
  // Sent for an empty body, too: botocore waits for it.
  client.send("PUT /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(client.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  EXPECT_EQ(read_response(client).status, 200);
  // A final answer instead: the connection closes, since the body may or may not come.
  client.send(
      "PUT /early HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
  const Response denied = read_response(client);
  EXPECT_EQ(denied.status, 403);
  EXPECT_TRUE(denied.has("Connection: close"));
  client.send("GET /echo HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(client.read_all(), "") << "what comes after is never a request";
  Client wrong = server.client();
  wrong.send("PUT /echo HTTP/1.1\r\nHost: a\r\nExpect: magic\r\nContent-Length: 5\r\n\r\n");
  EXPECT_EQ(read_response(wrong).status, 417);
}

TEST(Session, EarlyAnswers) {
  Server server;
  const std::string smuggled = "GET /echo?evil HTTP/1.1\r\nHost: a\r\n\r\n";
  {
    // Small: drained, and the connection goes on with the next request.
    Client client = server.client();
    client.send(request("PUT", "/early", smuggled + std::string(100'000, 'x')) +
                request("GET", "/echo?good"));
    EXPECT_EQ(read_response(client).status, 403);
    EXPECT_TRUE(read_response(client).has("X-Query: good"));
  }
  {
    // Large: the answer arrives whole although the client still writes; nothing behind it is a
    // request.
    Client client = server.client();
    const std::string all = request("PUT", "/early", smuggled + std::string(3'000'000, 'x')) +
                            request("GET", "/echo?evil");
    std::thread writer([&] { client.send(all); });
    const std::string answer = client.read_all();
    writer.join();
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 403")) << answer;
    EXPECT_TRUE(answer.ends_with("denied")) << answer;
    EXPECT_NE(answer.find("Connection: close"), std::string::npos);
  }
  {
    // Chunked, its end not in sight.
    Client client = server.client();
    client.send(
        "PUT /early HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    const Response response = read_response(client);
    EXPECT_TRUE(response.has("Connection: close"));
    client.send("0\r\n\r\n" + smuggled);
    EXPECT_EQ(client.read_all(), "");
  }
  {
    // Chunked and wholly there: no reason to close.
    Client client = server.client();
    client.send(chunked("/early", "hello", 2) + request("GET", "/echo?good"));
    EXPECT_FALSE(read_response(client).has("Connection"));
    EXPECT_TRUE(read_response(client).has("X-Query: good"));
  }
}

TEST(Session, BadBytes) {
  Server server;
  const std::pair<std::string, int> cases[] = {
      {"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", 400},
      {"GET / HTTP/1.1\n\n", 400},
      {"\x16\x03\x01\x02\x05\x01\x0a", 400},
      {"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505},
      {"GET /" + std::string(20'000, 'a') + " HTTP/1.1\r\nHost: a\r\n\r\n", 414},
      {"GET / HTTP/1.1\r\nHost: a\r\nX: " + std::string(40'000, 'a') + "\r\n\r\n", 431},
      {"PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: "
       "chunked\r\n\r\n0\r\n\r\n",
       400},
      {"PUT /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX", 400},
      {"PUT /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", 400},
  };
  for (const auto& [bytes, status] : cases) {
    Client client = server.client();
    client.send(bytes + request("GET", "/echo?evil"));
    const Response response = read_response(client);
    EXPECT_EQ(response.status, status) << bytes.substr(0, 100);
    EXPECT_TRUE(response.has("Connection: close"));
    client.end_writing();
    EXPECT_EQ(client.read_all(), "") << bytes.substr(0, 100);
  }
  EXPECT_EQ(server.pool->stats().bad_heads, 7u);
}

TEST(Session, Deadlines) {
  Server server({.head_timeout_ms = 80,
                 .body_timeout_ms = 400,
                 .body_bytes_per_second_min = 100,
                 .write_timeout_ms = 100,
                 .idle_timeout_ms = 150,
                 .linger_ms = 50});
  Client idle = server.client();
  Client head = server.client();
  head.send("GET / HTT");
  Client drips = server.client();
  std::thread dripper([&] {
    for (const char c : std::string("GET /slowly HTTP/1.1\r\nHost: abcdefgh\r\n\r\n")) {
      if (!drips.send({&c, 1})) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  });
  Client body = server.client();
  body.send("PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\nhel");
  EXPECT_EQ(head.read_all(), "");
  EXPECT_EQ(idle.read_all(), "");
  const Response slow = read_response(body);
  EXPECT_EQ(slow.status, 400);
  EXPECT_EQ(slow.body, "slow");
  EXPECT_TRUE(slow.has("Connection: close"));
  EXPECT_EQ(body.read_all(), "");
  dripper.join();
  EXPECT_EQ(drips.read_all(), "");
  // Slow but above the minimum: 20 bytes each 50 ms are 400 a second, for longer than a window.
  Client steady = server.client();
  steady.send("PUT /length HTTP/1.1\r\nHost: a\r\nContent-Length: 400\r\n\r\n");
  for (int i = 0; i < 20; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    steady.send(std::string(20, 'x'));
  }
  EXPECT_EQ(read_response(steady).body, "400");
  // A reader that does not read.
  Client stuck = server.client();
  const int small = 4096;
  setsockopt(stuck.fd(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
  for (int i = 0; i < 6; ++i) stuck.send(request("GET", "/file"));
  for (int i = 0; i < 300 && server.pool->stats().open != 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(server.pool->stats().open, 0u);
  EXPECT_GE(server.pool->stats().timeouts, 4u);
}

TEST(Session, BodyEndsEarly) {
  Server server;
  Client client = server.client();
  client.send("PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
  client.end_writing();
  EXPECT_TRUE(client.read_all().starts_with("HTTP/1.1 400"));
  EXPECT_EQ(server.handler->last_error, Code::kCancelled);
  // Half-closed after a whole request: answered.
  Client half = server.client();
  half.send(request("PUT", "/echo", "hello"));
  half.end_writing();
  EXPECT_TRUE(half.read_all().ends_with("hello"));
}

TEST(Session, NoBuffers) {
  // One connection's buffers at a time: the others wait for theirs, nobody is lost.
  Server server({}, nullptr, {.bytes_max = 16384, .kept_bytes_max = 0});
  Client holder = server.client();
  holder.send("PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel");
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  Client waiter = server.client();
  waiter.send(request("GET", "/echo"));
  EXPECT_FALSE(waiter.readable_within(100));
  holder.send("lo");
  EXPECT_EQ(read_response(holder).body, "hello");
  EXPECT_EQ(read_response(waiter).status, 200);
  // A body that needs a second one fails, and that can be said.
  Client chunks = server.client();
  chunks.send("PUT /fill HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
  EXPECT_EQ(chunks.read_all(), "");
}

TEST(Session, Drain) {
  Server server;
  Client idle = server.client();
  idle.send(request("GET", "/echo"));
  EXPECT_EQ(read_response(idle).status, 200);
  Client busy = server.client();
  busy.send(request("GET", "/slow"));
  Client stuck = server.client();
  stuck.send("PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel");
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  std::thread drainer([&] { server.drain(400); });
  EXPECT_EQ(idle.read_all(), "");
  const Response last = read_response(busy);
  EXPECT_EQ(last.body, "slept");
  EXPECT_TRUE(last.has("Connection: close"));
  EXPECT_EQ(busy.read_all(), "");
  drainer.join();
  EXPECT_EQ(server.pool->stats().open, 0u);
  Client late = server.client();
  EXPECT_EQ(late.read_all(), "");
}

TEST(Session, Tls) {
  test::TempFolder folder;
  test::make_certificate("host", folder.file("c"), folder.file("k"));
  Server server({}, *reactor::TlsContext::create(folder.file("c"), folder.file("k")));
  {
    TlsClient client(server.client());
    ASSERT_TRUE(client.connected);
    for (int i = 0; i < 5; ++i) {
      client.send(request("PUT", "/echo", pattern(100'000)));
      EXPECT_TRUE(read_response(client).body == pattern(100'000));
      client.send(request("GET", "/file"));
      EXPECT_TRUE(read_response(client).body == server.handler->content);
      client.send(chunked("/fill", pattern(50'000), 1000) + request("GET", "/none") +
                  request("HEAD", "/file"));
      EXPECT_TRUE(read_response(client).body == pattern(50'000));
      EXPECT_EQ(read_response(client).status, 204);
      EXPECT_EQ(read_response(client, true).status, 200);
    }
    client.send(
        "PUT /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    EXPECT_EQ(read_response(client).status, 100);
    client.send("hello");
    EXPECT_EQ(read_response(client).body, "hello");
    client.send(request("PUT", "/early", std::string(400'000, 'x')));
    const Response early = read_response(client);
    EXPECT_TRUE(early.has("Connection: close"));
    EXPECT_EQ(client.read_all(), "");
    EXPECT_TRUE(client.clean_end);
  }
  TlsClient closing(server.client());
  closing.send(request("GET", "/echo", {}, "Connection: close\r\n"));
  EXPECT_EQ(read_response(closing).status, 200);
  EXPECT_EQ(closing.read_all(), "");
  EXPECT_TRUE(closing.clean_end);
}

// Clients with scripts of real requests, cut, reset, half-closed and stalled at random points. What
// is proved: no call is lost, no connection or buffer stays, and ASan sees nothing.
TEST(Session, ClientsThatDieAtRandomPoints) {
#ifdef BASALT_SANITIZED
  constexpr int kCount = 3000;
#else
  constexpr int kCount = 10'000;
#endif
  Server server({.head_timeout_ms = 300,
                 .body_timeout_ms = 300,
                 .write_timeout_ms = 300,
                 .idle_timeout_ms = 300,
                 .linger_ms = 50});
  const std::string body = pattern(120'000);
  const std::string scripts[] = {
      request("PUT", "/echo", body),
      chunked("/fill", body, 3'000),
      chunked("/echo", body, 50'000),
      request("GET", "/file"),
      request("GET", "/chunked"),
      request("PUT", "/early", body),
      request("PUT", "/stream", body),
      request("GET", "/slow"),
      request("PUT", "/early", body + body + body),
      request("HEAD", "/file") + request("GET", "/none") + request("GET", "/echo"),
      "PUT /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
      "GET / HTTP/1.1\nHost: a\n\n",
      chunked("/length", body, 1000) + "GARBAGE\r\n\r\n",
  };
  std::atomic<int> left = kCount;
  std::vector<std::thread> threads;
  for (unsigned seed = 1; seed <= 4; ++seed) {
    threads.emplace_back([&, seed] {
      std::mt19937 random(seed);
      while (left.fetch_sub(1) > 0) {
        Client client = server.client();
        fcntl(client.fd(), F_SETFL, O_NONBLOCK);
        std::string script;
        for (unsigned i = random() % 3 + 1; i > 0; --i)
          script += scripts[random() % std::size(scripts)];
        size_t to_send = random() % 2 ? script.size() : random() % script.size();
        size_t at = 0;
        char sink[70'000];
        for (int stalls = 0; stalls < 3;) {
          const size_t size = std::min<size_t>(to_send - at, 1 + random() % 60'000);
          const ssize_t sent =
              size == 0 ? 0 : ::send(client.fd(), script.data() + at, size, MSG_NOSIGNAL);
          if (sent > 0) at += static_cast<size_t>(sent);
          const ssize_t got =
              random() % 4 == 0 ? -1 : recv(client.fd(), sink, random() % sizeof sink + 1, 0);
          if (sent <= 0 && got <= 0) ++stalls;
          if (random() % 40 == 0) break;
          if (random() % 30 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        if (random() % 3 == 0) client.end_writing();
        if (random() % 2) client.reset();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  for (int i = 0; i < 500 && server.pool->stats().open != 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(server.pool->stats().open, 0u);
  Client fine = server.client();
  fine.send(request("PUT", "/echo", "fine"));
  EXPECT_EQ(read_response(fine).body, "fine");
}

}  // namespace
}  // namespace basalt::session
