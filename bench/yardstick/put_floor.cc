// put-floor: the least that a durable PUT over a socket can cost on this machine: one thread,
// blocking calls, one connection at a time. It receives a request, writes the body's blocks to a
// file that has been written before, waits for fdatasync, and answers with a fixed 200. It looks at
// nothing but Content-Length. The load generator asks it like any server; it ends with SIGTERM.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <string_view>

#include "bench/yardstick/common.h"
#include "bench/yardstick/written_file.h"

namespace basalt::bench::yardstick {
namespace {

constexpr size_t kRequestBytesMax = 1u << 20;
constexpr size_t kBlockBytes = 4096;
constexpr std::string_view kAnswer =
    "HTTP/1.1 200 OK\r\nETag: \"00000000000000000000000000000000\"\r\nContent-Length: 0\r\n\r\n";

size_t content_length(std::string_view head) {
  constexpr std::string_view kName = "\r\ncontent-length:";
  for (size_t at = 0; at + kName.size() < head.size(); ++at) {
    if (strncasecmp(head.data() + at, kName.data(), kName.size()) != 0) continue;
    at += kName.size();
    while (at < head.size() && head[at] == ' ') ++at;
    size_t length = 0;
    std::from_chars(head.data() + at, head.data() + head.size(), length);
    return length;
  }
  return 0;
}

// Requests of one connection until it ends. False: the disk failed.
bool serve(int fd, WrittenFile& file) {
  static char buffer[kRequestBytesMax];
  size_t have = 0;
  for (;;) {
    size_t head_bytes = 0, wanted = 0;
    while (head_bytes == 0 || have < wanted) {
      if (have == sizeof buffer) return true;
      const ssize_t got = ::recv(fd, buffer + have, sizeof buffer - have, 0);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return true;
      have += static_cast<size_t>(got);
      if (head_bytes != 0) continue;
      const std::string_view text(buffer, have);
      if (const size_t end = text.find("\r\n\r\n"); end != std::string_view::npos) {
        head_bytes = end + 4;
        wanted = head_bytes + content_length(text.substr(0, end + 2));
      }
    }
    if (const size_t body = wanted - head_bytes; body > 0) {
      std::memcpy(file.data(), buffer + head_bytes, body);
      if (!file.write((body + kBlockBytes - 1) / kBlockBytes * kBlockBytes)) return false;
    }
    if (::send(fd, kAnswer.data(), kAnswer.size(), MSG_NOSIGNAL) < 0) return true;
    std::memmove(buffer, buffer + wanted, have - wanted);
    have -= wanted;
  }
}

}  // namespace

int put_floor(const Options& options) {
  const auto file = WrittenFile::open(options.directory, "put-floor");
  if (!file) return 1;
  std::signal(SIGTERM, [](int) { ::_exit(0); });
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  ::setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(options.port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (listener < 0 || ::bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) ||
      ::listen(listener, 16) != 0) {
    fmt::print(stderr, "put-floor: port {}: {}\n", options.port, std::strerror(errno));
    return 1;
  }
  for (;;) {
    const int fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) continue;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    const bool good = serve(fd, *file);
    ::close(fd);
    if (!good) return 1;
  }
}

}  // namespace basalt::bench::yardstick
