// HeadBucket: HEAD /bucket. Dispatch has resolved the bucket and decided on access: nothing is left
// but to say so.

#include "protocol/s3/ops/handlers.h"

namespace basalt::s3 {

Task<S3Result<Reply>> head_bucket(Op& op) {
  op.head().add("x-amz-bucket-region", op.services.options.region);
  op.head().add("x-amz-access-point-alias", "false");
  op.head().add("Content-Type", "application/xml");
  co_return Reply::empty(200);
}

}  // namespace basalt::s3
