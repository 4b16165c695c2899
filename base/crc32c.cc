#include "base/crc32c.h"

#include <isa-l/crc.h>

#include <algorithm>

namespace basalt {

uint32_t crc32c(Bytes bytes, uint32_t seed) {
  // crc32_iscsi neither inverts its start value nor its result; its length is an int.
  uint32_t crc = ~seed;
  const uint8_t* data = bytes.data();
  size_t left = bytes.size();
  while (left > 0) {
    const size_t step = std::min<size_t>(left, 1u << 30);
    crc = crc32_iscsi(const_cast<unsigned char*>(data), static_cast<int>(step), crc);
    data += step;
    left -= step;
  }
  return ~crc;
}

}  // namespace basalt
