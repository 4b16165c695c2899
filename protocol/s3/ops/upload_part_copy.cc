// UploadPartCopy: https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPartCopy.html
#include <optional>
#include <vector>

#include "protocol/s3/checksum_model.h"
#include "protocol/s3/copy_request.h"
#include "protocol/s3/failure.h"
#include "protocol/s3/multipart.h"
#include "protocol/s3/object_writer.h"
#include "protocol/s3/ops/handlers.h"
#include "protocol/s3/range.h"
#include "protocol/s3/read_plan.h"
#include "protocol/s3/xml.h"

namespace basalt::s3 {

Task<S3Result<Reply>> upload_part_copy(Op& op) {
  S3_TRY(number, parse_part_number(*op.request.parameter("partNumber")));
  CO_TRY(upload, find_upload(op));
  S3_TRY(view, UploadView::open(upload.record->meta));
  CO_TRY(source, find_copy_source(op));

  ByteRange range{0, source.record->size};
  if (op.request.find_header("x-amz-copy-source-range") != nullptr) {
    S3_TRY(asked,
           parse_copy_range(op.request.header("x-amz-copy-source-range"), source.record->size));
    range = asked;
  }
  if (range.length > kPutBytesMax) {
    co_return s3_fail(
        S3Code::kInvalidRequest,
        "The specified copy source is larger than the maximum allowable size for a copy source: " +
            std::to_string(kPutBytesMax));
  }
  const UploadChecksum kind = checksum_kind(*view);
  std::vector<auth::Hasher> hashers;
  hashers.emplace_back(auth::Algorithm::kMd5);
  hashers.emplace_back(kind.algorithm);
  CO_TRY(content, store_copy(op, source.record.view(), range.first, range.length, Placement::kBlob,
                             hashers));

  const std::string etag = auth::to_hex(hashers[0].finish().view());
  const auth::Digest checksum = hashers[1].finish();
  const int64_t modified_ms = op.services.clock.wall_ms();
  const EncodedMeta meta = encode_part(modified_ms, checksum);
  const std::string name = upload.id.part_name(number);
  storage::MutationBuilder mutations;
  mutations.put(
      {storage::Table::kPart, op.bucket->space, name},
      {.size = range.length, .tag = etag, .meta = meta.bytes(), .blobs = content.blobs()});
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

  XmlWriter xml("CopyPartResult");
  xml.time("LastModified", modified_ms);
  xml.etag("ETag", etag);
  if (checksum_asked(*view))
    xml.text(checksum_element(kind.algorithm), auth::to_base64(checksum.view()));
  co_return Reply::xml(xml.finish());
}

}  // namespace basalt::s3
