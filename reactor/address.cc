#include "reactor/address.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>

#include <charconv>
#include <cstring>

namespace basalt::reactor {

Result<SocketAddress> parse_address(std::string_view text) {
  SocketAddress address;
  if (text.starts_with("unix:")) {
    const std::string_view path = text.substr(5);
    auto* target = reinterpret_cast<sockaddr_un*>(&address.storage);
    if (path.empty() || path.size() >= sizeof target->sun_path || path.contains('\0')) {
      return fail(Code::kInvalid, fmt::format("not a Unix socket path of 1 to {} bytes: \"{}\"",
                                              sizeof target->sun_path - 1, path));
    }
    target->sun_family = AF_UNIX;
    std::memcpy(target->sun_path, path.data(), path.size());
    address.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
    address.unix_path = path;
    return address;
  }
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos)
    return fail(Code::kInvalid, fmt::format("no port in \"{}\"", text));
  std::string host(text.substr(0, colon));
  const std::string_view port_text = text.substr(colon + 1);
  uint16_t port = 0;
  const auto [end, error] =
      std::from_chars(port_text.data(), port_text.data() + port_text.size(), port);
  if (error != std::errc() || end != port_text.data() + port_text.size()) {
    return fail(Code::kInvalid, fmt::format("not a port: \"{}\"", text));
  }
  if (host == "localhost") host = "127.0.0.1";
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    auto* target = reinterpret_cast<sockaddr_in6*>(&address.storage);
    target->sin6_family = AF_INET6;
    target->sin6_port = htons(port);
    address.size = sizeof *target;
    if (inet_pton(AF_INET6, host.substr(1, host.size() - 2).c_str(), &target->sin6_addr) == 1)
      return address;
  } else {
    auto* target = reinterpret_cast<sockaddr_in*>(&address.storage);
    target->sin_family = AF_INET;
    target->sin_port = htons(port);
    address.size = sizeof *target;
    if (inet_pton(AF_INET, host.c_str(), &target->sin_addr) == 1) return address;
  }
  return fail(Code::kInvalid, fmt::format("not an IP address with a port: \"{}\"", text));
}

std::string address_text(const sockaddr_storage& address) {
  char host[INET6_ADDRSTRLEN] = {};
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    inet_ntop(AF_INET, &v4.sin_addr, host, sizeof host);
    return fmt::format("{}:{}", host, ntohs(v4.sin_port));
  }
  if (address.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
    if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) {
      inet_ntop(AF_INET, &v6.sin6_addr.s6_addr[12], host, sizeof host);
      return fmt::format("{}:{}", host, ntohs(v6.sin6_port));
    }
    inet_ntop(AF_INET6, &v6.sin6_addr, host, sizeof host);
    return fmt::format("[{}]:{}", host, ntohs(v6.sin6_port));
  }
  return "unix";
}

PeerName::PeerName(const sockaddr_storage& address, int fd) {
  std::string text;
  if (address.ss_family == AF_UNIX) {
    ucred peer{};
    socklen_t size = sizeof peer;
    text = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0
               ? fmt::format("unix:uid={}", peer.uid)
               : std::string("unix:uid=?");
  } else {
    text = address_text(address);
  }
  size_ = static_cast<uint8_t>(std::min(text.size(), sizeof text_));
  std::memcpy(text_, text.data(), size_);
}

}  // namespace basalt::reactor
