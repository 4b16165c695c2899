// x-amz-copy-source and x-amz-tagging. What must hold: no crash; an accepted source has a bucket
// without a slash and a key within the limits, and its canonical form parses to the same; accepted
// tags are within S3's limits.
#include <string>

#include "base/check.h"
#include "protocol/s3/copy_source.h"
#include "protocol/s3/op.h"
#include "protocol/s3/tagging.h"
#include "protocol/s3/xml.h"

using namespace basalt;
using namespace basalt::s3;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto source = parse_copy_source(text)) {
    BASALT_CHECK(!source->bucket.empty() && source->bucket.find('/') == std::string::npos);
    BASALT_CHECK(!source->key.empty() && source->key.size() <= kKeyBytesMax);
    BASALT_CHECK(source->key.find('\0') == std::string::npos && valid_utf8(source->key));
    const auto again = parse_copy_source("/" + url_encode(source->bucket, false) + "/" +
                                         url_encode(source->key, true));
    BASALT_CHECK(again && again->bucket == source->bucket && again->key == source->key &&
                 !again->version_id);
  }
  if (const auto tags = parse_tagging_header(text)) {
    BASALT_CHECK(tags->size() <= kTagsMax);
    for (const NameValue& tag : *tags) {
      BASALT_CHECK(!tag.name.empty() && tag.name.size() <= 4 * kTagKeyCharactersMax);
      BASALT_CHECK(tag.value.size() <= 4 * kTagValueCharactersMax);
    }
  }
  return 0;
}
