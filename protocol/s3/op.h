// Op: what an operation's handler gets, and Reply: what it gives back.
//
// When a handler runs, the gate has verified the identity, the access decision has allowed the
// row's action on the bucket/object, `bucket` is resolved (rows whose target is bucket or object,
// except CreateBucket), and for rows with body = xml the whole body is read, its digests checked,
// and in `xml_body`. Handlers are coroutines Task<S3Result<Reply>>(Op&); Op outlives them.
// Everything here belongs to the connection's core.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "auth/hash_station.h"
#include "auth/identity.h"
#include "auth/sigv4.h"
#include "base/clock.h"
#include "base/task.h"
#include "protocol/s3/bucket_registry.h"
#include "protocol/s3/error.h"
#include "protocol/session/exchange.h"
#include "shards/client.h"

namespace basalt::s3 {

// Limits of S3 itself (Amazon S3 user guide, "Multipart upload limits", "Object key names",
// "Metadata").
constexpr size_t kKeyBytesMax = 1024;
constexpr uint64_t kPutBytesMax = uint64_t{5} << 30;     // one PutObject or UploadPart
constexpr uint64_t kObjectBytesMax = uint64_t{5} << 40;  // 5 TiB
constexpr uint64_t kPartBytesMin = 5u << 20;             // all but the last part
constexpr unsigned kPartNumberMax = 10'000;
constexpr size_t kUserMetadataBytesMax = 2048;
constexpr unsigned kListKeysMax = 1000;
constexpr unsigned kDeleteKeysMax = 1000;
constexpr size_t kXmlBodyBytesMax = 2u << 20;
constexpr unsigned kBucketsPerAccountMax = 10'000;

struct S3Options {
  std::string region = "us-east-1";
  std::vector<std::string> base_domains;  // virtual-hosted style: BUCKET.domain; lower case
};

// The S3 layer's parts on one core.
struct Services {
  shards::Client& shards;
  BucketRegistry& buckets;
  auth::IdentityTable& identities;
  const auth::Gate& gate;
  const Clock& clock;
  BufferPool& buffers;
  const S3Options& options;
  auth::HashStation* hashes = nullptr;  // null: payloads are hashed where they are read
};

struct Parameter {
  std::string name;  // percent-decoded; '+' in a query value is a space
  std::string value;
  bool has_equals = false;
};

struct Route;

// A request, taken apart once: auth, routing and storage all use this one.
struct S3Request {
  const Route* route = nullptr;
  std::string bucket;  // "" for service rows
  std::string key;     // percent-decoded bytes; "" for bucket rows
  bool virtual_hosted = false;
  std::vector<Parameter> query;
  const http::RequestHead* head = nullptr;

  const std::string* parameter(std::string_view name) const;  // case-sensitive; nullptr if absent
  bool has(std::string_view name) const { return parameter(name) != nullptr; }
  std::string_view header(std::string_view name) const { return head->value(name); }
  const http::Field* find_header(std::string_view name) const { return head->find(name); }
};

class RequestBody;

struct Op {
  Services& services;
  session::Exchange& exchange;
  const S3Request& request;
  const auth::Authenticated& auth;
  std::string_view request_id;
  std::shared_ptr<const Bucket> bucket;
  std::string xml_body;
  RequestBody* body = nullptr;  // rows with body = stream (protocol/s3/body.h)

  const auth::Account& account() const { return auth.identity.account(); }
  shards::Client& shards() const { return services.shards; }
  http::ResponseHead& head() const {
    return exchange.response();
  }  // set fields here; dispatch adds x-amz-request-id etc.
  unsigned shard() const { return services.shards.shard_of(bucket->space, request.key); }
  storage::KeyView object_key() const {
    return {storage::Table::kCurrent, bucket->space, request.key};
  }
  // Owner lookup for XML: display name of an account id ("" if the account is gone).
  std::string display_name(std::string_view account_id) const;
  // Whether this request's identity may read `other` (CopyObject source): owner or root.
  bool may_access(const Bucket& other) const;
};

struct Reply {
  int status = 200;
  std::string body;
  std::string_view content_type = "application/xml";  // sent if the body is not empty
  bool sent = false;                                  // the handler streamed its own response

  static Reply xml(std::string text) { return {200, std::move(text)}; }
  static Reply empty(int status) { return {status, {}}; }
  static Reply streamed() { return {200, {}, {}, true}; }
};

using HandlerFunction = Task<S3Result<Reply>> (*)(Op&);

enum class Target : uint8_t { kService, kBucket, kObject };
enum class BodyKind : uint8_t { kNone, kXml, kStream };

// One row of the route table (routes.cc). First matching row wins.
struct Route {
  std::string_view name;  // S3's operation name
  http::Method method;
  Target target;
  std::string_view query_keys;  // comma-separated keys that must be present ("uploads",
                                // "partNumber,uploadId"); "list-type=2" also wants the value
  std::string_view header;      // a header that must be present ("x-amz-copy-source"), or "";
                                // "content-type=multipart/" also wants the value to start so
  std::string_view action;      // IAM action ("s3:GetObject")
  BodyKind body;
  HandlerFunction handler;  // not_implemented for what we lack
  bool checksum_of_object =
      false;  // x-amz-checksum-* headers describe the object, not this request's body
};

// Rows of one target and method stand together. A row matches if its keys and header are there and
// the request names no sub-resource (a query key that S3 gives a meaning of its own, like ?acl)
// that the row does not: a sub-resource without a row never reaches a default operation.
std::span<const Route> routes();
const Route* match_route(http::Method method, Target target, const S3Request& request);
// Why nothing matched: MethodNotAllowed, InvalidArgument (two sub-resources, uploadId without
// partNumber), ...
S3Error no_route_error(Target target, const S3Request& request);

}  // namespace basalt::s3
