// RequestBody: an upload's payload with every promise of the client checked: Content-Length or
// x-amz-decoded-content-length, payload SHA-256, chunk signatures, Content-MD5, x-amz-checksum-* in
// header or trailer.
//
// read() gives decoded payload bytes; it returns 0 only after all of that verified, so a handler
// that saw 0 may commit.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "auth/aws_chunked.h"
#include "auth/digest.h"
#include "auth/hash_station.h"
#include "base/bytes.h"
#include "base/task.h"
#include "protocol/s3/error.h"
#include "protocol/s3/op.h"

namespace basalt::s3 {

struct Checksum {
  auth::Algorithm algorithm;  // kSha1, kSha256, kCrc32, kCrc32c, kCrc64Nvme
  auth::Digest value;
};

class RequestBody {
 public:
  virtual ~RequestBody() = default;

  // Parses the headers. Errors: MissingContentLength (411), InvalidDigest, EntityTooLarge (over
  // kPutBytesMax), InvalidRequest (checksum header and trailer together, unknown algorithm, more
  // than one checksum), ...
  //
  // With a station MD5 and SHA-256 are computed behind the reading, beside those of other uploads:
  // see hashed(). Without one (nullptr) read() hashes what it gives. The station outlives the body.
  static S3Result<std::unique_ptr<RequestBody>> open(session::Exchange& exchange,
                                                     const S3Request& request,
                                                     const auth::Authenticated& auth,
                                                     auth::HashStation* station = nullptr);

  virtual uint64_t length() const = 0;  // payload bytes, always known
  // Also computes this checksum, if the client did not bring one of that algorithm. Before the
  // first read.
  virtual void want(auth::Algorithm algorithm) = 0;
  // The algorithm the client announced (header, trailer, or x-amz-sdk-checksum-algorithm), if any.
  virtual std::optional<auth::Algorithm> announced() const = 0;

  virtual Task<S3Result<size_t>> read(MutableBytes into) = 0;
  // Everything has come, framed as it should be: what read() still does is to verify the digests.
  virtual bool ended() const = 0;

  // ended() is true: whoever has something else to do before the read() that verifies tells it
  // here. The digests then need not be there at once, and are computed in more company.
  virtual void finish_digests() = 0;

  // How many payload bytes are hashed. Bytes that read() gave stay where they are, unchanged, until
  // this has passed them or release() was called.
  virtual uint64_t hashed() const = 0;
  // Waits for it; `position` is at most what was read.
  virtual Task<void> hash_to(uint64_t position) = 0;
  // The memory that was read into goes away now. Nothing can be read or verified any more, unless
  // all is verified already.
  virtual void release() = 0;

  // After read() returned 0:
  virtual const auth::Digest& md5() const = 0;
  // The client's verified checksum, else the wanted one.
  virtual std::optional<Checksum> checksum() const = 0;
};

// One read() hashes at most this much, so that a turn of the loop stays short (MD5 and SHA-256
// together take about 3.5 ns a byte on a core without SHA instructions); callers read again.
constexpr size_t kHashSliceBytesMax = 64 * 1024;
// The same when a station hashes and read() only copies and computes a CRC, if any.
constexpr size_t kReadSliceBytesMax = 256 * 1024;
// Payloads up to this length are hashed where they are read, whatever the station has to do.
constexpr uint64_t kDirectHashBytesMax = 1024;

// Reads a whole body of at most `bytes_max` (else MaxMessageLengthExceeded), all promises verified.
Task<S3Result<std::string>> read_whole_body(session::Exchange& exchange, const S3Request& request,
                                            const auth::Authenticated& auth, size_t bytes_max);

// What Content-Encoding to store: the client's without "aws-chunked", which describes the transfer
// only.
std::string stored_content_encoding(std::string_view value);

std::string_view checksum_header(auth::Algorithm algorithm);   // "x-amz-checksum-crc32c"
std::string_view checksum_name(auth::Algorithm algorithm);     // "CRC32C"
std::string_view checksum_element(auth::Algorithm algorithm);  // "ChecksumCRC32C"
std::optional<auth::Algorithm> checksum_from_name(
    std::string_view name);  // "CRC32C", case-insensitive; not MD5

}  // namespace basalt::s3
