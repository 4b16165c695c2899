// Before the first OpenSSL header: see sha256.h for why these functions are used although
// deprecated.
#define OPENSSL_SUPPRESS_DEPRECATED
#include "auth/sha256.h"

#include <openssl/crypto.h>

#include <cstring>

namespace basalt::auth {

void Sha256::reset() { SHA256_Init(&state_); }

void Sha256::update(Bytes data) { SHA256_Update(&state_, data.data(), data.size()); }

Sha256Digest Sha256::finish() {
  Sha256Digest out;
  SHA256_Final(out.data(), &state_);
  return out;
}

Sha256Digest sha256(std::string_view text) {
  Sha256 hash;
  hash.update(text);
  return hash.finish();
}

HmacSha256::~HmacSha256() {
  OPENSSL_cleanse(&inner_.state_, sizeof inner_.state_);
  OPENSSL_cleanse(&outer_.state_, sizeof outer_.state_);
}

void HmacSha256::set_key(Bytes key) {
  std::array<uint8_t, 64> block{};
  if (key.size() > block.size()) {
    Sha256 hash;
    hash.update(key);
    Sha256Digest digest = hash.finish();
    std::memcpy(block.data(), digest.data(), digest.size());
    OPENSSL_cleanse(digest.data(), digest.size());
  } else if (!key.empty()) {
    std::memcpy(block.data(), key.data(), key.size());
  }
  for (uint8_t& byte : block) byte ^= 0x36;
  inner_.reset();
  inner_.update(Bytes(block));
  for (uint8_t& byte : block) byte ^= 0x36 ^ 0x5c;
  outer_.reset();
  outer_.update(Bytes(block));
  OPENSSL_cleanse(block.data(), block.size());
}

Sha256Digest HmacSha256::sign(std::string_view text) const {
  Sha256 inner = inner_;
  inner.update(text);
  const Sha256Digest digest = inner.finish();
  Sha256 outer = outer_;
  outer.update(Bytes(digest));
  return outer.finish();
}

HexDigest hex_digest(const Sha256Digest& digest) {
  static constexpr char kDigits[] = "0123456789abcdef";
  HexDigest out;
  for (size_t i = 0; i < digest.size(); ++i) {
    out.digits[2 * i] = kDigits[digest[i] >> 4];
    out.digits[2 * i + 1] = kDigits[digest[i] & 15];
  }
  return out;
}

}  // namespace basalt::auth
