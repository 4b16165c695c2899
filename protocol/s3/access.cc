#include "protocol/s3/access.h"

#include "protocol/s3/ops/handlers.h"
#include "protocol/s3/xml.h"

namespace basalt::s3 {
namespace {

// What the client claimed to be: Credential=KEY/... and Signature=... of the Authorization field or
// the query.
struct Claim {
  std::string access_key;
  std::string signature;
};

std::string_view part_after(std::string_view text, std::string_view name, std::string_view ends) {
  const size_t at = text.find(name);
  if (at == std::string_view::npos) return {};
  text.remove_prefix(at + name.size());
  return text.substr(0, text.find_first_of(ends));
}

Claim claim_of(const S3Request& request) {
  const std::string_view authorization = request.header("authorization");
  Claim claim;
  if (!authorization.empty()) {
    claim.access_key = part_after(authorization, "Credential=", "/, ");
    claim.signature = part_after(authorization, "Signature=", ", ");
    return claim;
  }
  if (const std::string* credential = request.parameter("X-Amz-Credential")) {
    claim.access_key = credential->substr(0, credential->find('/'));
  }
  if (const std::string* signature = request.parameter("X-Amz-Signature"))
    claim.signature = *signature;
  return claim;
}

// S3 repeats the two strings as space-separated hex bytes, because of their newlines.
std::string hex_bytes(std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  out.reserve(text.size() * 3);
  for (const char character : text) {
    const auto c = static_cast<uint8_t>(character);
    if (!out.empty()) out += ' ';
    out += kHex[c >> 4];
    out += kHex[c & 15];
  }
  return out;
}

std::string or_default(const std::string& detail, std::string_view text) {
  return detail.empty() ? std::string(text) : detail;
}

}  // namespace

bool needs_bucket(const Route& route) {
  if (route.target == Target::kService || route.handler == &create_bucket) return false;
  // Its path is no bucket's: /WriteGetObjectResponse.
  return route.name != "WriteGetObjectResponse";
}

S3Result<> check_access(const Route& route, const auth::Identity& identity, const Bucket* bucket) {
  if (identity.anonymous()) return s3_fail(S3Code::kAccessDenied);
  if (identity.root()) return {};
  if (!needs_bucket(route)) return {};
  if (bucket != nullptr && bucket->owner_id == identity.account().id) return {};
  return s3_fail(S3Code::kAccessDenied);
}

S3Result<> check_expected_owner(const S3Request& request, const Bucket& bucket) {
  const http::Field* expected = request.find_header("x-amz-expected-bucket-owner");
  if (expected != nullptr && expected->value != bucket.owner_id)
    return s3_fail(S3Code::kAccessDenied);
  return {};
}

S3Error auth_error(const auth::AuthError& failure, const S3Request& request) {
  using auth::AuthFailure;
  switch (failure.failure) {
    case AuthFailure::kAccessDenied:
      return {S3Code::kAccessDenied, failure.detail};
    case AuthFailure::kRequestExpired:
      return {S3Code::kAccessDenied, "Request has expired"};
    case AuthFailure::kInvalidAccessKeyId:
    case AuthFailure::kAccessKeyDisabled: {
      S3Error error(S3Code::kInvalidAccessKeyId);
      error.details = {{"AWSAccessKeyId", claim_of(request).access_key}};
      return error;
    }
    case AuthFailure::kSignatureDoesNotMatch: {
      S3Error error(S3Code::kSignatureDoesNotMatch);
      Claim claim = claim_of(request);
      error.details = {{"AWSAccessKeyId", std::move(claim.access_key)},
                       {"StringToSign", failure.string_to_sign},
                       {"SignatureProvided", std::move(claim.signature)},
                       {"StringToSignBytes", hex_bytes(failure.string_to_sign)},
                       {"CanonicalRequest", failure.canonical_request},
                       {"CanonicalRequestBytes", hex_bytes(failure.canonical_request)}};
      return error;
    }
    case AuthFailure::kRequestTimeTooSkewed: {
      S3Error error(S3Code::kRequestTimeTooSkewed);
      const std::string_view date = request.header("x-amz-date");
      error.details = {{"RequestTime", std::string(date.empty() ? request.header("date") : date)},
                       {"MaxAllowedSkewMilliseconds", std::to_string(auth::kClockSkewMsMax)}};
      return error;
    }
    case AuthFailure::kAuthorizationHeaderMalformed:
      return {S3Code::kAuthorizationHeaderMalformed, failure.detail};
    case AuthFailure::kAuthorizationQueryParametersError:
      return {S3Code::kAuthorizationQueryParametersError, failure.detail};
    case AuthFailure::kMissingDate:
      return {S3Code::kAccessDenied,
              or_default(failure.detail,
                         "AWS authentication requires a valid Date or x-amz-date header")};
    case AuthFailure::kMissingContentSha256:
      return {S3Code::kInvalidRequest,
              or_default(failure.detail,
                         "Missing required header for this request: x-amz-content-sha256")};
    case AuthFailure::kInvalidContentSha256: {
      S3Error error(
          S3Code::kInvalidArgument,
          or_default(
              failure.detail,
              "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, "
              "STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER, or "
              "a "
              "valid sha256 value."));
      error.details = {{"ArgumentName", "x-amz-content-sha256"},
                       {"ArgumentValue", std::string(request.header("x-amz-content-sha256"))}};
      return error;
    }
    case AuthFailure::kUnsupportedSignature:
      return {
          S3Code::kInvalidRequest,
          or_default(failure.detail,
                     "The authorization mechanism you have provided is not supported. Please use "
                     "AWS4-HMAC-SHA256.")};
    case AuthFailure::kSeveralCredentials: {
      S3Error error(S3Code::kInvalidArgument,
                    "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, "
                    "Signature query "
                    "string parameter or the Authorization header should be specified");
      error.details = {{"ArgumentName", "Authorization"}};
      return error;
    }
    case AuthFailure::kUnsignedHeaders:
      return {S3Code::kAccessDenied,
              or_default(failure.detail,
                         "There were headers present in the request which were not signed")};
    case AuthFailure::kInvalidToken:
      return {S3Code::kInvalidToken, failure.detail};
  }
  return {S3Code::kAccessDenied};
}

}  // namespace basalt::s3
