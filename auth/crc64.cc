#include "auth/crc64.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace basalt::auth {
namespace {

using Tables = std::array<std::array<uint64_t, 256>, 8>;

constexpr Tables make_tables() {
  Tables tables{};
  for (unsigned i = 0; i < 256; ++i) {
    uint64_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? kCrc64NvmePolynomial : 0);
    tables[0][i] = crc;
  }
  for (unsigned i = 0; i < 256; ++i) {
    for (unsigned t = 1; t < 8; ++t) {
      tables[t][i] = (tables[t - 1][i] >> 8) ^ tables[0][tables[t - 1][i] & 0xff];
    }
  }
  return tables;
}
constexpr Tables kTables = make_tables();

uint64_t load_le64(const uint8_t* from) {
  uint64_t value;
  std::memcpy(&value, from, sizeof value);
  if constexpr (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__) value = __builtin_bswap64(value);
  return value;
}

// Below, the tables are as fast as folding is, and both kernels want at least this much.
constexpr size_t kFoldedBytesMin = 128;

// The register itself: without the initial and final inversion.
uint64_t update_tables(const uint8_t* data, size_t size, uint64_t crc) {
  while (size >= 8) {
    const uint64_t word = load_le64(data) ^ crc;
    crc = 0;
    for (unsigned byte = 0; byte < 8; ++byte) crc ^= kTables[7 - byte][(word >> (8 * byte)) & 0xff];
    data += 8;
    size -= 8;
  }
  while (size-- > 0) crc = (crc >> 8) ^ kTables[0][(crc ^ *data++) & 0xff];
  return crc;
}

#if defined(__x86_64__)

// x^n mod P, reflected: bit i stands for x^(63-i).
constexpr uint64_t x_power(unsigned n) {
  uint64_t value = uint64_t{1} << 63;
  while (n-- > 0) value = (value >> 1) ^ ((value & 1) ? kCrc64NvmePolynomial : 0);
  return value;
}

// A 128-bit lane in memory order holds A * x^64 + B, A in the low half. Moving it over D bits of
// message multiplies it by x^D: A * x^(D+64) + B * x^D. The carry-less product of two reflected
// 64-bit values reads, as a reflected 128-bit value, one power of x too high, hence the exponents
// less one.
struct FoldConstants {
  uint64_t low, high;
};
constexpr FoldConstants fold_constants(unsigned bits) {
  return {x_power(bits + 63), x_power(bits - 1)};
}
constexpr FoldConstants kFold1024 = fold_constants(1024);
constexpr FoldConstants kFold512 = fold_constants(512);
constexpr FoldConstants kFold256 = fold_constants(256);
constexpr FoldConstants kFold128 = fold_constants(128);

__attribute__((target("pclmul,sse4.1"))) inline __m128i fold(__m128i lane, __m128i constants,
                                                             __m128i next) {
  const __m128i low = _mm_clmulepi64_si128(lane, constants, 0x00);
  const __m128i high = _mm_clmulepi64_si128(lane, constants, 0x11);
  return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

__attribute__((target("pclmul,sse4.1"))) inline __m128i load(const uint8_t* from) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}

__attribute__((target("pclmul,sse4.1"))) inline __m128i pair(FoldConstants constants) {
  return _mm_set_epi64x(static_cast<long long>(constants.high),
                        static_cast<long long>(constants.low));
}

// One lane over what is left of the data. The lane is then a message of 16 bytes with the same
// remainder.
__attribute__((target("pclmul,sse4.1"))) uint64_t finish_lane(__m128i lane, const uint8_t* data,
                                                              size_t size) {
  const __m128i by_128 = pair(kFold128);
  while (size >= 16) {
    lane = fold(lane, by_128, load(data));
    data += 16;
    size -= 16;
  }
  alignas(16) uint8_t rest[16];
  _mm_store_si128(reinterpret_cast<__m128i*>(rest), lane);
  return update_tables(data, size, update_tables(rest, sizeof rest, 0));
}

// size >= 64.
__attribute__((target("pclmul,sse4.1"))) uint64_t update_pclmul(const uint8_t* data, size_t size,
                                                                uint64_t crc) {
  const __m128i by_512 = pair(kFold512), by_128 = pair(kFold128);
  __m128i a = _mm_xor_si128(load(data), _mm_cvtsi64_si128(static_cast<long long>(crc)));
  __m128i b = load(data + 16), c = load(data + 32), d = load(data + 48);
  data += 64;
  size -= 64;
  while (size >= 64) {
    a = fold(a, by_512, load(data));
    b = fold(b, by_512, load(data + 16));
    c = fold(c, by_512, load(data + 32));
    d = fold(d, by_512, load(data + 48));
    data += 64;
    size -= 64;
  }
  b = fold(a, by_128, b);
  c = fold(b, by_128, c);
  d = fold(c, by_128, d);
  return finish_lane(d, data, size);
}

#define BASALT_VPCLMUL __attribute__((target("vpclmulqdq,pclmul,avx2")))

BASALT_VPCLMUL inline __m256i fold(__m256i lanes, __m256i constants, __m256i next) {
  const __m256i low = _mm256_clmulepi64_epi128(lanes, constants, 0x00);
  const __m256i high = _mm256_clmulepi64_epi128(lanes, constants, 0x11);
  return _mm256_xor_si256(_mm256_xor_si256(low, high), next);
}

BASALT_VPCLMUL inline __m256i load_256(const uint8_t* from) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}

// The same with two lanes a register, 128 bytes a round. size >= 128.
BASALT_VPCLMUL uint64_t update_vpclmul(const uint8_t* data, size_t size, uint64_t crc) {
  const __m256i by_1024 = _mm256_broadcastsi128_si256(pair(kFold1024));
  const __m256i by_256 = _mm256_broadcastsi128_si256(pair(kFold256));
  __m256i a =
      _mm256_xor_si256(load_256(data), _mm256_set_epi64x(0, 0, 0, static_cast<long long>(crc)));
  __m256i b = load_256(data + 32), c = load_256(data + 64), d = load_256(data + 96);
  data += 128;
  size -= 128;
  while (size >= 128) {
    a = fold(a, by_1024, load_256(data));
    b = fold(b, by_1024, load_256(data + 32));
    c = fold(c, by_1024, load_256(data + 64));
    d = fold(d, by_1024, load_256(data + 96));
    data += 128;
    size -= 128;
  }
  b = fold(a, by_256, b);
  c = fold(b, by_256, c);
  d = fold(c, by_256, d);
  const __m128i lane =
      fold(_mm256_castsi256_si128(d), pair(kFold128), _mm256_extracti128_si256(d, 1));
  return finish_lane(lane, data, size);
}

#undef BASALT_VPCLMUL

using Update = uint64_t (*)(const uint8_t*, size_t, uint64_t);

Update choose_update() {
  if (__builtin_cpu_supports("vpclmulqdq") && __builtin_cpu_supports("avx2")) return update_vpclmul;
  if (__builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1")) return update_pclmul;
  return update_tables;
}

#endif

}  // namespace

uint64_t crc64_nvme_portable(Bytes bytes, uint64_t seed) {
  return ~update_tables(bytes.data(), bytes.size(), ~seed);
}

uint64_t crc64_nvme(Bytes bytes, uint64_t seed) {
#if defined(__x86_64__)
  static const Update update = choose_update();
  if (bytes.size() >= kFoldedBytesMin) return ~update(bytes.data(), bytes.size(), ~seed);
#endif
  return crc64_nvme_portable(bytes, seed);
}

std::vector<std::pair<const char*, uint64_t>> crc64_nvme_all(Bytes bytes, uint64_t seed) {
  std::vector<std::pair<const char*, uint64_t>> results = {
      {"tables", crc64_nvme_portable(bytes, seed)}};
#if defined(__x86_64__)
  if (bytes.size() >= kFoldedBytesMin) {
    if (__builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1")) {
      results.emplace_back("pclmul", ~update_pclmul(bytes.data(), bytes.size(), ~seed));
    }
    if (__builtin_cpu_supports("vpclmulqdq") && __builtin_cpu_supports("avx2")) {
      results.emplace_back("vpclmul", ~update_vpclmul(bytes.data(), bytes.size(), ~seed));
    }
  }
#endif
  return results;
}

}  // namespace basalt::auth
