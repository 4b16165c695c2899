// PutObject: https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
#include <array>
#include <optional>

#include "protocol/s3/body.h"
#include "protocol/s3/checksum_model.h"
#include "protocol/s3/failure.h"
#include "protocol/s3/object_headers.h"
#include "protocol/s3/object_meta.h"
#include "protocol/s3/object_writer.h"
#include "protocol/s3/ops/handlers.h"
#include "protocol/s3/preconditions.h"
#include "protocol/s3/response_headers.h"
#include "storage/mutation_builder.h"

namespace basalt::s3 {

Task<S3Result<Reply>> put_object(Op& op) {
  S3_TRY(fields, object_headers(op));
  S3_TRY(condition, write_condition(op.request));
  const storage::KeyView key = op.object_key();
  if (condition) {
    // A hopeless upload fails before its body is read. The shard decides again, atomically, below.
    auto found = co_await op.shards().get(op.shard(), key);
    if (!found && found.error().code != Code::kNotFound)
      co_return std::unexpected(std::move(found).error());
    S3_CHECK(condition.check(found ? &(*found)->tag : nullptr, op.request.key));
  }

  RequestBody& body = *op.body;
  body.want(body.announced().value_or(kDefaultChecksum));
  CO_TRY(content, store_body(op, Placement::kInlineIfSmall, nullptr));

  std::array<char, 32> digits;
  const std::string_view etag = auth::to_hex(body.md5().view(), digits);
  fields.modified_ms = op.services.clock.wall_ms();
  if (const auto checksum = body.checksum())
    fields.checksum = StoredChecksum{checksum->algorithm, true, checksum->value};
  const EncodedMeta meta = encode_object(fields);
  storage::MutationBuilder mutations;
  mutations.put(
      key, {.size = body.length(), .tag = etag, .meta = meta.bytes(), .blobs = content.blobs()},
      !content.body().empty());
  storage::Precondition precondition{};
  if (condition) precondition = condition.precondition(key);
  auto applied =
      co_await op.shards().apply(op.shard(), {&precondition, condition ? size_t{1} : size_t{0}},
                                 mutations.finish(), content.body());
  if (!applied) {
    const Code code = applied.error().code;
    if (condition && (code == Code::kPreconditionFailed || code == Code::kNotFound)) {
      co_return std::unexpected(condition.failed(applied.error(), op.request.key));
    }
    co_return std::unexpected(std::move(applied).error());
  }
  content.recorded();

  add_etag(op.head(), etag);
  if (fields.checksum) add_checksum_headers(op.head(), *fields.checksum, 0);
  co_return Reply::empty(200);
}

}  // namespace basalt::s3
