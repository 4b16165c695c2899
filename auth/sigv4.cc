#include "auth/sigv4.h"

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <utility>

#include "auth/canonical.h"
#include "auth/digest.h"
#include "auth/sha256.h"
#include "auth/time_text.h"

namespace basalt::auth {
namespace {

constexpr std::string_view kAlgorithmName = "AWS4-HMAC-SHA256";
constexpr std::string_view kTerminator = "aws4_request";
constexpr std::string_view kUnsignedPayload = "UNSIGNED-PAYLOAD";
constexpr size_t kSignatureDigits = 64;

// An unknown access key is verified against this one, under a name no key can have, so that it
// costs what a wrong signature costs. Nobody can sign with it to any effect: the answer is always
// InvalidAccessKeyId.
constexpr std::string_view kNoAccessKey = "?";
constexpr std::string_view kNoSecretKey = "there is no such access key";

AuthError error(AuthFailure failure, std::string detail) {
  return {failure, std::move(detail), {}, {}};
}

// The header fields the gate reads itself.
struct KnownHeaders {
  std::string_view authorization, date, amz_date, content_sha256, security_token;
  unsigned authorization_count = 0, amz_date_count = 0, content_sha256_count = 0, host_count = 0;
};

KnownHeaders known_headers(std::span<const HeaderView> headers) {
  KnownHeaders known;
  for (const HeaderView& header : headers) {
    switch (header.name.size()) {
      case 4:
        if (equals_ignoring_case(header.name, "host")) ++known.host_count;
        if (equals_ignoring_case(header.name, "date") && known.date.empty())
          known.date = header.value;
        break;
      case 10:
        if (equals_ignoring_case(header.name, "x-amz-date")) {
          known.amz_date = header.value;
          ++known.amz_date_count;
        }
        break;
      case 13:
        if (equals_ignoring_case(header.name, "authorization")) {
          known.authorization = header.value;
          ++known.authorization_count;
        }
        break;
      case 20:
        if (equals_ignoring_case(header.name, "x-amz-content-sha256")) {
          known.content_sha256 = header.value;
          ++known.content_sha256_count;
        } else if (equals_ignoring_case(header.name, "x-amz-security-token") &&
                   !header.value.empty()) {
          known.security_token = header.value;
        }
        break;
      default:
        break;
    }
  }
  return known;
}

bool is_digits(std::string_view text) {
  for (char c : text) {
    if (c < '0' || c > '9') return false;
  }
  return !text.empty();
}

struct Scope {
  std::string_view access_key, date, region, service;
  std::string_view text;  // date/region/service/aws4_request
};

// nullptr if fine, else what is wrong.
const char* parse_credential(std::string_view credential, Scope& scope) {
  // From the right, because an access key of another system may hold a '/'.
  std::array<std::string_view, 4> parts;
  std::string_view rest = credential;
  for (size_t i = parts.size(); i-- > 0;) {
    const size_t slash = rest.rfind('/');
    if (slash == std::string_view::npos) {
      return "the Credential is mal-formed; expecting "
             "\"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\".";
    }
    parts[i] = rest.substr(slash + 1);
    rest = rest.substr(0, slash);
  }
  scope.access_key = rest;
  scope.date = parts[0];
  scope.region = parts[1];
  scope.service = parts[2];
  scope.text = credential.substr(rest.size() + 1);
  if (rest.empty() || rest.size() > kAccessKeyBytesMax) {
    return "the Credential is mal-formed; the access key is empty or too long.";
  }
  if (scope.date.size() != 8 || !is_digits(scope.date)) {
    return "the Credential is mal-formed; incorrect date format. This date in the credential must "
           "be in the format "
           "\"yyyyMMdd\".";
  }
  if (scope.region.empty() || scope.region.size() > kRegionBytesMax) {
    return "the Credential is mal-formed; the region is empty or too long.";
  }
  if (scope.service != "s3" && scope.service != "iam" && scope.service != "sts") {
    return "the Credential is mal-formed; incorrect service. This endpoint belongs to \"s3\".";
  }
  if (parts[3] != kTerminator) {
    return "the Credential is mal-formed; incorrect terminal. This endpoint uses \"aws4_request\".";
  }
  return nullptr;
}

struct AuthorizationParts {
  std::string_view credential, signed_headers, signature;
};

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

const char* parse_authorization(std::string_view rest, AuthorizationParts& parts) {
  while (true) {
    const size_t end = std::min(rest.find(','), rest.size());
    const std::string_view part = trim(rest.substr(0, end));
    const size_t equals = part.find('=');
    if (equals == std::string_view::npos)
      return "the header must consist of Credential, SignedHeaders and Signature.";
    const std::string_view name = part.substr(0, equals);
    std::string_view* where = name == "Credential"      ? &parts.credential
                              : name == "SignedHeaders" ? &parts.signed_headers
                              : name == "Signature"     ? &parts.signature
                                                        : nullptr;
    if (!where) return "the header holds an unknown component.";
    if (!where->empty()) return "a component is given twice.";
    *where = part.substr(equals + 1);
    if (where->empty()) return "a component is empty.";
    if (end == rest.size()) break;
    rest.remove_prefix(end + 1);
  }
  if (parts.credential.empty()) return "the Credential is missing.";
  if (parts.signed_headers.empty()) return "the SignedHeaders are missing.";
  if (parts.signature.empty()) return "the Signature is missing.";
  return nullptr;
}

// An Authorization header taken apart. A client's requests of a day differ in its end only, the
// signature: what stands before it is parsed once, and then compared.
struct Authorization {
  std::string text;         // what the views below point into
  size_t prefix_bytes = 0;  // up to "Signature="; 0: the signature is not the last component, or
                            // the text is not good
  Scope scope;
  SignedHeaders signed_headers;

  bool begins(std::string_view other) const {
    const std::string_view prefix(text.data(), prefix_bytes);
    return prefix_bytes != 0 && other.size() > prefix_bytes && other.starts_with(prefix) &&
           other.find(',', prefix_bytes) == std::string_view::npos;
  }
};

// Memory of one thread's requests; at most a few times the head's 32 KiB.
struct Scratch {
  CanonicalQuery query;
  Authorization authorization;
  SignedHeaders signed_headers;  // of presigned ones: 3 KiB that would be zeroed for every request
  std::string canonical_request;
  std::string string_to_sign;
};
Scratch& scratch() {
  thread_local Scratch of_this_thread;
  return of_this_thread;
}

struct Payload {
  PayloadKind kind = PayloadKind::kUnsigned;
  std::array<uint8_t, 32> sha256{};
};

std::expected<Payload, AuthError> parse_payload(std::string_view value) {
  Payload payload;
  if (value.size() == kSignatureDigits && decode_hex(value, payload.sha256)) {
    payload.kind = PayloadKind::kSha256;
    return payload;
  }
  payload.sha256.fill(0);
  if (value == kUnsignedPayload) return payload;
  if (value == "STREAMING-UNSIGNED-PAYLOAD-TRAILER") {
    payload.kind = PayloadKind::kStreamingUnsignedTrailer;
    return payload;
  }
  if (value == "STREAMING-AWS4-HMAC-SHA256-PAYLOAD") {
    payload.kind = PayloadKind::kStreamingSigned;
    return payload;
  }
  if (value == "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER") {
    payload.kind = PayloadKind::kStreamingSignedTrailer;
    return payload;
  }
  if (value.starts_with("STREAMING-AWS4-ECDSA-")) {
    return std::unexpected(error(
        AuthFailure::kInvalidContentSha256,
        "x-amz-content-sha256 names a Signature Version 4A (ECDSA) payload, which this server "
        "does not support; please use STREAMING-AWS4-HMAC-SHA256-PAYLOAD or its -TRAILER form."));
  }
  return std::unexpected(
      error(AuthFailure::kInvalidContentSha256,
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, "
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a "
            "valid sha256 value."));
}

bool signs_chunks(PayloadKind kind) {
  return kind == PayloadKind::kStreamingSigned || kind == PayloadKind::kStreamingSignedTrailer;
}

// The text of a parameter that clients write in either case when they move a header into the query.
std::optional<std::string> either_case(const CanonicalQuery& query, std::string_view name,
                                       std::string_view lower) {
  auto value = query.value(name);
  return value ? value : query.value(lower);
}

// False: the path or query holds an invalid escape. `missing` is then empty; else the signed header
// that is not there.
bool build_canonical_request(const RequestView& request, const CanonicalQuery& query,
                             std::string_view left_out, std::span<const std::string_view> names,
                             std::string_view payload_hash, std::string& text,
                             std::string_view& missing) {
  // Line ends, ':' and ';' included; each field has a value and at most one ','.
  size_t bytes_max = request.method.size() + kRecodedMax * request.path.size() +
                     query.written_bytes_max() + payload_hash.size() + 16;
  for (const HeaderView& header : request.headers) bytes_max += header.value.size() + 1;
  for (const std::string_view name : names) bytes_max += 2 * name.size() + 3;
  bool good = false;
  text.clear();  // nothing to keep, should it move
  text.resize_and_overwrite(bytes_max, [&](char* begin, size_t) -> size_t {
    char* out = write_text(request.method, begin);
    *out++ = '\n';
    out = write_canonical_path(request.path, out);
    if (out == nullptr) return 0;
    *out++ = '\n';
    out = query.write_to(out, left_out);
    *out++ = '\n';
    out = write_canonical_headers(request.headers, names, out, missing);
    if (out == nullptr) return 0;
    *out++ = '\n';
    for (const std::string_view name : names) {
      out = write_text(name, out);
      *out++ = ';';
    }
    if (!names.empty()) --out;
    *out++ = '\n';
    out = write_text(payload_hash, out);
    good = true;
    return static_cast<size_t>(out - begin);
  });
  return good;
}

void build_string_to_sign(std::string_view date_time, std::string_view scope,
                          std::string_view canonical_request, std::string& text) {
  text.clear();
  text.resize_and_overwrite(
      kAlgorithmName.size() + date_time.size() + scope.size() + kSignatureDigits + 3,
      [&](char* begin, size_t) -> size_t {
        char* out = write_text(kAlgorithmName, begin);
        *out++ = '\n';
        out = write_text(date_time, out);
        *out++ = '\n';
        out = write_text(scope, out);
        *out++ = '\n';
        out = write_text(hex_digest(sha256(canonical_request)).view(), out);
        return static_cast<size_t>(out - begin);
      });
}

// The x-amz-* fields that are not signed, joined by ", "; "" if there are none.
std::string unsigned_headers(std::span<const HeaderView> headers,
                             const SignedHeaders& signed_headers, bool presigned) {
  std::string names;
  for (const HeaderView& header : headers) {
    if (!starts_with_ignoring_case(header.name, "x-amz-") || signed_headers.contains(header.name))
      continue;
    // Says what a presigned URL says anyway; some clients send it with every request.
    if (presigned && header.value == kUnsignedPayload &&
        equals_ignoring_case(header.name, "x-amz-content-sha256")) {
      continue;
    }
    if (!names.empty()) names += ", ";
    for (char c : header.name)
      names.push_back(c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c);
  }
  return names;
}

}  // namespace

struct Gate::Claim {
  Scope scope;
  std::string_view date_time;
  SignedHeaders* signed_headers = nullptr;
  std::string_view signature;
  std::string_view payload_hash;  // as it stands in the canonical request
  Payload payload;
  bool presigned = false;
};

Gate::Gate(const IdentityTable& identities, Options options)
    : identities_(identities), options_(std::move(options)) {}

std::expected<Authenticated, AuthError> Gate::authenticate(const RequestView& request,
                                                           int64_t wall_ms) const {
  const auto refuse = [](AuthFailure failure, std::string detail) {
    return std::unexpected(error(failure, std::move(detail)));
  };
  CanonicalQuery& query = scratch().query;
  if (!query.parse(request.query)) {
    return refuse(AuthFailure::kAuthorizationQueryParametersError,
                  "The query holds an invalid percent-encoding.");
  }
  const KnownHeaders known = known_headers(request.headers);
  const bool in_header = known.authorization_count > 0;
  const bool in_query = query.count("X-Amz-Algorithm") + query.count("X-Amz-Credential") +
                            query.count("X-Amz-Signature") >
                        0;
  const bool version_2_query = query.count("AWSAccessKeyId") > 0;
  if ((in_header && (in_query || version_2_query)) || (in_query && version_2_query)) {
    return refuse(AuthFailure::kSeveralCredentials,
                  "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, "
                  "Signature query string "
                  "parameter or the Authorization header should be specified");
  }
  if (version_2_query) {
    return refuse(AuthFailure::kUnsupportedSignature,
                  "The authorization mechanism you have provided is not supported. Please use "
                  "AWS4-HMAC-SHA256.");
  }

  if (!in_header && !in_query) {
    Authenticated anonymous{.identity = Identity()};
    if (known.content_sha256_count > 1) {
      return refuse(AuthFailure::kInvalidContentSha256,
                    "x-amz-content-sha256 is given more than once.");
    }
    if (known.content_sha256_count == 1) {
      auto payload = parse_payload(known.content_sha256);
      if (!payload) return std::unexpected(std::move(payload).error());
      if (signs_chunks(payload->kind)) {
        return refuse(
            AuthFailure::kInvalidContentSha256,
            "x-amz-content-sha256 announces signed chunks, but the request is not signed.");
      }
      anonymous.payload = payload->kind;
      anonymous.payload_sha256 = payload->sha256;
    }
    return anonymous;
  }

  if (request.headers.size() > kRequestHeadersMax) {
    return refuse(AuthFailure::kAuthorizationHeaderMalformed,
                  "The request has too many header fields.");
  }

  Claim claim;
  std::string credential, signed_headers, signature, date_time,
      payload_hash;  // what the query form decodes to
  int64_t signed_at = 0;
  if (in_header) {
    const auto malformed = [&](std::string_view what) {
      return refuse(AuthFailure::kAuthorizationHeaderMalformed,
                    fmt::format("The authorization header is malformed; {}", what));
    };
    if (known.authorization_count > 1) return malformed("it is given more than once.");
    const std::string_view text = trim(known.authorization);
    const size_t space = text.find(' ');
    if (text.empty()) return malformed("it is empty.");
    if (text.substr(0, space) != kAlgorithmName) {
      return refuse(AuthFailure::kUnsupportedSignature,
                    "The authorization mechanism you have provided is not supported. Please use "
                    "AWS4-HMAC-SHA256.");
    }
    if (space == std::string_view::npos) return malformed("the Credential is missing.");
    Authorization& known_one = scratch().authorization;
    if (known_one.begins(text)) {
      claim.signature = text.substr(known_one.prefix_bytes);
    } else {
      known_one.prefix_bytes = 0;
      known_one.text.assign(text);
      const std::string_view kept = known_one.text;
      AuthorizationParts parts;
      if (const char* what = parse_authorization(kept.substr(space + 1), parts))
        return malformed(what);
      if (const char* what = parse_credential(parts.credential, known_one.scope))
        return malformed(what);
      if (const char* what = known_one.signed_headers.parse(parts.signed_headers))
        return malformed(std::string(what) + ".");
      claim.signature = parts.signature;
      if (claim.signature.data() + claim.signature.size() == kept.data() + kept.size())
        known_one.prefix_bytes = kept.size() - claim.signature.size();
    }
    claim.scope = known_one.scope;
    claim.signed_headers = &known_one.signed_headers;

    if (known.amz_date_count > 1) return malformed("x-amz-date is given more than once.");
    const auto missing_date = [&] {
      return refuse(AuthFailure::kMissingDate,
                    "AWS authentication requires a valid Date or x-amz-date header");
    };
    if (known.amz_date_count == 1) {
      const auto seconds = parse_basic_time(known.amz_date);
      if (!seconds) return missing_date();
      signed_at = *seconds;
      claim.date_time = known.amz_date;
    } else {
      auto seconds = parse_http_time(known.date);
      if (!seconds) seconds = parse_basic_time(known.date);
      if (!seconds) return missing_date();
      signed_at = *seconds;
      date_time = format_basic_time(signed_at);
      claim.date_time = date_time;
    }
    if (claim.date_time.substr(0, 8) != claim.scope.date) {
      return malformed("the date of the Credential is not the date of the request.");
    }
    const int64_t skew_ms = wall_ms - signed_at * 1000;
    if (skew_ms > kClockSkewMsMax || skew_ms < -kClockSkewMsMax) {
      return refuse(AuthFailure::kRequestTimeTooSkewed,
                    "The difference between the request time and the current time is too large.");
    }
    if (known.content_sha256_count == 0) {
      return refuse(AuthFailure::kMissingContentSha256,
                    "Missing required header for this request: x-amz-content-sha256");
    }
    if (known.content_sha256_count > 1) {
      return refuse(AuthFailure::kInvalidContentSha256,
                    "x-amz-content-sha256 is given more than once.");
    }
    claim.payload_hash = known.content_sha256;
  } else {
    const auto malformed = [&](std::string what) {
      return refuse(AuthFailure::kAuthorizationQueryParametersError, std::move(what));
    };
    claim.presigned = true;
    for (std::string_view name : {"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date",
                                  "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature"}) {
      const size_t count = query.count(name);
      if (count == 0) {
        return malformed(
            "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, "
            "X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.");
      }
      if (count > 1)
        return malformed(fmt::format("The parameter {} is given more than once.", name));
    }
    if (query.count("X-Amz-Security-Token") > 1 ||
        query.count("X-Amz-Content-Sha256") + query.count("x-amz-content-sha256") > 1) {
      return malformed("An X-Amz- parameter is given more than once.");
    }
    const std::string algorithm = *query.value("X-Amz-Algorithm");
    if (algorithm != kAlgorithmName) {
      return refuse(algorithm.starts_with("AWS4-ECDSA")
                        ? AuthFailure::kUnsupportedSignature
                        : AuthFailure::kAuthorizationQueryParametersError,
                    "X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256\"");
    }
    credential = *query.value("X-Amz-Credential");
    if (const char* what = parse_credential(credential, claim.scope)) {
      return malformed(fmt::format("Error parsing the X-Amz-Credential parameter; {}", what));
    }
    signed_headers = *query.value("X-Amz-SignedHeaders");
    claim.signed_headers = &scratch().signed_headers;
    if (const char* what = claim.signed_headers->parse(signed_headers)) {
      return malformed(fmt::format("Error parsing the X-Amz-SignedHeaders parameter; {}.", what));
    }
    signature = *query.value("X-Amz-Signature");
    claim.signature = signature;
    date_time = *query.value("X-Amz-Date");
    const auto seconds = parse_basic_time(date_time);
    if (!seconds)
      return malformed("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"");
    signed_at = *seconds;
    claim.date_time = date_time;
    if (date_time.substr(0, 8) != claim.scope.date) {
      return malformed("Invalid credential date. This date is not the same as X-Amz-Date.");
    }
    const std::string expires_text = *query.value("X-Amz-Expires");
    if (!is_digits(expires_text)) return malformed("X-Amz-Expires should be a number");
    int64_t expires = 0;
    for (char c : expires_text)
      expires = std::min<int64_t>(expires * 10 + (c - '0'), kPresignSecondsMax + 1);
    if (expires > kPresignSecondsMax) {
      return malformed(
          "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires "
          "must be "
          "less than 604800 seconds");
    }
    if (expires < 1) return malformed("X-Amz-Expires must be at least 1");
    if (signed_at * 1000 - wall_ms > kClockSkewMsMax) {
      return refuse(AuthFailure::kAccessDenied, "Request is not yet valid");
    }
    if (wall_ms > (signed_at + expires) * 1000)
      return refuse(AuthFailure::kRequestExpired, "Request has expired");

    claim.payload_hash = kUnsignedPayload;
    if (known.content_sha256_count > 1) {
      return refuse(AuthFailure::kInvalidContentSha256,
                    "x-amz-content-sha256 is given more than once.");
    }
    const auto hash_in_query = either_case(query, "X-Amz-Content-Sha256", "x-amz-content-sha256");
    if (hash_in_query) {
      payload_hash = *hash_in_query;
      claim.payload_hash = payload_hash;
    }
    if (known.content_sha256_count == 1 && claim.signed_headers->contains("x-amz-content-sha256")) {
      if (hash_in_query && *hash_in_query != known.content_sha256) {
        return malformed("x-amz-content-sha256 differs between the header and the query.");
      }
      claim.payload_hash = known.content_sha256;
    }
  }

  auto payload = parse_payload(claim.payload_hash);
  if (!payload) return std::unexpected(std::move(payload).error());
  claim.payload = *payload;
  if (claim.presigned && signs_chunks(claim.payload.kind)) {
    return refuse(AuthFailure::kInvalidContentSha256,
                  "A presigned URL cannot announce signed chunks.");
  }
  if (!options_.any_region && claim.scope.region != options_.region) {
    if (claim.presigned) {
      return refuse(AuthFailure::kAuthorizationQueryParametersError,
                    fmt::format("Error parsing the X-Amz-Credential parameter; the region '{}' is "
                                "wrong; expecting '{}'",
                                claim.scope.region, options_.region));
    }
    return refuse(
        AuthFailure::kAuthorizationHeaderMalformed,
        fmt::format(
            "The authorization header is malformed; the region '{}' is wrong; expecting '{}'",
            claim.scope.region, options_.region));
  }
  if (std::string names = unsigned_headers(request.headers, *claim.signed_headers, claim.presigned);
      !names.empty()) {
    return refuse(AuthFailure::kUnsignedHeaders,
                  "There were headers present in the request which were not signed: " + names);
  }
  // Temporary credentials do not exist here, so no access key goes with a token.
  bool token = !known.security_token.empty();
  if (claim.presigned) {
    const auto in_url = either_case(query, "X-Amz-Security-Token", "x-amz-security-token");
    token = token || (in_url && !in_url->empty());
  }
  if (token) {
    return refuse(AuthFailure::kInvalidToken,
                  "The provided token is malformed or otherwise invalid.");
  }
  return verify(request, claim);
}

std::expected<Authenticated, AuthError> Gate::verify(const RequestView& request,
                                                     Claim& claim) const {
  Scratch& memory = scratch();
  std::string_view missing;
  if (!build_canonical_request(request, memory.query, claim.presigned ? "X-Amz-Signature" : "",
                               claim.signed_headers->names(), claim.payload_hash,
                               memory.canonical_request, missing)) {
    return std::unexpected(error(
        AuthFailure::kSignatureDoesNotMatch,
        missing.empty() ? std::string("The request URI holds an invalid percent-encoding.")
                        : fmt::format("The signed header '{}' is not in the request.", missing)));
  }
  build_string_to_sign(claim.date_time, claim.scope.text, memory.canonical_request,
                       memory.string_to_sign);

  std::shared_ptr<const AccessKey> key = identities_.find_key(claim.scope.access_key);
  const std::string_view secret_key = key ? std::string_view(key->secret_key) : kNoSecretKey;
  SigningKeyCache& cache = identities_.signing_keys();
  const HmacSha256& hmac = cache.hmac(key ? claim.scope.access_key : kNoAccessKey, secret_key,
                                      claim.scope.date, claim.scope.region, claim.scope.service);
  const HexDigest expected = hex_digest(hmac.sign(memory.string_to_sign));
  const bool equal = equal_constant_time(as_bytes(expected.view()), as_bytes(claim.signature));

  std::shared_ptr<const Account> account =
      key ? identities_.find_account(key->account_id) : nullptr;
  if (!key || !account) {
    return std::unexpected(
        error(AuthFailure::kInvalidAccessKeyId,
              "The AWS Access Key Id you provided does not exist in our records."));
  }
  if (!key->enabled) {
    return std::unexpected(
        error(AuthFailure::kAccessKeyDisabled,
              "The AWS Access Key Id you provided does not exist in our records."));
  }
  if (!equal) {
    return std::unexpected(
        AuthError{AuthFailure::kSignatureDoesNotMatch,
                  "The request signature we calculated does not match the signature you provided. "
                  "Check your key and signing method.",
                  memory.canonical_request, memory.string_to_sign});
  }

  Authenticated result{.identity = Identity()};
  result.payload = claim.payload.kind;
  result.payload_sha256 = claim.payload.sha256;
  result.presigned = claim.presigned;
  result.region = claim.scope.region;
  result.service = claim.scope.service;
  if (signs_chunks(claim.payload.kind)) {
    result.chunk_signing = ChunkSigning{
        .signing_key = cache.get(claim.scope.access_key, secret_key, claim.scope.date,
                                 claim.scope.region, claim.scope.service),
        .scope = std::string(claim.scope.text),
        .date_time = std::string(claim.date_time),
        .seed_signature = std::string(claim.signature),
    };
  }
  result.identity.account_ = std::move(account);
  result.identity.key_ = std::move(key);
  return result;
}

std::string sign_header(const SignInput& input) {
  Scratch& memory = scratch();
  const std::string scope = fmt::format("{}/{}/{}/{}", input.date_time.substr(0, 8), input.region,
                                        input.service, kTerminator);
  std::string_view missing;
  if (!memory.query.parse(input.request.query) ||
      !build_canonical_request(input.request, memory.query, "", input.signed_headers,
                               input.payload_hash, memory.canonical_request, missing)) {
    return {};
  }
  build_string_to_sign(input.date_time, scope, memory.canonical_request, memory.string_to_sign);
  SigningKeyCache cache;
  const HmacSha256& hmac = cache.hmac(input.access_key, input.secret_key,
                                      input.date_time.substr(0, 8), input.region, input.service);
  std::string names;
  for (std::string_view name : input.signed_headers) {
    if (!names.empty()) names.push_back(';');
    names.append(name);
  }
  return fmt::format("{} Credential={}/{}, SignedHeaders={}, Signature={}", kAlgorithmName,
                     input.access_key, scope, names,
                     hex_digest(hmac.sign(memory.string_to_sign)).view());
}

}  // namespace basalt::auth
