// GetBucketLocation: GET /bucket?location. API reference: "GetBucketLocation"; us-east-1 is shown
// as an empty element.

#include "protocol/s3/ops/handlers.h"
#include "protocol/s3/xml.h"

namespace basalt::s3 {

Task<S3Result<Reply>> get_bucket_location(Op& op) {
  const std::string& region =
      op.bucket->region.empty() ? op.services.options.region : op.bucket->region;
  XmlWriter xml("LocationConstraint");
  if (region != "us-east-1") append_xml_escaped(region, xml.raw());
  co_return Reply::xml(xml.finish());
}

}  // namespace basalt::s3
