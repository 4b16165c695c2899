// Digests and checksums of S3: MD5 (ETag, Content-MD5), SHA-1, SHA-256, CRC32, CRC32C, CRC64NVME.
// Incremental.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"

struct evp_md_ctx_st;

namespace basalt::auth {

enum class Algorithm : uint8_t {
  kMd5 = 0,
  kSha1 = 1,
  kSha256 = 2,
  kCrc32 = 3,
  kCrc32c = 4,
  kCrc64Nvme = 5
};
constexpr size_t kAlgorithmCount = 6;

size_t digest_bytes(Algorithm algorithm);  // 16, 20, 32, 4, 4, 8

struct Digest {
  std::array<uint8_t, 32> bytes{};
  uint8_t size = 0;
  Bytes view() const { return {bytes.data(), size}; }
  friend bool operator==(const Digest&, const Digest&) = default;
};

class Hasher {
 public:
  explicit Hasher(Algorithm algorithm);
  ~Hasher();
  Hasher(Hasher&&) noexcept;
  Hasher& operator=(Hasher&&) noexcept;
  void update(Bytes data);
  Digest finish();  // once; CRCs big-endian as S3 encodes them
  void reset();
  Algorithm algorithm() const;

 private:
  struct FreeContext {
    void operator()(evp_md_ctx_st* context) const;
  };
  Algorithm algorithm_;
  uint64_t crc_ = 0;
  std::unique_ptr<evp_md_ctx_st, FreeContext> context_;  // OpenSSL's; null with CRCs
};

Digest digest(Algorithm algorithm, Bytes data);

// CRCs: the CRC of A followed by B, from theirs and B's length (FULL_OBJECT multipart checksums).
Digest combine_crc(Algorithm algorithm, const Digest& a, const Digest& b, uint64_t b_bytes);

std::array<uint8_t, 32> hmac_sha256(Bytes key, Bytes data);

std::string to_hex(Bytes bytes);
// The same without an allocation: `out` has room for two digits a byte.
std::string_view to_hex(Bytes bytes, std::span<char> out);
std::optional<std::string> from_hex(std::string_view hex);
std::string to_base64(Bytes bytes);
std::optional<std::string> from_base64(std::string_view text);  // strict, padded
bool equal_constant_time(Bytes a, Bytes b);

}  // namespace basalt::auth
