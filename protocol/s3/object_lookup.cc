#include "protocol/s3/object_lookup.h"

#include <optional>
#include <utility>

#include "protocol/s3/preconditions.h"

namespace basalt::s3 {

Task<S3Result<storage::Record>> find_object(Op& op, const Bucket& bucket, std::string_view key) {
  const storage::KeyView name{storage::Table::kCurrent, bucket.space, key};
  const unsigned shard = op.shards().shard_of(bucket.space, key);
  std::optional<Result<storage::Record>> found = op.shards().get_now(shard, name);
  if (!found) found = co_await op.shards().get(shard, name);
  if (!*found) {
    if (found->error().code == Code::kNotFound) co_return std::unexpected(no_such_key(key));
    co_return std::unexpected(std::move(*found).error());
  }
  co_return std::move(**found);
}

}  // namespace basalt::s3
