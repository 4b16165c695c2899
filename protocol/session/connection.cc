#include "protocol/session/connection.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "base/log.h"

namespace basalt::session {
namespace {

constexpr uint64_t kNsPerMs = 1'000'000;
constexpr uint64_t kBufferRetryMs = 10;
// A caller's buffer below this is filled from ours: fewer system calls.
constexpr size_t kDirectMin = 4096;

// Ends after a while, through the run queue.
struct SleepCall : Completion {
  SleepCall(reactor::Loop& l, uint64_t ms)
      : loop(l),
        timer(
            l,
            [](void* self) {
              auto& call = *static_cast<SleepCall*>(self);
              call.loop.run_queue().post(call);
            },
            this) {
    timer.arm(ms);
  }
  reactor::Loop& loop;
  reactor::Timer timer;
  bool result = true;
};

int status_of(http::HeadStatus status) {
  switch (status) {
    case http::HeadStatus::kTooLarge:
      return 431;
    case http::HeadStatus::kTargetTooLong:
      return 414;
    case http::HeadStatus::kBadVersion:
      return 505;
    case http::HeadStatus::kBadExpect:
      return 417;
    default:
      return 400;
  }
}

}  // namespace

uint64_t BodyPace::timeout_ms(const SessionLimits& limits) const {
  const uint64_t window_ns = limits.body_timeout_ms * kNsPerMs;
  const uint64_t left_ns = window_ns > waited_ns_ ? window_ns - waited_ns_ : 0;
  const bool enough =
      bytes_ >= limits.body_bytes_per_second_min * limits.body_timeout_ms / 1000 && bytes_ != 0;
  return (left_ns + (enough ? window_ns : 0)) / kNsPerMs + 1;
}

void BodyPace::note(const SessionLimits& limits, uint64_t waited_ns, uint64_t bytes) {
  waited_ns_ += waited_ns;
  if (waited_ns_ >= limits.body_timeout_ms * kNsPerMs) {
    waited_ns_ -= std::min(waited_ns_, limits.body_timeout_ms * kNsPerMs);
    bytes_ = 0;
  }
  bytes_ += bytes;
}

Connection::Connection(Shared& shared, std::unique_ptr<reactor::Stream> stream)
    : shared_(shared), stream_(std::move(stream)), inbox_(shared.buffers) {}

// --- Head

Connection::HeadStep Connection::try_head() {
  for (;;) {
    const Bytes raw = inbox_.raw();
    if (raw.size() > scanned_) {
      if (head_deadline_ns_ == 0) {
        head_deadline_ns_ = shared_.loop.now_ns() + shared_.limits.head_timeout_ms * kNsPerMs;
      }
      const http::HeadResult result = http::parse_request_head(raw, scanned_, head_);
      if (result.status == http::HeadStatus::kComplete) {
        reset_exchange();
        inbox_.begin_body(result.consumed, head_);
        if (Status status = absorb(); !status) body_error_ = std::move(status).error();
        continue_wanted_ = head_.expect_continue && bytes_received_ == 0;
        return HeadStep::kComplete;
      }
      if (result.status != http::HeadStatus::kNeedMore) {
        reset_exchange();
        head_.keep_alive = false;
        bad_status_ = status_of(result.status);
        bad_reason_ = result.reason;
        return HeadStep::kBad;
      }
      scanned_ = raw.size();
    }
    const Result<MutableBytes> room = inbox_.head_room();
    if (!room) return HeadStep::kNoBuffer;
    const Result<size_t> size = stream_->read_now(*room);
    if (!size) return size.error().code == Code::kBusy ? HeadStep::kWait : HeadStep::kClosed;
    if (*size == 0) return HeadStep::kClosed;
    inbox_.received(*size);
  }
}

bool Connection::head_too_slow() {
  bump(shared_.stats.timeouts);
  log_debug("request head too slow", {{"peer", stream_->peer()}});
  return false;
}

Task<bool> Connection::wait_for_head(HeadStep why) {
  const uint64_t now_ns = shared_.loop.now_ns();
  if (head_deadline_ns_ == 0)
    head_deadline_ns_ = now_ns + shared_.limits.head_timeout_ms * kNsPerMs;
  if (now_ns >= head_deadline_ns_) co_return head_too_slow();
  if (why == HeadStep::kNoBuffer) {
    co_await Call<SleepCall>([](SleepCall&) {}, shared_.loop, kBufferRetryMs);
    co_return true;
  }
  const Result<MutableBytes> room = inbox_.head_room();
  if (!room) co_return true;
  const uint64_t left_ms = (head_deadline_ns_ - now_ns) / kNsPerMs + 1;
  const Result<size_t> size = co_await Call<reactor::ReadCall>(
      [this](reactor::ReadCall& call) { stream_->read(call); }, *room, left_ms);
  if (!size) {
    if (size.error().code == Code::kTimeout) head_too_slow();
    co_return false;
  }
  if (*size == 0) co_return false;
  inbox_.received(*size);
  co_return true;
}

void Connection::reset_exchange() {
  scanned_ = 0;
  head_deadline_ns_ = 0;
  bad_status_ = 0;
  bad_reason_ = {};
  continue_wanted_ = false;
  body_error_.reset();
  pace_.reset();
  bytes_received_ = 0;
  response_.clear();
  out_.clear();
  head_waits_ = false;
  body_ = Body::kNone;
  length_ = 0;
  responded_ = finished_ = broken_ = keep_alive_ = close_after_ = false;
  bytes_sent_ = 0;
}

// --- Request body

// Decodes what has come; all that stays raw then belongs to the next request.
Status Connection::absorb() {
  const size_t before = inbox_.decoded().size();
  Status status = inbox_.decode();
  bytes_received_ += inbox_.decoded().size() - before;
  return status;
}

Task<Status> Connection::send_continue() {
  if (!continue_wanted_) co_return Status();
  continue_wanted_ = false;
  if (responded_) co_return Status();  // too late: the client has its answer
  Pieces pieces;
  pieces.add(as_bytes("HTTP/1.1 100 Continue\r\n\r\n"));
  const Result<bool> all = put_now(pieces, false);
  if (!all) co_return std::unexpected(all.error());
  if (*all) co_return Status();
  co_return co_await put_rest(pieces, false);
}

// At least one byte from the socket, which is the body's or its framing's.
Task<Result<size_t>> Connection::receive(MutableBytes into) {
  Result<size_t> size = stream_->read_now(into);
  uint64_t waited_ns = 0;
  if (!size && size.error().code == Code::kBusy) {
    const uint64_t start_ns = shared_.loop.now_ns();
    size =
        co_await Call<reactor::ReadCall>([this](reactor::ReadCall& call) { stream_->read(call); },
                                         into, pace_.timeout_ms(shared_.limits));
    waited_ns = shared_.loop.now_ns() - start_ns;
  }
  if (size && *size == 0) size = fail(Code::kCancelled, "connection closed within a request body");
  if (!size) {
    if (size.error().code == Code::kTimeout) {
      bump(shared_.stats.timeouts);
      log_debug("request body too slow", {{"peer", stream_->peer()}});
    }
    body_error_ = size.error();
    co_return size;
  }
  pace_.note(shared_.limits, waited_ns, *size);
  co_return size;
}

// More bytes into the inbox, decoded.
Task<Status> Connection::receive_more() {
  CO_CHECK(send_continue());
  const Result<MutableBytes> room = inbox_.body_room();
  if (!room) {
    body_error_ = room.error();
    co_return std::unexpected(room.error());
  }
  CO_TRY(size, receive(*room));
  inbox_.received(size);
  Status status = absorb();
  if (!status) body_error_ = status.error();
  co_return Status();  // bytes before the mistake are still good; the next call reports it
}

Task<Result<size_t>> Connection::read(MutableBytes into) {
  for (;;) {
    const Bytes ready = inbox_.decoded();
    if (!ready.empty()) {
      const size_t size = std::min(ready.size(), into.size());
      std::memcpy(into.data(), ready.data(), size);
      inbox_.consume(size);
      co_return size;
    }
    if (inbox_.body_done() || into.empty()) co_return size_t{0};
    if (body_error_) co_return std::unexpected(*body_error_);
    const uint64_t limit = inbox_.direct_limit();
    if (limit != 0 && (into.size() >= kDirectMin || limit <= into.size())) {
      CO_CHECK(send_continue());
      CO_TRY(size, receive(into.first(std::min<uint64_t>(limit, into.size()))));
      inbox_.direct_received(size);
      bytes_received_ += size;
      co_return size;
    }
    CO_CHECK(receive_more());
  }
}

Task<Result<bool>> Connection::fill() {
  const uint64_t before = bytes_received_;
  for (;;) {
    if (bytes_received_ != before) co_return true;
    if (inbox_.body_done()) co_return false;
    if (body_error_) co_return std::unexpected(*body_error_);
    CO_CHECK(receive_more());
  }
}

// --- Response

bool Connection::decide_keep_alive() {
  if (!head_.keep_alive || close_after_ || shared_.draining || body_error_) return false;
  if (inbox_.body_done()) return true;
  // The body's rest would have to be drained. A client that waits for 100 Continue may or may not
  // send it; a chunked one has no known end.
  if (continue_wanted_ || !inbox_.remaining_known()) return false;
  return inbox_.remaining() <= shared_.limits.drain_bytes_max;
}

void Connection::write_head(Body body, uint64_t length) {
  using Kind = http::ResponseHead::Framing::Kind;
  responded_ = true;
  keep_alive_ = body != Body::kUntilClose && decide_keep_alive();
  const bool bodiless =
      head_.method == http::Method::kHead || response_.status == 204 || response_.status == 304;
  body_ = bodiless ? Body::kNone : body;
  length_ = length;
  const Kind kind = body == Body::kLength    ? Kind::kLength
                    : body == Body::kChunked ? Kind::kChunked
                                             : Kind::kNone;
  out_.clear();
  response_.write({kind, length, head_.http10, keep_alive_}, shared_.clock.wall_ms(), out_);
}

Status Connection::broken(Status status) {
  broken_ = true;
  return status;
}

Result<bool> Connection::put_now(Pieces& pieces, bool more) {
  if (pieces.count == 0) return true;
  const Result<size_t> size = stream_->write_now(
      std::span<const iovec>(pieces.at.data(), static_cast<size_t>(pieces.count)), more);
  if (!size) {
    if (size.error().code == Code::kBusy) return false;
    broken_ = true;
    return std::unexpected(size.error());
  }
  size_t moved = *size;
  Pieces rest;
  for (int i = 0; i < pieces.count; ++i) {
    const size_t step = std::min(moved, pieces.at[i].iov_len);
    moved -= step;
    rest.add(
        {static_cast<const uint8_t*>(pieces.at[i].iov_base) + step, pieces.at[i].iov_len - step});
  }
  pieces = rest;
  return pieces.count == 0;
}

Task<Status> Connection::put_rest(Pieces pieces, bool more) {
  Status status = co_await Call<reactor::WriteCall>(
      [this, &pieces](reactor::WriteCall& call) {
        std::copy_n(pieces.at.begin(), pieces.count, call.pieces);
        call.piece_count = pieces.count;
        stream_->write(call);
      },
      std::initializer_list<Bytes>{}, shared_.limits.write_timeout_ms, more);
  if (!status) {
    if (status.error().code == Code::kTimeout) bump(shared_.stats.timeouts);
    broken_ = true;
  }
  co_return status;
}

Task<Status> Connection::send(Bytes body) {
  if (responded_) co_return fail(Code::kInvalid, "a response was sent already");
  write_head(Body::kLength, body.size());
  Pieces pieces;
  pieces.add(as_bytes(out_));
  if (body_ != Body::kNone) {
    pieces.add(body);
    bytes_sent_ = body.size();
  }
  const Result<bool> all = put_now(pieces, false);
  if (!all) co_return std::unexpected(all.error());
  if (!*all) CO_CHECK(put_rest(pieces, false));
  finished_ = true;
  co_return Status();
}

Task<Status> Connection::begin(std::optional<uint64_t> length) {
  if (responded_) co_return fail(Code::kInvalid, "a response was sent already");
  write_head(length         ? Body::kLength
             : head_.http10 ? Body::kUntilClose
                            : Body::kChunked,
             length.value_or(0));
  if (body_ != Body::kNone && (body_ != Body::kLength || length_ != 0)) {
    head_waits_ = true;
    co_return Status();
  }
  Pieces pieces;
  pieces.add(as_bytes(out_));
  const Result<bool> all = put_now(pieces, false);
  if (!all) co_return std::unexpected(all.error());
  if (!*all) CO_CHECK(put_rest(pieces, false));
  finished_ = true;
  co_return Status();
}

Task<Status> Connection::write(Bytes data, bool more) {
  if (!responded_) co_return fail(Code::kInvalid, "write before begin");
  if (broken_) co_return fail(Code::kCancelled, "the response is broken");
  if (body_ == Body::kNone || data.empty()) co_return Status();
  if (finished_) co_return broken(fail(Code::kInvalid, "write after the end"));
  Pieces pieces;
  if (std::exchange(head_waits_, false)) pieces.add(as_bytes(out_));
  if (body_ == Body::kLength && data.size() > length_ - bytes_sent_) {
    co_return broken(fail(Code::kInvalid, "more than the announced length"));
  }
  if (body_ == Body::kChunked) {
    char* end = std::to_chars(chunk_line_, chunk_line_ + 16, data.size(), 16).ptr;
    *end++ = '\r';
    *end++ = '\n';
    pieces.add(as_bytes(std::string_view(chunk_line_, end)));
  }
  pieces.add(data);
  if (body_ == Body::kChunked) pieces.add(as_bytes("\r\n"));
  bytes_sent_ += data.size();
  const Result<bool> all = put_now(pieces, more);
  if (!all) co_return std::unexpected(all.error());
  waited_ = !*all;
  if (!*all) CO_CHECK(put_rest(pieces, more));
  co_return Status();
}

Task<Status> Connection::sendfile(int fd, uint64_t offset, uint64_t length,
                                  reactor::FileCheck* check) {
  if (!responded_) co_return fail(Code::kInvalid, "sendfile before begin");
  if (broken_) co_return fail(Code::kCancelled, "the response is broken");
  if (body_ == Body::kNone || length == 0) co_return Status();
  if (body_ != Body::kLength || !can_sendfile() || length > length_ - bytes_sent_) {
    co_return broken(
        fail(Code::kInvalid, "sendfile needs a plain stream and the announced length"));
  }
  if (std::exchange(head_waits_, false)) {
    Pieces pieces;
    pieces.add(as_bytes(out_));
    const Result<bool> all = put_now(pieces, true);
    if (!all) co_return std::unexpected(all.error());
    waited_ = !*all;
    if (!*all) CO_CHECK(put_rest(pieces, true));
  }
  if (check != nullptr) check->unsent = 0;
  Status status = co_await Call<reactor::SendFileCall>(
      [this](reactor::SendFileCall& call) { stream_->sendfile(call); }, fd, offset, length,
      shared_.limits.write_timeout_ms, check, std::exchange(waited_, false));
  bytes_sent_ += length - (check != nullptr ? check->unsent : 0);
  if (!status) {
    if (status.error().code == Code::kTimeout) bump(shared_.stats.timeouts);
    broken_ = true;
  }
  co_return status;
}

Task<Status> Connection::end() {
  if (!responded_) co_return fail(Code::kInvalid, "end before begin");
  if (broken_) co_return fail(Code::kCancelled, "the response is broken");
  if (finished_ || body_ == Body::kNone) co_return Status();
  if (body_ == Body::kLength && bytes_sent_ != length_) {
    co_return broken(fail(Code::kInvalid, "less than the announced length"));
  }
  Pieces pieces;
  if (std::exchange(head_waits_, false)) pieces.add(as_bytes(out_));
  if (body_ == Body::kChunked) pieces.add(as_bytes("0\r\n\r\n"));
  const Result<bool> all = put_now(pieces, false);
  if (!all) co_return std::unexpected(all.error());
  if (!*all) CO_CHECK(put_rest(pieces, false));
  finished_ = true;
  co_return Status();
}

// --- After the response

Connection::After Connection::after_response() {
  // All announced bytes are out, even if the handler did not say end().
  const bool whole = finished_ || (responded_ && body_ == Body::kLength && bytes_sent_ == length_);
  if (!whole || broken_) return After::kClose;
  if (!keep_alive_ || body_error_) {
    // A client that said it closes sends nothing more; any other could lose the answer to a reset.
    const bool quiet =
        !head_.keep_alive && inbox_.body_done() && !inbox_.has_raw() && bad_status_ == 0;
    return quiet ? After::kClose : After::kLinger;
  }
  return inbox_.body_done() ? After::kNext : After::kDrain;
}

Task<bool> Connection::drain_body() {
  for (;;) {
    inbox_.consume(inbox_.decoded().size());
    const Result<bool> more = co_await fill();
    if (!more) co_return false;
    if (!*more) co_return true;
  }
}

void Connection::end_request() {
  inbox_.end_request();
  head_.clear();
}

}  // namespace basalt::session
