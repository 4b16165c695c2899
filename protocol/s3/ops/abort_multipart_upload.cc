// AbortMultipartUpload:
// https://docs.aws.amazon.com/AmazonS3/latest/API/API_AbortMultipartUpload.html
#include "protocol/s3/failure.h"
#include "protocol/s3/multipart.h"
#include "protocol/s3/ops/handlers.h"

namespace basalt::s3 {

Task<S3Result<Reply>> abort_multipart_upload(Op& op) {
  CO_TRY(upload, find_upload(op));
  CO_TRY(parts, scan_parts(op, upload.id, 0, kPartNumberMax));
  storage::MutationBuilder mutations;
  mutations.erase(upload_key(op, upload));
  for (const auto& entry : parts.entries) {
    mutations.erase({storage::Table::kPart, op.bucket->space, entry.name});
  }
  const storage::Precondition exists{.kind = storage::Precondition::Kind::kExists,
                                     .key = upload_key(op, upload)};
  auto applied = co_await op.shards().apply(op.shard(), {&exists, 1}, mutations.finish(), {}, true);
  if (!applied) {
    const Code code = applied.error().code;
    if (code == Code::kNotFound || code == Code::kPreconditionFailed) {
      co_return std::unexpected(no_such_upload(op));
    }
    co_return std::unexpected(std::move(applied).error());
  }
  CO_CHECK(erase_left_parts(op, upload.id));
  co_return Reply::empty(204);
}

}  // namespace basalt::s3
