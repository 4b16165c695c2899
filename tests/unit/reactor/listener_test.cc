// Listeners: TCP and Unix, limits, descriptor shortage, graceful pause; TLS end to end with torn,
// hostile and dying peers.
#include "reactor/listener.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <random>

#include "base/task.h"
#include "tests/unit/reactor/net_test_util.h"

namespace basalt::reactor {
namespace {

using test::Client;
using test::TlsClient;

// Sends back what it gets until the end.
Detached echo(std::unique_ptr<Stream> stream, std::atomic<int>& open) {
  std::string buffer(40'000, '\0');
  for (;;) {
    if (!co_await Call<WaitCall>([&](WaitCall& call) { stream->wait_readable(call); },
                                 uint64_t{5000}))
      break;
    const auto size = co_await Call<ReadCall>(
        [&](ReadCall& call) { stream->read(call); },
        MutableBytes(reinterpret_cast<uint8_t*>(buffer.data()), buffer.size()), uint64_t{5000});
    if (!size || *size == 0) break;
    const Bytes data = as_bytes(buffer).first(*size);
    const auto written = co_await Call<WriteCall>(
        [&](WriteCall& call) { stream->write(call); },
        std::initializer_list<Bytes>{data.first(data.size() / 2), data.subspan(data.size() / 2)},
        uint64_t{5000}, false);
    if (!written) break;
  }
  stream.reset();
  --open;
}

class Server {
 public:
  explicit Server(ListenOptions options) {
    if (options.address.empty()) options.address = "127.0.0.1:0";
    auto made = thread.run([&] {
      return Listener::listen(thread.loop(), options, [this](std::unique_ptr<Stream> stream) {
        last_peer = std::string(stream->peer());
        ++open;
        echo(std::move(stream), open);
      });
    });
    if (made)
      listener = std::move(*made);
    else
      error = made.error();
    if (listener) address = listener->bound_address();
  }
  ~Server() {
    for (int i = 0; open != 0 && i < 1000; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_EQ(open, 0);
    thread.run([&] { listener.reset(); });
  }
  test::LoopThread thread;
  std::unique_ptr<Listener> listener;
  std::string address;
  std::string last_peer;
  std::atomic<int> open{0};
  Error error;
};

void wait_until(const auto& condition) {
  for (int i = 0; i < 500 && !condition(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_TRUE(condition());
}

TEST(Listener, Tcp) {
  Server server({});
  ASSERT_TRUE(server.address.starts_with("127.0.0.1:")) << server.error.detail;
  EXPECT_NE(server.address, "127.0.0.1:0");
  Client client = Client::to(server.address);
  client.send("hello");
  EXPECT_EQ(client.read(5), "hello");
  EXPECT_TRUE(server.last_peer.starts_with("127.0.0.1:"));
  EXPECT_EQ(server.listener->stats().accepted, 1u);
  EXPECT_EQ(server.listener->stats().open, 1u);
  client.close();
  wait_until([&] { return server.listener->stats().open == 0; });
}

TEST(Listener, Ipv6NamesMappedPeersAsIpv4) {
  Server server({.address = "[::]:0"});
  if (!server.listener) GTEST_SKIP() << "no IPv6: " << server.error.detail;
  Client client = Client::to(server.address);
  client.send("x");
  EXPECT_EQ(client.read(1), "x");
  EXPECT_TRUE(server.last_peer.starts_with("127.0.0.1:")) << server.last_peer;
}

TEST(Listener, Unix) {
  test::TempFolder folder;
  const std::string path = folder.file("admin.sock");
  {
    Server server({.address = "unix:" + path});
    ASSERT_TRUE(server.listener) << server.error.detail;
    struct stat status;
    ASSERT_EQ(stat(path.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0600u);
    {
      Client client = Client::to(server.address);
      client.send("hello");
      EXPECT_EQ(client.read(5), "hello");
    }
    EXPECT_EQ(server.last_peer, "unix:uid=" + std::to_string(getuid()));
    // A live one is not replaced.
    Server second({.address = "unix:" + path});
    EXPECT_FALSE(second.listener);
    EXPECT_EQ(second.error.code, Code::kBusy);
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  // A stale one is; anything else is left alone.
  const int stale = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  std::snprintf(name.sun_path, sizeof name.sun_path, "%s", path.c_str());
  ASSERT_EQ(bind(stale, reinterpret_cast<const sockaddr*>(&name), sizeof name), 0);
  close(stale);
  {
    Server server({.address = "unix:" + path});
    EXPECT_TRUE(server.listener) << server.error.detail;
  }
  close(open(path.c_str(), O_CREAT | O_WRONLY, 0600));
  Server server({.address = "unix:" + path});
  EXPECT_FALSE(server.listener);
  EXPECT_TRUE(std::filesystem::exists(path));
}

TEST(Listener, BadAddresses) {
  for (const char* address :
       {"", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000", "::1:80", "[::1:80",
        "example.com:80", "unix:", ":80", "[]:80", "127.0.0.1:-1", "127.0.0.1:80 "}) {
    auto loop = std::move(*Loop::create());
    const auto result =
        Listener::listen(*loop, {.address = address}, [](std::unique_ptr<Stream>) {});
    EXPECT_FALSE(result.has_value()) << address;
  }
}

TEST(Listener, ConnectionsMax) {
  Server server({.connections_max = 3});
  std::vector<Client> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(Client::to(server.address));
    clients.back().send("x");
    EXPECT_EQ(clients.back().read(1), "x");
  }
  Client surplus = Client::to(server.address);
  EXPECT_EQ(surplus.read(1), "");
  EXPECT_EQ(server.listener->stats().refused_full, 1u);
  clients.pop_back();
  wait_until([&] { return server.listener->stats().open == 2; });
  Client next = Client::to(server.address);
  next.send("y");
  EXPECT_EQ(next.read(1), "y");
}

TEST(Listener, PauseRefusesAndKeepsConnections) {
  Server server({});
  Client client = Client::to(server.address);
  client.send("x");
  EXPECT_EQ(client.read(1), "x");
  server.thread.run([&] { server.listener->pause(); });
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_port = htons(static_cast<uint16_t>(std::stoi(server.address.substr(10))));
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_NE(connect(fd, reinterpret_cast<const sockaddr*>(&name), sizeof name), 0);
  close(fd);
  client.send("y");
  EXPECT_EQ(client.read(1), "y");
}

TEST(Listener, DescriptorShortage) {
#ifdef BASALT_SANITIZED
  GTEST_SKIP() << "UBSan probes memory through a pipe, which it does not get here";
#endif
  Server server({});
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  // The clients' sockets are made first; then there are descriptors left for some of the server's.
  std::vector<Client> clients;
  for (int i = 0; i < 10; ++i) clients.emplace_back(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int probe = dup(0);
  close(probe);
  const rlimit tight{static_cast<rlim_t>(probe + 4), limit.rlim_max};
  setrlimit(RLIMIT_NOFILE, &tight);
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_port = htons(static_cast<uint16_t>(std::stoi(server.address.substr(10))));
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  for (auto& client : clients) {
    EXPECT_EQ(connect(client.fd(), reinterpret_cast<const sockaddr*>(&name), sizeof name), 0);
  }
  wait_until([&] { return server.listener->stats().accept_errors > 0; });
  const uint64_t turns = server.thread.loop().stats().turns;
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_LT(server.thread.loop().stats().turns - turns, 600u) << "must not spin";
  setrlimit(RLIMIT_NOFILE, &limit);
  std::this_thread::sleep_for(std::chrono::milliseconds(250));
  Client client = Client::to(server.address);
  client.send("back");
  EXPECT_EQ(client.read(4), "back");
}

// --- TLS

struct TlsServer : test::TempFolder {
  std::shared_ptr<TlsContext> context = make();
  Server server;
  explicit TlsServer(ListenOptions options = {}) : server((options.tls = context, options)) {}
  std::shared_ptr<TlsContext> make() {
    test::make_certificate("first", file("chain.pem"), file("key.pem"));
    auto created = TlsContext::create(file("chain.pem"), file("key.pem"));
    EXPECT_TRUE(created.has_value());
    return *created;
  }
};

TEST(Tls, Echo) {
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsServer tls;
    TlsClient client(Client::to(tls.server.address), version);
    ASSERT_TRUE(client.connected);
    EXPECT_EQ(client.peer_name(), "first");
    EXPECT_EQ(client.alpn(), "http/1.1");
    client.send("hello");
    EXPECT_EQ(client.read(5), "hello");
    // One byte a record, and the other way many records at once.
    for (int i = 0; i < 200; ++i) client.send("z");
    EXPECT_EQ(client.read(200), std::string(200, 'z'));
    std::string large(3 << 20, '\0');
    for (size_t i = 0; i < large.size(); ++i) large[i] = static_cast<char>(i * 40503 >> 5);
    std::string got;
    for (size_t at = 0; at < large.size(); at += 30'000) {
      const std::string piece = large.substr(at, 30'000);
      client.send(piece);
      got += client.read(piece.size());
    }
    EXPECT_TRUE(got == large);
  }
}

TEST(Tls, OldVersionsOtherProtocolsAndPlainTextAreRefused) {
  TlsServer tls;
  EXPECT_FALSE(TlsClient(Client::to(tls.server.address), TLS1_1_VERSION).connected);
  EXPECT_FALSE(
      TlsClient(Client::to(tls.server.address), TLS1_3_VERSION, std::string_view("\x02h2", 3))
          .connected);
  Client plain = Client::to(tls.server.address);
  plain.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  plain.read_all();
  EXPECT_TRUE(TlsClient(Client::to(tls.server.address), TLS1_3_VERSION,
                        std::string_view("\x02h2\x08http/1.1", 12))
                  .connected);
  wait_until([&] { return tls.server.listener->stats().tls_failures == 3; });
}

TEST(Tls, NoRenegotiation) {
  TlsServer tls;
  TlsClient client(Client::to(tls.server.address), TLS1_2_VERSION);
  ASSERT_TRUE(client.connected);
  SSL_renegotiate(client.ssl());
  SSL_do_handshake(client.ssl());
  client.send("x");
  // Refused by an alert: no second handshake was finished.
  EXPECT_TRUE(SSL_renegotiate_pending(client.ssl()) == 1 || client.read(1).empty());
  ERR_clear_error();
}

TEST(Tls, HandshakeDeadline) {
  TlsServer tls({.tls_handshake_timeout_ms = 50});
  Client silent = Client::to(tls.server.address);
  EXPECT_EQ(silent.read(1), "");
  EXPECT_EQ(tls.server.listener->stats().tls_failures, 1u);
  wait_until([&] { return tls.server.listener->stats().open == 0; });
}

TEST(Tls, Reload) {
  TlsServer tls;
  TlsClient before(Client::to(tls.server.address));
  EXPECT_EQ(before.peer_name(), "first");
  std::filesystem::resize_file(tls.file("key.pem"), 10);
  EXPECT_FALSE(tls.context->reload().has_value());
  EXPECT_EQ(TlsClient(Client::to(tls.server.address)).peer_name(), "first");
  test::make_certificate("second", tls.file("chain.pem"), tls.file("key.pem"));
  EXPECT_TRUE(tls.context->reload().has_value());
  EXPECT_EQ(TlsClient(Client::to(tls.server.address)).peer_name(), "second");
  before.send("still");
  EXPECT_EQ(before.read(5), "still");
  EXPECT_FALSE(TlsContext::create(tls.file("none"), tls.file("key.pem")).has_value());
}

TEST(Tls, PeersThatDieAtRandomPoints) {
  TlsServer tls;
#ifdef BASALT_SANITIZED
  constexpr int kCount = 300;
#else
  constexpr int kCount = 1000;
#endif
  // A recorded flight of a real client, cut anywhere, and garbage behind it.
  std::mt19937 random(5);
  for (int i = 0; i < kCount; ++i) {
    Client client = Client::to(tls.server.address);
    if (i % 3 == 0) {
      TlsClient real(std::move(client));
      if (random() % 2) {
        real.send(std::string(5 + random() % 20'000, 'x'));
        if (random() % 2) real.read(1 + random() % 5);
      }
      if (random() % 2) real.client().reset();
    } else {
      std::string hello = "\x16\x03\x01";
      hello += static_cast<char>(random() % 2);
      for (size_t j = random() % 600; j > 0; --j) hello += static_cast<char>(random());
      client.send(hello);
      if (random() % 2) client.reset();
    }
  }
  wait_until([&] { return tls.server.listener->stats().open == 0; });
  TlsClient fine(Client::to(tls.server.address));
  fine.send("ok");
  EXPECT_EQ(fine.read(2), "ok");
}

TEST(Tls, ListenerGoesWithHandshakesUnderWay) {
  TlsServer tls;
  Client silent = Client::to(tls.server.address);
  wait_until([&] { return tls.server.listener->stats().open == 1; });
  tls.server.thread.run([&] { tls.server.listener.reset(); });
  EXPECT_EQ(silent.read(1), "");
}

}  // namespace
}  // namespace basalt::reactor
