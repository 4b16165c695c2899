// Socket addresses: what a configuration writes, and how a peer is named.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <string>
#include <string_view>

#include "base/result.h"

namespace basalt::reactor {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;
  std::string unix_path;  // not empty: a Unix socket

  int family() const { return storage.ss_family; }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

// "127.0.0.1:9000", "[::]:9000", "localhost:9000", "unix:/path". Numeric: nothing is resolved.
Result<SocketAddress> parse_address(std::string_view text);

// A connected peer's name without allocation: see Stream::peer().
class PeerName {
 public:
  PeerName() = default;
  // `fd` is asked for the uid of a Unix socket's peer.
  PeerName(const sockaddr_storage& address, int fd);
  std::string_view view() const { return {text_, size_}; }

 private:
  char text_[63] = {};
  uint8_t size_ = 0;
};

std::string address_text(const sockaddr_storage& address);  // "127.0.0.1:9000", "[::1]:9000"

}  // namespace basalt::reactor
