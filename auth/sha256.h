// SHA-256 and HMAC-SHA-256 on the stack, for the signature path. Inside auth/ only; others use
// auth/digest.h.
//
// A signed GET needs three short hashes of nine blocks in all; with SHA instructions a block takes
// 40 ns, so what a library spends around the blocks (EVP's look-ups and contexts, SHA256_CTX and
// its wiping) is as dear as the hashing. So the frame around the blocks is ours: a chaining state
// of eight words that can be copied, which is what makes HMAC from a prepared key cost two
// compressions less. The blocks are compressed by the processor's SHA instructions where it has
// them, else by OpenSSL; every path is tested against OpenSSL.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "base/bytes.h"

namespace basalt::auth {

using Sha256Digest = std::array<uint8_t, 32>;
using Sha256State = std::array<uint32_t, 8>;

constexpr size_t kSha256BlockBytes = 64;

// Compresses `blocks` blocks at `data` (any alignment) into the state.
using Sha256Compress = void (*)(uint32_t* state, const uint8_t* data, size_t blocks);

// The way this processor does it, and, for tests, all it can do; the first is OpenSSL's.
Sha256Compress sha256_compress();
std::array<Sha256Compress, 2> sha256_compress_all();  // nullptr: not on this processor

class Sha256 {
 public:
  Sha256() { reset(); }
  // Goes on from a state that `bytes` (whole blocks) led to.
  Sha256(const Sha256State& state, uint64_t bytes, Sha256Compress compress = sha256_compress())
      : compress_(compress), state_(state), bytes_(bytes) {}
  void reset();
  void update(Bytes data);
  void update(std::string_view text) { update(as_bytes(text)); }
  Sha256Digest finish();

 private:
  Sha256Compress compress_ = sha256_compress();
  Sha256State state_;
  uint64_t bytes_ = 0;
  std::array<uint8_t, kSha256BlockBytes> rest_;  // bytes_ % 64 of them are in use
};

Sha256Digest sha256(std::string_view text);

// A key with its inner and outer states prepared (RFC 2104). Wiped when it is destroyed.
class HmacSha256 {
 public:
  HmacSha256() = default;
  explicit HmacSha256(Bytes key) { set_key(key); }
  ~HmacSha256();
  HmacSha256(const HmacSha256&) = default;
  HmacSha256& operator=(const HmacSha256&) = default;
  void set_key(Bytes key);
  Sha256Digest sign(std::string_view text) const;

 private:
  Sha256State inner_{};
  Sha256State outer_{};
};

// 64 lower-case hex digits, without an allocation.
struct HexDigest {
  std::array<char, 64> digits;
  std::string_view view() const { return {digits.data(), digits.size()}; }
};
HexDigest hex_digest(const Sha256Digest& digest);
// The way back, from 64 digits of either case; false if one is no digit.
bool decode_hex(std::string_view digits, Sha256Digest& out);

inline constexpr std::string_view kEmptySha256 =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

}  // namespace basalt::auth
