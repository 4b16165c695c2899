// ListParts: https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListParts.html
#include <algorithm>
#include <optional>

#include "protocol/s3/checksum_model.h"
#include "protocol/s3/failure.h"
#include "protocol/s3/multipart.h"
#include "protocol/s3/ops/handlers.h"

namespace basalt::s3 {
namespace {

// A decimal number up to 2^31 - 1, as S3 takes them.
S3Result<unsigned> number_parameter(const S3Request& request, std::string_view name,
                                    unsigned otherwise) {
  const std::string* text = request.parameter(name);
  if (text == nullptr || text->empty()) return otherwise;
  uint64_t value = 0;
  for (const char c : *text) {
    if (c < '0' || c > '9' || text->size() > 10) {
      return invalid_argument(
          name, *text, "Provided " + std::string(name) + " not an integer or within integer range");
    }
    value = value * 10 + static_cast<uint64_t>(c - '0');
  }
  if (value > INT32_MAX) {
    return invalid_argument(
        name, *text,
        "Argument " + std::string(name) + " must be an integer between 0 and 2147483647");
  }
  return static_cast<unsigned>(value);
}

}  // namespace

Task<S3Result<Reply>> list_parts(Op& op) {
  S3_TRY(wanted, number_parameter(op.request, "max-parts", kListKeysMax));
  S3_TRY(marker, number_parameter(op.request, "part-number-marker", 0));
  CO_TRY(upload, find_upload(op));
  S3_TRY(view, UploadView::open(upload.record->meta));
  const unsigned limit = std::min(wanted, kListKeysMax);

  storage::ScanPage page;
  if (limit != 0 && marker < kPartNumberMax) {
    CO_TRY(scanned, scan_parts(op, upload.id, marker, limit));
    page = std::move(scanned);
  }
  const UploadChecksum kind = checksum_kind(*view);
  const bool shows_checksum = checksum_asked(*view);

  XmlWriter xml("ListPartsResult");
  xml.text("Bucket", op.request.bucket);
  xml.text("Key", op.request.key);
  xml.text("UploadId", upload.id.text());
  const std::string_view initiator = text_of(view->initiator());
  xml.owner("Initiator", initiator, op.display_name(initiator));
  xml.owner("Owner", op.bucket->owner_id, op.display_name(op.bucket->owner_id));
  const std::string_view storage_class = text_of(view->object()->storage_class());
  xml.text("StorageClass", storage_class.empty() ? "STANDARD" : storage_class);
  xml.number("PartNumberMarker", marker);
  xml.number("NextPartNumberMarker",
             page.entries.empty() ? 0 : part_number_of(page.entries.back().name));
  xml.number("MaxParts", limit);
  xml.boolean("IsTruncated", page.more);
  if (shows_checksum) {
    xml.text("ChecksumAlgorithm", checksum_name(kind.algorithm));
    xml.text("ChecksumType", checksum_type_name(kind.full_object));
  }
  for (const auto& entry : page.entries) {
    S3_TRY(part, PartView::open(entry.record.meta));
    xml.open("Part");
    xml.number("PartNumber", part_number_of(entry.name));
    xml.time("LastModified", part->modified_ms());
    xml.etag("ETag", entry.record.tag);
    xml.number("Size", entry.record.size);
    if (shows_checksum) {
      const auth::Digest checksum = digest_of(part->checksum());
      if (checksum.size != 0)
        xml.text(checksum_element(kind.algorithm), auth::to_base64(checksum.view()));
    }
    xml.close("Part");
  }
  co_return Reply::xml(xml.finish());
}

}  // namespace basalt::s3
