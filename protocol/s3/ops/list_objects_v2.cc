// ListObjectsV2: GET /bucket?list-type=2. API reference: "ListObjectsV2".

#include "protocol/s3/failure.h"
#include "protocol/s3/listing_output.h"
#include "protocol/s3/object_meta.h"
#include "protocol/s3/ops/handlers.h"

namespace basalt::s3 {
namespace {

S3Result<bool> parse_fetch_owner(const S3Request& request) {
  const std::string_view value = parameter_or_empty(request, "fetch-owner");
  if (value.empty() || value == "false") return false;
  if (value == "true") return true;
  return invalid_argument("fetch-owner", value, "fetch-owner must be true or false");
}

}  // namespace

Task<S3Result<Reply>> list_objects_v2(Op& op) {
  const S3Request& request = op.request;
  S3_TRY(url_encoded, parse_encoding_type(request));
  S3_TRY(max_keys, parse_count(request, "max-keys", {}));
  S3_TRY(with_owner, parse_fetch_owner(request));
  const std::string_view prefix = parameter_or_empty(request, "prefix");
  const std::string_view delimiter = parameter_or_empty(request, "delimiter");
  const std::string_view start_after = parameter_or_empty(request, "start-after");
  const std::string* token = request.parameter("continuation-token");

  // A token rules over start-after, which the client repeats on every page.
  std::string after(start_after);
  if (token != nullptr) {
    auto position = decode_token(TokenKind::kObjects, *token);
    if (!position) {
      co_return invalid_argument("continuation-token", *token,
                                 "The continuation token provided is incorrect");
    }
    after = std::move(*position);
  }

  storage::ScanPage page;
  if (max_keys > 0) {
    auto scanned = co_await shards::scan_all(op.shards(), {.table = storage::Table::kCurrent,
                                                           .space = op.bucket->space,
                                                           .prefix = prefix,
                                                           .after = after,
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
  if (token != nullptr) xml.text("ContinuationToken", *token);
  if (page.more) {
    xml.text("NextContinuationToken", encode_token(TokenKind::kObjects, page.entries.back().name));
  }
  if (!start_after.empty()) writer.name("StartAfter", start_after);
  xml.number("KeyCount", page.entries.size());
  xml.number("MaxKeys", max_keys);
  if (!delimiter.empty()) writer.name("Delimiter", delimiter);
  if (url_encoded) xml.text("EncodingType", "url");
  xml.boolean("IsTruncated", page.more);
  S3_CHECK(write_entries(writer, page, with_owner));
  op.head().add("x-amz-bucket-region", op.services.options.region);
  co_return Reply::xml(xml.finish());
}

}  // namespace basalt::s3
