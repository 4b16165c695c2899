#include "protocol/s3/ops/handlers.h"

namespace basalt::s3 {

Task<S3Result<Reply>> not_implemented(Op& op) {
  co_return s3_fail(
      S3Code::kNotImplemented,
      "A header or operation you provided implies functionality that is not implemented: " +
          std::string(op.request.route->name));
}

}  // namespace basalt::s3
