#include "protocol/s3/checksum_model.h"

#include <utility>

#include "protocol/s3/failure.h"

namespace basalt::s3 {
namespace {

bool is_sha(auth::Algorithm algorithm) {
  return algorithm == auth::Algorithm::kSha1 || algorithm == auth::Algorithm::kSha256;
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

}  // namespace

std::string_view checksum_type_name(bool full_object) {
  return full_object ? "FULL_OBJECT" : "COMPOSITE";
}

S3Result<std::optional<auth::Algorithm>> checksum_algorithm_header(const S3Request& request) {
  const std::string_view value = request.header("x-amz-checksum-algorithm");
  if (value.empty()) return std::optional<auth::Algorithm>();
  const auto algorithm = checksum_from_name(value);
  if (!algorithm) {
    return s3_fail(
        S3Code::kInvalidRequest,
        "Checksum algorithm provided is unsupported. Please try again with any of the valid types: "
        "[CRC32, CRC32C, CRC64NVME, SHA1, SHA256]");
  }
  return algorithm;
}

S3Result<std::optional<UploadChecksum>> upload_checksum(const S3Request& request) {
  auto algorithm = checksum_algorithm_header(request);
  if (!algorithm) return std::unexpected(std::move(algorithm).error());
  const std::string_view type = request.header("x-amz-checksum-type");
  if (!type.empty() && type != "COMPOSITE" && type != "FULL_OBJECT") {
    return s3_fail(S3Code::kInvalidRequest, "Value for x-amz-checksum-type header is invalid.");
  }
  if (!*algorithm) {
    if (type.empty()) return std::optional<UploadChecksum>();
    return s3_fail(S3Code::kInvalidRequest,
                   "The x-amz-checksum-type header can only be used with the "
                   "x-amz-checksum-algorithm header.");
  }
  UploadChecksum checksum;
  checksum.algorithm = **algorithm;
  checksum.full_object =
      type.empty() ? checksum.algorithm == auth::Algorithm::kCrc64Nvme : type == "FULL_OBJECT";
  const bool possible = checksum.full_object ? !is_sha(checksum.algorithm)
                                             : checksum.algorithm != auth::Algorithm::kCrc64Nvme;
  if (!possible) {
    return s3_fail(S3Code::kInvalidRequest,
                   "The " + std::string(checksum_type_name(checksum.full_object)) +
                       " checksum type cannot be used with the " +
                       lower(checksum_name(checksum.algorithm)) + " checksum algorithm.");
  }
  return checksum;
}

std::string checksum_text(const StoredChecksum& checksum, size_t part_count) {
  std::string text = auth::to_base64(checksum.value.view());
  if (!checksum.full_object) text += "-" + std::to_string(part_count);
  return text;
}

void add_checksum_headers(http::ResponseHead& head, const StoredChecksum& checksum,
                          size_t part_count) {
  head.add(checksum_header(checksum.algorithm), checksum_text(checksum, part_count));
  head.add("x-amz-checksum-type", checksum_type_name(checksum.full_object));
}

void add_checksum_xml(XmlWriter& xml, const StoredChecksum& checksum, size_t part_count) {
  xml.text(checksum_element(checksum.algorithm), checksum_text(checksum, part_count));
  xml.text("ChecksumType", checksum_type_name(checksum.full_object));
}

PartsChecksum::PartsChecksum(UploadChecksum kind) : kind_(kind), hasher_(kind.algorithm) {}

bool PartsChecksum::add(const auth::Digest& part, uint64_t part_bytes) {
  if (part.size != auth::digest_bytes(kind_.algorithm)) return false;
  if (!kind_.full_object) {
    hasher_.update(part.view());
  } else {
    combined_ = first_ ? part : auth::combine_crc(kind_.algorithm, combined_, part, part_bytes);
  }
  first_ = false;
  return true;
}

StoredChecksum PartsChecksum::finish() {
  return {kind_.algorithm, kind_.full_object, kind_.full_object ? combined_ : hasher_.finish()};
}

S3Result<std::optional<AnnouncedChecksum>> announced_checksum(const S3Request& request) {
  std::optional<AnnouncedChecksum> found;
  for (const auth::Algorithm algorithm : kChecksumAlgorithms) {
    const http::Field* field = request.find_header(checksum_header(algorithm));
    if (field == nullptr) continue;
    if (found) {
      return s3_fail(
          S3Code::kInvalidRequest,
          "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.");
    }
    found = AnnouncedChecksum{algorithm, field->value};
  }
  return found;
}

S3Error bad_checksum(auth::Algorithm algorithm) {
  return S3Error(S3Code::kBadDigest, "The " + std::string(checksum_name(algorithm)) +
                                         " you specified did not match the calculated checksum.");
}

S3Error checksum_mismatch(auth::Algorithm expected, std::optional<auth::Algorithm> actual) {
  return S3Error(
      S3Code::kInvalidRequest,
      "Checksum Type mismatch occurred, expected checksum Type: " + lower(checksum_name(expected)) +
          ", actual checksum Type: " + (actual ? lower(checksum_name(*actual)) : "null"));
}

}  // namespace basalt::s3
