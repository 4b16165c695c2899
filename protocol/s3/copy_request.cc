#include "protocol/s3/copy_request.h"

#include <utility>

#include "protocol/s3/failure.h"
#include "protocol/s3/object_lookup.h"
#include "protocol/s3/preconditions.h"

namespace basalt::s3 {
namespace {

std::string_view copy_condition_name(std::string_view condition) {
  if (condition == "If-Match") return "x-amz-copy-source-If-Match";
  if (condition == "If-None-Match") return "x-amz-copy-source-If-None-Match";
  if (condition == "If-Modified-Since") return "x-amz-copy-source-If-Modified-Since";
  return "x-amz-copy-source-If-Unmodified-Since";
}

}  // namespace

Task<S3Result<SourceObject>> find_copy_source(Op& op) {
  S3_TRY(name, parse_copy_source(op.request.header("x-amz-copy-source")));
  if (op.request.find_header("x-amz-copy-source-server-side-encryption-customer-algorithm") !=
      nullptr) {
    co_return s3_fail(S3Code::kInvalidRequest,
                      "The encryption parameters are not applicable to this object.");
  }
  SourceObject source{.name = std::move(name)};
  source.bucket = op.services.buckets.find(source.name.bucket);
  if (source.bucket == nullptr) {
    co_return s3_fail_with(S3Code::kNoSuchBucket, "BucketName", source.name.bucket);
  }
  const std::string_view expected_owner = op.request.header("x-amz-source-expected-bucket-owner");
  if (!op.may_access(*source.bucket) ||
      (!expected_owner.empty() && expected_owner != source.bucket->owner_id)) {
    co_return s3_fail(S3Code::kAccessDenied);
  }
  S3_CHECK(check_version_id(source.name.version_id ? &*source.name.version_id : nullptr,
                            source.name.key));
  source.guard = op.shards().blobs().guard();
  CO_TRY(record, find_object(op, *source.bucket, source.name.key));
  source.record = std::move(record);
  S3_TRY(object, ObjectView::open(source.record->meta));
  // Whatever does not hold is a 412 here: a copy has no 304.
  const ReadAnswer answer = evaluate(read_conditions(op.request, ConditionSet::kCopySource),
                                     source.record->tag, object->modified_ms());
  if (answer.verdict != ReadVerdict::kProceed) {
    co_return std::unexpected(precondition_failed(copy_condition_name(answer.condition)));
  }
  co_return source;
}

}  // namespace basalt::s3
