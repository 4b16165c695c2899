// Signer: writes request heads in every form of Signature Version 4, and the frames of aws-chunked
// bodies.
//
// One per worker. The signing key is derived once a day and its HMAC states are kept; the time is
// formatted once a second; what is left for each request is one SHA-256 of the canonical request
// and one HMAC.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "auth/sha256.h"  // its header is auth/'s own: copyable HMAC states are just what a cheap client needs
#include "auth/sigv4.h"
#include "bench/bodies.h"
#include "bench/options.h"

namespace basalt::bench {

// A run of a request's body: `text`, or the pattern from `position` on if text is nullptr.
struct Piece {
  const char* text = nullptr;
  uint64_t position = 0;
  uint64_t size = 0;
};

struct RequestLine {
  std::string_view method;
  std::string_view path;  // percent-encoded as S3 canonicalises it
  std::string_view
      query;  // percent-encoded, sorted, every parameter with its '='; names sort behind "X-Amz-"
};

class Signer {
 public:
  // Everything outlives the signer.
  Signer(const RunOptions& options, const Bodies& bodies);

  // Now, for the requests that follow. Cheap when the second is the same.
  void set_time(int64_t wall_seconds);

  // A request without a body, or with a small one (XML) whose bytes are in `text`.
  void write_plain(const RequestLine& line, std::string_view text, std::string& head);
  // A request that carries `body`: its head, the frames between its bytes (kept in `frames`, which
  // the pieces point into) and the pieces in order.
  void write_body(const RequestLine& line, const Body& body, std::string& head, std::string& frames,
                  std::vector<Piece>& pieces);

 private:
  static constexpr uint64_t kNoLength = UINT64_MAX;
  struct Streaming {
    uint64_t decoded_length;
    bool trailer;
  };
  void write_head(const RequestLine& line, std::string_view payload_hash, uint64_t content_length,
                  const Streaming* streaming, std::string& head);
  void write_presigned(const RequestLine& line, uint64_t content_length, std::string& head);
  std::string_view payload_hash_of(std::string_view text);
  // Signs canonical_ and leaves the hex digits in signature_.
  void sign_canonical();
  void sign_frame(std::string_view kind, std::string_view middle, std::string_view hash);

  const RunOptions& options_;
  const Bodies& bodies_;
  int64_t second_ = -1;
  int64_t day_ = -1;
  std::string date_time_;  // 20261121T022100Z
  std::string scope_;      // date/region/s3/aws4_request
  std::string presign_;  // the query parameters of a presigned URL but the signature; changes with
                         // the second
  std::string to_sign_prefix_;  // algorithm, time, scope
  auth::HmacSha256 key_;
  auth::HexDigest signature_{};
  auth::HexDigest text_hash_{};
  std::string canonical_;
  std::string to_sign_;
};

// Percent-encodes as S3 canonicalises: everything but A-Z a-z 0-9 - . _ ~ (and '/' if asked).
void append_encoded(std::string_view text, bool keep_slash, std::string& out);

}  // namespace basalt::bench
