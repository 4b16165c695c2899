#include "protocol/s3/dispatch.h"

#include <algorithm>

#include "auth/digest.h"
#include "base/log.h"
#include "base/random.h"
#include "protocol/s3/access.h"
#include "protocol/s3/body.h"
#include "protocol/s3/bucket_name.h"
#include "protocol/s3/ops/handlers.h"
#include "protocol/s3/request.h"
#include "protocol/s3/xml.h"

namespace basalt::s3 {
namespace {

// Kept between requests, so that a GET allocates next to nothing here; more than this run at once
// rarely.
constexpr size_t kSpareScratchMax = 64;

// SHA-256 of nothing.
constexpr std::array<uint8_t, 32> kEmptySha256 = {
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55};

// splitmix64's finaliser: a bijection, so distinct counts give distinct ids.
uint64_t mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31);
}

bool has_detail(const S3Error& error, std::string_view name) {
  return std::any_of(error.details.begin(), error.details.end(),
                     [&](const auto& detail) { return detail.first == name; });
}

void add_detail(S3Error& error, std::string_view name, std::string_view value) {
  if (!has_detail(error, name)) error.details.emplace_back(name, value);
}

// What S3 names in the error besides code and message, where a handler did not say it already.
void add_usual_details(S3Error& error, const S3Request& request) {
  switch (error.code) {
    case S3Code::kNoSuchBucket:
    case S3Code::kInvalidBucketName:
    case S3Code::kBucketNotEmpty:
    case S3Code::kBucketAlreadyExists:
    case S3Code::kBucketAlreadyOwnedByYou:
      add_detail(error, "BucketName", request.bucket);
      break;
    case S3Code::kNoSuchKey:
      add_detail(error, "Key", request.key);
      break;
    case S3Code::kInvalidURI:
      add_detail(error, "URI", request.head->path);
      break;
    case S3Code::kNoSuchUpload:
      if (const std::string* id = request.parameter("uploadId")) add_detail(error, "UploadId", *id);
      break;
    default:
      break;
  }
}

S3Error preflight_error(const S3Request& request, Target target) {
  if (request.find_header("origin") == nullptr) {
    return {S3Code::kBadRequest, "Insufficient information. Origin request header needed."};
  }
  if (request.find_header("access-control-request-method") == nullptr) {
    return {S3Code::kBadRequest, "Invalid Access-Control-Request-Method: null"};
  }
  // The same for every bucket, there or not: preflights carry no identity.
  S3Error error(S3Code::kAccessForbidden, "CORSResponse: CORS is not enabled for this bucket.");
  error.details = {{"Method", std::string(request.header("access-control-request-method"))},
                   {"ResourceType", target == Target::kObject ? "OBJECT" : "BUCKET"}};
  return error;
}

std::string resource_of(const S3Request& request, S3Code code) {
  // What could not be decoded, or holds a NUL, is shown as it was sent.
  if (code == S3Code::kInvalidURI) return std::string(request.head->path);
  std::string resource = "/";
  resource += request.bucket;
  if (!request.key.empty()) {
    resource += '/';
    resource += request.key;
  }
  return resource;
}

void log_error_answer(const S3Error& error, int status, std::string_view operation,
                      std::string_view request_id, const S3Request& request) {
  const auto write = [&](LogLevel level) {
    log_line(level, "request failed",
             {{"request_id", request_id},
              {"operation", operation},
              {"status", static_cast<int64_t>(status)},
              {"code", s3_code_name(error.code)},
              {"bucket", request.bucket},
              {"detail", error.log}});
  };
  // Refusals for want of room come in floods, and NotImplemented is the client's wish: neither is
  // an operator's error.
  const bool ours =
      status >= 500 && error.code != S3Code::kNotImplemented && error.code != S3Code::kSlowDown;
  if (ours) {
    write(LogLevel::kError);
  } else if (log_level() <= LogLevel::kDebug) {
    write(LogLevel::kDebug);
  }
}

}  // namespace

// Errors repeat what the client sent. A listing has to name a key as it is, even one that XML 1.0
// cannot hold; an error document has to be readable, so it shows U+FFFD in place of such
// characters.
static std::string readable(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (static_cast<uint8_t>(c) < 0x20 && c != '\t' && c != '\n' && c != '\r') {
      out += "\xEF\xBF\xBD";
    } else {
      out += c;
    }
  }
  return out;
}

std::string error_xml(const S3Error& error, std::string_view resource, std::string_view request_id,
                      std::string_view host_id) {
  XmlWriter xml("Error", {});
  xml.text("Code", s3_code_name(error.code));
  xml.text("Message", error.message.empty() ? std::string(s3_code_message(error.code))
                                            : readable(error.message));
  for (const auto& [name, value] : error.details) xml.text(name, readable(value));
  if (!has_detail(error, "Resource")) xml.text("Resource", readable(resource));
  xml.text("RequestId", request_id);
  xml.text("HostId", host_id);
  return xml.finish();
}

// One request's memory, reused by later ones.
struct Dispatcher::Scratch {
  S3Request request;
  std::vector<auth::HeaderView> headers;
  std::optional<auth::Authenticated> auth;
  std::shared_ptr<const Bucket> bucket;
  std::string_view operation = "Unknown";

  void clear() {
    request.route = nullptr;
    request.head = nullptr;
    auth.reset();
    bucket.reset();
    operation = "Unknown";
  }
};

Dispatcher::Dispatcher(const Services& services, RequestObserver* observer)
    : services_(services), observer_(observer), id_base_(random_u64()) {
  std::array<uint8_t, 48> bytes;
  fill_random(bytes);
  host_id_ = auth::to_base64(bytes);
}

Dispatcher::~Dispatcher() = default;

Dispatcher::RequestId Dispatcher::next_request_id() {
  constexpr char kHex[] = "0123456789ABCDEF";
  uint64_t value = mix(id_base_ + id_count_++);
  RequestId id;
  for (char& c : id) {
    c = kHex[value >> 60];
    value <<= 4;
  }
  return id;
}

std::unique_ptr<Dispatcher::Scratch> Dispatcher::take_scratch() {
  if (spare_.empty()) return std::make_unique<Scratch>();
  auto scratch = std::move(spare_.back());
  spare_.pop_back();
  return scratch;
}

void Dispatcher::give_back(std::unique_ptr<Scratch> scratch) {
  if (spare_.size() >= kSpareScratchMax) return;
  scratch->clear();
  spare_.push_back(std::move(scratch));
}

void Dispatcher::add_common_fields(session::Exchange& exchange, std::string_view request_id) const {
  exchange.response().add("x-amz-request-id", request_id);
  exchange.response().add("x-amz-id-2", host_id_);
}

S3Result<> Dispatcher::admit(session::Exchange& exchange, Scratch& scratch) {
  const http::RequestHead& head = exchange.head();
  S3Request& request = scratch.request;
  if (auto parsed = parse_request(head, services_.options, request); !parsed) return parsed;
  const Target target = target_of(request);
  if (head.method == http::Method::kOptions && target != Target::kService) {
    scratch.operation = "CorsPreflight";
    return std::unexpected(preflight_error(request, target));
  }
  const Route* route = match_route(head.method, target, request);
  if (route == nullptr) return std::unexpected(no_route_error(target, request));
  request.route = route;
  scratch.operation = route->name;

  scratch.headers.clear();
  for (const http::Field& field : head.fields) scratch.headers.push_back({field.name, field.value});
  auto authenticated = services_.gate.authenticate({.method = head.method_name,
                                                    .path = head.path,
                                                    .query = head.query,
                                                    .headers = scratch.headers},
                                                   services_.clock.wall_ms());
  if (!authenticated) {
    S3Error error = auth_error(authenticated.error(), request);
    // SDKs read the region from here and sign again with it.
    if (error.message.find("the region '") != std::string::npos)
      error.details.emplace_back("Region", services_.options.region);
    return std::unexpected(std::move(error));
  }
  scratch.auth.emplace(std::move(*authenticated));
  const auth::Identity& identity = scratch.auth->identity;
  // As S3: that a bucket is not there is said to everybody, what is in one to nobody unnamed.
  if (identity.anonymous() && !needs_bucket(*route)) return s3_fail(S3Code::kAccessDenied);
  if (!identity.anonymous() && scratch.auth->service != "s3") {
    return s3_fail(scratch.auth->presigned ? S3Code::kAuthorizationQueryParametersError
                                           : S3Code::kAuthorizationHeaderMalformed,
                   "The authorization header is malformed; incorrect service \"" +
                       scratch.auth->service + "\". This endpoint belongs to \"s3\".");
  }

  if (needs_bucket(*route)) {
    scratch.bucket = services_.buckets.find(request.bucket);
    if (scratch.bucket == nullptr) {
      return s3_fail(addressable_bucket_name(request.bucket) ? S3Code::kNoSuchBucket
                                                             : S3Code::kInvalidBucketName);
    }
  }
  if (auto allowed = check_access(*route, identity, scratch.bucket.get()); !allowed) return allowed;
  if (scratch.bucket != nullptr) return check_expected_owner(request, *scratch.bucket);
  return {};
}

Task<S3Result<Reply>> Dispatcher::serve(session::Exchange& exchange, Scratch& scratch,
                                        std::string_view request_id) {
  if (auto admitted = admit(exchange, scratch); !admitted)
    co_return std::unexpected(std::move(admitted.error()));
  const Route& route = *scratch.request.route;
  const http::RequestHead& head = exchange.head();
  Op op{.services = services_,
        .exchange = exchange,
        .request = scratch.request,
        .auth = *scratch.auth,
        .request_id = request_id,
        .bucket = scratch.bucket};
  std::unique_ptr<RequestBody> body;
  if (route.handler != &not_implemented) {
    if (route.body == BodyKind::kStream) {
      auto opened = RequestBody::open(exchange, scratch.request, *scratch.auth, services_.hashes);
      if (!opened) co_return std::unexpected(std::move(opened.error()));
      body = std::move(*opened);
      op.body = body.get();
    } else if (head.chunked || head.content_length.value_or(0) > 0 ||
               (route.body == BodyKind::kXml && head.content_length)) {
      // A body that the row does not use is read all the same: what the client signed must be what
      // it sent.
      auto text =
          co_await read_whole_body(exchange, scratch.request, *scratch.auth, kXmlBodyBytesMax);
      if (!text) co_return std::unexpected(std::move(text.error()));
      if (route.body == BodyKind::kXml) op.xml_body = std::move(*text);
    } else if (scratch.auth->payload == auth::PayloadKind::kSha256 &&
               scratch.auth->payload_sha256 != kEmptySha256) {
      co_return s3_fail(S3Code::kXAmzContentSHA256Mismatch);
    }
  }
  co_return co_await route.handler(op);
}

std::string Dispatcher::error_answer(session::Exchange& exchange, const S3Request& request,
                                     S3Error& error, std::string_view request_id) const {
  http::ResponseHead& response = exchange.response();
  const int status = s3_code_status(error.code);
  if (error.close) exchange.close_after();
  if (status == 304) {  // keeps the validators that the handler has set
    response.status = 304;
    return {};
  }
  response.clear();
  response.status = status;
  add_common_fields(exchange, request_id);
  if (error.code == S3Code::kInvalidRange) {  // RFC 9110 section 15.5.17
    for (const auto& [name, value] : error.details) {
      if (name == "ActualObjectSize") response.add("Content-Range", "bytes */" + value);
    }
  }
  response.add("Content-Type", "application/xml");
  if (exchange.head().method == http::Method::kHead) return {};
  add_usual_details(error, request);
  return error_xml(error, resource_of(request, error.code), request_id, host_id_);
}

Task<void> Dispatcher::handle(session::Exchange& exchange) {
  const uint64_t started_ns = services_.clock.monotonic_ns();
  const RequestId id = next_request_id();
  const std::string_view request_id(id.data(), id.size());
  std::unique_ptr<Scratch> scratch = take_scratch();
  S3Request& request = scratch->request;
  add_common_fields(exchange, request_id);

  S3Result<Reply> outcome = co_await serve(exchange, *scratch, request_id);

  std::string_view error_code;
  int status = 0;
  if (!outcome) {
    S3Error& error = outcome.error();
    error_code = s3_code_name(error.code);
    status = s3_code_status(error.code);
    log_error_answer(error, status, scratch->operation, request_id, request);
    if (exchange.responded()) {
      exchange
          .close_after();  // the answer is cut short: all that is left to say that it is not whole
      status = exchange.response().status;
    } else {
      const std::string text = error_answer(exchange, request, error, request_id);
      const Status sent = co_await exchange.send(std::string_view(text));
      if (!sent) status = 0;
    }
    if (status == 304) error_code = {};
  } else if (outcome->sent) {
    status = exchange.response().status;
  } else {
    status = outcome->status;
    exchange.response().status = status;
    if (!outcome->body.empty()) exchange.response().add("Content-Type", outcome->content_type);
    const Status sent = co_await exchange.send(std::string_view(outcome->body));
    if (!sent) status = 0;
  }

  if (observer_ != nullptr) {
    const http::RequestHead& head = exchange.head();
    RequestRecord record{.operation = scratch->operation,
                         .status = status,
                         .error_code = error_code,
                         .bytes_in = exchange.bytes_received(),
                         .bytes_out = exchange.bytes_sent(),
                         .duration_ns = services_.clock.monotonic_ns() - started_ns,
                         .bucket = request.bucket,
                         .key = request.key,
                         .request_id = request_id,
                         .peer = exchange.peer(),
                         .method = head.method_name,
                         .target = head.target,
                         .user_agent = head.value("user-agent"),
                         .tls = exchange.tls()};
    if (scratch->auth && !scratch->auth->identity.anonymous()) {
      record.access_key = scratch->auth->identity.access_key();
      record.account_id = scratch->auth->identity.account().id;
    }
    observer_->observed(record);
  }
  give_back(std::move(scratch));
}

Task<void> Dispatcher::bad_head(session::Exchange& exchange, int status, std::string_view reason) {
  const uint64_t started_ns = services_.clock.monotonic_ns();
  const RequestId id = next_request_id();
  const std::string_view request_id(id.data(), id.size());
  // The head is not to be trusted: nothing of it is repeated.
  S3Error error(status == 431 ? S3Code::kRequestHeaderSectionTooLarge : S3Code::kBadRequest,
                "An error occurred when parsing the HTTP request.");
  error.log = reason;
  exchange.response().clear();
  exchange.response().status = status;
  add_common_fields(exchange, request_id);
  exchange.response().add("Content-Type", "application/xml");
  exchange.close_after();
  log_debug(
      "bad request head",
      {{"request_id", request_id}, {"status", static_cast<int64_t>(status)}, {"reason", reason}});
  const std::string text = error_xml(error, "/", request_id, host_id_);
  const Status sent = co_await exchange.send(std::string_view(text));
  if (observer_ != nullptr) {
    observer_->observed({.operation = "BadHead",
                         .status = sent ? status : 0,
                         .error_code = s3_code_name(error.code),
                         .bytes_out = exchange.bytes_sent(),
                         .duration_ns = services_.clock.monotonic_ns() - started_ns,
                         .request_id = request_id,
                         .peer = exchange.peer(),
                         .tls = exchange.tls()});
  }
}

}  // namespace basalt::s3
