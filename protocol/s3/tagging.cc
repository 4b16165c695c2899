#include "protocol/s3/tagging.h"

#include <algorithm>

#include "protocol/s3/failure.h"
#include "protocol/s3/xml.h"

namespace basalt::s3 {
namespace {

size_t characters(std::string_view text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; }));
}

// Letters, digits, space and + - = . _ : / @; beyond ASCII everything that is well-formed.
constexpr std::string_view kOthers = " +-=._:/@";

bool tag_characters(std::string_view text) {
  return valid_utf8(text) && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  static_cast<uint8_t>(c) >= 0x80 || kOthers.find(c) != std::string_view::npos;
         });
}

std::unexpected<S3Error> malformed(std::string_view header) {
  return invalid_argument(
      "x-amz-tagging", header,
      "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters "
      "without tag name duplicates.");
}

}  // namespace

S3Result<> add_tag(std::vector<NameValue>& tags, NameValue tag) {
  if (tags.size() == kTagsMax)
    return s3_fail(S3Code::kInvalidTag, "Object tags cannot be greater than 10");
  if (tag.name.empty() || characters(tag.name) > kTagKeyCharactersMax ||
      !tag_characters(tag.name)) {
    return s3_fail_with(S3Code::kInvalidTag, "TagKey", tag.name,
                        "The TagKey you have provided is invalid");
  }
  if (tag.name.starts_with("aws:")) {
    return s3_fail_with(S3Code::kInvalidTag, "TagKey", tag.name,
                        "System tags cannot be added/updated by requester");
  }
  if (characters(tag.value) > kTagValueCharactersMax || !tag_characters(tag.value)) {
    S3Error error(S3Code::kInvalidTag, "The TagValue you have provided is invalid");
    error.details = {{"TagKey", tag.name}, {"TagValue", tag.value}};
    return std::unexpected(std::move(error));
  }
  for (const NameValue& other : tags) {
    if (other.name == tag.name) {
      return s3_fail_with(S3Code::kInvalidTag, "TagKey", tag.name,
                          "Cannot provide multiple Tags with the same key");
    }
  }
  tags.push_back(std::move(tag));
  return {};
}

S3Result<std::vector<NameValue>> parse_tagging_header(std::string_view header) {
  std::vector<NameValue> tags;
  std::string_view rest = header;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('&'), rest.size());
    const std::string_view pair = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (pair.empty()) continue;
    const size_t equals = std::min(pair.find('='), pair.size());
    auto key = percent_decode(pair.substr(0, equals), true);
    auto value =
        percent_decode(equals == pair.size() ? std::string_view() : pair.substr(equals + 1), true);
    if (!key || !value) return malformed(header);
    for (const NameValue& tag : tags) {
      if (tag.name == *key) return malformed(header);
    }
    if (auto added = add_tag(tags, {std::move(*key), std::move(*value)}); !added)
      return std::unexpected(std::move(added.error()));
  }
  return tags;
}

}  // namespace basalt::s3
