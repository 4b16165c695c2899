// Taking a request's target apart, once: bucket, key and query parameters as auth, routing and
// storage all use them.
#pragma once

#include "protocol/s3/error.h"
#include "protocol/s3/op.h"

namespace basalt::s3 {

constexpr size_t kQueryParametersMax = 128;

// Fills bucket, key, virtual_hosted, query and head of `request` (a used one is fine: its memory is
// kept). Path-style: /bucket/key. Virtual-hosted: the Host field is BUCKET.domain with one of
// `options.base_domains`. Errors: InvalidURI (bad escape, NUL, key that is not UTF-8, more than
// kQueryParametersMax parameters), KeyTooLongError, InvalidArgument (NUL in a parameter).
S3Result<> parse_request(const http::RequestHead& head, const S3Options& options,
                         S3Request& request);

Target target_of(const S3Request& request);

}  // namespace basalt::s3
