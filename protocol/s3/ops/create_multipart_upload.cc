// CreateMultipartUpload:
// https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateMultipartUpload.html
#include "protocol/s3/checksum_model.h"
#include "protocol/s3/failure.h"
#include "protocol/s3/multipart.h"
#include "protocol/s3/object_headers.h"
#include "protocol/s3/ops/handlers.h"

namespace basalt::s3 {

Task<S3Result<Reply>> create_multipart_upload(Op& op) {
  S3_TRY(fields, object_headers(op));
  S3_TRY(checksum, upload_checksum(op.request));

  UploadFields upload;
  upload.object = std::move(fields);
  upload.initiator = op.account().id;
  upload.initiated_ms = op.services.clock.wall_ms();
  if (checksum) {
    upload.checksum_algorithm = checksum->algorithm;
    upload.checksum_full_object = checksum->full_object;
  }
  const UploadId id = UploadId::random();
  const std::string name = id.upload_name(op.request.key);
  const EncodedMeta meta = encode_upload(upload);
  storage::MutationBuilder mutations;
  mutations.put({storage::Table::kUpload, op.bucket->space, name}, {.meta = meta.bytes()});
  CO_CHECK(op.shards().apply(op.shard(), {}, mutations.finish()));

  if (checksum) {
    op.head().add("x-amz-checksum-algorithm", checksum_name(checksum->algorithm));
    op.head().add("x-amz-checksum-type", checksum_type_name(checksum->full_object));
  }
  XmlWriter xml("InitiateMultipartUploadResult");
  xml.text("Bucket", op.request.bucket);
  xml.text("Key", op.request.key);
  xml.text("UploadId", id.text());
  co_return Reply::xml(xml.finish());
}

}  // namespace basalt::s3
