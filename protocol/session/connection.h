// Connection: one stream with its requests, one after the other; the Exchange a handler sees.
#pragma once

#include <array>
#include <optional>
#include <string>

#include "protocol/session/exchange.h"
#include "protocol/session/inbox.h"

namespace basalt::session {

// What the connections of a core share.
struct Shared {
  reactor::Loop& loop;
  BufferPool& buffers;
  const Clock& clock;
  const SessionLimits limits;
  SessionStats stats;
  bool draining = false;
};

// Written by the core's thread only: no locked instruction.
inline void bump(std::atomic<uint64_t>& counter, int64_t by = 1) {
  counter.store(counter.load(std::memory_order_relaxed) + static_cast<uint64_t>(by),
                std::memory_order_relaxed);
}

// The minimum rate of a body: of the time spent waiting for the peer (not of the time its bytes
// waited for us), each window of body_timeout_ms must bring body_bytes_per_second_min.
class BodyPace {
 public:
  void reset() { waited_ns_ = bytes_ = 0; }
  // How long the next wait may take: to the end of the window in which the peer would certainly be
  // too slow.
  uint64_t timeout_ms(const SessionLimits& limits) const;
  void note(const SessionLimits& limits, uint64_t waited_ns, uint64_t bytes);

 private:
  uint64_t waited_ns_ = 0;
  uint64_t bytes_ = 0;
};

class Connection final : public Exchange {
 public:
  Connection(Shared& shared, std::unique_ptr<reactor::Stream> stream);

  // --- Exchange
  const http::RequestHead& head() const override { return head_; }
  std::string_view peer() const override { return stream_->peer(); }
  bool tls() const override { return stream_->tls(); }
  Task<Result<size_t>> read(MutableBytes into) override;
  Bytes buffered() const override { return inbox_.decoded(); }
  void consume_buffered(size_t bytes) override { inbox_.consume(bytes); }
  Task<Result<bool>> fill() override;
  bool body_done() const override { return inbox_.body_done() && inbox_.decoded().empty(); }
  http::ResponseHead& response() override { return response_; }
  Task<Status> send(std::string_view body) override { return send(as_bytes(body)); }
  Task<Status> send(Bytes body) override;
  Task<Status> begin(std::optional<uint64_t> length) override;
  Task<Status> write(Bytes data) override { return write(data, false); }
  Task<Status> write_more(Bytes data) override { return write(data, true); }
  bool can_sendfile() const override { return stream_->can_sendfile(); }
  Task<Status> sendfile(int fd, uint64_t offset, uint64_t length,
                        reactor::FileCheck* check) override;
  Task<Status> end() override;
  bool responded() const override { return responded_; }
  uint64_t bytes_received() const override { return bytes_received_; }
  uint64_t bytes_sent() const override { return bytes_sent_; }
  void close_after() override { close_after_ = true; }

  // --- The session
  reactor::Stream& stream() { return *stream_; }
  Inbox& inbox() { return inbox_; }

  enum class HeadStep : uint8_t { kComplete, kBad, kWait, kNoBuffer, kClosed };
  // Parses the next head from what is there and what the socket gives without waiting. kComplete
  // and kBad: the exchange is ready for the handler.
  HeadStep try_head();
  // After kWait and kNoBuffer: waits. False: the time is up or the peer is gone.
  Task<bool> wait_for_head(HeadStep why);
  // The client waits for 100 Continue although it has no body to send. RFC 9110, 10.1.1 allows a
  // server to answer at once; AWS sends the 100, and botocore counts on it: after an answer without
  // one it takes the next answer on the connection for this one's headers.
  bool continue_at_once() const { return continue_wanted_ && inbox_.body_done(); }
  Task<Status> send_continue();
  int bad_status() const { return bad_status_; }
  std::string_view bad_reason() const { return bad_reason_; }

  enum class After : uint8_t { kNext, kDrain, kClose, kLinger };
  After after_response();   // what the handler's end means for the connection
  Task<bool> drain_body();  // false: close
  void end_request();

  bool idle = false;           // waits for a request's first byte
  Connection* next = nullptr;  // the pool's list
  Connection** link = nullptr;

 private:
  struct Pieces {
    std::array<iovec, reactor::WriteCall::kPiecesMax> at;
    int count = 0;
    void add(Bytes bytes) {
      if (!bytes.empty()) at[count++] = {const_cast<uint8_t*>(bytes.data()), bytes.size()};
    }
  };
  enum class Body : uint8_t { kNone, kLength, kChunked, kUntilClose };

  bool head_too_slow();  // counts it; false
  void reset_exchange();
  Status absorb();
  Task<Status> write(Bytes data, bool more);
  Task<Result<size_t>> receive(MutableBytes into);
  Task<Status> receive_more();
  bool decide_keep_alive();
  void write_head(Body body, uint64_t length);
  // Writes what fits now. True: all of it; false: the rest is in `pieces`.
  Result<bool> put_now(Pieces& pieces, bool more);
  Task<Status> put_rest(Pieces pieces, bool more);
  Status broken(Status status);

  Shared& shared_;
  std::unique_ptr<reactor::Stream> stream_;
  Inbox inbox_;

  // The request.
  http::RequestHead head_;
  size_t scanned_ = 0;             // of inbox_.raw(): holds no end of a head
  uint64_t head_deadline_ns_ = 0;  // from the first byte; 0: none has come
  int bad_status_ = 0;
  std::string_view bad_reason_;
  bool continue_wanted_ = false;  // the client waits for 100 Continue
  std::optional<Error> body_error_;
  BodyPace pace_;
  uint64_t bytes_received_ = 0;

  // The response.
  http::ResponseHead response_;
  std::string out_;          // the head on its way; kept for its memory
  bool head_waits_ = false;  // in out_, for the first bytes of the body
  bool waited_ = false;      // for the socket, with bytes that a part of a file follows
  char chunk_line_[20];
  Body body_ = Body::kNone;
  uint64_t length_ = 0;
  bool responded_ = false;
  bool finished_ = false;
  bool broken_ = false;      // the response cannot be completed
  bool keep_alive_ = false;  // as announced
  bool close_after_ = false;
  uint64_t bytes_sent_ = 0;
};

}  // namespace basalt::session
