#include "auth/hash_lanes_isa.h"

#if defined(__x86_64__)

#include <cstddef>
#include <cstdint>

// The instruction set is switched on for what follows, not for the file: a flag for the file would
// let the linker keep this copy of an inline function for processors that cannot run it.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#pragma clang diagnostic ignored "-Wpsabi"
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#pragma GCC diagnostic ignored "-Wpsabi"
#pragma GCC diagnostic ignored "-Wunknown-pragmas"
#endif

namespace basalt::auth {
namespace {
#include "auth/hash_lanes_kernel.h"
}  // namespace

void md5_avx2_8(const HashLane* lanes, size_t blocks) { md5_lanes<8, 8, false>(lanes, blocks); }
void md5_avx2_16(const HashLane* lanes, size_t blocks) { md5_lanes<16, 8, false>(lanes, blocks); }
void sha256_avx2_8(const HashLane* lanes, size_t blocks) {
  sha256_lanes<8, 8, false>(lanes, blocks);
}
void md5_avx2_wide_16(const HashLane* lanes, size_t blocks) {
  md5_lanes<16, 16, true>(lanes, blocks);
}
void sha256_avx2_wide_16(const HashLane* lanes, size_t blocks) {
  sha256_lanes<16, 16, true>(lanes, blocks);
}

}  // namespace basalt::auth

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
