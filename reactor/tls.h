// TLS over OpenSSL 3, driven by readiness events (no bufferevents: they have leaked and crashed
// others).
#pragma once

#include <openssl/ssl.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "reactor/socket_stream.h"

namespace basalt::reactor {

class OpensslContext final : public TlsContext {
 public:
  OpensslContext(std::string chain_file, std::string key_file)
      : chain_file_(std::move(chain_file)), key_file_(std::move(key_file)) {}
  Status reload() override;
  std::shared_ptr<SSL_CTX> current() const;

 private:
  const std::string chain_file_;
  const std::string key_file_;
  mutable std::mutex mutex_;  // reload() comes from the signal's relay, current() from every core,
                              // once a handshake
  std::shared_ptr<SSL_CTX> context_;
};

class TlsStream final : public SocketStream {
 public:
  // At most so much is encrypted or decrypted in one go (a record is 16 KiB, about 10 us).
  static constexpr size_t kSliceMax = 256 * 1024;
  static constexpr size_t kRecordBytes = 16384;

  // Called once, in a callback of the stream: it must not destroy the stream there.
  using HandshakeDone = std::move_only_function<void(bool ok)>;

  static std::unique_ptr<TlsStream> create(Loop& loop, int fd, const PeerName& peer,
                                           std::shared_ptr<ListenerStats> listener,
                                           SSL_CTX& context);
  TlsStream(Loop& loop, int fd, const PeerName& peer, std::shared_ptr<ListenerStats> listener,
            SSL* ssl);
  ~TlsStream() override;

  // Before any other call.
  void start_handshake(uint64_t timeout_ms, HandshakeDone done);

  bool can_sendfile() const override { return true; }
  bool tls() const override { return true; }
  Result<size_t> write_now(std::span<const iovec>, bool) override { return fail(Code::kBusy); }

 private:
  Attempt try_read(MutableBytes into) override;
  Attempt try_peek() override;
  bool has_pending() const override;
  Attempt try_write(std::span<const iovec> pieces, bool more) override;
  Attempt try_sendfile(SendFileCall& call) override;
  bool file_bytes_taken() const override { return record_taken_; }
  Attempt write_record(const uint8_t* data, size_t size, size_t& written);
  void say_end() override;
  bool drive_handshake() override;
  void handshake_timed_out() override;
  Attempt of_error(int result, const char* what);
  void finish_handshake(bool ok);

  SSL* ssl_;
  bool broken_ = false;  // after a fatal error OpenSSL must not be asked to shut down
  bool handshaking_ = false;
  bool ended_ = false;
  HandshakeDone done_;
  bool record_taken_ = false;  // of a file, encrypted, not in the socket yet
};

}  // namespace basalt::reactor
