// GetObject: https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html
#include "protocol/s3/failure.h"
#include "protocol/s3/object_headers.h"
#include "protocol/s3/object_lookup.h"
#include "protocol/s3/object_meta.h"
#include "protocol/s3/object_reader.h"
#include "protocol/s3/ops/handlers.h"
#include "protocol/s3/preconditions.h"
#include "protocol/s3/read_plan.h"

namespace basalt::s3 {

Task<S3Result<Reply>> get_object(Op& op) {
  S3_CHECK(check_version_id(op.request.parameter("versionId"), op.request.key));
  S3_CHECK(check_read_headers(op.request));
  // Before the look-up and until the last byte: what the record names stays in place even if it is
  // overwritten meanwhile.
  const auto guard = op.shards().blobs().guard();
  CO_TRY(record, find_object(op, *op.bucket, op.request.key));
  S3_TRY(object, ObjectView::open(record->meta));
  S3_TRY(plan, plan_read(op, record.view(), *object));
  if (plan.status == 304) co_return Reply::empty(304);
  co_return co_await send_content(op, record.view(), plan.first, plan.length);
}

}  // namespace basalt::s3
