#include "protocol/s3/response_headers.h"

#include <array>
#include <charconv>
#include <string>

#include "protocol/s3/failure.h"

namespace basalt::s3 {
namespace {

struct SystemHeader {
  std::string_view stored;  // name in fb::Object.headers
  std::string_view shown;
  std::string_view parameter;  // query parameter that overrides it
};
constexpr std::array<SystemHeader, 6> kSystemHeaders = {{
    {"content-type", "Content-Type", "response-content-type"},
    {"cache-control", "Cache-Control", "response-cache-control"},
    {"content-disposition", "Content-Disposition", "response-content-disposition"},
    {"content-encoding", "Content-Encoding", "response-content-encoding"},
    {"content-language", "Content-Language", "response-content-language"},
    {"expires", "Expires", "response-expires"},
}};

bool fits_field(std::string_view value) {
  for (const char c : value) {
    if ((static_cast<uint8_t>(c) < 0x20 && c != '\t') || c == 0x7F) return false;
  }
  return true;
}

void append_number(std::string& out, uint64_t value) {
  std::array<char, 20> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  out.append(digits.data(), end);
}

// For a value that is put together; valid until the next call. Keeps its memory.
std::string& scratch() {
  thread_local std::string text;
  text.clear();
  return text;
}

std::string_view stored_header(const fb::Object& object, std::string_view name) {
  for (size_t i = 0; i < count_of(object.headers()); ++i) {
    const fb::Pair* pair = object.headers()->Get(static_cast<flatbuffers::uoffset_t>(i));
    if (text_of(pair->name()) == name) return text_of(pair->value());
  }
  return {};
}

}  // namespace

void add_etag(http::ResponseHead& head, std::string_view etag) {
  std::string& quoted = scratch();
  quoted += '"';
  quoted += etag;
  quoted += '"';
  head.add("ETag", quoted);
}

void add_last_modified(http::ResponseHead& head, int64_t modified_ms) {
  std::string& date = scratch();
  http::append_http_date(modified_ms, date);
  head.add("Last-Modified", date);
}

void add_content_range(http::ResponseHead& head, uint64_t first, uint64_t length, uint64_t size) {
  std::string value = "bytes ";
  append_number(value, first);
  value += '-';
  append_number(value, first + length - 1);
  value += '/';
  append_number(value, size);
  head.add("Content-Range", value);
}

S3Result<> check_overrides(const Op& op) {
  if (op.request.query.empty()) return {};
  for (const SystemHeader& header : kSystemHeaders) {
    const std::string* value = op.request.parameter(header.parameter);
    if (value == nullptr) continue;
    if (op.auth.identity.anonymous()) {
      return s3_fail(
          S3Code::kInvalidRequest,
          "Request specific response headers cannot be used for anonymous GET requests.");
    }
    if (!fits_field(*value)) {
      return invalid_argument(header.parameter, *value,
                              "Header value cannot be represented using ISO-8859-1.");
    }
  }
  return {};
}

void add_object_headers(const Op& op, std::string_view etag, const fb::Object& object) {
  http::ResponseHead& head = op.head();
  add_last_modified(head, object.modified_ms());
  add_etag(head, etag);
  head.add("Accept-Ranges", "bytes");
  const bool overrides = !op.request.query.empty();
  for (const SystemHeader& header : kSystemHeaders) {
    const std::string* override_value =
        overrides ? op.request.parameter(header.parameter) : nullptr;
    const std::string_view value = override_value != nullptr ? std::string_view(*override_value)
                                                             : stored_header(object, header.stored);
    if (!value.empty()) head.add(header.shown, value);
  }
  uint64_t missing = 0;
  if (count_of(object.user()) != 0) {
    std::string name;
    for (const fb::Pair* pair : *object.user()) {
      const std::string_view value = text_of(pair->value());
      if (!fits_field(value)) {
        ++missing;
        continue;
      }
      name.assign("x-amz-meta-");
      name += text_of(pair->name());
      head.add(name, value);
    }
  }
  if (missing != 0) head.add("x-amz-missing-meta", missing);
  if (const std::string_view storage_class = text_of(object.storage_class());
      !storage_class.empty() && storage_class != "STANDARD") {
    head.add("x-amz-storage-class", storage_class);
  }
  if (const std::string_view redirect = text_of(object.website_redirect()); !redirect.empty()) {
    head.add("x-amz-website-redirect-location", redirect);
  }
  if (const size_t tags = count_of(object.tags()); tags != 0)
    head.add("x-amz-tagging-count", uint64_t{tags});
}

void add_not_modified_headers(http::ResponseHead& head, std::string_view etag,
                              const fb::Object& object) {
  add_last_modified(head, object.modified_ms());
  add_etag(head, etag);
  for (const std::string_view name :
       {std::string_view("cache-control"), std::string_view("expires")}) {
    const std::string_view value = stored_header(object, name);
    if (!value.empty()) head.add(name == "expires" ? "Expires" : "Cache-Control", value);
  }
}

}  // namespace basalt::s3
