// Before the first OpenSSL header: its block function can only be reached through what 3.0 marks as
// deprecated.
#define OPENSSL_SUPPRESS_DEPRECATED
#include "auth/sha256.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "auth/sha256_ni.h"
#include "base/check.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace basalt::auth {
namespace {

// FIPS 180-4, 5.3.3.
constexpr Sha256State kInitial = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
constexpr size_t kLengthBytes = 8;  // of the message's length in bits, at the end of the padding

void compress_openssl(uint32_t* state, const uint8_t* data, size_t blocks) {
  SHA256_CTX context{};
  std::copy_n(state, 8, context.h);
  context.md_len = SHA256_DIGEST_LENGTH;
  SHA256_Update(&context, data, blocks * kSha256BlockBytes);
  std::copy_n(context.h, 8, state);
}

template <class T>
void store_big_endian(uint8_t* at, T value) {
  if constexpr (std::endian::native == std::endian::little) value = std::byteswap(value);
  std::memcpy(at, &value, sizeof value);
}

Sha256Digest digest_of(const Sha256State& state) {
  Sha256Digest out;
  for (size_t i = 0; i < state.size(); ++i) store_big_endian(out.data() + 4 * i, state[i]);
  return out;
}

}  // namespace

std::array<Sha256Compress, 2> sha256_compress_all() { return {compress_openssl, sha256_ni()}; }

Sha256Compress sha256_compress() {
  static const Sha256Compress chosen = [] {
    const Sha256Compress ni = sha256_ni();
    return ni != nullptr ? ni : compress_openssl;
  }();
  return chosen;
}

void Sha256::reset() {
  state_ = kInitial;
  bytes_ = 0;
}

void Sha256::update(Bytes data) {
  if (data.empty()) return;
  const size_t kept = bytes_ % kSha256BlockBytes;
  bytes_ += data.size();
  if (kept != 0) {
    const size_t step = std::min(data.size(), kSha256BlockBytes - kept);
    std::memcpy(rest_.data() + kept, data.data(), step);
    if (kept + step < kSha256BlockBytes) return;
    compress_(state_.data(), rest_.data(), 1);
    data = data.subspan(step);
  }
  if (const size_t blocks = data.size() / kSha256BlockBytes; blocks != 0) {
    compress_(state_.data(), data.data(), blocks);
    data = data.subspan(blocks * kSha256BlockBytes);
  }
  if (!data.empty()) std::memcpy(rest_.data(), data.data(), data.size());
}

Sha256Digest Sha256::finish() {
  size_t kept = bytes_ % kSha256BlockBytes;
  rest_[kept++] = 0x80;
  if (kept > kSha256BlockBytes - kLengthBytes) {
    std::memset(rest_.data() + kept, 0, kSha256BlockBytes - kept);
    compress_(state_.data(), rest_.data(), 1);
    kept = 0;
  }
  std::memset(rest_.data() + kept, 0, kSha256BlockBytes - kLengthBytes - kept);
  store_big_endian(rest_.data() + kSha256BlockBytes - kLengthBytes, bytes_ * 8);
  compress_(state_.data(), rest_.data(), 1);
  return digest_of(state_);
}

Sha256Digest sha256(std::string_view text) {
  Sha256 hash;
  hash.update(text);
  return hash.finish();
}

HmacSha256::~HmacSha256() {
  OPENSSL_cleanse(inner_.data(), sizeof inner_);
  OPENSSL_cleanse(outer_.data(), sizeof outer_);
}

void HmacSha256::set_key(Bytes key) {
  std::array<uint8_t, kSha256BlockBytes> block{};
  if (key.size() > block.size()) {
    Sha256 hash;
    hash.update(key);
    Sha256Digest digest = hash.finish();
    std::memcpy(block.data(), digest.data(), digest.size());
    OPENSSL_cleanse(digest.data(), digest.size());
    OPENSSL_cleanse(static_cast<void*>(&hash), sizeof hash);
  } else if (!key.empty()) {
    std::memcpy(block.data(), key.data(), key.size());
  }
  const Sha256Compress compress = sha256_compress();
  for (uint8_t& byte : block) byte ^= 0x36;
  inner_ = kInitial;
  compress(inner_.data(), block.data(), 1);
  for (uint8_t& byte : block) byte ^= 0x36 ^ 0x5c;
  outer_ = kInitial;
  compress(outer_.data(), block.data(), 1);
  OPENSSL_cleanse(block.data(), block.size());
}

Sha256Digest HmacSha256::sign(std::string_view text) const {
  Sha256 inner(inner_, kSha256BlockBytes);
  inner.update(text);
  Sha256 outer(outer_, kSha256BlockBytes);
  outer.update(Bytes(inner.finish()));
  return outer.finish();
}

#if defined(__SSE2__)

HexDigest hex_digest(const Sha256Digest& digest) {
  HexDigest out;
  const auto digits = [](__m128i nibbles) {
    const __m128i letters = _mm_cmpgt_epi8(nibbles, _mm_set1_epi8(9));
    return _mm_add_epi8(_mm_add_epi8(nibbles, _mm_set1_epi8('0')),
                        _mm_and_si128(letters, _mm_set1_epi8('a' - '0' - 10)));
  };
  for (size_t i = 0; i < digest.size(); i += 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(digest.data() + i));
    const __m128i low = _mm_and_si128(bytes, _mm_set1_epi8(0x0f));
    const __m128i high = _mm_and_si128(_mm_srli_epi16(bytes, 4), _mm_set1_epi8(0x0f));
    auto* at = reinterpret_cast<__m128i*>(out.digits.data() + 2 * i);
    _mm_storeu_si128(at, digits(_mm_unpacklo_epi8(high, low)));
    _mm_storeu_si128(at + 1, digits(_mm_unpackhi_epi8(high, low)));
  }
  return out;
}

bool decode_hex(std::string_view digits, Sha256Digest& out) {
  BASALT_CHECK(digits.size() == 2 * out.size());
  __m128i good = _mm_set1_epi8(-1);
  const auto half = [&](const char* at) {  // 16 digits: eight bytes, each in two
    const __m128i text = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    const __m128i number = _mm_sub_epi8(text, _mm_set1_epi8('0'));
    const __m128i letter =
        _mm_sub_epi8(_mm_or_si128(text, _mm_set1_epi8(0x20)), _mm_set1_epi8('a'));
    const __m128i is_number = _mm_cmpeq_epi8(_mm_min_epu8(number, _mm_set1_epi8(9)), number);
    const __m128i is_letter = _mm_cmpeq_epi8(_mm_min_epu8(letter, _mm_set1_epi8(5)), letter);
    good = _mm_and_si128(good, _mm_or_si128(is_number, is_letter));
    const __m128i value =
        _mm_or_si128(_mm_and_si128(is_number, number),
                     _mm_and_si128(is_letter, _mm_add_epi8(letter, _mm_set1_epi8(10))));
    // The first digit of a pair is the low byte of its 16 bits.
    return _mm_and_si128(_mm_or_si128(_mm_slli_epi16(value, 4), _mm_srli_epi16(value, 8)),
                         _mm_set1_epi16(0x00ff));
  };
  for (size_t i = 0; i < out.size(); i += 16) {
    const __m128i low = half(digits.data() + 2 * i), high = half(digits.data() + 2 * i + 16);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out.data() + i), _mm_packus_epi16(low, high));
  }
  return _mm_movemask_epi8(good) == 0xffff;
}

#else

HexDigest hex_digest(const Sha256Digest& digest) {
  static constexpr char kDigits[] = "0123456789abcdef";
  HexDigest out;
  for (size_t i = 0; i < digest.size(); ++i) {
    out.digits[2 * i] = kDigits[digest[i] >> 4];
    out.digits[2 * i + 1] = kDigits[digest[i] & 15];
  }
  return out;
}

bool decode_hex(std::string_view digits, Sha256Digest& out) {
  BASALT_CHECK(digits.size() == 2 * out.size());
  const auto value = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
  };
  for (size_t i = 0; i < out.size(); ++i) {
    const int high = value(digits[2 * i]), low = value(digits[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    out[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return true;
}

#endif

}  // namespace basalt::auth
