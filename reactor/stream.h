// Stream: one accepted connection, plain TCP, Unix socket or TLS; moves bytes and knows no
// protocol.
//
// At most one read-side and one write-side call at a time. Every call completes through the loop's
// run queue exactly once, at latest when its deadline passes (kTimeout) or the stream is aborted
// (kCancelled). A call that can be carried out at once without blocking (data in the socket buffer,
// room to send) is, and is posted; nothing is copied. After an error the stream is dead: every
// later call completes with the same error. One exception: a read-side deadline kills the read side
// only, so that an answer ("too slow") can still be written. Memory: an idle plain stream holds no
// buffer (wait_readable, then the caller takes one). Ownership: std::unique_ptr by its session; may
// be destroyed only when no call is in flight (abort() first, then wait).
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/bytes.h"
#include "base/completion.h"
#include "base/result.h"

namespace basalt::reactor {

class Loop;

constexpr uint64_t kNoDeadline = 0;

struct ReadCall : Completion {  // completes with >= 1 byte, or 0 at the end of the stream
  MutableBytes into;
  uint64_t timeout_ms = kNoDeadline;
  Result<size_t> result;
  ReadCall(MutableBytes b, uint64_t t) : into(b), timeout_ms(t) {}
};

struct WaitCall : Completion {  // the stream has bytes (or its end) to read
  uint64_t timeout_ms = kNoDeadline;
  Status result;
  explicit WaitCall(uint64_t t) : timeout_ms(t) {}
};

struct WriteCall : Completion {  // completes when all bytes are handed to the kernel (TLS:
                                 // encrypted and handed over)
  static constexpr int kPiecesMax = 4;
  iovec pieces[kPiecesMax];
  int piece_count = 0;
  uint64_t timeout_ms = kNoDeadline;  // without progress
  bool more = false;                  // more follows at once (MSG_MORE)
  Status result;
  WriteCall(std::initializer_list<Bytes> parts, uint64_t t, bool more_follows = false);
};

// Asked before bytes of a file are taken after a wait, during which they may have left the page
// cache: are they still what they were when the call was made? "No" ends the call, with success and
// `unsent` bytes at the end of its range that were not taken.
class FileCheck {
 public:
  virtual bool still_there(uint64_t offset, uint64_t length) = 0;
  uint64_t unsent = 0;

 protected:
  ~FileCheck() = default;
};

struct SendFileCall : Completion {
  int fd;
  uint64_t offset, length;
  uint64_t timeout_ms = kNoDeadline;
  FileCheck* check = nullptr;  // outlives the call
  bool check_next = false;     // before the next attempt; at first: somebody waited already
  Status result;
  SendFileCall(int f, uint64_t o, uint64_t l, uint64_t t, FileCheck* c = nullptr, bool now = false)
      : fd(f), offset(o), length(l), timeout_ms(t), check(c), check_next(now) {}
};

class Stream {
 public:
  virtual ~Stream() = default;
  // Takes over a connected stream socket (made non-blocking here); it is closed with the stream.
  static std::unique_ptr<Stream> adopt(Loop& loop, int fd);

  virtual void read(ReadCall& call) = 0;
  virtual void wait_readable(WaitCall& call) = 0;
  virtual void write(WriteCall& call) = 0;
  virtual void sendfile(SendFileCall& call) = 0;

  // A read that would not wait: bytes now in the socket, 0 at the end, kBusy if there are none.
  // (kBusy also when the last read emptied the socket and the loop has not reported new bytes
  // since: no system call is spent on it. Then read().)
  virtual Result<size_t> read_now(MutableBytes into) = 0;
  // A write that would not wait: how many bytes of `pieces` were taken (0 to all); kBusy if none.
  // Not on TLS: kBusy.
  virtual Result<size_t> write_now(std::span<const iovec> pieces, bool more = false) = 0;

  // Plain: sendfile(2). TLS: read from the page cache and encrypted record by record.
  virtual bool can_sendfile() const = 0;
  virtual bool tls() const = 0;
  // "127.0.0.1:41234" (IPv4 in IPv6 too), "[::1]:41234", "unix:uid=0".
  virtual std::string_view peer() const = 0;
  virtual int fd() const = 0;
  // Every call in flight, and every later one, completes with kCancelled.
  virtual void abort() = 0;
  // Half-close the write side, read and drop what the peer still sends for at most linger_ms, then
  // close (so that an early error response is not lost to a reset). The stream is unusable after;
  // it may be destroyed at once (lingering is the reactor's own business, bounded in number). Only
  // with no call in flight.
  virtual void close_lingering(uint64_t linger_ms) = 0;
};

}  // namespace basalt::reactor
