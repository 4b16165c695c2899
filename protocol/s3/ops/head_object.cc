// HeadObject: https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html
#include "protocol/s3/failure.h"
#include "protocol/s3/object_headers.h"
#include "protocol/s3/object_lookup.h"
#include "protocol/s3/object_meta.h"
#include "protocol/s3/ops/handlers.h"
#include "protocol/s3/preconditions.h"
#include "protocol/s3/read_plan.h"

namespace basalt::s3 {

Task<S3Result<Reply>> head_object(Op& op) {
  S3_CHECK(check_version_id(op.request.parameter("versionId"), op.request.key));
  S3_CHECK(check_read_headers(op.request));
  CO_TRY(record, find_object(op, *op.bucket, op.request.key));
  S3_TRY(object, ObjectView::open(record->meta));
  S3_TRY(plan, plan_read(op, record.view(), *object));
  if (plan.status == 304) co_return Reply::empty(304);
  CO_CHECK(op.exchange.begin(plan.length));
  co_return Reply::streamed();
}

}  // namespace basalt::s3
