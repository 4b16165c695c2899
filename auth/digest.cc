#include "auth/digest.h"

#include <libdeflate.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <cstring>

#include "auth/crc64.h"
#include "auth/sha256.h"
#include "base/check.h"
#include "base/crc32c.h"

namespace basalt::auth {
namespace {

// OpenSSL 3 looks an algorithm up by name on every EVP_sha256()-style start (0.5 us); a fetched one
// is found once.
const EVP_MD* evp_digest(Algorithm algorithm) {
  static const std::array<EVP_MD*, 3> digests = {
      EVP_MD_fetch(nullptr, "MD5", nullptr),
      EVP_MD_fetch(nullptr, "SHA1", nullptr),
      EVP_MD_fetch(nullptr, "SHA256", nullptr),
  };
  const EVP_MD* digest = digests[static_cast<size_t>(algorithm)];
  BASALT_CHECK(digest != nullptr);
  return digest;
}

bool is_crc(Algorithm algorithm) { return algorithm >= Algorithm::kCrc32; }

uint64_t update_crc(Algorithm algorithm, uint64_t crc, Bytes data) {
  if (data.empty()) return crc;  // libdeflate_crc32(crc, nullptr, 0) would answer the initial value
  switch (algorithm) {
    case Algorithm::kCrc32:
      return libdeflate_crc32(static_cast<uint32_t>(crc), data.data(), data.size());
    case Algorithm::kCrc32c:
      return crc32c(data, static_cast<uint32_t>(crc));
    default:
      return crc64_nvme(data, crc);
  }
}

Digest crc_digest(Algorithm algorithm, uint64_t crc) {
  Digest out;
  out.size = static_cast<uint8_t>(digest_bytes(algorithm));
  for (size_t i = 0; i < out.size; ++i) {
    out.bytes[i] = static_cast<uint8_t>(crc >> (8 * (out.size - 1 - i)));
  }
  return out;
}

// Products modulo a reflected polynomial of W bits: the highest bit is x^0.
template <class W>
W multiply_modulo(W a, W b, W polynomial) {
  W product = 0;
  for (W bit = W{1} << (sizeof(W) * 8 - 1); bit != 0; bit >>= 1) {
    if (a & bit) product ^= b;
    b = (b & 1) ? (b >> 1) ^ polynomial : b >> 1;
  }
  return product;
}

// CRC(A B) = CRC(A) * x^(8 |B|) + CRC(B), because initial value and final xor are equal.
template <class W>
W combine(W a, W b, uint64_t b_bytes, W polynomial) {
  W factor = W{1} << (sizeof(W) * 8 - 1);  // x^0
  W square = factor >> 8;                  // x^8: one byte
  for (; b_bytes != 0; b_bytes >>= 1) {
    if (b_bytes & 1) factor = multiply_modulo(square, factor, polynomial);
    square = multiply_modulo(square, square, polynomial);
  }
  return multiply_modulo(factor, a, polynomial) ^ b;
}

uint64_t crc_value(const Digest& digest) {
  uint64_t value = 0;
  for (uint8_t byte : digest.view()) value = value << 8 | byte;
  return value;
}

constexpr char kBase64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

constexpr std::array<int8_t, 256> make_base64_values() {
  std::array<int8_t, 256> values{};
  values.fill(-1);
  for (int i = 0; i < 64; ++i) values[static_cast<uint8_t>(kBase64[i])] = static_cast<int8_t>(i);
  return values;
}
constexpr std::array<int8_t, 256> kBase64Values = make_base64_values();

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

size_t digest_bytes(Algorithm algorithm) {
  static constexpr std::array<size_t, kAlgorithmCount> kSizes = {16, 20, 32, 4, 4, 8};
  return kSizes[static_cast<size_t>(algorithm)];
}

void Hasher::FreeContext::operator()(evp_md_ctx_st* context) const { EVP_MD_CTX_free(context); }

Hasher::Hasher(Algorithm algorithm) : algorithm_(algorithm) {
  if (!is_crc(algorithm)) {
    context_.reset(EVP_MD_CTX_new());
    BASALT_CHECK(context_ != nullptr);
  }
  reset();
}
Hasher::~Hasher() = default;
Hasher::Hasher(Hasher&&) noexcept = default;
Hasher& Hasher::operator=(Hasher&&) noexcept = default;

void Hasher::update(Bytes data) {
  if (context_) {
    BASALT_CHECK(EVP_DigestUpdate(context_.get(), data.data(), data.size()) == 1);
  } else {
    crc_ = update_crc(algorithm_, crc_, data);
  }
}

Digest Hasher::finish() {
  if (!context_) return crc_digest(algorithm_, crc_);
  Digest out;
  unsigned size = 0;
  BASALT_CHECK(EVP_DigestFinal_ex(context_.get(), out.bytes.data(), &size) == 1);
  out.size = static_cast<uint8_t>(size);
  return out;
}

void Hasher::reset() {
  crc_ = 0;
  if (context_)
    BASALT_CHECK(EVP_DigestInit_ex2(context_.get(), evp_digest(algorithm_), nullptr) == 1);
}
Algorithm Hasher::algorithm() const { return algorithm_; }

Digest digest(Algorithm algorithm, Bytes data) {
  if (is_crc(algorithm)) return crc_digest(algorithm, update_crc(algorithm, 0, data));
  Hasher hasher(algorithm);
  hasher.update(data);
  return hasher.finish();
}

Digest combine_crc(Algorithm algorithm, const Digest& a, const Digest& b, uint64_t b_bytes) {
  BASALT_CHECK(is_crc(algorithm));
  BASALT_CHECK(a.size == digest_bytes(algorithm) && b.size == a.size);
  if (algorithm == Algorithm::kCrc64Nvme) {
    return crc_digest(algorithm,
                      combine<uint64_t>(crc_value(a), crc_value(b), b_bytes, kCrc64NvmePolynomial));
  }
  const uint32_t polynomial = algorithm == Algorithm::kCrc32 ? 0xedb88320 : 0x82f63b78;
  return crc_digest(algorithm,
                    combine<uint32_t>(static_cast<uint32_t>(crc_value(a)),
                                      static_cast<uint32_t>(crc_value(b)), b_bytes, polynomial));
}

std::array<uint8_t, 32> hmac_sha256(Bytes key, Bytes data) {
  return HmacSha256(key).sign(as_text(data));
}

std::string_view to_hex(Bytes bytes, std::span<char> out) {
  static constexpr char kDigits[] = "0123456789abcdef";
  BASALT_CHECK(out.size() >= 2 * bytes.size());
  char* at = out.data();
  for (uint8_t byte : bytes) {
    *at++ = kDigits[byte >> 4];
    *at++ = kDigits[byte & 15];
  }
  return {out.data(), 2 * bytes.size()};
}

std::string to_hex(Bytes bytes) {
  std::string out(2 * bytes.size(), '\0');
  to_hex(bytes, out);
  return out;
}

std::optional<std::string> from_hex(std::string_view hex) {
  if (hex.size() % 2 != 0) return std::nullopt;
  std::string out;
  out.reserve(hex.size() / 2);
  for (size_t i = 0; i < hex.size(); i += 2) {
    const int high = hex_value(hex[i]), low = hex_value(hex[i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    out.push_back(static_cast<char>(high << 4 | low));
  }
  return out;
}

std::string to_base64(Bytes bytes) {
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  size_t i = 0;
  for (; i + 3 <= bytes.size(); i += 3) {
    const uint32_t group = uint32_t{bytes[i]} << 16 | uint32_t{bytes[i + 1]} << 8 | bytes[i + 2];
    for (int shift = 18; shift >= 0; shift -= 6) out.push_back(kBase64[group >> shift & 63]);
  }
  if (const size_t rest = bytes.size() - i; rest > 0) {
    const uint32_t group = uint32_t{bytes[i]} << 16 | (rest == 2 ? uint32_t{bytes[i + 1]} << 8 : 0);
    out.push_back(kBase64[group >> 18 & 63]);
    out.push_back(kBase64[group >> 12 & 63]);
    out.push_back(rest == 2 ? kBase64[group >> 6 & 63] : '=');
    out.push_back('=');
  }
  return out;
}

std::optional<std::string> from_base64(std::string_view text) {
  if (text.size() % 4 != 0) return std::nullopt;
  std::string out;
  out.reserve(text.size() / 4 * 3);
  for (size_t i = 0; i < text.size(); i += 4) {
    const bool last = i + 4 == text.size();
    const unsigned padding = !last || text[i + 3] != '=' ? 0 : text[i + 2] == '=' ? 2 : 1;
    uint32_t group = 0;
    for (unsigned j = 0; j < 4; ++j) {
      const int value = j >= 4 - padding ? 0 : kBase64Values[static_cast<uint8_t>(text[i + j])];
      if (value < 0) return std::nullopt;
      group = group << 6 | static_cast<uint32_t>(value);
    }
    // One text a value: bits that padding leaves unused must be zero.
    if ((padding == 1 && (group & 0xff)) || (padding == 2 && (group & 0xffff))) return std::nullopt;
    out.push_back(static_cast<char>(group >> 16));
    if (padding < 2) out.push_back(static_cast<char>(group >> 8));
    if (padding < 1) out.push_back(static_cast<char>(group));
  }
  return out;
}

bool equal_constant_time(Bytes a, Bytes b) {
  if (a.size() != b.size()) return false;
  // Word by word: CRYPTO_memcmp's byte by byte took a tenth of a signature's verification.
  uint64_t differences = 0;
  size_t i = 0;
  for (; i + sizeof differences <= a.size(); i += sizeof differences) {
    uint64_t left, right;
    std::memcpy(&left, a.data() + i, sizeof left);
    std::memcpy(&right, b.data() + i, sizeof right);
    differences |= left ^ right;
    // The compiler must not know what it holds, or it could leave early.
    asm volatile("" : "+r"(differences));
  }
  for (; i < a.size(); ++i) {
    differences |= static_cast<uint64_t>(a[i] ^ b[i]);
    asm volatile("" : "+r"(differences));
  }
  return differences == 0;
}

}  // namespace basalt::auth
