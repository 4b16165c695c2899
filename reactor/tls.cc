#include "reactor/tls.h"

#include <openssl/err.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/log.h"

namespace basalt::reactor {
namespace {

std::string openssl_error() {
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  if (code == 0) return "unknown error";
  char text[256];
  ERR_error_string_n(code, text, sizeof text);
  return text;
}

// ALPN (RFC 7301): http/1.1 is all we speak; a client that offers only others is told so.
int choose_protocol(SSL*, const unsigned char** out, unsigned char* out_size,
                    const unsigned char* in, unsigned int in_size, void*) {
  static constexpr unsigned char kOurs[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};
  unsigned char* chosen = nullptr;
  if (SSL_select_next_proto(&chosen, out_size, kOurs, sizeof kOurs, in, in_size) !=
      OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  }
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

}  // namespace

Result<std::shared_ptr<TlsContext>> TlsContext::create(const std::string& certificate_chain_file,
                                                       const std::string& key_file) {
  auto context = std::make_shared<OpensslContext>(certificate_chain_file, key_file);
  BASALT_CHECK_OK(context->reload());
  return context;
}

Status OpensslContext::reload() {
  ERR_clear_error();
  std::shared_ptr<SSL_CTX> fresh(SSL_CTX_new(TLS_server_method()), SSL_CTX_free);
  if (!fresh) return fail(Code::kIo, "SSL_CTX_new: " + openssl_error());
  SSL_CTX* context = fresh.get();
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  // An end without close_notify is an end: HTTP's own framing tells a truncated message.
  SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                                   SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_IGNORE_UNEXPECTED_EOF |
                                   SSL_OP_PRIORITIZE_CHACHA);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_read_ahead(context, 1);  // header and body of a record in one recv
  // Tickets only: a cache would be shared between the cores.
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  if (SSL_CTX_set_cipher_list(context, "ECDHE+AESGCM:ECDHE+CHACHA20") != 1) {
    return fail(Code::kInvalid, "cipher list: " + openssl_error());
  }
  SSL_CTX_set_alpn_select_cb(context, choose_protocol, nullptr);
  if (SSL_CTX_use_certificate_chain_file(context, chain_file_.c_str()) != 1) {
    return fail(Code::kInvalid, "certificate chain " + chain_file_ + ": " + openssl_error());
  }
  if (SSL_CTX_use_PrivateKey_file(context, key_file_.c_str(), SSL_FILETYPE_PEM) != 1) {
    return fail(Code::kInvalid, "key " + key_file_ + ": " + openssl_error());
  }
  if (SSL_CTX_check_private_key(context) != 1) {
    return fail(Code::kInvalid,
                "key " + key_file_ + " does not belong to the certificate: " + openssl_error());
  }
  std::lock_guard lock(mutex_);
  context_ = std::move(fresh);
  return {};
}

std::shared_ptr<SSL_CTX> OpensslContext::current() const {
  std::lock_guard lock(mutex_);
  return context_;
}

std::unique_ptr<TlsStream> TlsStream::create(Loop& loop, int fd, const PeerName& peer,
                                             std::shared_ptr<ListenerStats> listener,
                                             SSL_CTX& context) {
  SSL* ssl = SSL_new(&context);  // holds a reference to the context
  if (ssl == nullptr || SSL_set_fd(ssl, fd) != 1) {
    SSL_free(ssl);
    ERR_clear_error();
    return nullptr;
  }
  SSL_set_accept_state(ssl);
  return std::make_unique<TlsStream>(loop, fd, peer, std::move(listener), ssl);
}

TlsStream::TlsStream(Loop& loop, int fd, const PeerName& peer,
                     std::shared_ptr<ListenerStats> listener, SSL* ssl)
    : SocketStream(loop, fd, peer, std::move(listener)), ssl_(ssl) {}

TlsStream::~TlsStream() {
  if (!dead()) say_end();
  SSL_free(ssl_);
}

void TlsStream::say_end() {
  if (broken_ || ended_ || handshaking_ || !SSL_is_init_finished(ssl_)) return;
  ended_ = true;
  ERR_clear_error();
  SSL_shutdown(ssl_);  // one attempt: a full socket loses the good-bye, no more
  ERR_clear_error();
}

SocketStream::Attempt TlsStream::of_error(int result, const char* what) {
  const int saved_errno = errno;
  switch (SSL_get_error(ssl_, result)) {
    case SSL_ERROR_WANT_READ:
      return {.kind = Attempt::Kind::kNeedsReadable};
    case SSL_ERROR_WANT_WRITE:
      return {.kind = Attempt::Kind::kNeedsWritable};
    case SSL_ERROR_ZERO_RETURN:
      return {.kind = Attempt::Kind::kEnd};
    case SSL_ERROR_SYSCALL:
      broken_ = true;
      ERR_clear_error();
      return {.kind = Attempt::Kind::kFailed,
              .error = saved_errno != 0 ? saved_errno : ECONNRESET,
              .what = what};
    default:
      broken_ = true;
      ERR_clear_error();
      // A protocol error is the peer's: like a reset.
      return {.kind = Attempt::Kind::kFailed, .error = ECONNABORTED, .what = what};
  }
}

// --- Handshake

void TlsStream::start_handshake(uint64_t timeout_ms, HandshakeDone done) {
  handshaking_ = true;
  done_ = std::move(done);
  read_timer_.arm(timeout_ms);
  watch_readable();
}

void TlsStream::finish_handshake(bool ok) {
  handshaking_ = false;
  read_timer_.disarm();
  auto done = std::move(done_);
  done(ok);
}

bool TlsStream::drive_handshake() {
  if (!handshaking_) return false;
  read_needs_writable_ = false;
  ERR_clear_error();
  errno = 0;
  const int result = SSL_do_handshake(ssl_);
  if (result == 1) {
    finish_handshake(true);
    return true;
  }
  const Attempt attempt = of_error(result, "TLS handshake");
  if (attempt.kind == Attempt::Kind::kNeedsWritable) {
    read_needs_writable_ = true;
    watch_writable();
  } else if (attempt.kind != Attempt::Kind::kNeedsReadable) {
    die(Code::kCancelled, "TLS handshake", attempt.error);
    finish_handshake(false);
  }
  return true;
}

void TlsStream::handshake_timed_out() {
  if (!handshaking_) return;
  die(Code::kTimeout, "TLS handshake", 0);
  broken_ = true;
  finish_handshake(false);
}

// --- Data

bool TlsStream::has_pending() const { return SSL_has_pending(ssl_) == 1; }

SocketStream::Attempt TlsStream::try_read(MutableBytes into) {
  const size_t want = std::min(into.size(), kSliceMax);
  size_t total = 0;
  while (total < want) {
    size_t size = 0;
    ERR_clear_error();
    errno = 0;
    const int result = SSL_read_ex(ssl_, into.data() + total, want - total, &size);
    if (result == 1) {
      total += size;
      continue;
    }
    const Attempt attempt = of_error(result, "TLS read");
    if (total == 0) return attempt;
    // Bytes first; an end or an error shows again at the next read (OpenSSL keeps both).
    return {.kind = Attempt::Kind::kMoved,
            .bytes = total,
            .drained = attempt.kind == Attempt::Kind::kNeedsReadable};
  }
  return {.kind = Attempt::Kind::kMoved, .bytes = total};
}

SocketStream::Attempt TlsStream::try_peek() {
  uint8_t byte;
  size_t size = 0;
  ERR_clear_error();
  errno = 0;
  const int result = SSL_peek_ex(ssl_, &byte, 1, &size);
  if (result == 1) return {.kind = Attempt::Kind::kMoved};
  return of_error(result, "TLS read");
}

SocketStream::Attempt TlsStream::try_write(std::span<const iovec> pieces, bool) {
  // Small pieces share a record. After "needs writable" the same pieces come again, so the same
  // bytes are gathered and OpenSSL's rule (a retry carries the same bytes) holds.
  std::array<uint8_t, kRecordBytes> gathered;
  size_t total = 0;
  size_t index = 0;
  size_t offset = 0;
  while (index < pieces.size() && total < kSliceMax) {
    const auto* data = static_cast<const uint8_t*>(pieces[index].iov_base) + offset;
    size_t size = pieces[index].iov_len - offset;
    if (size < kRecordBytes && index + 1 < pieces.size()) {
      size_t fill = 0;
      size_t from = offset;
      for (size_t i = index; i < pieces.size() && fill < kRecordBytes; ++i, from = 0) {
        const size_t step = std::min(pieces[i].iov_len - from, kRecordBytes - fill);
        std::memcpy(gathered.data() + fill, static_cast<const uint8_t*>(pieces[i].iov_base) + from,
                    step);
        fill += step;
      }
      data = gathered.data();
      size = fill;
    }
    size_t written = 0;
    const Attempt attempt = write_record(data, std::min(size, kRecordBytes), written);
    if (attempt.kind != Attempt::Kind::kMoved) {
      if (total == 0 || attempt.kind == Attempt::Kind::kFailed) return attempt;
      break;
    }
    total += written;
    while (written > 0) {
      const size_t step = std::min(written, pieces[index].iov_len - offset);
      offset += step;
      written -= step;
      if (offset == pieces[index].iov_len) {
        ++index;
        offset = 0;
      }
    }
  }
  return {.kind = Attempt::Kind::kMoved, .bytes = total, .again = total >= kSliceMax};
}

// A record's worth from the page cache, encrypted while it is in the processor's. After "needs
// writable" the record lies encrypted in the library, which wants the same bytes again: they go
// alone, so that the rest is asked about (FileCheck) before it is taken.
SocketStream::Attempt TlsStream::try_sendfile(SendFileCall& call) {
  std::array<uint8_t, kRecordBytes> record;
  const bool one_record = call.check != nullptr && record_taken_;
  size_t total = 0;
  while (total < call.length && total < kSliceMax) {
    const size_t wanted = std::min<uint64_t>(call.length - total, record.size());
    ssize_t size;
    do {
      size = pread(call.fd, record.data(), wanted, static_cast<off_t>(call.offset + total));
    } while (size < 0 && errno == EINTR);
    if (size < 0) return {.kind = Attempt::Kind::kFailed, .error = errno, .what = "pread"};
    if (static_cast<size_t>(size) < wanted) {
      return {.kind = Attempt::Kind::kFailed, .error = EIO, .what = "pread: the file is shorter"};
    }
    size_t written = 0;
    const Attempt attempt = write_record(record.data(), wanted, written);
    record_taken_ = attempt.kind != Attempt::Kind::kMoved;
    if (record_taken_) {
      if (total == 0 || attempt.kind == Attempt::Kind::kFailed) return attempt;
      break;
    }
    total += written;
    if (one_record) break;
  }
  return {.kind = Attempt::Kind::kMoved, .bytes = total};
}

// At most kRecordBytes. kMoved: `written` of them.
SocketStream::Attempt TlsStream::write_record(const uint8_t* data, size_t size, size_t& written) {
  ERR_clear_error();
  errno = 0;
  const int result = SSL_write_ex(ssl_, data, size, &written);
  if (result == 1) return {.kind = Attempt::Kind::kMoved};
  const Attempt attempt = of_error(result, "TLS write");
  if (attempt.kind != Attempt::Kind::kEnd) return attempt;
  return {.kind = Attempt::Kind::kFailed, .error = EPIPE, .what = "TLS write"};
}

}  // namespace basalt::reactor
