#include "base/crc32c.h"

#include <isa-l/crc.h>

#include <algorithm>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace basalt {

namespace {

#if defined(__x86_64__)

constexpr size_t kShortBytesMax = 64;

template <class T>
T load(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

// For names: the library's preparations for long runs take longer than this.
__attribute__((target("sse4.2"))) uint32_t short_crc(const uint8_t* at, size_t left, uint32_t crc) {
  uint64_t wide = crc;
  for (; left >= 8; at += 8, left -= 8) wide = _mm_crc32_u64(wide, load<uint64_t>(at));
  crc = static_cast<uint32_t>(wide);
  if ((left & 4) != 0) {
    crc = _mm_crc32_u32(crc, load<uint32_t>(at));
    at += 4;
  }
  if ((left & 2) != 0) {
    crc = _mm_crc32_u16(crc, load<uint16_t>(at));
    at += 2;
  }
  if ((left & 1) != 0) crc = _mm_crc32_u8(crc, *at);
  return crc;
}

const bool has_short_crc = __builtin_cpu_supports("sse4.2") != 0;

#endif

}  // namespace

uint32_t crc32c(Bytes bytes, uint32_t seed) {
  // Neither way inverts its start value or its result.
  uint32_t crc = ~seed;
  const uint8_t* data = bytes.data();
  size_t left = bytes.size();
#if defined(__x86_64__)
  if (left <= kShortBytesMax && has_short_crc) return ~short_crc(data, left, crc);
#endif
  while (left > 0) {
    const size_t step = std::min<size_t>(left, 1u << 30);  // the library's length is an int
    crc = crc32_iscsi(const_cast<unsigned char*>(data), static_cast<int>(step), crc);
    data += step;
    left -= step;
  }
  return ~crc;
}

}  // namespace basalt
