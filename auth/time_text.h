// The two forms of a request's time: 20130524T000000Z, and RFC 9110's Fri, 24 May 2013 00:00:00
// GMT. Inside auth/ only.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace basalt::auth {

// Seconds since 1970. nullopt unless the text is exactly a valid date and time of that form.
std::optional<int64_t> parse_basic_time(std::string_view text);
std::optional<int64_t> parse_http_time(
    std::string_view text);  // "GMT", "UTC" or "+0000"; the day's name is not compared
std::string format_basic_time(int64_t seconds);

}  // namespace basalt::auth
