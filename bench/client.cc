#include "bench/client.h"

#include <event2/event.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "base/check.h"

namespace basalt::bench {
namespace {

constexpr int kIovecsMax = 16;
constexpr uint64_t kDropBytesMax = 4u << 20;  // a recv with MSG_TRUNC
constexpr uint64_t kDropBytesMin =
    64 * 1024;                 // below, the copy is cheaper than a second system call
constexpr int kReadsMax = 16;  // an event, so that one connection does not starve the others

bool equals_ignoring_case(std::string_view text, std::string_view lower) {
  if (text.size() != lower.size()) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i] >= 'A' && text[i] <= 'Z' ? static_cast<char>(text[i] | 0x20) : text[i];
    if (c != lower[i]) return false;
  }
  return true;
}

std::string tls_error() {
  char text[256] = "TLS failed";
  if (const unsigned long error = ERR_get_error(); error != 0)
    ERR_error_string_n(error, text, sizeof text);
  ERR_clear_error();
  return text;
}

}  // namespace

std::string_view failure_name(Failure failure) {
  static constexpr std::array<std::string_view, kFailureCount> kNames = {
      "connect", "tls", "closed", "timeout", "protocol", "wrong_bytes"};
  return kNames[static_cast<size_t>(failure)];
}

Result<std::shared_ptr<SSL_CTX>> make_tls_context(const RunOptions& options) {
  if (!options.endpoint.tls) return std::shared_ptr<SSL_CTX>();
  std::shared_ptr<SSL_CTX> context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
  if (!context) return basalt::fail(Code::kIo, tls_error());
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_mode(context.get(), SSL_MODE_ENABLE_PARTIAL_WRITE |
                                      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                      SSL_MODE_RELEASE_BUFFERS);
  // A server that closes without close_notify is the framing's business, not an error of its own.
  SSL_CTX_set_options(context.get(), SSL_OP_IGNORE_UNEXPECTED_EOF);
  if (options.insecure) return context;
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  const int loaded = options.ca_file.empty() ? SSL_CTX_set_default_verify_paths(context.get())
                                             : SSL_CTX_load_verify_locations(
                                                   context.get(), options.ca_file.c_str(), nullptr);
  if (loaded != 1)
    return basalt::fail(Code::kInvalid, fmt::format("{}: {}", options.ca_file, tls_error()));
  return context;
}

Client::Client(Shared& shared, Handler& handler)
    : shared_(shared),
      handler_(handler),
      timer_(
          shared.loop,
          [](void* self) {
            auto& client = *static_cast<Client*>(self);
            client.fail(client.link_ == Link::kOpen ? Failure::kTimeout : Failure::kConnect,
                        "timed out");
          },
          this) {}

Client::~Client() { close(); }

void Client::close() {
  if (read_watched_) event_del(&read_event_);
  if (write_watched_) event_del(&write_event_);
  read_watched_ = write_watched_ = false;
  if (ssl_ != nullptr) SSL_free(std::exchange(ssl_, nullptr));
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  timer_.disarm();
  link_ = Link::kClosed;
  busy_ = false;
  report_connected_ = false;
  ++generation_;
}

void Client::want_write(bool wanted) {
  if (wanted == write_watched_) return;
  write_watched_ = wanted;
  if (wanted)
    event_add(&write_event_, nullptr);
  else
    event_del(&write_event_);
}

void Client::connect() {
  report_connected_ = true;
  timer_.arm(shared_.options.timeout_ms);
  open();
}

// Fails through the loop: send() and connect() may come from inside a handler.
void Client::fail(Failure failure, std::string detail) {
  const bool wanted = busy_ || report_connected_;
  close();
  if (!wanted) return;
  busy_ = true;  // until it is reported
  shared_.loop.defer([this, failure, detail = std::move(detail), generation = generation_] {
    if (generation != generation_) return;
    busy_ = false;
    handler_.failed(*this, failure, detail);
  });
}

void Client::open() {
  const reactor::SocketAddress& address = shared_.options.endpoint.address;
  fd_ = socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd_ < 0) return fail(Failure::kConnect, std::strerror(errno));
  const int one = 1;
  setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  event_assign(&read_event_, shared_.loop.base(), fd_, EV_READ | EV_PERSIST, &Client::on_event,
               this);
  event_assign(&write_event_, shared_.loop.base(), fd_, EV_WRITE | EV_PERSIST, &Client::on_event,
               this);
  link_ = Link::kConnecting;
  if (::connect(fd_, address.get(), address.size) != 0 && errno != EINPROGRESS) {
    return fail(Failure::kConnect, std::strerror(errno));
  }
  want_write(true);
}

void Client::on_event(evutil_socket_t, short what, void* self) {
  auto& client = *static_cast<Client*>(self);
  client.shared_.loop.now_ns();
  if (client.link_ == Link::kConnecting) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(client.fd_, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) return client.fail(Failure::kConnect, std::strerror(error));
    client.read_watched_ = true;
    event_add(&client.read_event_, nullptr);
    if (client.shared_.tls == nullptr) return client.opened();
    client.link_ = Link::kHandshake;
    client.ssl_ = SSL_new(client.shared_.tls);
    const std::string& host = client.shared_.options.endpoint.host;
    SSL_set_fd(client.ssl_, client.fd_);
    SSL_set_connect_state(client.ssl_);
    if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(client.ssl_), host.c_str()) != 1) {
      SSL_set1_host(client.ssl_, host.c_str());
      SSL_set_tlsext_host_name(client.ssl_, host.c_str());
    }
    ERR_clear_error();
    return client.drive_handshake();
  }
  if (client.link_ == Link::kHandshake) return client.drive_handshake();
  if ((what & EV_WRITE) != 0) {
    client.flush();
    if (client.link_ != Link::kOpen) return;
  }
  if ((what & EV_READ) != 0) client.read();
}

void Client::drive_handshake() {
  const int result = SSL_do_handshake(ssl_);
  if (result == 1) return opened();
  const int error = SSL_get_error(ssl_, result);
  if (error == SSL_ERROR_WANT_READ) return want_write(false);
  if (error == SSL_ERROR_WANT_WRITE) return want_write(true);
  fail(Failure::kTls, tls_error());
}

void Client::opened() {
  link_ = Link::kOpen;
  want_write(false);
  if (std::exchange(report_connected_, false)) {
    timer_.disarm();
    handler_.connected(*this);
    return;
  }
  flush();
}

void Client::send() {
  BASALT_CHECK(!busy_);
  busy_ = true;
  piece_ = 0;
  piece_done_ = 0;
  sent_ = false;
  keep_alive_ = true;
  stage_ = Stage::kHead;
  carry_.clear();
  response_.status = 0;
  response_.content_length.reset();
  response_.body_bytes = 0;
  response_.body_differs = false;
  response_.etag.clear();
  response_.text.clear();
  timer_.arm(shared_.options.timeout_ms);
  if (link_ == Link::kOpen) return flush();
  open();
}

// What goes next, as far as one system call takes it. `more`: another piece follows.
Client::Moved Client::write_some(bool& more) {
  const size_t count = request_.pieces.size() + 1;
  const auto piece_at = [&](size_t i) {
    return i == 0 ? Piece{.text = request_.head.data(), .size = request_.head.size()}
                  : request_.pieces[i - 1];
  };
  const auto data_of = [this](const Piece& piece, uint64_t done) -> const void* {
    if (piece.text != nullptr) return piece.text + done;
    return shared_.bodies.at(piece.position + done);
  };
  const Piece first = piece_at(piece_);
  const uint64_t left = first.size - piece_done_;
  ssize_t size = 0;
  if (ssl_ != nullptr) {
    size_t written = 0;
    if (SSL_write_ex(ssl_, data_of(first, piece_done_), std::min(left, Bodies::kPatternBytes),
                     &written) == 1) {
      return {Moved::Kind::kBytes, written};
    }
    const int error = SSL_get_error(ssl_, 0);
    if (error == SSL_ERROR_WANT_WRITE || error == SSL_ERROR_WANT_READ) return {Moved::Kind::kWait};
    ERR_clear_error();
    return {Moved::Kind::kFailed};
  }
  if (first.text == nullptr && left >= kSendfileBytesMin) {
    auto offset = static_cast<off_t>((first.position + piece_done_) % Bodies::kPatternBytes);
    const uint64_t step = std::min(left, Bodies::kPatternBytes - static_cast<uint64_t>(offset));
    size = ::sendfile(fd_, shared_.bodies.fd(), &offset, step);
  } else {
    std::array<iovec, kIovecsMax> iovecs;
    int used = 0;
    size_t i = piece_;
    uint64_t done = piece_done_;
    more = false;
    for (; i < count; ++i, done = 0) {
      const Piece piece = piece_at(i);
      const uint64_t size_left = piece.size - done;
      if (used == kIovecsMax || (piece.text == nullptr && size_left >= kSendfileBytesMin)) {
        more = true;
        break;
      }
      if (size_left == 0) continue;
      iovecs[static_cast<size_t>(used++)] = {const_cast<void*>(data_of(piece, done)), size_left};
    }
    if (used == 1 && !more) {
      size = ::send(fd_, iovecs[0].iov_base, iovecs[0].iov_len, MSG_DONTWAIT | MSG_NOSIGNAL);
    } else {
      msghdr message{};
      message.msg_iov = iovecs.data();
      message.msg_iovlen = static_cast<size_t>(used);
      size = sendmsg(fd_, &message, MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0));
    }
  }
  if (size >= 0) return {Moved::Kind::kBytes, static_cast<size_t>(size)};
  if (errno == EAGAIN || errno == EINTR) return {Moved::Kind::kWait};
  return {Moved::Kind::kFailed};
}

void Client::flush() {
  const size_t count = request_.pieces.size() + 1;
  while (!sent_ && busy_) {
    bool more = false;
    Moved moved = write_some(more);
    if (moved.kind == Moved::Kind::kWait) return want_write(true);
    if (moved.kind == Moved::Kind::kFailed) {
      // The server may have answered and closed before it read everything: that answer counts, if
      // it is there.
      piece_ = count;
      sent_ = true;
      keep_alive_ = false;
      break;
    }
    while (moved.bytes > 0 || piece_ < count) {
      const uint64_t size = piece_ == 0 ? request_.head.size() : request_.pieces[piece_ - 1].size;
      const uint64_t step = std::min<uint64_t>(moved.bytes, size - piece_done_);
      piece_done_ += step;
      moved.bytes -= step;
      if (piece_done_ < size) break;
      ++piece_;
      piece_done_ = 0;
      if (piece_ == count) break;
    }
    sent_ = piece_ == count;
  }
  want_write(false);
}

Client::Moved Client::read_some() {
  std::vector<uint8_t>& buffer = shared_.read_buffer;
  ssize_t size;
  if (ssl_ != nullptr) {
    size_t got = 0;
    if (SSL_read_ex(ssl_, buffer.data(), buffer.size(), &got) == 1)
      return {Moved::Kind::kBytes, got};
    const int error = SSL_get_error(ssl_, 0);
    if (error == SSL_ERROR_WANT_READ) return {Moved::Kind::kWait};
    if (error == SSL_ERROR_WANT_WRITE) {
      want_write(true);
      return {Moved::Kind::kWait};
    }
    ERR_clear_error();
    return {error == SSL_ERROR_ZERO_RETURN ? Moved::Kind::kEnd : Moved::Kind::kFailed};
  }
  size = recv(fd_, buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (size > 0) return {Moved::Kind::kBytes, static_cast<size_t>(size)};
  if (size == 0) return {Moved::Kind::kEnd};
  if (errno == EAGAIN || errno == EINTR) return {Moved::Kind::kWait};
  return {Moved::Kind::kFailed};
}

void Client::read() {
  for (int turn = 0; ssl_ != nullptr || turn < kReadsMax; ++turn) {
    const bool drop = busy_ && stage_ == Stage::kBody && framing_ == Framing::kLength &&
                      ssl_ == nullptr && request_.sink == Request::Sink::kDrop &&
                      response_.status < 300 && remaining_ >= kDropBytesMin;
    Moved moved{};
    if (drop) {
      const uint64_t wanted = std::min(remaining_, kDropBytesMax);
      const ssize_t size = recv(fd_, nullptr, wanted, MSG_DONTWAIT | MSG_TRUNC);
      if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
      if (size > 0) {
        remaining_ -= static_cast<uint64_t>(size);
        response_.body_bytes += static_cast<uint64_t>(size);
        if (remaining_ == 0) return finish();
        if (static_cast<uint64_t>(size) < wanted) return;
        continue;
      }
      moved.kind = size == 0 ? Moved::Kind::kEnd : Moved::Kind::kFailed;
    } else {
      moved = read_some();
    }
    switch (moved.kind) {
      case Moved::Kind::kWait:
        return;
      case Moved::Kind::kEnd:
      case Moved::Kind::kFailed:
        if (busy_ && stage_ == Stage::kBody && framing_ == Framing::kUntilClose &&
            moved.kind == Moved::Kind::kEnd) {
          return finish();
        }
        return fail(Failure::kClosed, response_.status == 0 && carry_.empty()
                                          ? "the server closed the connection instead of answering"
                                          : "the server closed the connection inside its answer");
      case Moved::Kind::kBytes: {
        if (!busy_) {
          // Nothing was asked (an unasked 408, say): the connection is of no use any more.
          return close();
        }
        if (!consume(Bytes(shared_.read_buffer.data(), moved.bytes))) return;
        // A short read has emptied the socket: spare the call that would say so.
        if (ssl_ == nullptr && moved.bytes < shared_.read_buffer.size()) return;
      }
    }
  }
}

bool Client::consume(Bytes bytes) {
  while (stage_ == Stage::kHead) {
    if (!take_head(bytes)) return link_ == Link::kOpen && busy_;
  }
  const uint64_t generation = generation_;
  if (framing_ == Framing::kLength) {
    const size_t step = static_cast<size_t>(std::min<uint64_t>(bytes.size(), remaining_));
    take_body(bytes.first(step));
    remaining_ -= step;
    if (remaining_ != 0) return true;
    if (step != bytes.size())
      keep_alive_ = false;  // bytes nobody asked for: not to be trusted with another request
    finish();
    return false;
  }
  if (framing_ == Framing::kUntilClose) {
    take_body(bytes);
    return true;
  }
  while (true) {
    const auto step = chunked_.decode(bytes);
    if (!step) {
      fail(Failure::kProtocol, step.error().detail);
      return false;
    }
    take_body(step->data);
    bytes = bytes.subspan(step->consumed);
    if (step->done) {
      if (!bytes.empty()) keep_alive_ = false;
      finish();
      return false;
    }
    if (step->consumed == 0 || generation != generation_) return generation == generation_;
  }
}

bool Client::take_head(Bytes& bytes) {
  const std::string_view text = as_text(bytes);
  if (carry_.empty()) {
    if (const size_t end = text.find("\r\n\r\n"); end != std::string_view::npos) {
      bytes = bytes.subspan(end + 4);
      return parse_head(text.substr(0, end + 2));
    }
    carry_ = text;
    bytes = {};
  } else {
    const size_t before = carry_.size();
    carry_.append(text);
    const size_t end = carry_.find("\r\n\r\n", before < 3 ? 0 : before - 3);
    if (end != std::string::npos) {
      bytes = bytes.subspan(end + 4 - before);
      const std::string head = carry_.substr(0, end + 2);
      carry_.clear();
      return parse_head(head);
    }
    bytes = {};
  }
  if (carry_.size() > kHeadBytesMax) fail(Failure::kProtocol, "the answer's head is too long");
  return false;
}

// `head` ends with the last field's CR LF. Leaves stage_ at kHead after an interim (1xx) answer.
bool Client::parse_head(std::string_view head) {
  const auto bad = [this](const char* why) {
    fail(Failure::kProtocol, why);
    return false;
  };
  const bool http11 = head.starts_with("HTTP/1.1 ");
  if ((!http11 && !head.starts_with("HTTP/1.0 ")) || head.size() < 14)
    return bad("the answer is not HTTP/1");
  int status = 0;
  if (std::from_chars(head.data() + 9, head.data() + 12, status).ptr != head.data() + 12 ||
      status < 100 || status > 599) {
    return bad("malformed status");
  }
  if (status < 200) {
    if (status == 101) return bad("status 101");
    return true;
  }
  response_.status = status;
  keep_alive_ = http11 && keep_alive_;
  bool chunked = false;
  size_t at = head.find("\r\n") + 2;
  while (at < head.size()) {
    const size_t end = head.find("\r\n", at);
    const std::string_view line = head.substr(at, end - at);
    at = end + 2;
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos || colon == 0) return bad("malformed field");
    const std::string_view name = line.substr(0, colon);
    std::string_view value = line.substr(colon + 1);
    while (value.starts_with(' ') || value.starts_with('\t')) value.remove_prefix(1);
    while (value.ends_with(' ') || value.ends_with('\t')) value.remove_suffix(1);
    switch (name[0] | 0x20) {
      case 'c':
        if (equals_ignoring_case(name, "content-length")) {
          uint64_t length = 0;
          const auto [stop, error] =
              std::from_chars(value.data(), value.data() + value.size(), length);
          if (error != std::errc() || stop != value.data() + value.size() ||
              response_.content_length) {
            return bad("malformed Content-Length");
          }
          response_.content_length = length;
        } else if (equals_ignoring_case(name, "connection")) {
          if (equals_ignoring_case(value, "close")) keep_alive_ = false;
        }
        break;
      case 't':
        if (equals_ignoring_case(name, "transfer-encoding")) {
          if (!equals_ignoring_case(value, "chunked")) return bad("unknown Transfer-Encoding");
          chunked = true;
        }
        break;
      case 'e':
        if (equals_ignoring_case(name, "etag")) {
          if (value.size() >= 2 && value.front() == '"' && value.back() == '"')
            value = value.substr(1, value.size() - 2);
          response_.etag = value;
        }
        break;
      default:
        break;
    }
  }
  stage_ = Stage::kBody;
  framing_ = Framing::kLength;
  remaining_ = 0;
  if (request_.is_head || status == 204 || status == 304) return true;
  if (chunked) {
    if (response_.content_length) return bad("Content-Length with Transfer-Encoding");
    framing_ = Framing::kChunked;
    chunked_ = http::ChunkedDecoder();
  } else if (response_.content_length) {
    remaining_ = *response_.content_length;
  } else {
    framing_ = Framing::kUntilClose;
    keep_alive_ = false;
  }
  return true;
}

void Client::take_body(Bytes bytes) {
  if (bytes.empty()) return;
  if (response_.status >= 300 || request_.sink == Request::Sink::kKeep) {
    response_.text.append(
        as_text(bytes.first(std::min(bytes.size(), kTextBytesMax - response_.text.size()))));
  } else if (request_.sink == Request::Sink::kCompare) {
    const uint8_t* expected = shared_.bodies.at(request_.expected.begin + response_.body_bytes);
    static_assert(kReadBufferBytes <= Bodies::kPatternBytes);
    if (std::memcmp(expected, bytes.data(), bytes.size()) != 0) response_.body_differs = true;
  }
  response_.body_bytes += bytes.size();
}

void Client::finish() {
  timer_.disarm();
  // An answer that came before the whole request was sent leaves the connection in no known state.
  if (!keep_alive_ || !sent_) close();
  busy_ = false;
  handler_.answered(*this);
}

}  // namespace basalt::bench
