// The gate: AWS Signature Version 4 in every form S3 clients use. Values in, verdict out; no I/O.
//
// Source of the rules: "Authenticating Requests (AWS Signature Version 4)" in the Amazon S3 API
// reference: header, query (presigned) and chunked forms. Canonicalisation works on the raw request
// bytes: the S3 path is used as sent after one decode + re-encode of each byte (S3 does not
// normalise "//" or "..", nor encode twice).
#pragma once

#include <array>
#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "auth/identity.h"
#include "base/bytes.h"

namespace basalt::auth {

constexpr int64_t kClockSkewMsMax = 15 * 60 * 1000;
constexpr int64_t kPresignSecondsMax = 7 * 24 * 3600;

struct HeaderView {
  std::string_view name;
  std::string_view value;
};

struct RequestView {
  std::string_view method;
  std::string_view path;   // raw, percent-encoded as sent
  std::string_view query;  // raw, without '?'
  std::span<const HeaderView> headers;
};

// What is wrong, in S3's terms; protocol/s3 turns each into its code, status and message.
enum class AuthFailure : uint8_t {
  kAccessDenied,    // anonymous where that is not allowed; presigned URL expired or not yet valid:
                    // see detail
  kRequestExpired,  // AccessDenied "Request has expired"
  kInvalidAccessKeyId,  // unknown key
  kAccessKeyDisabled,   // AWS answers InvalidAccessKeyId
  kSignatureDoesNotMatch,
  kRequestTimeTooSkewed,
  kAuthorizationHeaderMalformed,
  kAuthorizationQueryParametersError,
  kMissingDate,  // AccessDenied "AWS authentication requires a valid Date or x-amz-date header"
  kMissingContentSha256,  // InvalidRequest "Missing required header for this request:
                          // x-amz-content-sha256"
  kInvalidContentSha256,  // InvalidArgument: x-amz-content-sha256 must be UNSIGNED-PAYLOAD,
                          // STREAMING-..., or a sha256
  kUnsupportedSignature,  // SigV2 or SigV4A: InvalidRequest, "please use AWS4-HMAC-SHA256"
  kSeveralCredentials,    // InvalidRequest: header and query together
  kUnsignedHeaders,       // AccessDenied "There were headers present in the request which were not
                          // signed"
  kInvalidToken,
};

struct AuthError {
  AuthFailure failure;
  std::string detail;             // safe to show to the client
  std::string canonical_request;  // with kSignatureDoesNotMatch, for S3's <CanonicalRequest>; never
                                  // contains the secret
  std::string string_to_sign;
};

enum class PayloadKind : uint8_t {
  kUnsigned,                  // UNSIGNED-PAYLOAD, or presigned, or anonymous
  kSha256,                    // hash of the whole body in payload_sha256
  kStreamingSigned,           // STREAMING-AWS4-HMAC-SHA256-PAYLOAD
  kStreamingSignedTrailer,    // STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER
  kStreamingUnsignedTrailer,  // STREAMING-UNSIGNED-PAYLOAD-TRAILER
};

// What the chunk verifier needs.
struct ChunkSigning {
  std::array<uint8_t, 32> signing_key{};
  std::string scope;           // date/region/service/aws4_request
  std::string date_time;       // 20261121T022100Z
  std::string seed_signature;  // 64 hex digits
};

struct Authenticated {
  Identity identity;
  PayloadKind payload = PayloadKind::kUnsigned;
  std::array<uint8_t, 32> payload_sha256{};   // with kSha256
  std::optional<ChunkSigning> chunk_signing;  // with kStreamingSigned*
  bool presigned = false;
  std::string region;
  std::string service;
};

// Signature Version 4 in the header and the query form; anonymous. Limits: the services of a scope
// are s3, iam and sts; at most 256 header fields and 200 signed headers; access key and region as
// long as auth/identity.h and kRegionBytesMax say.
constexpr size_t kRegionBytesMax = 64;

class Gate {
 public:
  struct Options {
    std::string region = "us-east-1";  // a scope with another region is
                                       // AuthorizationHeaderMalformed naming the right one
    bool any_region = false;
  };
  // One per core. `identities` outlives it.
  Gate(const IdentityTable& identities, Options options);

  // Anonymous requests (no credentials at all) succeed with an anonymous identity: the access
  // decision refuses them.
  std::expected<Authenticated, AuthError> authenticate(const RequestView& request,
                                                       int64_t wall_ms) const;

 private:
  struct Claim;  // what a request says about itself, not yet verified
  std::expected<Authenticated, AuthError> verify(const RequestView& request, Claim& claim) const;

  const IdentityTable& identities_;
  Options options_;
};

class HmacSha256;

// Signing keys, derived once per access key, day, region and service; bounded (kEntriesMax, least
// recently used goes), per core. An entry whose secret key is no longer the one given is derived
// anew. References are valid until the next call.
class SigningKeyCache {
 public:
  static constexpr size_t kEntriesMax = 1024;
  SigningKeyCache();
  ~SigningKeyCache();
  // The same key with its HMAC states prepared.
  const HmacSha256& hmac(std::string_view access_key, std::string_view secret_key,
                         std::string_view date, std::string_view region, std::string_view service);
  const std::array<uint8_t, 32>& get(std::string_view access_key, std::string_view secret_key,
                                     std::string_view date, std::string_view region,
                                     std::string_view service);
  void clear();
  size_t size() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Signing, for clients of ours (basalt-bench, tests): adds nothing, returns the Authorization
// header value.
struct SignInput {
  RequestView request;
  std::string_view access_key, secret_key, region, service, date_time, payload_hash;
  std::span<const std::string_view> signed_headers;  // lower case, sorted
};
// "" if the path or query holds an invalid escape, or a signed header is not in the request.
std::string sign_header(const SignInput& input);

}  // namespace basalt::auth
