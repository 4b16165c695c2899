// The lane kernels themselves, written once over vectors of any width. Only for hash_lanes_avx2.cc
// and hash_lanes_avx512.cc, which include it with their instruction set switched on for what
// follows: so it includes nothing, and everything in it has internal linkage.
//
// A vector that is wider than the processor's registers is split by the compiler, and the halves
// are independent: that is how 16 lanes on AVX2 (32 on AVX-512) interleave two chains and fill the
// pipeline that one chain leaves half empty.
//
// kTernary: the processor has three-input logic (vpternlogd), to which each round function is one
// instruction in its plain form. Without it the forms below shorten the path from the newest word.

#pragma once

#define BASALT_LANE_INLINE inline __attribute__((always_inline))

template <unsigned L>
struct LaneVector {
  typedef uint32_t Words __attribute__((vector_size(4 * L)));
  typedef uint8_t Octets __attribute__((vector_size(4 * L)));
};
template <unsigned L>
using Lanes = typename LaneVector<L>::Words;

template <unsigned R, class V>
BASALT_LANE_INLINE V rotate_left(V x) {
  return (x << R) | (x >> (32 - R));
}

template <class V>
BASALT_LANE_INLINE V load_words(const uint8_t* from) {
  V out;
  __builtin_memcpy(&out, from, sizeof out);
  return out;
}

BASALT_LANE_INLINE Lanes<8> swap_bytes(Lanes<8> x) {
  using O = LaneVector<8>::Octets;
  const O o = (O)x;
  return (Lanes<8>)__builtin_shufflevector(o, o, 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13,
                                           12, 19, 18, 17, 16, 23, 22, 21, 20, 27, 26, 25, 24, 31,
                                           30, 29, 28);
}

BASALT_LANE_INLINE Lanes<16> swap_bytes(Lanes<16> x) {
  using O = LaneVector<16>::Octets;
  const O o = (O)x;
  return (Lanes<16>)__builtin_shufflevector(
      o, o, 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12, 19, 18, 17, 16, 23, 22, 21, 20,
      27, 26, 25, 24, 31, 30, 29, 28, 35, 34, 33, 32, 39, 38, 37, 36, 43, 42, 41, 40, 47, 46, 45,
      44, 51, 50, 49, 48, 55, 54, 53, 52, 59, 58, 57, 56, 63, 62, 61, 60);
}

// Rows of 16 words become columns: two unpack stages, then the 128-bit lanes are transposed 4 by 4.
BASALT_LANE_INLINE void transpose(Lanes<16>* r) {
  Lanes<16> t[16], u[16];
#pragma clang loop unroll(full)
  for (int i = 0; i < 16; i += 2) {
    t[i] = __builtin_shufflevector(r[i], r[i + 1], 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28,
                                   13, 29);
    t[i + 1] = __builtin_shufflevector(r[i], r[i + 1], 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27,
                                       14, 30, 15, 31);
  }
#pragma clang loop unroll(full)
  for (int g = 0; g < 16; g += 4) {
#pragma clang loop unroll(full)
    for (int half = 0; half < 2; ++half) {
      u[g + 2 * half] = __builtin_shufflevector(t[g + half], t[g + 2 + half], 0, 1, 16, 17, 4, 5,
                                                20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
      u[g + 2 * half + 1] = __builtin_shufflevector(t[g + half], t[g + 2 + half], 2, 3, 18, 19, 6,
                                                    7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    }
  }
#pragma clang loop unroll(full)
  for (int c = 0; c < 4; ++c) {
    const Lanes<16> x0 = __builtin_shufflevector(u[c], u[4 + c], 0, 1, 2, 3, 8, 9, 10, 11, 16, 17,
                                                 18, 19, 24, 25, 26, 27);
    const Lanes<16> x1 = __builtin_shufflevector(u[c], u[4 + c], 4, 5, 6, 7, 12, 13, 14, 15, 20, 21,
                                                 22, 23, 28, 29, 30, 31);
    const Lanes<16> y0 = __builtin_shufflevector(u[8 + c], u[12 + c], 0, 1, 2, 3, 8, 9, 10, 11, 16,
                                                 17, 18, 19, 24, 25, 26, 27);
    const Lanes<16> y1 = __builtin_shufflevector(u[8 + c], u[12 + c], 4, 5, 6, 7, 12, 13, 14, 15,
                                                 20, 21, 22, 23, 28, 29, 30, 31);
    r[c] =
        __builtin_shufflevector(x0, y0, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
    r[4 + c] =
        __builtin_shufflevector(x1, y1, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
    r[8 + c] =
        __builtin_shufflevector(x0, y0, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    r[12 + c] =
        __builtin_shufflevector(x1, y1, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
  }
}

// 16 bytes of each of 8 lanes become 4 vectors of words. Two lanes are put into one register as
// they are loaded, which saves the permutation of the register's halves: that is the slowest of the
// shuffles.
template <bool kSwap>
BASALT_LANE_INLINE void load_four_words(const HashLane* lanes, size_t offset, Lanes<8>* words) {
  typedef uint32_t Half __attribute__((vector_size(16)));
  Lanes<8> x[4];
#pragma clang loop unroll(full)
  for (int i = 0; i < 4; ++i) {
    const Half low = load_words<Half>(lanes[i].data + offset);
    const Half high = load_words<Half>(lanes[i + 4].data + offset);
    x[i] = __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7);
    if constexpr (kSwap) x[i] = swap_bytes(x[i]);
  }
  const Lanes<8> t0 = __builtin_shufflevector(x[0], x[1], 0, 8, 1, 9, 4, 12, 5, 13);
  const Lanes<8> t1 = __builtin_shufflevector(x[0], x[1], 2, 10, 3, 11, 6, 14, 7, 15);
  const Lanes<8> t2 = __builtin_shufflevector(x[2], x[3], 0, 8, 1, 9, 4, 12, 5, 13);
  const Lanes<8> t3 = __builtin_shufflevector(x[2], x[3], 2, 10, 3, 11, 6, 14, 7, 15);
  words[0] = __builtin_shufflevector(t0, t2, 0, 1, 8, 9, 4, 5, 12, 13);
  words[1] = __builtin_shufflevector(t0, t2, 2, 3, 10, 11, 6, 7, 14, 15);
  words[2] = __builtin_shufflevector(t1, t3, 0, 1, 8, 9, 4, 5, 12, 13);
  words[3] = __builtin_shufflevector(t1, t3, 2, 3, 10, 11, 6, 7, 14, 15);
}

// One block of L lanes as 16 vectors of words, W words a register: words[w] has word w of each
// lane.
template <unsigned L, unsigned W, bool kSwap>
BASALT_LANE_INLINE void load_block(const HashLane* lanes, size_t offset, Lanes<L>* words) {
#pragma clang loop unroll(full)
  for (unsigned group = 0; group < L / W; ++group) {
    Lanes<W> rows[16];
    if constexpr (W == 8) {
#pragma clang loop unroll(full)
      for (unsigned i = 0; i < 16; i += 4) {
        load_four_words<kSwap>(lanes + group * W, offset + 4 * i, rows + i);
      }
    } else {
      static_assert(W == 16);
#pragma clang loop unroll(full)
      for (unsigned i = 0; i < W; ++i) {
        rows[i] = load_words<Lanes<W>>(lanes[group * W + i].data + offset);
        if constexpr (kSwap) rows[i] = swap_bytes(rows[i]);
      }
      transpose(rows);
    }
#pragma clang loop unroll(full)
    for (unsigned i = 0; i < 16; ++i) {
      __builtin_memcpy(reinterpret_cast<uint8_t*>(&words[i]) + group * W * 4, &rows[i],
                       sizeof rows[i]);
    }
  }
}

template <unsigned L, unsigned kWords>
BASALT_LANE_INLINE void load_states(const HashLane* lanes, Lanes<L>* state) {
  for (unsigned w = 0; w < kWords; ++w) {
    alignas(64) uint32_t words[L];
    for (unsigned i = 0; i < L; ++i) words[i] = lanes[i].state[w];
    __builtin_memcpy(&state[w], words, sizeof words);
  }
}

template <unsigned L, unsigned kWords>
BASALT_LANE_INLINE void store_states(const HashLane* lanes, const Lanes<L>* state) {
  for (unsigned w = 0; w < kWords; ++w) {
    alignas(64) uint32_t words[L];
    __builtin_memcpy(words, &state[w], sizeof words);
    for (unsigned i = 0; i < L; ++i) lanes[i].state[w] = words[i];
  }
}

// a = b + ((a + f(b, c, d) + m + k) <<< R), the additions off the newest word's path first.
template <unsigned kRound, unsigned kShift, bool kTernary, class V>
BASALT_LANE_INLINE void md5_step(V& a, V b, V c, V d, V m, uint32_t k) {
  V sum = a + k + m;
  if constexpr (kRound == 0) {
    sum += kTernary ? ((b & c) | (~b & d)) : (((c ^ d) & b) ^ d);
  } else if constexpr (kRound == 1) {
    if constexpr (kTernary) {
      sum += (b & d) | (c & ~d);
    } else {
      sum += c & ~d;  // the two terms have no bit in common
      sum += b & d;
    }
  } else if constexpr (kRound == 2) {
    sum += (c ^ d) ^ b;
  } else {
    sum += c ^ (b | ~d);
  }
  a = b + rotate_left<kShift>(sum);
}

template <unsigned kRound, unsigned kStep, bool kTernary, class V>
BASALT_LANE_INLINE void md5_four(V& a, V& b, V& c, V& d, const V* m) {
  constexpr unsigned kShifts[4][4] = {
      {7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};
  constexpr unsigned kFirst[4] = {0, 1, 5, 0};
  constexpr unsigned kStride[4] = {1, 5, 3, 7};
  constexpr unsigned i = kRound * 16 + kStep;
  constexpr unsigned w = kFirst[kRound] + kStride[kRound] * kStep;
  constexpr unsigned s = kStride[kRound];
  md5_step<kRound, kShifts[kRound][0], kTernary>(a, b, c, d, m[w % 16], kMd5Sines[i]);
  md5_step<kRound, kShifts[kRound][1], kTernary>(d, a, b, c, m[(w + s) % 16], kMd5Sines[i + 1]);
  md5_step<kRound, kShifts[kRound][2], kTernary>(c, d, a, b, m[(w + 2 * s) % 16], kMd5Sines[i + 2]);
  md5_step<kRound, kShifts[kRound][3], kTernary>(b, c, d, a, m[(w + 3 * s) % 16], kMd5Sines[i + 3]);
}

template <unsigned kRound, bool kTernary, class V>
BASALT_LANE_INLINE void md5_round(V& a, V& b, V& c, V& d, const V* m) {
  md5_four<kRound, 0, kTernary>(a, b, c, d, m);
  md5_four<kRound, 4, kTernary>(a, b, c, d, m);
  md5_four<kRound, 8, kTernary>(a, b, c, d, m);
  md5_four<kRound, 12, kTernary>(a, b, c, d, m);
}

template <unsigned L, unsigned W, bool kTernary>
BASALT_LANE_INLINE void md5_lanes(const HashLane* lanes, size_t blocks) {
  using V = Lanes<L>;
  V state[4];
  load_states<L, 4>(lanes, state);
  for (size_t block = 0; block < blocks; ++block) {
    V m[16];
    load_block<L, W, false>(lanes, block * kHashBlockBytes, m);
    V a = state[0], b = state[1], c = state[2], d = state[3];
    md5_round<0, kTernary>(a, b, c, d, m);
    md5_round<1, kTernary>(a, b, c, d, m);
    md5_round<2, kTernary>(a, b, c, d, m);
    md5_round<3, kTernary>(a, b, c, d, m);
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
  }
  store_states<L, 4>(lanes, state);
}

template <bool kTernary, class V>
BASALT_LANE_INLINE void sha256_step(V a, V b, V c, V& d, V e, V f, V g, V& h, V m, uint32_t k) {
  const V big1 = rotate_left<26>(e) ^ rotate_left<21>(e) ^ rotate_left<7>(e);
  const V choice = kTernary ? ((e & f) | (~e & g)) : (((f ^ g) & e) ^ g);
  const V first = h + k + m + choice + big1;
  const V big0 = rotate_left<30>(a) ^ rotate_left<19>(a) ^ rotate_left<10>(a);
  const V majority = kTernary ? ((a & b) | (a & c) | (b & c)) : (((a ^ b) & (b ^ c)) ^ b);
  d += first;
  h = first + big0 + majority;
}

template <class V>
BASALT_LANE_INLINE void sha256_extend(V* m, unsigned i) {
  const V w1 = m[(i + 1) % 16], w14 = m[(i + 14) % 16];
  const V small0 = rotate_left<25>(w1) ^ rotate_left<14>(w1) ^ (w1 >> 3);
  const V small1 = rotate_left<15>(w14) ^ rotate_left<13>(w14) ^ (w14 >> 10);
  m[i % 16] += small0 + m[(i + 9) % 16] + small1;
}

template <unsigned L, unsigned W, bool kTernary>
BASALT_LANE_INLINE void sha256_lanes(const HashLane* lanes, size_t blocks) {
  using V = Lanes<L>;
  V state[8];
  load_states<L, 8>(lanes, state);
  for (size_t block = 0; block < blocks; ++block) {
    V m[16];
    load_block<L, W, true>(lanes, block * kHashBlockBytes, m);
    V a = state[0], b = state[1], c = state[2], d = state[3];
    V e = state[4], f = state[5], g = state[6], h = state[7];
#pragma clang loop unroll(full)
    for (unsigned i = 0; i < 64; i += 8) {
      if (i >= 16) {
#pragma clang loop unroll(full)
        for (unsigned j = 0; j < 8; ++j) sha256_extend(m, i + j);
      }
      const V* w = m + i % 16;
      const uint32_t* k = kSha256Roots + i;
      sha256_step<kTernary>(a, b, c, d, e, f, g, h, w[0], k[0]);
      sha256_step<kTernary>(h, a, b, c, d, e, f, g, w[1], k[1]);
      sha256_step<kTernary>(g, h, a, b, c, d, e, f, w[2], k[2]);
      sha256_step<kTernary>(f, g, h, a, b, c, d, e, w[3], k[3]);
      sha256_step<kTernary>(e, f, g, h, a, b, c, d, w[4], k[4]);
      sha256_step<kTernary>(d, e, f, g, h, a, b, c, w[5], k[5]);
      sha256_step<kTernary>(c, d, e, f, g, h, a, b, w[6], k[6]);
      sha256_step<kTernary>(b, c, d, e, f, g, h, a, w[7], k[7]);
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    state[5] += f;
    state[6] += g;
    state[7] += h;
  }
  store_states<L, 8>(lanes, state);
}

#undef BASALT_LANE_INLINE
