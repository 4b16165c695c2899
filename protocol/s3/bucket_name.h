// Bucket names. Source: "General purpose bucket naming rules", Amazon S3 user guide.
#pragma once

#include <string_view>

namespace basalt::s3 {

// Whether a bucket may be created under this name: 3 to 63 of a-z 0-9 . -, begins and ends with a
// letter or digit, no two dots in a row, not an IPv4 address, none of the prefixes and suffixes S3
// keeps for itself.
bool valid_new_bucket_name(std::string_view name);

// Whether a request may name such a bucket at all: the older, wider rules (3 to 255 of A-Z a-z 0-9
// . - _). A name outside of them is InvalidBucketName, one inside that nobody created is
// NoSuchBucket, as at AWS.
bool addressable_bucket_name(std::string_view name);

}  // namespace basalt::s3
