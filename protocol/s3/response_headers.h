// Fields of a response that describe an object.
#pragma once

#include <cstdint>
#include <string_view>

#include "protocol/http/response.h"
#include "protocol/s3/error.h"
#include "protocol/s3/object_meta.h"
#include "protocol/s3/op.h"

namespace basalt::s3 {

void add_etag(http::ResponseHead& head, std::string_view etag);  // quoted
void add_last_modified(http::ResponseHead& head, int64_t modified_ms);
// Content-Range: bytes FIRST-LAST/SIZE.
void add_content_range(http::ResponseHead& head, uint64_t first, uint64_t length, uint64_t size);

// response-content-type and the like replace what is stored. InvalidRequest for anonymous requests,
// InvalidArgument for a value that cannot be a field value.
S3Result<> check_overrides(const Op& op);

// Everything about the object that does not depend on the range: ETag, Last-Modified,
// Accept-Ranges, system headers (with overrides), user metadata, storage class, redirect, number of
// tags.
void add_object_headers(const Op& op, std::string_view etag, const fb::Object& object);
// The subset for a 304 (RFC 9110 section 15.4.5).
void add_not_modified_headers(http::ResponseHead& head, std::string_view etag,
                              const fb::Object& object);

}  // namespace basalt::s3
