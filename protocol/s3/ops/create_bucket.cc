// CreateBucket: PUT /bucket. API reference: "CreateBucket".
//
// Creating a bucket again: in us-east-1 its owner gets 200 and nothing changes, in every other
// region 409 BucketAlreadyOwnedByYou, as the API reference has it; anybody else gets
// BucketAlreadyExists.

#include <algorithm>

#include "base/random.h"
#include "protocol/s3/bucket_name.h"
#include "protocol/s3/failure.h"
#include "protocol/s3/ops/handlers.h"
#include "protocol/s3/xml.h"
#include "storage/mutation_builder.h"

namespace basalt::s3 {
namespace {

constexpr std::string_view kOwnerEnforced = "BucketOwnerEnforced";
constexpr std::string_view kOwnerships[] = {kOwnerEnforced, "BucketOwnerPreferred", "ObjectWriter"};
constexpr std::string_view kOtherCannedAcls[] = {"public-read", "public-read-write",
                                                 "authenticated-read", "log-delivery-write",
                                                 "aws-exec-read"};
constexpr std::string_view kGrants[] = {"x-amz-grant-full-control", "x-amz-grant-read",
                                        "x-amz-grant-read-acp", "x-amz-grant-write",
                                        "x-amz-grant-write-acp"};

bool one_of(std::string_view value, std::span<const std::string_view> list) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

// "eu-west-1", "ap-southeast-2", "us-gov-west-1": letters and dashes, then a digit; or the old name
// EU.
bool looks_like_region(std::string_view name) {
  if (name == "EU") return true;
  if (name.size() < 6 || name[2] != '-' || name.back() < '0' || name.back() > '9') return false;
  return std::all_of(
             name.begin(), name.end(),
             [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; }) &&
         name[name.size() - 2] == '-' && std::count(name.begin(), name.end(), '-') >= 2;
}

// Any body is refused that asks for what we would not do: tags, a directory bucket.
S3Result<> check_location(const Op& op) {
  if (op.xml_body.empty()) return {};
  pugi::xml_document document;
  auto root = parse_xml(document, op.xml_body, "CreateBucketConfiguration");
  if (!root) return std::unexpected(std::move(root.error()));
  for (const char* unsupported : {"Location", "Bucket", "Tags"}) {
    if (root->child(unsupported)) return s3_fail(S3Code::kNotImplemented);
  }
  const std::string text = xml_text(root->child("LocationConstraint"));
  const std::string_view wanted = xml_trimmed(text);
  // Clients send the region they are configured with; the one their signature names is as good as
  // ours.
  if (wanted.empty() || wanted == op.services.options.region || wanted == op.auth.region) return {};
  if (looks_like_region(wanted)) {
    return s3_fail_with(S3Code::kIllegalLocationConstraintException, "LocationConstraint", wanted,
                        "The " + std::string(wanted) +
                            " location constraint is incompatible for the region specific endpoint "
                            "this request was "
                            "sent to.");
  }
  return s3_fail_with(S3Code::kInvalidLocationConstraint, "LocationConstraint", wanted);
}

S3Result<bool> parse_object_lock(const S3Request& request) {
  const http::Field* field = request.find_header("x-amz-bucket-object-lock-enabled");
  if (field == nullptr) return false;
  if (http::field_name_equals(field->value, "true")) return true;
  if (http::field_name_equals(field->value, "false")) return false;
  return invalid_argument("x-amz-bucket-object-lock-enabled", field->value,
                          "Invalid value for object lock enabled");
}

S3Result<std::string> parse_ownership(const S3Request& request) {
  const http::Field* field = request.find_header("x-amz-object-ownership");
  if (field == nullptr) return std::string();
  if (one_of(field->value, kOwnerships)) return std::string(field->value);
  return invalid_argument("x-amz-object-ownership", field->value,
                          "Invalid x-amz-object-ownership header: " + std::string(field->value));
}

// ACLs other than the owner's are not what this bucket would have, so they are refused rather than
// forgotten.
S3Result<> check_acl(const S3Request& request, std::string_view ownership) {
  const http::Field* acl = request.find_header("x-amz-acl");
  bool asks = false;
  if (acl != nullptr && acl->value != "private" && acl->value != "bucket-owner-full-control") {
    if (!one_of(acl->value, kOtherCannedAcls)) return invalid_argument("x-amz-acl", acl->value, {});
    asks = true;
  }
  for (const std::string_view grant : kGrants) asks = asks || request.find_header(grant) != nullptr;
  if (!asks) return {};
  if (ownership.empty() || ownership == kOwnerEnforced) {
    return s3_fail(S3Code::kInvalidBucketAclWithObjectOwnership);
  }
  return header_not_implemented("x-amz-acl");
}

unsigned owned_buckets(const BucketRegistry& buckets, std::string_view owner) {
  unsigned count = 0;
  for (const auto& [name, bucket] : buckets.all()) count += bucket->owner_id == owner;
  return count;
}

// The answer to a name that is taken.
S3Result<Reply> taken(Op& op, const Bucket& existing) {
  if (existing.owner_id != op.account().id) return s3_fail(S3Code::kBucketAlreadyExists);
  if (op.services.options.region != "us-east-1") return s3_fail(S3Code::kBucketAlreadyOwnedByYou);
  op.head().add("Location", "/" + existing.name);
  return Reply::empty(200);
}

}  // namespace

Task<S3Result<Reply>> create_bucket(Op& op) {
  const S3Request& request = op.request;
  if (!valid_new_bucket_name(request.bucket)) co_return s3_fail(S3Code::kInvalidBucketName);
  S3_CHECK(check_location(op));
  S3_TRY(object_lock, parse_object_lock(request));
  S3_TRY(ownership, parse_ownership(request));
  S3_CHECK(check_acl(request, ownership));

  if (const auto existing = op.services.buckets.find(request.bucket))
    co_return taken(op, *existing);
  if (owned_buckets(op.services.buckets, op.account().id) >= kBucketsPerAccountMax) {
    co_return s3_fail(S3Code::kTooManyBuckets);
  }

  Bucket bucket;
  bucket.name = request.bucket;
  while (bucket.space == 0) bucket.space = random_u64() >> 1;  // not the control space, below 2^63
  bucket.owner_id = op.account().id;
  bucket.created_ms = op.services.clock.wall_ms();
  bucket.region = op.services.options.region;
  bucket.object_lock = object_lock;
  bucket.ownership = ownership;

  const std::string meta = encode_bucket(bucket);
  const storage::KeyView key{storage::Table::kBucket, storage::kControlSpace, bucket.name};
  storage::MutationBuilder mutations;
  mutations.put(key, {.meta = as_bytes(meta)});
  const storage::Precondition absent[] = {
      {.kind = storage::Precondition::Kind::kAbsent, .key = key}};
  auto changed = co_await op.shards().change(absent, mutations.finish());
  if (!changed) {
    if (changed.error().code != Code::kPreconditionFailed)
      co_return std::unexpected(std::move(changed.error()));
    // Somebody was faster; this core may not have heard of it yet, so the row itself is asked.
    auto row = co_await op.shards().get(0, key);
    if (!row) co_return s3_fail(S3Code::kOperationAborted);
    S3_TRY(existing, decode_bucket(bucket.name, row->view().meta, row->view().seq));
    co_return taken(op, existing);
  }
  op.head().add("Location", "/" + bucket.name);
  co_return Reply::empty(200);
}

}  // namespace basalt::s3
