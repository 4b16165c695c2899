#include "auth/hash_lanes_isa.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

// As in hash_lanes_avx2.cc: for what follows, not for the file.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("sha,sse4.1,avx"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("sha,sse4.1,avx")
#pragma GCC diagnostic ignored "-Wunknown-pragmas"
#endif

namespace basalt::auth {
namespace {
#include "auth/hash_lanes_scalar.h"

// SHA-256 of S messages with the SHA instructions, which keep the state as ABEF and CDGH.
template <unsigned S>
class InstructedSha256 {
 public:
  BASALT_LANE_INLINE InstructedSha256(const HashLane* lanes, size_t) : lanes_(lanes) {
#pragma clang loop unroll(full)
    for (unsigned i = 0; i < S; ++i) {
      const __m128i dcba = load(lanes[i].state), hgfe = load(lanes[i].state + 4);
      const __m128i cdab = _mm_shuffle_epi32(dcba, 0xb1), efgh = _mm_shuffle_epi32(hgfe, 0x1b);
      abef_[i] = _mm_alignr_epi8(cdab, efgh, 8);
      cdgh_[i] = _mm_blend_epi16(efgh, cdab, 0xf0);
      data_[i] = lanes[i].data;
    }
  }

  BASALT_LANE_INLINE void begin_block() {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
#pragma clang loop unroll(full)
    for (unsigned i = 0; i < S; ++i) {
      abef_start_[i] = abef_[i];
      cdgh_start_[i] = cdgh_[i];
#pragma clang loop unroll(full)
      for (unsigned w = 0; w < 4; ++w) {
        words_[i][w] = _mm_shuffle_epi8(load(data_[i] + 16 * w), swap);
      }
      data_[i] += kHashBlockBytes;
    }
  }

  template <unsigned I>
  BASALT_LANE_INLINE void four_rounds() {
    constexpr unsigned t = I / 4;
#pragma clang loop unroll(full)
    for (unsigned i = 0; i < S; ++i) {
      __m128i* w = words_[i];
      if constexpr (t >= 4) {
        const __m128i last = w[(t + 3) % 4];
        const __m128i part = _mm_add_epi32(_mm_sha256msg1_epu32(w[t % 4], w[(t + 1) % 4]),
                                           _mm_alignr_epi8(last, w[(t + 2) % 4], 4));
        w[t % 4] = _mm_sha256msg2_epu32(part, last);
      }
      const __m128i sum = _mm_add_epi32(w[t % 4], load(kSha256Roots + I));
      cdgh_[i] = _mm_sha256rnds2_epu32(cdgh_[i], abef_[i], sum);
      abef_[i] = _mm_sha256rnds2_epu32(abef_[i], cdgh_[i], _mm_shuffle_epi32(sum, 0x0e));
    }
  }

  BASALT_LANE_INLINE void end_block() {
#pragma clang loop unroll(full)
    for (unsigned i = 0; i < S; ++i) {
      abef_[i] = _mm_add_epi32(abef_[i], abef_start_[i]);
      cdgh_[i] = _mm_add_epi32(cdgh_[i], cdgh_start_[i]);
    }
  }

  BASALT_LANE_INLINE void store() {
#pragma clang loop unroll(full)
    for (unsigned i = 0; i < S; ++i) {
      const __m128i feba = _mm_shuffle_epi32(abef_[i], 0x1b);
      const __m128i dchg = _mm_shuffle_epi32(cdgh_[i], 0xb1);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(lanes_[i].state),
                       _mm_blend_epi16(feba, dchg, 0xf0));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(lanes_[i].state + 4),
                       _mm_alignr_epi8(dchg, feba, 8));
    }
  }

 private:
  BASALT_LANE_INLINE static __m128i load(const void* from) {
    return _mm_loadu_si128(static_cast<const __m128i*>(from));
  }

  const HashLane* const lanes_;
  const uint8_t* data_[S];
  __m128i abef_[S], cdgh_[S], abef_start_[S], cdgh_start_[S];
  __m128i words_[S][4];
};

}  // namespace

void sha256_instructed_2(const HashLane* lanes, size_t blocks) {
  scalar_lanes<0, InstructedSha256<2>>(nullptr, lanes, blocks);
}
void both_instructed_1(const HashLane* md5, const HashLane* sha256, size_t blocks) {
  scalar_lanes<1, InstructedSha256<1>>(md5, sha256, blocks);
}
void both_instructed_2(const HashLane* md5, const HashLane* sha256, size_t blocks) {
  scalar_lanes<2, InstructedSha256<2>>(md5, sha256, blocks);
}

}  // namespace basalt::auth

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
