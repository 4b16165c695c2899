// SHA-256 by the SHA extensions of x86 processors. Inside auth/ only.
#pragma once

#include <cstddef>
#include <cstdint>

namespace basalt::auth {

// Null: not on this processor (or another architecture).
using Sha256Blocks = void (*)(uint32_t* state, const uint8_t* data, size_t blocks);
Sha256Blocks sha256_ni();

}  // namespace basalt::auth
