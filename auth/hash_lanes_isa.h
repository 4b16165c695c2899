// The kernels of one instruction set. Inside auth/ only; call them after asking the processor.
#pragma once

#include <cstddef>

#include "auth/hash_constants.h"
#include "auth/hash_lanes.h"

namespace basalt::auth {

#if defined(__x86_64__)
void md5_scalar_2(const HashLane* lanes, size_t blocks);
// With the SHA instructions; the second and third beside as many messages of MD5.
void sha256_instructed_2(const HashLane* lanes, size_t blocks);
void both_instructed_1(const HashLane* md5, const HashLane* sha256, size_t blocks);
void both_instructed_2(const HashLane* md5, const HashLane* sha256, size_t blocks);

void md5_avx2_8(const HashLane* lanes, size_t blocks);
void md5_avx2_16(const HashLane* lanes, size_t blocks);
void sha256_avx2_8(const HashLane* lanes, size_t blocks);
// The transposition of the AVX-512 kernels with AVX2 instructions, for tests on older processors.
void md5_avx2_wide_16(const HashLane* lanes, size_t blocks);
void sha256_avx2_wide_16(const HashLane* lanes, size_t blocks);

void md5_avx512_16(const HashLane* lanes, size_t blocks);
void md5_avx512_32(const HashLane* lanes, size_t blocks);
void sha256_avx512_16(const HashLane* lanes, size_t blocks);
#endif

}  // namespace basalt::auth
