// Lingerer: sockets whose stream is gone, but whose last answer is still on its way.
//
// Closing a socket that holds unread bytes makes the kernel send a reset, which can destroy the
// answer before the peer reads it (RFC 9112 section 9.6). So the write side is shut, and what the
// peer sends is read and dropped until it closes or the time is up. At most kSocketsMax a loop;
// beyond that the socket is closed at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "reactor/loop.h"

namespace basalt::reactor {

class Lingerer {
 public:
  static constexpr size_t kSocketsMax = 512;

  explicit Lingerer(Loop& loop) : loop_(loop) {}
  ~Lingerer();
  // Takes the descriptor, whose write side is shut already.
  void add(int fd, uint64_t linger_ms);
  size_t count() const { return count_; }

 private:
  struct Entry;
  void finish(Entry& entry);
  Loop& loop_;
  Entry* first_ = nullptr;
  size_t count_ = 0;
};

}  // namespace basalt::reactor
