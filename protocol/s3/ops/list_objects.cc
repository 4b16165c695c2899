// ListObjects (version 1): GET /bucket. API reference: "ListObjects".

#include "protocol/s3/failure.h"
#include "protocol/s3/listing_output.h"
#include "protocol/s3/object_meta.h"
#include "protocol/s3/ops/handlers.h"

namespace basalt::s3 {

Task<S3Result<Reply>> list_objects(Op& op) {
  const S3Request& request = op.request;
  S3_TRY(url_encoded, parse_encoding_type(request));
  S3_TRY(max_keys, parse_count(request, "max-keys", {}));
  const std::string_view prefix = parameter_or_empty(request, "prefix");
  const std::string_view marker = parameter_or_empty(request, "marker");
  const std::string_view delimiter = parameter_or_empty(request, "delimiter");

  storage::ScanPage page;
  if (max_keys > 0) {
    auto scanned = co_await shards::scan_all(op.shards(), {.table = storage::Table::kCurrent,
                                                           .space = op.bucket->space,
                                                           .prefix = prefix,
                                                           .after = marker,
                                                           .delimiter = delimiter,
                                                           .limit = max_keys,
                                                           .select = &ListedObject::select});
    if (!scanned) co_return std::unexpected(std::move(scanned.error()));
    page = std::move(*scanned);
  }

  XmlWriter xml("ListBucketResult");
  ListingWriter writer(op, xml, url_encoded);
  xml.text("Name", op.bucket->name);
  writer.name("Prefix", prefix);
  writer.name("Marker", marker);
  // Without a delimiter the last key of the page is the next marker, and S3 leaves the element out.
  if (page.more && !delimiter.empty()) writer.name("NextMarker", page.entries.back().name);
  xml.number("MaxKeys", max_keys);
  if (!delimiter.empty()) writer.name("Delimiter", delimiter);
  if (url_encoded) xml.text("EncodingType", "url");
  xml.boolean("IsTruncated", page.more);
  S3_CHECK(write_entries(writer, page, /*with_owner=*/true));
  op.head().add("x-amz-bucket-region", op.services.options.region);
  co_return Reply::xml(xml.finish());
}

}  // namespace basalt::s3
