// Byte ranges: the Range header of GetObject and HeadObject, x-amz-copy-source-range of
// UploadPartCopy.
#pragma once

#include <cstdint>
#include <string_view>

#include "protocol/s3/error.h"

namespace basalt::s3 {

struct ByteRange {
  uint64_t first = 0;
  uint64_t length = 0;
};

enum class RangeVerdict : uint8_t {
  kWhole,    // no range, one that is malformed, several ranges, another unit: S3 answers 200 with
             // everything
  kPartial,  // 206 with `range`, which is not empty and lies within the content
  kUnsatisfiable,  // 416
};

struct RangeAnswer {
  RangeVerdict verdict = RangeVerdict::kWhole;
  ByteRange range;
};

// bytes=FIRST-LAST, bytes=FIRST-, bytes=-SUFFIX (RFC 9110 section 14.1.2). A LAST beyond the end is
// cut, numbers beyond 64 bits count as the largest. Every range of empty content is unsatisfiable,
// and so is a suffix of 0.
RangeAnswer parse_range(std::string_view header, uint64_t size);

// bytes=FIRST-LAST only, and within the source: "the range of bytes to copy" (UploadPartCopy, S3
// API reference). Errors: InvalidArgument.
S3Result<ByteRange> parse_copy_range(std::string_view header, uint64_t size);

}  // namespace basalt::s3
