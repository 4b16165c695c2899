#include "reactor/socket_stream.h"

#include <event2/event.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "reactor/lingerer.h"

namespace basalt::reactor {
namespace {

Code code_of_errno(int error) {
  switch (error) {
    case ECONNRESET:
    case EPIPE:
    case ETIMEDOUT:
    case ENOTCONN:
    case ECONNABORTED:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ENETDOWN:
      return Code::kCancelled;
    default:
      return Code::kIo;
  }
}

}  // namespace

std::unexpected<Error> SocketStream::Death::as_error() const {
  std::string detail = what;
  if (error != 0) {
    char buffer[128];
    detail += ": ";
    detail += strerror_r(error, buffer, sizeof buffer);
  }
  return fail(code, std::move(detail));
}

SocketStream::SocketStream(Loop& loop, int fd, const PeerName& peer,
                           std::shared_ptr<ListenerStats> listener)
    : loop_(loop),
      fd_(fd),
      read_timer_(
          loop,
          [](void* self) {
            auto& stream = *static_cast<SocketStream*>(self);
            if (stream.read_call_ == nullptr && stream.wait_call_ == nullptr) {
              stream.handshake_timed_out();
              return;
            }
            stream.fail_read({true, Code::kTimeout, 0, "read deadline"});
          },
          this),
      write_timer_(
          loop,
          [](void* self) {
            const Death death{true, Code::kTimeout, 0, "write deadline"};
            static_cast<SocketStream*>(self)->fail_write(death);
            static_cast<SocketStream*>(self)->fail_read(death);
          },
          this),
      peer_(peer),
      listener_(std::move(listener)) {
  event_assign(&read_event_, loop.base(), fd, EV_READ | EV_PERSIST, &SocketStream::on_readable,
               this);
  event_assign(&write_event_, loop.base(), fd, EV_WRITE | EV_PERSIST, &SocketStream::on_writable,
               this);
  continuation_.stream = this;
  continuation_.fn = [](Completion& completion) {
    SocketStream& stream = *static_cast<Continuation&>(completion).stream;
    stream.continuing_ = false;
    if (stream.write_call_ != nullptr)
      stream.drive_write();
    else if (stream.file_call_ != nullptr)
      stream.drive_file();
  };
}

SocketStream::~SocketStream() {
  BASALT_CHECK(read_call_ == nullptr && wait_call_ == nullptr && write_call_ == nullptr &&
               file_call_ == nullptr);
  BASALT_CHECK(!continuing_);
  if (read_watched_) event_del(&read_event_);
  if (write_watched_) event_del(&write_event_);
  if (fd_ >= 0) close(fd_);
  if (listener_) listener_->open.fetch_sub(1, std::memory_order_relaxed);
}

void SocketStream::watch_readable() {
  if (read_watched_) return;
  if (event_add(&read_event_, nullptr) != 0) return die(Code::kIo, "epoll_ctl", errno);
  read_watched_ = true;
}

void SocketStream::watch_writable() {
  if (write_watched_) return;
  if (event_add(&write_event_, nullptr) != 0) return die(Code::kIo, "epoll_ctl", errno);
  write_watched_ = true;
}

void SocketStream::on_readable(evutil_socket_t, short, void* self) {
  auto& stream = *static_cast<SocketStream*>(self);
  stream.loop_.now_ns();
  stream.drained_ = false;
  bool wanted = stream.drive_handshake();
  if (stream.write_needs_readable_) {
    wanted = true;
    stream.drive_write();
  }
  if (stream.read_call_ != nullptr || stream.wait_call_ != nullptr) {
    wanted = true;
    stream.drive_read();
  }
  if (!wanted) {
    event_del(&stream.read_event_);
    stream.read_watched_ = false;
  }
}

void SocketStream::on_writable(evutil_socket_t, short, void* self) {
  auto& stream = *static_cast<SocketStream*>(self);
  stream.loop_.now_ns();
  bool wanted = false;
  if (stream.drive_handshake()) {
    // In a handshake the socket is nearly always writable: keep the event only while it is asked
    // for.
    wanted = stream.read_needs_writable_;
  } else if (stream.read_needs_writable_) {
    wanted = true;
    stream.drive_read();
  }
  if (stream.continuing_) {
    // The rest goes on from the run queue anyway.
  } else if (stream.write_call_ != nullptr) {
    wanted = true;
    stream.drive_write();
  } else if (stream.file_call_ != nullptr) {
    wanted = true;
    stream.drive_file();
  }
  if (!wanted) {
    event_del(&stream.write_event_);
    stream.write_watched_ = false;
  }
}

void SocketStream::fail_read(const Death& death) {
  if (!read_death_.dead) read_death_ = death;
  read_timer_.disarm();
  read_needs_writable_ = false;
  if (read_call_ != nullptr) {
    read_call_->result = read_death_.as_error();
    loop_.run_queue().post(*std::exchange(read_call_, nullptr));
  }
  if (wait_call_ != nullptr) {
    wait_call_->result = read_death_.as_error();
    loop_.run_queue().post(*std::exchange(wait_call_, nullptr));
  }
}

void SocketStream::fail_write(const Death& death) {
  if (!write_death_.dead) write_death_ = death;
  write_timer_.disarm();
  write_needs_readable_ = false;
  if (write_call_ != nullptr) {
    write_call_->result = write_death_.as_error();
    loop_.run_queue().post(*std::exchange(write_call_, nullptr));
  }
  if (file_call_ != nullptr) {
    file_call_->result = write_death_.as_error();
    loop_.run_queue().post(*std::exchange(file_call_, nullptr));
  }
}

void SocketStream::die(Code code, const char* what, int error) {
  const Death death{true, code, error, what};
  fail_read(death);
  fail_write(death);
}

void SocketStream::fail_attempt(const Attempt& attempt) {
  die(code_of_errno(attempt.error), attempt.what, attempt.error);
}

void SocketStream::abort() { die(Code::kCancelled, "aborted", 0); }

// --- Reading

void SocketStream::read(ReadCall& call) {
  BASALT_CHECK(read_call_ == nullptr && wait_call_ == nullptr && !call.into.empty());
  read_call_ = &call;
  if (read_death_.dead) return fail_read(read_death_);
  if (call.timeout_ms != kNoDeadline) read_timer_.arm(call.timeout_ms);
  if (drained_ && !has_pending()) return watch_readable();
  drive_read();
}

void SocketStream::wait_readable(WaitCall& call) {
  BASALT_CHECK(read_call_ == nullptr && wait_call_ == nullptr);
  wait_call_ = &call;
  if (read_death_.dead) return fail_read(read_death_);
  if (call.timeout_ms != kNoDeadline) read_timer_.arm(call.timeout_ms);
  if (has_pending()) return drive_read();
  watch_readable();
}

void SocketStream::drive_read() {
  read_needs_writable_ = false;
  const Attempt attempt = read_call_ != nullptr ? try_read(read_call_->into) : try_peek();
  switch (attempt.kind) {
    case Attempt::Kind::kMoved:
    case Attempt::Kind::kEnd:
      read_timer_.disarm();
      if (read_call_ != nullptr) {
        drained_ = attempt.drained;
        read_call_->result = attempt.bytes;
        loop_.run_queue().post(*std::exchange(read_call_, nullptr));
      } else {
        loop_.run_queue().post(*std::exchange(wait_call_, nullptr));
      }
      return;
    case Attempt::Kind::kNeedsReadable:
      drained_ = true;
      return watch_readable();
    case Attempt::Kind::kNeedsWritable:
      read_needs_writable_ = true;
      return watch_writable();
    case Attempt::Kind::kFailed:
      return fail_attempt(attempt);
  }
}

Result<size_t> SocketStream::read_now(MutableBytes into) {
  BASALT_CHECK(read_call_ == nullptr && wait_call_ == nullptr && !into.empty());
  if (read_death_.dead) return read_death_.as_error();
  if (drained_ && !has_pending()) return fail(Code::kBusy);
  const Attempt attempt = try_read(into);
  switch (attempt.kind) {
    case Attempt::Kind::kMoved:
    case Attempt::Kind::kEnd:
      drained_ = attempt.drained;
      return attempt.bytes;
    case Attempt::Kind::kNeedsReadable:
      drained_ = true;
      return fail(Code::kBusy);
    case Attempt::Kind::kNeedsWritable:
      return fail(Code::kBusy);
    case Attempt::Kind::kFailed:
      fail_attempt(attempt);
      return read_death_.as_error();
  }
  return fail(Code::kBusy);
}

// --- Writing

WriteCall::WriteCall(std::initializer_list<Bytes> parts, uint64_t t, bool more_follows)
    : timeout_ms(t), more(more_follows) {
  BASALT_CHECK(parts.size() <= kPiecesMax);
  for (const Bytes& part : parts) {
    if (part.empty()) continue;
    pieces[piece_count++] = {const_cast<uint8_t*>(part.data()), part.size()};
  }
}

void SocketStream::write(WriteCall& call) {
  BASALT_CHECK(write_call_ == nullptr && file_call_ == nullptr);
  write_call_ = &call;
  piece_ = 0;
  if (write_death_.dead) return fail_write(write_death_);
  drive_write();
}

void SocketStream::drive_write() {
  WriteCall& call = *write_call_;
  write_needs_readable_ = false;
  while (piece_ < call.piece_count) {
    const std::span<const iovec> rest(call.pieces + piece_,
                                      static_cast<size_t>(call.piece_count - piece_));
    const Attempt attempt = try_write(rest, call.more);
    if (attempt.kind != Attempt::Kind::kMoved) {
      if (write_side_waits(attempt) && call.timeout_ms != kNoDeadline && !write_timer_.armed()) {
        write_timer_.arm(call.timeout_ms);
      }
      return;
    }
    write_timer_.disarm();  // progress
    size_t moved = attempt.bytes;
    while (moved > 0) {
      iovec& piece = call.pieces[piece_];
      const size_t step = std::min(moved, piece.iov_len);
      piece.iov_base = static_cast<uint8_t*>(piece.iov_base) + step;
      piece.iov_len -= step;
      moved -= step;
      if (piece.iov_len == 0) ++piece_;
    }
    if (attempt.again && piece_ < call.piece_count) {
      continuing_ = true;
      loop_.run_queue().post(continuation_);
      return;
    }
  }
  write_timer_.disarm();
  loop_.run_queue().post(*std::exchange(write_call_, nullptr));
}

void SocketStream::sendfile(SendFileCall& call) {
  BASALT_CHECK(write_call_ == nullptr && file_call_ == nullptr && can_sendfile());
  file_call_ = &call;
  if (write_death_.dead) return fail_write(write_death_);
  drive_file();
}

void SocketStream::drive_file() {
  SendFileCall& call = *file_call_;
  if (call.length != 0) {
    if (call.check != nullptr && std::exchange(call.check_next, true) && !file_bytes_taken() &&
        !call.check->still_there(call.offset, call.length)) {
      write_timer_.disarm();
      call.check->unsent = call.length;
      loop_.run_queue().post(*std::exchange(file_call_, nullptr));
      return;
    }
    const Attempt attempt = try_sendfile(call);
    if (attempt.kind != Attempt::Kind::kMoved) {
      if (write_side_waits(attempt) && call.timeout_ms != kNoDeadline && !write_timer_.armed()) {
        write_timer_.arm(call.timeout_ms);
      }
      return;
    }
    write_timer_.disarm();
    call.offset += attempt.bytes;
    call.length -= attempt.bytes;
    if (call.length != 0) {
      // One slice a round, whether the socket took all of it or not: a fast client does not starve
      // the loop.
      continuing_ = true;
      loop_.run_queue().post(continuation_);
      return;
    }
  }
  loop_.run_queue().post(*std::exchange(file_call_, nullptr));
}

// True if the attempt is to be repeated when the socket is ready; false if the stream died of it.
bool SocketStream::write_side_waits(const Attempt& attempt) {
  if (attempt.kind == Attempt::Kind::kFailed) {
    fail_attempt(attempt);
    return false;
  }
  if (attempt.kind == Attempt::Kind::kNeedsReadable) {
    write_needs_readable_ = true;
    watch_readable();
  } else {
    watch_writable();
  }
  return !write_death_.dead;
}

Result<size_t> SocketStream::write_now(std::span<const iovec> pieces, bool more) {
  BASALT_CHECK(write_call_ == nullptr && file_call_ == nullptr);
  if (write_death_.dead) return write_death_.as_error();
  const Attempt attempt = try_write(pieces, more);
  if (attempt.kind == Attempt::Kind::kMoved) return attempt.bytes;
  if (attempt.kind != Attempt::Kind::kFailed) return fail(Code::kBusy);
  fail_attempt(attempt);
  return write_death_.as_error();
}

void SocketStream::close_lingering(uint64_t linger_ms) {
  BASALT_CHECK(read_call_ == nullptr && wait_call_ == nullptr && write_call_ == nullptr &&
               file_call_ == nullptr);
  const bool alive = !write_death_.dead && fd_ >= 0;
  if (alive) say_end();
  die(Code::kCancelled, "closed", 0);
  if (read_watched_) event_del(&read_event_);
  if (write_watched_) event_del(&write_event_);
  read_watched_ = write_watched_ = false;
  const int fd = std::exchange(fd_, -1);
  if (fd < 0) return;
  if (!alive || shutdown(fd, SHUT_WR) != 0) {
    close(fd);
    return;
  }
  loop_.lingerer().add(fd, linger_ms);
}

}  // namespace basalt::reactor
