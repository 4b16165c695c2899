// Dates in request headers: the three forms of RFC 9110 section 5.6.7. Writing is
// http::append_http_date.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace basalt::s3 {

// Seconds since 1970-01-01T00:00:00Z, or nothing if it is none of
//   Sun, 06 Nov 1994 08:49:37 GMT      IMF-fixdate
//   Sunday, 06-Nov-94 08:49:37 GMT     RFC 850; years 70-99 are 19xx, 00-69 are 20xx
//   Sun Nov  6 08:49:37 1994           asctime
// The name of the day is not compared with the date.
std::optional<int64_t> parse_http_date(std::string_view text);

}  // namespace basalt::s3
