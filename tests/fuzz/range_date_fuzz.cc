// Range headers, copy ranges, HTTP dates, entity tag lists. What must hold: no crash; an answer
// that is a range lies within the content and is not empty; a date that parses can be written and
// parsed again.
#include <cstring>
#include <string>

#include "base/check.h"
#include "protocol/http/response.h"
#include "protocol/s3/http_date.h"
#include "protocol/s3/preconditions.h"
#include "protocol/s3/range.h"

using namespace basalt;
using namespace basalt::s3;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 8) return 0;
  uint64_t content = 0;
  std::memcpy(&content, data, 8);
  content >>= data[0] % 64;
  const std::string text(reinterpret_cast<const char*>(data) + 8, size - 8);

  for (const std::string& header : {text, "bytes=" + text}) {
    const RangeAnswer answer = parse_range(header, content);
    if (answer.verdict == RangeVerdict::kPartial) {
      BASALT_CHECK(answer.range.length > 0 && answer.range.length <= content);
      BASALT_CHECK(answer.range.first <= content - answer.range.length);
    }
    if (const auto range = parse_copy_range(header, content)) {
      BASALT_CHECK(range->length > 0 && range->length <= content &&
                   range->first <= content - range->length);
    }
  }
  if (const auto seconds = parse_http_date(text); seconds && *seconds >= 0) {
    std::string written;
    http::append_http_date(*seconds * 1000, written);
    BASALT_CHECK(parse_http_date(written) == seconds);
  }
  (void)etag_matches(text, "5d41402abc4b2a76b9719d911017c592");
  BASALT_CHECK(etag_matches("\"x\"," + std::string("\"5d41\""), "5d41"));
  return 0;
}
