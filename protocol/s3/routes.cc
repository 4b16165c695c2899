// The route table: every operation of S3, in first-match order within its target and method.
//
// Source: the operation list of the Amazon S3 API reference as botocore carries it. The four
// deprecated names (Get/PutBucketLifecycle, Get/PutBucketNotification) are other names for rows
// that are here. PostObject is the browser form upload, which botocore does not list.

#include <algorithm>
#include <array>
#include <span>

#include "protocol/s3/op.h"
#include "protocol/s3/ops/handlers.h"

namespace basalt::s3 {
namespace {

using http::Method;

constexpr Route kRoutes[] = {
    // clang-format off
    {"ListDirectoryBuckets", Method::kGet, Target::kService, "x-id=ListDirectoryBuckets", "", "s3express:ListAllMyDirectoryBuckets", BodyKind::kNone, not_implemented},
    {"ListBuckets", Method::kGet, Target::kService, "", "", "s3:ListAllMyBuckets", BodyKind::kNone, list_buckets},
    {"GetBucketAbac", Method::kGet, Target::kBucket, "abac", "", "s3:GetBucketAbac", BodyKind::kNone, not_implemented},
    {"GetBucketAccelerateConfiguration", Method::kGet, Target::kBucket, "accelerate", "", "s3:GetAccelerateConfiguration", BodyKind::kNone, not_implemented},
    {"GetBucketAcl", Method::kGet, Target::kBucket, "acl", "", "s3:GetBucketAcl", BodyKind::kNone, not_implemented},
    {"GetBucketAnalyticsConfiguration", Method::kGet, Target::kBucket, "analytics,id", "", "s3:GetAnalyticsConfiguration", BodyKind::kNone, not_implemented},
    {"ListBucketAnalyticsConfigurations", Method::kGet, Target::kBucket, "analytics", "", "s3:GetAnalyticsConfiguration", BodyKind::kNone, not_implemented},
    {"GetBucketCors", Method::kGet, Target::kBucket, "cors", "", "s3:GetBucketCORS", BodyKind::kNone, not_implemented},
    {"GetBucketEncryption", Method::kGet, Target::kBucket, "encryption", "", "s3:GetEncryptionConfiguration", BodyKind::kNone, not_implemented},
    {"GetBucketIntelligentTieringConfiguration", Method::kGet, Target::kBucket, "intelligent-tiering,id", "", "s3:GetIntelligentTieringConfiguration", BodyKind::kNone, not_implemented},
    {"ListBucketIntelligentTieringConfigurations", Method::kGet, Target::kBucket, "intelligent-tiering", "", "s3:GetIntelligentTieringConfiguration", BodyKind::kNone, not_implemented},
    {"GetBucketInventoryConfiguration", Method::kGet, Target::kBucket, "inventory,id", "", "s3:GetInventoryConfiguration", BodyKind::kNone, not_implemented},
    {"ListBucketInventoryConfigurations", Method::kGet, Target::kBucket, "inventory", "", "s3:GetInventoryConfiguration", BodyKind::kNone, not_implemented},
    {"GetBucketLifecycleConfiguration", Method::kGet, Target::kBucket, "lifecycle", "", "s3:GetLifecycleConfiguration", BodyKind::kNone, not_implemented},
    {"GetBucketLocation", Method::kGet, Target::kBucket, "location", "", "s3:GetBucketLocation", BodyKind::kNone, get_bucket_location},
    {"GetBucketLogging", Method::kGet, Target::kBucket, "logging", "", "s3:GetBucketLogging", BodyKind::kNone, not_implemented},
    {"GetBucketMetadataConfiguration", Method::kGet, Target::kBucket, "metadataConfiguration", "", "s3:GetBucketMetadataTableConfiguration", BodyKind::kNone, not_implemented},
    {"GetBucketMetadataTableConfiguration", Method::kGet, Target::kBucket, "metadataTable", "", "s3:GetBucketMetadataTableConfiguration", BodyKind::kNone, not_implemented},
    {"GetBucketMetricsConfiguration", Method::kGet, Target::kBucket, "metrics,id", "", "s3:GetMetricsConfiguration", BodyKind::kNone, not_implemented},
    {"ListBucketMetricsConfigurations", Method::kGet, Target::kBucket, "metrics", "", "s3:GetMetricsConfiguration", BodyKind::kNone, not_implemented},
    {"GetBucketNotificationConfiguration", Method::kGet, Target::kBucket, "notification", "", "s3:GetBucketNotification", BodyKind::kNone, not_implemented},
    {"GetObjectLockConfiguration", Method::kGet, Target::kBucket, "object-lock", "", "s3:GetBucketObjectLockConfiguration", BodyKind::kNone, not_implemented},
    {"GetBucketOwnershipControls", Method::kGet, Target::kBucket, "ownershipControls", "", "s3:GetBucketOwnershipControls", BodyKind::kNone, not_implemented},
    {"GetBucketPolicy", Method::kGet, Target::kBucket, "policy", "", "s3:GetBucketPolicy", BodyKind::kNone, not_implemented},
    {"GetBucketPolicyStatus", Method::kGet, Target::kBucket, "policyStatus", "", "s3:GetBucketPolicyStatus", BodyKind::kNone, not_implemented},
    {"GetPublicAccessBlock", Method::kGet, Target::kBucket, "publicAccessBlock", "", "s3:GetBucketPublicAccessBlock", BodyKind::kNone, not_implemented},
    {"GetBucketReplication", Method::kGet, Target::kBucket, "replication", "", "s3:GetReplicationConfiguration", BodyKind::kNone, not_implemented},
    {"GetBucketRequestPayment", Method::kGet, Target::kBucket, "requestPayment", "", "s3:GetBucketRequestPayment", BodyKind::kNone, not_implemented},
    {"CreateSession", Method::kGet, Target::kBucket, "session", "", "s3express:CreateSession", BodyKind::kNone, not_implemented},
    {"GetBucketTagging", Method::kGet, Target::kBucket, "tagging", "", "s3:GetBucketTagging", BodyKind::kNone, not_implemented},
    {"ListMultipartUploads", Method::kGet, Target::kBucket, "uploads", "", "s3:ListBucketMultipartUploads", BodyKind::kNone, list_multipart_uploads},
    {"GetBucketVersioning", Method::kGet, Target::kBucket, "versioning", "", "s3:GetBucketVersioning", BodyKind::kNone, not_implemented},
    {"ListObjectVersions", Method::kGet, Target::kBucket, "versions", "", "s3:ListBucketVersions", BodyKind::kNone, not_implemented},
    {"GetBucketWebsite", Method::kGet, Target::kBucket, "website", "", "s3:GetBucketWebsite", BodyKind::kNone, not_implemented},
    {"ListObjectsV2", Method::kGet, Target::kBucket, "list-type=2", "", "s3:ListBucket", BodyKind::kNone, list_objects_v2},
    {"ListObjects", Method::kGet, Target::kBucket, "", "", "s3:ListBucket", BodyKind::kNone, list_objects},
    {"HeadBucket", Method::kHead, Target::kBucket, "", "", "s3:ListBucket", BodyKind::kNone, head_bucket},
    {"PutBucketAbac", Method::kPut, Target::kBucket, "abac", "", "s3:PutBucketAbac", BodyKind::kXml, not_implemented},
    {"PutBucketAccelerateConfiguration", Method::kPut, Target::kBucket, "accelerate", "", "s3:PutAccelerateConfiguration", BodyKind::kXml, not_implemented},
    {"PutBucketAcl", Method::kPut, Target::kBucket, "acl", "", "s3:PutBucketAcl", BodyKind::kXml, not_implemented},
    {"PutBucketAnalyticsConfiguration", Method::kPut, Target::kBucket, "analytics,id", "", "s3:PutAnalyticsConfiguration", BodyKind::kXml, not_implemented},
    {"PutBucketCors", Method::kPut, Target::kBucket, "cors", "", "s3:PutBucketCORS", BodyKind::kXml, not_implemented},
    {"PutBucketEncryption", Method::kPut, Target::kBucket, "encryption", "", "s3:PutEncryptionConfiguration", BodyKind::kXml, not_implemented},
    {"PutBucketIntelligentTieringConfiguration", Method::kPut, Target::kBucket, "intelligent-tiering,id", "", "s3:PutIntelligentTieringConfiguration", BodyKind::kXml, not_implemented},
    {"PutBucketInventoryConfiguration", Method::kPut, Target::kBucket, "inventory,id", "", "s3:PutInventoryConfiguration", BodyKind::kXml, not_implemented},
    {"PutBucketLifecycleConfiguration", Method::kPut, Target::kBucket, "lifecycle", "", "s3:PutLifecycleConfiguration", BodyKind::kXml, not_implemented},
    {"PutBucketLogging", Method::kPut, Target::kBucket, "logging", "", "s3:PutBucketLogging", BodyKind::kXml, not_implemented},
    {"UpdateBucketMetadataAnnotationTableConfiguration", Method::kPut, Target::kBucket, "metadataAnnotationTable", "", "s3:UpdateBucketMetadataAnnotationTableConfiguration", BodyKind::kXml, not_implemented},
    {"UpdateBucketMetadataInventoryTableConfiguration", Method::kPut, Target::kBucket, "metadataInventoryTable", "", "s3:UpdateBucketMetadataInventoryTableConfiguration", BodyKind::kXml, not_implemented},
    {"UpdateBucketMetadataJournalTableConfiguration", Method::kPut, Target::kBucket, "metadataJournalTable", "", "s3:UpdateBucketMetadataJournalTableConfiguration", BodyKind::kXml, not_implemented},
    {"PutBucketMetricsConfiguration", Method::kPut, Target::kBucket, "metrics,id", "", "s3:PutMetricsConfiguration", BodyKind::kXml, not_implemented},
    {"PutBucketNotificationConfiguration", Method::kPut, Target::kBucket, "notification", "", "s3:PutBucketNotification", BodyKind::kXml, not_implemented},
    {"PutObjectLockConfiguration", Method::kPut, Target::kBucket, "object-lock", "", "s3:PutBucketObjectLockConfiguration", BodyKind::kXml, not_implemented},
    {"PutBucketOwnershipControls", Method::kPut, Target::kBucket, "ownershipControls", "", "s3:PutBucketOwnershipControls", BodyKind::kXml, not_implemented},
    {"PutBucketPolicy", Method::kPut, Target::kBucket, "policy", "", "s3:PutBucketPolicy", BodyKind::kXml, not_implemented},
    {"PutPublicAccessBlock", Method::kPut, Target::kBucket, "publicAccessBlock", "", "s3:PutBucketPublicAccessBlock", BodyKind::kXml, not_implemented},
    {"PutBucketReplication", Method::kPut, Target::kBucket, "replication", "", "s3:PutReplicationConfiguration", BodyKind::kXml, not_implemented},
    {"PutBucketRequestPayment", Method::kPut, Target::kBucket, "requestPayment", "", "s3:PutBucketRequestPayment", BodyKind::kXml, not_implemented},
    {"PutBucketTagging", Method::kPut, Target::kBucket, "tagging", "", "s3:PutBucketTagging", BodyKind::kXml, not_implemented},
    {"PutBucketVersioning", Method::kPut, Target::kBucket, "versioning", "", "s3:PutBucketVersioning", BodyKind::kXml, not_implemented},
    {"PutBucketWebsite", Method::kPut, Target::kBucket, "website", "", "s3:PutBucketWebsite", BodyKind::kXml, not_implemented},
    {"CreateBucket", Method::kPut, Target::kBucket, "", "", "s3:CreateBucket", BodyKind::kXml, create_bucket},
    {"DeleteObjects", Method::kPost, Target::kBucket, "delete", "", "s3:DeleteObject", BodyKind::kXml, delete_objects},
    {"CreateBucketMetadataConfiguration", Method::kPost, Target::kBucket, "metadataConfiguration", "", "s3:CreateBucketMetadataTableConfiguration", BodyKind::kXml, not_implemented},
    {"CreateBucketMetadataTableConfiguration", Method::kPost, Target::kBucket, "metadataTable", "", "s3:CreateBucketMetadataTableConfiguration", BodyKind::kXml, not_implemented},
    {"WriteGetObjectResponse", Method::kPost, Target::kBucket, "", "x-amz-request-route", "s3-object-lambda:WriteGetObjectResponse", BodyKind::kStream, not_implemented},
    {"PostObject", Method::kPost, Target::kBucket, "", "content-type=multipart/form-data", "s3:PutObject", BodyKind::kStream, not_implemented},
    {"DeleteBucketAnalyticsConfiguration", Method::kDelete, Target::kBucket, "analytics,id", "", "s3:PutAnalyticsConfiguration", BodyKind::kNone, not_implemented},
    {"DeleteBucketCors", Method::kDelete, Target::kBucket, "cors", "", "s3:PutBucketCORS", BodyKind::kNone, not_implemented},
    {"DeleteBucketEncryption", Method::kDelete, Target::kBucket, "encryption", "", "s3:PutEncryptionConfiguration", BodyKind::kNone, not_implemented},
    {"DeleteBucketIntelligentTieringConfiguration", Method::kDelete, Target::kBucket, "intelligent-tiering,id", "", "s3:PutIntelligentTieringConfiguration", BodyKind::kNone, not_implemented},
    {"DeleteBucketInventoryConfiguration", Method::kDelete, Target::kBucket, "inventory,id", "", "s3:PutInventoryConfiguration", BodyKind::kNone, not_implemented},
    {"DeleteBucketLifecycle", Method::kDelete, Target::kBucket, "lifecycle", "", "s3:PutLifecycleConfiguration", BodyKind::kNone, not_implemented},
    {"DeleteBucketMetadataConfiguration", Method::kDelete, Target::kBucket, "metadataConfiguration", "", "s3:DeleteBucketMetadataTableConfiguration", BodyKind::kNone, not_implemented},
    {"DeleteBucketMetadataTableConfiguration", Method::kDelete, Target::kBucket, "metadataTable", "", "s3:DeleteBucketMetadataTableConfiguration", BodyKind::kNone, not_implemented},
    {"DeleteBucketMetricsConfiguration", Method::kDelete, Target::kBucket, "metrics,id", "", "s3:PutMetricsConfiguration", BodyKind::kNone, not_implemented},
    {"DeleteBucketOwnershipControls", Method::kDelete, Target::kBucket, "ownershipControls", "", "s3:PutBucketOwnershipControls", BodyKind::kNone, not_implemented},
    {"DeleteBucketPolicy", Method::kDelete, Target::kBucket, "policy", "", "s3:DeleteBucketPolicy", BodyKind::kNone, not_implemented},
    {"DeletePublicAccessBlock", Method::kDelete, Target::kBucket, "publicAccessBlock", "", "s3:PutBucketPublicAccessBlock", BodyKind::kNone, not_implemented},
    {"DeleteBucketReplication", Method::kDelete, Target::kBucket, "replication", "", "s3:PutReplicationConfiguration", BodyKind::kNone, not_implemented},
    {"DeleteBucketTagging", Method::kDelete, Target::kBucket, "tagging", "", "s3:PutBucketTagging", BodyKind::kNone, not_implemented},
    {"DeleteBucketWebsite", Method::kDelete, Target::kBucket, "website", "", "s3:DeleteBucketWebsite", BodyKind::kNone, not_implemented},
    {"DeleteBucket", Method::kDelete, Target::kBucket, "", "", "s3:DeleteBucket", BodyKind::kNone, delete_bucket},
    {"GetObjectAcl", Method::kGet, Target::kObject, "acl", "", "s3:GetObjectAcl", BodyKind::kNone, not_implemented},
    {"GetObjectAnnotation", Method::kGet, Target::kObject, "annotation,annotationName", "", "s3:GetObjectAnnotation", BodyKind::kNone, not_implemented},
    {"ListObjectAnnotations", Method::kGet, Target::kObject, "annotation", "", "s3:ListObjectAnnotations", BodyKind::kNone, not_implemented},
    {"GetObjectAttributes", Method::kGet, Target::kObject, "attributes", "", "s3:GetObjectAttributes", BodyKind::kNone, get_object_attributes},
    {"GetObjectLegalHold", Method::kGet, Target::kObject, "legal-hold", "", "s3:GetObjectLegalHold", BodyKind::kNone, not_implemented},
    {"GetObjectRetention", Method::kGet, Target::kObject, "retention", "", "s3:GetObjectRetention", BodyKind::kNone, not_implemented},
    {"GetObjectTagging", Method::kGet, Target::kObject, "tagging", "", "s3:GetObjectTagging", BodyKind::kNone, get_object_tagging},
    {"GetObjectTorrent", Method::kGet, Target::kObject, "torrent", "", "s3:GetObjectTorrent", BodyKind::kNone, not_implemented},
    {"ListParts", Method::kGet, Target::kObject, "uploadId", "", "s3:ListMultipartUploadParts", BodyKind::kNone, list_parts},
    {"GetObject", Method::kGet, Target::kObject, "", "", "s3:GetObject", BodyKind::kNone, get_object},
    {"HeadObject", Method::kHead, Target::kObject, "", "", "s3:GetObject", BodyKind::kNone, head_object},
    {"PutObjectAcl", Method::kPut, Target::kObject, "acl", "", "s3:PutObjectAcl", BodyKind::kXml, not_implemented},
    {"PutObjectAnnotation", Method::kPut, Target::kObject, "annotation", "", "s3:PutObjectAnnotation", BodyKind::kStream, not_implemented},
    {"UpdateObjectEncryption", Method::kPut, Target::kObject, "encryption", "", "s3:UpdateObjectEncryption", BodyKind::kXml, not_implemented},
    {"PutObjectLegalHold", Method::kPut, Target::kObject, "legal-hold", "", "s3:PutObjectLegalHold", BodyKind::kXml, not_implemented},
    {"RenameObject", Method::kPut, Target::kObject, "renameObject", "", "s3:PutObject", BodyKind::kNone, not_implemented},
    {"PutObjectRetention", Method::kPut, Target::kObject, "retention", "", "s3:PutObjectRetention", BodyKind::kXml, not_implemented},
    {"PutObjectTagging", Method::kPut, Target::kObject, "tagging", "", "s3:PutObjectTagging", BodyKind::kXml, put_object_tagging},
    {"UploadPartCopy", Method::kPut, Target::kObject, "partNumber,uploadId", "x-amz-copy-source", "s3:PutObject", BodyKind::kNone, upload_part_copy},
    {"UploadPart", Method::kPut, Target::kObject, "partNumber,uploadId", "", "s3:PutObject", BodyKind::kStream, upload_part},
    {"CopyObject", Method::kPut, Target::kObject, "", "x-amz-copy-source", "s3:PutObject", BodyKind::kNone, copy_object},
    {"PutObject", Method::kPut, Target::kObject, "", "", "s3:PutObject", BodyKind::kStream, put_object},
    {"RestoreObject", Method::kPost, Target::kObject, "restore", "", "s3:RestoreObject", BodyKind::kXml, not_implemented},
    {"SelectObjectContent", Method::kPost, Target::kObject, "select,select-type=2", "", "s3:GetObject", BodyKind::kXml, not_implemented},
    {"CreateMultipartUpload", Method::kPost, Target::kObject, "uploads", "", "s3:PutObject", BodyKind::kNone, create_multipart_upload, true},
    {"CompleteMultipartUpload", Method::kPost, Target::kObject, "uploadId", "", "s3:PutObject", BodyKind::kXml, complete_multipart_upload, true},
    {"DeleteObjectAnnotation", Method::kDelete, Target::kObject, "annotation", "", "s3:DeleteObjectAnnotation", BodyKind::kNone, not_implemented},
    {"DeleteObjectTagging", Method::kDelete, Target::kObject, "tagging", "", "s3:DeleteObjectTagging", BodyKind::kNone, delete_object_tagging},
    {"AbortMultipartUpload", Method::kDelete, Target::kObject, "uploadId", "", "s3:AbortMultipartUpload", BodyKind::kNone, abort_multipart_upload},
    {"DeleteObject", Method::kDelete, Target::kObject, "", "", "s3:DeleteObject", BodyKind::kNone, delete_object},
    // clang-format on
};

// Where the rows of one target and method stand, found at compile time.
constexpr size_t kMethodCount = static_cast<size_t>(Method::kOther) + 1;
constexpr size_t kTargetCount = 3;

struct Range {
  size_t begin = 0;
  size_t end = 0;
};

constexpr auto ranges() {
  std::array<std::array<Range, kMethodCount>, kTargetCount> table{};
  for (size_t i = 0; i < std::size(kRoutes); ++i) {
    Range& range =
        table[static_cast<size_t>(kRoutes[i].target)][static_cast<size_t>(kRoutes[i].method)];
    if (range.end == 0) range.begin = i;
    range.end = i + 1;
  }
  return table;
}
constexpr auto kRanges = ranges();

constexpr bool rows_stand_together() {
  size_t rows = 0;
  for (const auto& methods : kRanges) {
    for (const Range& range : methods) rows += range.end - range.begin;
  }
  return rows == std::size(kRoutes);
}
static_assert(rows_stand_together());

// The next of a comma-separated list; `list` is what is left.
constexpr std::string_view next_key(std::string_view& list) {
  const size_t comma = list.find(',');
  const std::string_view key = list.substr(0, comma);
  list.remove_prefix(comma == std::string_view::npos ? list.size() : comma + 1);
  return key;
}

// Query keys of rows that are parameters rather than sub-resources: they choose among rows, but a
// request of another row may carry them.
constexpr std::string_view kParameters[] = {"id",        "annotationName", "partNumber",
                                            "list-type", "select-type",    "x-id"};

// Sub-resources of the API, by where they occur in the rows. Sorted for binary search.
constexpr size_t kSubresourcesMax = 64;
struct Subresources {
  std::array<std::string_view, kSubresourcesMax> names{};
  size_t count = 0;

  constexpr bool contains(std::string_view name) const {
    return std::binary_search(names.begin(), names.begin() + count, name);
  }
};

constexpr Subresources subresources(bool bucket, bool object) {
  Subresources found;
  for (const Route& row : kRoutes) {
    if (!(row.target == Target::kBucket && bucket) && !(row.target == Target::kObject && object))
      continue;
    std::string_view keys = row.query_keys;
    while (!keys.empty()) {
      const std::string_view key = next_key(keys);
      const std::string_view name = key.substr(0, key.find('='));
      if (std::find(std::begin(kParameters), std::end(kParameters), name) != std::end(kParameters))
        continue;
      const auto end = found.names.begin() + found.count;
      if (std::find(found.names.begin(), end, name) == end) found.names[found.count++] = name;
    }
  }
  std::sort(found.names.begin(), found.names.begin() + found.count);
  return found;
}
constexpr Subresources kAll = subresources(true, true);
constexpr Subresources kOfObjects = subresources(false, true);

// Reading an object takes query keys that only buckets know as what they are, foreign parameters of
// a shared URL. What writes or deletes must not: PUT /bucket/key?policy is a mistake, not an
// upload.
bool is_subresource(std::string_view name, Target target, Method method) {
  if (target == Target::kService) return false;
  if (method == Method::kPut && name == "partNumber") return true;
  const bool reads_object =
      target == Target::kObject && (method == Method::kGet || method == Method::kHead);
  return reads_object ? kOfObjects.contains(name) : kAll.contains(name);
}

bool names_key(const Route& row, std::string_view name) {
  std::string_view keys = row.query_keys;
  while (!keys.empty()) {
    const std::string_view key = next_key(keys);
    if (key.substr(0, key.find('=')) == name) return true;
  }
  return false;
}

bool starts_with_ignoring_case(std::string_view text, std::string_view start) {
  return text.size() >= start.size() &&
         http::field_name_equals(text.substr(0, start.size()), start);
}

bool header_matches(std::string_view wanted, const S3Request& request) {
  const size_t equals = wanted.find('=');
  const http::Field* field = request.find_header(wanted.substr(0, equals));
  if (field == nullptr) return false;
  return equals == std::string_view::npos ||
         starts_with_ignoring_case(field->value, wanted.substr(equals + 1));
}

bool matches(const Route& row, const S3Request& request) {
  std::string_view keys = row.query_keys;
  while (!keys.empty()) {
    const std::string_view key = next_key(keys);
    const size_t equals = key.find('=');
    const std::string* value = request.parameter(key.substr(0, equals));
    if (value == nullptr) return false;
    if (equals != std::string_view::npos && *value != key.substr(equals + 1)) return false;
  }
  if (!row.header.empty() && !header_matches(row.header, request)) return false;
  for (const Parameter& parameter : request.query) {
    if (is_subresource(parameter.name, row.target, row.method) && !names_key(row, parameter.name))
      return false;
  }
  return true;
}

// "ResourceType" of S3's MethodNotAllowed: SERVICE, BUCKET, OBJECT, or the sub-resource in
// capitals.
std::string resource_type(Target target, std::string_view subresource) {
  if (subresource.empty()) {
    return target == Target::kService ? "SERVICE" : target == Target::kBucket ? "BUCKET" : "OBJECT";
  }
  std::string name;
  for (const char c : subresource) {
    if (c >= 'A' && c <= 'Z') name += '_';
    name += c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c == '-' ? '_' : c;
  }
  return name;
}

}  // namespace

std::span<const Route> routes() { return kRoutes; }

const Route* match_route(http::Method method, Target target, const S3Request& request) {
  const Range range = kRanges[static_cast<size_t>(target)][static_cast<size_t>(method)];
  for (size_t i = range.begin; i < range.end; ++i) {
    if (matches(kRoutes[i], request)) return &kRoutes[i];
  }
  return nullptr;
}

S3Error no_route_error(Target target, const S3Request& request) {
  const Method method = request.head->method;
  std::string_view first;
  for (const Parameter& parameter : request.query) {
    if (!is_subresource(parameter.name, target, method) || parameter.name == first) continue;
    if (first.empty()) {
      first = parameter.name;
      continue;
    }
    S3Error error(S3Code::kInvalidArgument, "Conflicting query string parameters: " +
                                                std::string(first) + ", " + parameter.name);
    error.details = {{"ArgumentName", "ResourceType"}, {"ArgumentValue", std::string(first)}};
    return error;
  }
  if (target == Target::kObject && method == Method::kPut &&
      (first == "uploadId" || first == "partNumber")) {
    S3Error error(S3Code::kInvalidArgument, "uploadId and partNumber must be given together");
    error.details = {{"ArgumentName", first == "uploadId" ? "partNumber" : "uploadId"},
                     {"ArgumentValue", ""}};
    return error;
  }
  if (target == Target::kBucket && method == Method::kPost && first.empty()) {
    S3Error error(S3Code::kPreconditionFailed);
    error.details = {
        {"Condition", "Bucket POST must be of the enclosure-type multipart/form-data"}};
    return error;
  }
  S3Error error(S3Code::kMethodNotAllowed);
  error.details = {{"Method", std::string(request.head->method_name)},
                   {"ResourceType", resource_type(target, first)}};
  return error;
}

}  // namespace basalt::s3
