// S3's additional checksums: which algorithm goes with which type, how parts make an object's
// checksum, how they show.
//
// Source: "Checking object integrity in Amazon S3" (user guide): SHA-1 and SHA-256 of a multipart
// upload are COMPOSITE (the digest of the parts' digests, shown as base64-N), CRC64NVME is
// FULL_OBJECT, CRC32 and CRC32C may be either. Single uploads and copies always have FULL_OBJECT
// checksums.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "auth/digest.h"
#include "protocol/http/response.h"
#include "protocol/s3/body.h"
#include "protocol/s3/error.h"
#include "protocol/s3/object_meta.h"
#include "protocol/s3/op.h"
#include "protocol/s3/xml.h"

namespace basalt::s3 {

// The checksum an upload was created with; every object gets this one if its client asked for none.
constexpr auth::Algorithm kDefaultChecksum = auth::Algorithm::kCrc64Nvme;

std::string_view checksum_type_name(bool full_object);  // "FULL_OBJECT", "COMPOSITE"

struct UploadChecksum {
  auth::Algorithm algorithm = kDefaultChecksum;
  bool full_object = true;
};

// x-amz-checksum-algorithm and x-amz-checksum-type of CreateMultipartUpload; nothing if neither was
// sent. Errors: InvalidRequest (unknown algorithm or type, type without algorithm, a pair that does
// not go together).
S3Result<std::optional<UploadChecksum>> upload_checksum(const S3Request& request);
// x-amz-checksum-algorithm alone (CopyObject). InvalidRequest if unknown.
S3Result<std::optional<auth::Algorithm>> checksum_algorithm_header(const S3Request& request);

// "base64", with "-N" for a composite of N parts.
std::string checksum_text(const StoredChecksum& checksum, size_t part_count);

// x-amz-checksum-ALGORITHM and x-amz-checksum-type.
void add_checksum_headers(http::ResponseHead& head, const StoredChecksum& checksum,
                          size_t part_count);
// <ChecksumALGORITHM> and <ChecksumType>.
void add_checksum_xml(XmlWriter& xml, const StoredChecksum& checksum, size_t part_count);

// Puts an object's checksum together from its parts', in order.
class PartsChecksum {
 public:
  explicit PartsChecksum(UploadChecksum kind);
  // False if the part carries no checksum of this algorithm: the object then has none.
  bool add(const auth::Digest& part, uint64_t part_bytes);
  StoredChecksum finish();

 private:
  UploadChecksum kind_;
  auth::Hasher hasher_;
  auth::Digest combined_;
  bool first_ = true;
};

// One x-amz-checksum-ALGORITHM header of a request whose value describes the *object*
// (CompleteMultipartUpload), as sent.
struct AnnouncedChecksum {
  auth::Algorithm algorithm;
  std::string_view value;
};
// InvalidRequest if there are several.
S3Result<std::optional<AnnouncedChecksum>> announced_checksum(const S3Request& request);

// BadDigest in S3's words for that algorithm.
S3Error bad_checksum(auth::Algorithm algorithm);
// InvalidRequest "Checksum Type mismatch occurred, ..."; nothing sent is "null" there.
S3Error checksum_mismatch(auth::Algorithm expected, std::optional<auth::Algorithm> actual);

// The algorithms a client may name; not MD5.
constexpr auth::Algorithm kChecksumAlgorithms[] = {
    auth::Algorithm::kCrc32, auth::Algorithm::kCrc32c, auth::Algorithm::kCrc64Nvme,
    auth::Algorithm::kSha1, auth::Algorithm::kSha256};

}  // namespace basalt::s3
