#include "protocol/s3/copy_source.h"

#include <utility>

#include "protocol/s3/failure.h"
#include "protocol/s3/op.h"
#include "protocol/s3/xml.h"

namespace basalt::s3 {
namespace {
constexpr std::string_view kHeader = "x-amz-copy-source";
constexpr std::string_view kVersionMark = "?versionId=";
}  // namespace

S3Result<CopySource> parse_copy_source(std::string_view header) {
  std::string_view text = header;
  CopySource source;
  // The mark is looked for before decoding: a '?' of the key itself arrives as %3F.
  if (const size_t mark = text.find(kVersionMark); mark != std::string_view::npos) {
    auto version = percent_decode(text.substr(mark + kVersionMark.size()), false);
    if (!version) return invalid_argument(kHeader, header, "Invalid copy source encoding.");
    source.version_id = std::move(*version);
    text = text.substr(0, mark);
  }
  auto decoded = percent_decode(text, false);
  if (!decoded || decoded->find('\0') != std::string::npos || !valid_utf8(*decoded)) {
    return invalid_argument(kHeader, header, "Invalid copy source encoding.");
  }
  // One slash before the bucket is optional; every further one belongs to the key.
  std::string_view path = *decoded;
  if (path.starts_with('/')) path.remove_prefix(1);
  const size_t slash = path.find('/');
  if (slash == std::string_view::npos || slash + 1 == path.size()) {
    return invalid_argument(
        kHeader, header,
        "Copy Source must mention the source bucket and key: sourcebucket/sourcekey");
  }
  if (slash == 0) return invalid_argument(kHeader, header, "Invalid copy source bucket name");
  source.bucket = path.substr(0, slash);
  source.key = path.substr(slash + 1);
  if (source.key.size() > kKeyBytesMax) return s3_fail(S3Code::kKeyTooLongError);
  return source;
}

}  // namespace basalt::s3
