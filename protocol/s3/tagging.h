// Object tags: their rules, and the x-amz-tagging header, which carries them as key=value pairs
// encoded like a query string.
#pragma once

#include <string_view>
#include <vector>

#include "protocol/s3/error.h"
#include "protocol/s3/object_meta.h"

namespace basalt::s3 {

// "Categorizing your storage using tags" (S3 user guide): counted in Unicode characters.
constexpr size_t kTagsMax = 10;
constexpr size_t kTagKeyCharactersMax = 128;
constexpr size_t kTagValueCharactersMax = 256;

// Appends a tag that keeps the rules. InvalidTag: too many, too long, forbidden characters,
// reserved "aws:" prefix, a key that is there already.
S3Result<> add_tag(std::vector<NameValue>& tags, NameValue tag);

// Errors: InvalidTag (too many, too long, forbidden characters, reserved "aws:" prefix),
// InvalidArgument (not decodable, the same key twice).
S3Result<std::vector<NameValue>> parse_tagging_header(std::string_view header);

}  // namespace basalt::s3
