// CRC-32C (Castagnoli, RFC 3720 appendix B.4), hardware SSE4.2 where there is one.
// crc32c(bytes) of "123456789" is 0xE3069283. To continue over more bytes pass the previous result
// as `seed`.
#pragma once

#include <cstdint>

#include "base/bytes.h"

namespace basalt {

uint32_t crc32c(Bytes bytes, uint32_t seed = 0);

}  // namespace basalt
