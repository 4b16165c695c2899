// DeleteObject: https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObject.html
#include "protocol/s3/failure.h"
#include "protocol/s3/ops/handlers.h"
#include "protocol/s3/preconditions.h"
#include "storage/mutation_builder.h"

namespace basalt::s3 {

Task<S3Result<Reply>> delete_object(Op& op) {
  if (auto version = check_version_id(op.request.parameter("versionId"), op.request.key);
      !version) {
    // Deleting a version that is not there succeeds, as deleting a missing key does.
    if (version.error().code == S3Code::kNoSuchVersion) co_return Reply::empty(204);
    co_return std::unexpected(std::move(version).error());
  }
  S3_TRY(condition, delete_condition(op.request));
  const storage::KeyView key = op.object_key();
  // A missing key writes nothing to the log; the shard says so in order with every other write.
  const storage::Precondition precondition =
      condition ? condition.precondition(key)
                : storage::Precondition{.kind = storage::Precondition::Kind::kExists, .key = key};
  storage::MutationBuilder mutations;
  mutations.erase(key);
  auto applied =
      co_await op.shards().apply(op.shard(), {&precondition, 1}, mutations.finish(), {}, true);
  if (applied) co_return Reply::empty(204);
  const Code code = applied.error().code;
  if (code == Code::kNotFound || code == Code::kPreconditionFailed) {
    if (!condition) co_return Reply::empty(204);
    co_return std::unexpected(condition.failed(applied.error(), op.request.key));
  }
  co_return std::unexpected(std::move(applied).error());
}

}  // namespace basalt::s3
