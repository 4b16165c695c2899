// ListBuckets: GET /. API reference: "ListBuckets". The caller's own buckets, by name; root, too,
// sees its own.

#include <vector>

#include "protocol/s3/failure.h"
#include "protocol/s3/listing_output.h"
#include "protocol/s3/ops/handlers.h"

namespace basalt::s3 {

Task<S3Result<Reply>> list_buckets(Op& op) {
  const S3Request& request = op.request;
  S3_TRY(max_buckets,
         parse_count(request, "max-buckets",
                     {.least = 1, .most = kBucketsPerAccountMax, .absent = kBucketsPerAccountMax}));
  if (max_buckets > kBucketsPerAccountMax) max_buckets = kBucketsPerAccountMax;
  const std::string_view prefix = parameter_or_empty(request, "prefix");
  const std::string_view region = parameter_or_empty(request, "bucket-region");
  std::string after;
  if (const std::string_view token = parameter_or_empty(request, "continuation-token");
      !token.empty()) {
    auto position = decode_token(TokenKind::kBuckets, token);
    if (!position) {
      co_return invalid_argument("continuation-token", token,
                                 "The continuation token provided is incorrect");
    }
    after = std::move(*position);
  }

  const auto& all = op.services.buckets.all();
  std::vector<const Bucket*> page;
  bool more = false;
  for (auto at = all.lower_bound(after < prefix ? prefix : std::string_view(after));
       at != all.end(); ++at) {
    const Bucket& bucket = *at->second;
    if (!bucket.name.starts_with(prefix)) break;
    if (bucket.name == after || bucket.owner_id != op.account().id) continue;
    if (!region.empty() &&
        (bucket.region.empty() ? op.services.options.region : bucket.region) != region)
      continue;
    if (page.size() == max_buckets) {
      more = true;
      break;
    }
    page.push_back(&bucket);
  }

  // S3 names the region only to clients that use one of the newer parameters.
  const bool with_region = request.has("max-buckets") || request.has("prefix") ||
                           request.has("bucket-region") || request.has("continuation-token");
  XmlWriter xml("ListAllMyBucketsResult");
  xml.owner("Owner", op.account().id, op.account().display_name);
  xml.open("Buckets");
  for (const Bucket* bucket : page) {
    xml.open("Bucket");
    xml.text("Name", bucket->name);
    xml.time("CreationDate", bucket->created_ms);
    if (with_region)
      xml.text("BucketRegion",
               bucket->region.empty() ? op.services.options.region : bucket->region);
    xml.close("Bucket");
  }
  xml.close("Buckets");
  if (more) xml.text("ContinuationToken", encode_token(TokenKind::kBuckets, page.back()->name));
  if (request.has("prefix")) xml.text("Prefix", prefix);
  co_return Reply::xml(xml.finish());
}

}  // namespace basalt::s3
