#include "protocol/s3/range.h"

#include <algorithm>
#include <optional>
#include <string>

#include "protocol/http/head.h"
#include "protocol/s3/failure.h"

namespace basalt::s3 {
namespace {

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// Digits only, at least one; saturates.
std::optional<uint64_t> number(std::string_view text) {
  if (text.empty()) return std::nullopt;
  uint64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    const uint64_t digit = static_cast<uint64_t>(c - '0');
    if (value > (UINT64_MAX - digit) / 10) {
      value = UINT64_MAX;
    } else {
      value = value * 10 + digit;
    }
  }
  return value;
}

}  // namespace

RangeAnswer parse_range(std::string_view header, uint64_t size) {
  const RangeAnswer whole;
  const size_t equals = header.find('=');
  if (equals == std::string_view::npos ||
      !http::field_name_equals(header.substr(0, equals), "bytes"))
    return whole;
  const std::string_view spec = trim(header.substr(equals + 1));
  const size_t dash = spec.find('-');
  if (dash == std::string_view::npos) return whole;
  const std::string_view left = spec.substr(0, dash), right = spec.substr(dash + 1);

  if (left.empty()) {
    const auto suffix = number(right);
    if (!suffix) return whole;
    if (*suffix == 0 || size == 0) return {RangeVerdict::kUnsatisfiable, {}};
    const uint64_t length = std::min(*suffix, size);
    return {RangeVerdict::kPartial, {size - length, length}};
  }
  const auto first = number(left);
  if (!first) return whole;
  uint64_t last = UINT64_MAX;
  if (!right.empty()) {
    const auto value = number(right);
    if (!value || *value < *first) return whole;
    last = *value;
  }
  if (*first >= size) return {RangeVerdict::kUnsatisfiable, {}};
  last = std::min(last, size - 1);
  return {RangeVerdict::kPartial, {*first, last - *first + 1}};
}

S3Result<ByteRange> parse_copy_range(std::string_view header, uint64_t size) {
  constexpr std::string_view kHeader = "x-amz-copy-source-range";
  const auto malformed = [&] {
    return invalid_argument(
        kHeader, header,
        "The x-amz-copy-source-range value must be of the form bytes=first-last where first and "
        "last are the zero-based offsets of the first and last bytes to copy");
  };
  if (!header.starts_with("bytes=")) return malformed();
  const std::string_view spec = header.substr(6);
  const size_t dash = spec.find('-');
  if (dash == std::string_view::npos) return malformed();
  const auto first = number(spec.substr(0, dash));
  const auto last = number(spec.substr(dash + 1));
  if (!first || !last || *first > *last) return malformed();
  if (*last >= size) {
    return invalid_argument(
        kHeader, header,
        "Range specified is not valid for source object of size: " + std::to_string(size));
  }
  return ByteRange{*first, *last - *first + 1};
}

}  // namespace basalt::s3
