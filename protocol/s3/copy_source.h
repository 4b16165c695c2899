// x-amz-copy-source: "bucket/key" or "/bucket/key", percent-encoded, optionally followed by
// ?versionId=ID.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "protocol/s3/error.h"

namespace basalt::s3 {

struct CopySource {
  std::string bucket;
  std::string key;  // opaque bytes, as a key in a request path
  std::optional<std::string> version_id;
};

// Only takes the value apart: whether bucket and key exist, and whether the caller may read them,
// is the operation's to ask. Errors: InvalidArgument (no bucket, no key, bad escape, NUL, not
// UTF-8), KeyTooLongError.
S3Result<CopySource> parse_copy_source(std::string_view header);

}  // namespace basalt::s3
