// UploadPart: https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPart.html
#include <optional>

#include "protocol/s3/body.h"
#include "protocol/s3/checksum_model.h"
#include "protocol/s3/failure.h"
#include "protocol/s3/multipart.h"
#include "protocol/s3/object_writer.h"
#include "protocol/s3/ops/handlers.h"
#include "protocol/s3/read_plan.h"
#include "protocol/s3/response_headers.h"

namespace basalt::s3 {
namespace {

S3Result<> check_headers(const S3Request& request) {
  for (const std::string_view header :
       {std::string_view("x-amz-server-side-encryption"),
        std::string_view("x-amz-server-side-encryption-customer-algorithm")}) {
    if (request.find_header(header) != nullptr) return header_not_implemented(header);
  }
  return {};
}

}  // namespace

Task<S3Result<Reply>> upload_part(Op& op) {
  S3_TRY(number, parse_part_number(*op.request.parameter("partNumber")));
  S3_CHECK(check_headers(op.request));
  CO_TRY(upload, find_upload(op));
  S3_TRY(view, UploadView::open(upload.record->meta));
  const UploadChecksum kind = checksum_kind(*view);
  RequestBody& body = *op.body;
  const auto announced = body.announced();
  // An upload that named an algorithm takes parts with that one; a FULL_OBJECT one also takes parts
  // with none. Without a name every part gets the default beside what its client sends: SDKs bring
  // checksums for the transfer alone.
  std::optional<auth::Hasher> beside;
  if (checksum_asked(*view)) {
    if (announced ? *announced != kind.algorithm : !kind.full_object) {
      co_return std::unexpected(checksum_mismatch(kind.algorithm, announced));
    }
    body.want(kind.algorithm);
  } else if (announced && *announced != kind.algorithm) {
    beside.emplace(kind.algorithm);
  } else {
    body.want(kind.algorithm);
  }

  CO_TRY(content, store_body(op, Placement::kBlob, beside ? &*beside : nullptr));

  std::optional<auth::Digest> checksum;
  if (beside) {
    checksum = beside->finish();
  } else if (const auto computed = body.checksum()) {
    checksum = computed->value;
  }
  const std::string etag = auth::to_hex(body.md5().view());
  const EncodedMeta meta = encode_part(op.services.clock.wall_ms(), checksum);
  const std::string name = upload.id.part_name(number);
  storage::MutationBuilder mutations;
  mutations.put(
      {storage::Table::kPart, op.bucket->space, name},
      {.size = body.length(), .tag = etag, .meta = meta.bytes(), .blobs = content.blobs()});
  // No part may appear after the upload was completed or aborted.
  const storage::Precondition exists{.kind = storage::Precondition::Kind::kExists,
                                     .key = upload_key(op, upload)};
  auto applied = co_await op.shards().apply(op.shard(), {&exists, 1}, mutations.finish());
  if (!applied) {
    const Code code = applied.error().code;
    if (code == Code::kNotFound || code == Code::kPreconditionFailed) {
      co_return std::unexpected(no_such_upload(op));
    }
    co_return std::unexpected(std::move(applied).error());
  }
  content.recorded();

  add_etag(op.head(), etag);
  // S3 shows a part's checksum only if the upload named an algorithm.
  if (const auto shown = body.checksum(); shown && checksum_asked(*view)) {
    op.head().add(checksum_header(shown->algorithm), auth::to_base64(shown->value.view()));
  }
  co_return Reply::empty(200);
}

}  // namespace basalt::s3
