// Client: one HTTP/1.1 connection to the endpoint, made to cost little: a request is one sendmsg
// (large bodies go by sendfile from the pattern), an answer is usually one recv, and body bytes
// nobody looks at are dropped inside the kernel (MSG_TRUNC) instead of being copied. With TLS all
// of it goes through OpenSSL.
//
// One request at a time. A connection that the server closed is opened again by the next send();
// the time for that is part of that request's. Strict where a mistake would falsify the
// measurement: the status line, the framing, the body's length. Thread: the loop's. The handler is
// called from the loop only, never inside send(), and may call send() at once.
#pragma once

#include <event2/event_struct.h>
#include <openssl/ssl.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "bench/bodies.h"
#include "bench/options.h"
#include "bench/signer.h"
#include "protocol/http/chunked.h"
#include "reactor/loop.h"

namespace basalt::bench {

enum class Failure : uint8_t { kConnect, kTls, kClosed, kTimeout, kProtocol, kMismatch };
constexpr size_t kFailureCount = 6;
std::string_view failure_name(Failure failure);

struct Request {
  std::string head;
  std::string frames;         // what pieces of aws-chunked bodies point into
  std::vector<Piece> pieces;  // the body
  bool is_head = false;       // HEAD: no body comes, whatever the fields say
  enum class Sink : uint8_t { kDrop, kCompare, kKeep } sink = Sink::kDrop;
  Body expected;  // of a 2xx answer with kCompare
};

struct Response {
  int status = 0;
  std::optional<uint64_t> content_length;
  uint64_t body_bytes = 0;
  bool body_differs = false;  // kCompare
  std::string etag;           // without quotes
  std::string text;           // the body, with kKeep and of every error; cut at kTextBytesMax
};

class Client {
 public:
  static constexpr size_t kHeadBytesMax = 64 * 1024;
  static constexpr size_t kTextBytesMax = 8u << 20;
  static constexpr size_t kReadBufferBytes = 256 * 1024;
  static constexpr uint64_t kSendfileBytesMin = 16 * 1024;

  class Handler {
   public:
    virtual ~Handler() = default;
    virtual void connected(Client& client) = 0;  // after connect()
    virtual void answered(Client& client) = 0;   // after send(): see response()
    virtual void failed(Client& client, Failure failure,
                        const std::string& detail) = 0;  // after either
  };
  // What the clients of one loop share. `tls` is null for plain HTTP.
  struct Shared {
    reactor::Loop& loop;
    const RunOptions& options;
    const Bodies& bodies;
    SSL_CTX* tls;
    std::vector<uint8_t> read_buffer = std::vector<uint8_t>(kReadBufferBytes);
  };

  Client(Shared& shared, Handler& handler);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void connect();
  // Fill request() first; it stays untouched until the answer or failure.
  Request& request() { return request_; }
  void send();
  const Response& response() const { return response_; }
  bool busy() const { return busy_; }
  void close();  // a request in flight is forgotten

 private:
  enum class Link : uint8_t { kClosed, kConnecting, kHandshake, kOpen };
  enum class Stage : uint8_t { kHead, kBody };
  enum class Framing : uint8_t { kLength, kChunked, kUntilClose };
  struct Moved {
    enum class Kind : uint8_t { kBytes, kWait, kEnd, kFailed } kind;
    size_t bytes = 0;
  };

  static void on_event(evutil_socket_t, short what, void* self);
  void open();
  void drive_handshake();
  void opened();
  void flush();
  void read();
  bool consume(Bytes bytes);     // false: this answer is complete or has failed, read no more
  bool take_head(Bytes& bytes);  // false: more is needed, or it failed
  bool parse_head(std::string_view head);
  void take_body(Bytes bytes);
  void finish();
  void fail(Failure failure, std::string detail);
  Moved write_some(bool& more);
  Moved read_some();
  void want_write(bool wanted);

  Shared& shared_;
  Handler& handler_;
  int fd_ = -1;
  SSL* ssl_ = nullptr;
  event read_event_;
  event write_event_;
  bool read_watched_ = false;
  bool write_watched_ = false;
  reactor::Timer timer_;
  Link link_ = Link::kClosed;
  bool busy_ = false;
  bool report_connected_ = false;
  uint64_t generation_ = 0;  // so that a failure reported later does not hit a later request

  Request request_;
  size_t piece_ = 0;  // 0 is the head, i is pieces[i - 1]
  uint64_t piece_done_ = 0;
  bool sent_ = false;

  Response response_;
  Stage stage_ = Stage::kHead;
  Framing framing_ = Framing::kLength;
  uint64_t remaining_ = 0;
  http::ChunkedDecoder chunked_;
  bool keep_alive_ = true;
  std::string carry_;  // of a head that came in pieces
};

// For https endpoints; nullptr in `*out` for plain ones.
Result<std::shared_ptr<SSL_CTX>> make_tls_context(const RunOptions& options);

}  // namespace basalt::bench
