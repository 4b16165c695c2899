// aws-chunked bodies: decoder and verifier of STREAMING-AWS4-HMAC-SHA256-PAYLOAD, its -TRAILER form
// and STREAMING-UNSIGNED-PAYLOAD-TRAILER ("Signature calculations: transferring payload in multiple
// chunks", S3 API reference). Pure and incremental: bytes in, runs of payload out. Chunk signatures
// and the trailer signature are checked as soon as a chunk is complete; done is reported only after
// everything verified.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "auth/digest.h"
#include "auth/sigv4.h"
#include "base/bytes.h"

namespace basalt::auth {

enum class ChunkFailure : uint8_t {
  kMalformed,         // InvalidRequest / MalformedTrailerError in the trailer part: see `trailer`
  kMalformedTrailer,  // a trailer not announced, announced but missing, or not parseable
  kSignature,         // SignatureDoesNotMatch
  kTooSmallChunk,     // InvalidChunkSizeError: a signed chunk that is not the last is below 8 KiB
  kTooLong,  // payload is not x-amz-decoded-content-length bytes, more or less: IncompleteBody
};

class AwsChunkedDecoder {
 public:
  static constexpr size_t kLineBytesMax = 1024;
  static constexpr size_t kTrailerBytesMax = 4096;
  static constexpr uint64_t kChunkBytesMax = uint64_t{5} << 30;

  struct Options {
    PayloadKind kind = PayloadKind::kStreamingUnsignedTrailer;
    std::optional<ChunkSigning> signing;  // with the signed forms
    uint64_t decoded_length = 0;          // x-amz-decoded-content-length
    std::vector<std::string> announced;   // names of x-amz-trailer, lower case
  };
  explicit AwsChunkedDecoder(Options options);
  ~AwsChunkedDecoder();

  struct Step {
    size_t consumed = 0;
    Bytes data;         // payload, a view into the input
    bool done = false;  // last chunk (and trailer) complete and verified, decoded length reached
  };
  // At most one run of payload a call: call again with what was not consumed until done, or until
  // nothing is consumed and no data returned (more input is needed). A chunk whose signature fails
  // is reported instead of its last run, and from then on by every call. After done the rest of the
  // body may be passed too: one CRLF is consumed (some clients send one more than the format has),
  // nothing else is; bytes left over then are the caller's to refuse. A body that ends before done
  // is incomplete.
  std::expected<Step, ChunkFailure> decode(Bytes input);

  // So many bytes of payload come next, before anything else: input of at most that length is
  // payload from its first byte to its last, so it may lie where the payload is wanted. 0 if not
  // known yet.
  uint64_t run_bytes() const;

  // After done: trailer fields, names lower case.
  const std::vector<std::pair<std::string, std::string>>& trailers() const;
  uint64_t decoded_bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;  // wiped with its signing key
};

}  // namespace basalt::auth
