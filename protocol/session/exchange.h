// Exchange: one HTTP request and its response on a connection, as a handler sees it.
// Session: the coroutine that drives a connection (keep-alive, pipelining, deadlines, early
// errors).
//
// Thread: the connection's core. The handler's coroutine runs inside the session's; when the peer
// goes away, calls in flight finish with kCancelled and the handler leaves by its error path: it is
// never destroyed half way.
//
// Deadlines (each a member of SessionLimits): a head must arrive within head_timeout_ms of its
// first byte; a body must keep body_bytes_per_second_min measured over windows of body_timeout_ms;
// a response write must progress within write_timeout_ms; an idle keep-alive connection is closed
// after idle_timeout_ms. After a response that was sent before the body was read to its end, the
// rest of the body is drained when it is known to be at most drain_bytes_max; otherwise Connection:
// close and a lingering close. Unread body bytes are never parsed as a request.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/result.h"
#include "base/task.h"
#include "protocol/http/head.h"
#include "protocol/http/response.h"
#include "reactor/loop.h"
#include "reactor/stream.h"

namespace basalt::session {

struct SessionLimits {
  uint64_t head_timeout_ms = 10'000;
  uint64_t body_timeout_ms = 30'000;
  uint64_t body_bytes_per_second_min = 64;
  uint64_t write_timeout_ms = 60'000;
  uint64_t idle_timeout_ms = 60'000;
  uint64_t drain_bytes_max = 256 * 1024;
  uint64_t linger_ms = 2'000;
};

class Exchange {
 public:
  virtual ~Exchange() = default;

  virtual const http::RequestHead& head() const = 0;
  virtual std::string_view peer() const = 0;
  virtual bool tls() const = 0;

  // --- Request body, HTTP framing already removed. Sends 100 Continue before the first read if the
  // client waits for it. Bytes read into `into` (at least 1), or 0 at the end of the body. Errors:
  // kCancelled (peer gone, or closed before the declared length), kTimeout, kInvalid or kTooLarge
  // (bad chunk framing), kBusy (no buffer: answer 503). After an error the connection closes after
  // the response, which may still be sent unless the peer is gone. A large `into` is filled
  // straight from the socket once the buffered bytes are used up.
  virtual Task<Result<size_t>> read(MutableBytes into) = 0;
  // What is already buffered, without waiting: a view that consume_buffered(n) drops n bytes of.
  // For parsers. May be empty. (Only bytes of this request's body; sends no 100 Continue.)
  virtual Bytes buffered() const = 0;
  virtual void consume_buffered(size_t bytes) = 0;
  // Reads more into the internal buffer (at least one byte beyond what buffered() shows); false at
  // the end of the body. kTooLarge when more than 1 MiB is buffered and not consumed. Moves the
  // buffer: earlier views of buffered() are dead.
  virtual Task<Result<bool>> fill() = 0;
  virtual bool body_done() const = 0;

  // --- Response. The handler fills response() (status, fields), then one of:
  virtual http::ResponseHead& response() = 0;
  // Head and body in one go (one writev). HEAD requests: body's length is announced, its bytes are
  // not sent.
  virtual Task<Status> send(std::string_view body) = 0;
  virtual Task<Status> send(Bytes body) = 0;
  // Head with a known length (no body on the wire for HEAD, 204, 304: then just return), or chunked
  // when nullopt (HTTP/1.0: until close). The head goes out together with the first bytes of the
  // body; at once if there will be none.
  virtual Task<Status> begin(std::optional<uint64_t> length) = 0;
  virtual Task<Status> write(Bytes data) = 0;  // after begin
  // The same for bytes that more will follow at once: they may wait for it, to share a packet.
  virtual Task<Status> write_more(Bytes data) { return write(data); }
  virtual bool can_sendfile() const = 0;
  // After begin(length). With a `check`, which outlives the call, it may end early: see its
  // `unsent`.
  virtual Task<Status> sendfile(int fd, uint64_t offset, uint64_t length,
                                reactor::FileCheck* check) = 0;
  virtual Task<Status> end() = 0;  // after begin: the body is complete. Not called: the connection
                                   // is cut (truncated answer).

  virtual bool responded() const = 0;           // a head was sent
  virtual uint64_t bytes_received() const = 0;  // of the body
  virtual uint64_t bytes_sent() const = 0;      // of the response body
  virtual void close_after() = 0;               // no keep-alive after this one
};

// What a server does with a request. handle() must send a response unless the exchange failed; if
// it did not, the session cuts the connection. bad_head() fills and sends the answer to a head that
// could not be parsed (400, 414, 431, 505, 417); the connection closes after it.
class Handler {
 public:
  virtual ~Handler() = default;
  // head() and everything it points to stay valid until handle() returns.
  virtual Task<void> handle(Exchange& exchange) = 0;
  virtual Task<void> bad_head(Exchange& exchange, int status, std::string_view reason) = 0;
};

struct SessionStats {
  std::atomic<uint64_t> requests{0}, bad_heads{0}, timeouts{0}, open{0};
};

// The sessions of one core. serve() takes the stream and owns the connection until it closes.
// Destroyed only when no connection is open (after drain()).
class SessionPool {
 public:
  virtual ~SessionPool() = default;
  static std::unique_ptr<SessionPool> create(reactor::Loop& loop, BufferPool& buffers,
                                             const Clock& clock, const SessionLimits& limits,
                                             Handler& handler);
  virtual void serve(std::unique_ptr<reactor::Stream> stream) = 0;
  // Graceful stop: idle connections close now, busy ones after their response; completes when none
  // is left. Whatever is left after deadline_ms is aborted.
  virtual void drain(uint64_t deadline_ms, Completion& drained) = 0;
  virtual const SessionStats& stats() const = 0;
};

}  // namespace basalt::session
