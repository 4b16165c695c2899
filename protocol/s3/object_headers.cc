#include "protocol/s3/object_headers.h"

#include <algorithm>
#include <array>
#include <utility>

#include "protocol/s3/body.h"
#include "protocol/s3/failure.h"
#include "protocol/s3/tagging.h"

namespace basalt::s3 {
namespace {

constexpr std::array<std::string_view, 6> kSystemHeaders = {
    "content-type",     "cache-control",    "content-disposition",
    "content-encoding", "content-language", "expires"};
constexpr std::array<std::string_view, 13> kStorageClasses = {
    "STANDARD",        "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING",
    "GLACIER",         "DEEP_ARCHIVE",       "OUTPOSTS",    "GLACIER_IR", "SNOW",
    "EXPRESS_ONEZONE", "FSX_OPENZFS",        "FSX_ONTAP"};
constexpr std::array<std::string_view, 6> kOtherAcls = {"public-read",        "public-read-write",
                                                        "authenticated-read", "aws-exec-read",
                                                        "bucket-owner-read",  "log-delivery-write"};

constexpr std::string_view kAmz = "x-amz-";
constexpr std::string_view kMeta = "x-amz-meta-";
constexpr size_t kRedirectBytesMax = 2048;

template <size_t N>
bool one_of(const std::array<std::string_view, N>& list, std::string_view value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

bool starts_with_name(std::string_view name, std::string_view prefix) {
  return name.size() >= prefix.size() &&
         http::field_name_equals(name.substr(0, prefix.size()), prefix);
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

// Repeated fields are one list (RFC 9110 section 5.3).
void append(std::vector<NameValue>& pairs, std::string name, std::string_view value) {
  for (NameValue& pair : pairs) {
    if (pair.name == name) {
      pair.value += ',';
      pair.value += value;
      return;
    }
  }
  pairs.push_back({std::move(name), std::string(value)});
}

S3Result<> check_acl(std::string_view value) {
  if (value.empty() || value == "private" || value == "bucket-owner-full-control") return {};
  if (one_of(kOtherAcls, value)) return s3_fail(S3Code::kAccessControlListNotSupported);
  return invalid_argument("x-amz-acl", value, "");
}

// A field whose name starts with x-amz-; `name` is its lower-cased rest.
S3Result<> amz_header(std::string_view name, std::string_view value, ObjectFields& fields) {
  if (name == "storage-class") {
    if (!one_of(kStorageClasses, value)) {
      return s3_fail_with(S3Code::kInvalidStorageClass, "StorageClassRequested", value);
    }
    if (value != "STANDARD") fields.storage_class = value;
    return {};
  }
  if (name == "website-redirect-location") {
    if (value.size() > kRedirectBytesMax ||
        !(value.starts_with('/') || value.starts_with("http://") ||
          value.starts_with("https://"))) {
      return invalid_argument(
          "x-amz-website-redirect-location", value,
          "The website redirect location must have a prefix of 'http://' or 'https://' or '/'.");
    }
    fields.website_redirect = value;
    return {};
  }
  if (name == "tagging") {
    auto tags = parse_tagging_header(value);
    if (!tags) return std::unexpected(std::move(tags).error());
    fields.tags = std::move(*tags);
    return {};
  }
  if (name == "acl") return check_acl(value);
  if (name.starts_with("grant-")) return s3_fail(S3Code::kAccessControlListNotSupported);
  if (name.starts_with("server-side-encryption")) {
    // Storing in the clear what was to be encrypted would be worse than refusing it.
    return header_not_implemented(std::string(kAmz) + std::string(name));
  }
  if (name == "object-lock-mode" || name == "object-lock-retain-until-date" ||
      name == "object-lock-legal-hold") {
    return s3_fail(S3Code::kInvalidRequest, "Bucket is missing Object Lock Configuration");
  }
  if (name == "write-offset-bytes") return header_not_implemented("x-amz-write-offset-bytes");
  return {};
}

}  // namespace

S3Result<ObjectFields> object_headers(const Op& op) {
  ObjectFields fields;
  for (const http::Field& field : op.request.head->fields) {
    if (starts_with_name(field.name, kMeta)) {
      std::string name = lower(field.name.substr(kMeta.size()));
      if (!name.empty()) append(fields.user, std::move(name), field.value);
      continue;
    }
    if (starts_with_name(field.name, kAmz)) {
      const std::string name = lower(field.name.substr(kAmz.size()));
      if (op.bucket->object_lock && name.starts_with("object-lock-")) {
        return header_not_implemented(std::string(kAmz) + name);  // the lock would not be kept
      }
      if (auto checked = amz_header(name, field.value, fields); !checked) {
        return std::unexpected(std::move(checked).error());
      }
      continue;
    }
    for (const std::string_view system : kSystemHeaders) {
      if (!http::field_name_equals(field.name, system)) continue;
      std::string value = system == "content-encoding" ? stored_content_encoding(field.value)
                                                       : std::string(field.value);
      if (!value.empty()) append(fields.headers, std::string(system), value);
      break;
    }
  }
  const bool typed =
      std::any_of(fields.headers.begin(), fields.headers.end(),
                  [](const NameValue& header) { return header.name == "content-type"; });
  if (!typed) fields.headers.push_back({"content-type", std::string(kDefaultContentType)});

  size_t user_bytes = 0;
  for (const NameValue& pair : fields.user) user_bytes += pair.name.size() + pair.value.size();
  if (user_bytes > kUserMetadataBytesMax) {
    S3Error error(S3Code::kMetadataTooLarge);
    error.details = {{"Size", std::to_string(user_bytes)},
                     {"MaxSizeAllowed", std::to_string(kUserMetadataBytesMax)}};
    return std::unexpected(std::move(error));
  }
  return fields;
}

S3Result<> check_read_headers(const S3Request& request) {
  if (request.find_header("x-amz-server-side-encryption") != nullptr) {
    return invalid_argument(
        "x-amz-server-side-encryption", request.header("x-amz-server-side-encryption"),
        "x-amz-server-side-encryption header is not supported for this operation.");
  }
  if (request.find_header("x-amz-server-side-encryption-customer-algorithm") != nullptr) {
    return s3_fail(S3Code::kInvalidRequest,
                   "The encryption parameters are not applicable to this object.");
  }
  return {};
}

}  // namespace basalt::s3
