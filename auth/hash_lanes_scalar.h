// MD5 of a few messages side by side in the general registers, and SHA-256 of a few with the SHA
// instructions, in one loop: what one chain of dependent steps leaves idle the others use, and the
// two kinds hardly share an execution unit. Only for hash_lanes_scalar.cc and hash_lanes_sha.cc,
// which include it with their instruction set switched on for what follows: it includes nothing,
// and everything in it has internal linkage.

#pragma once

#define BASALT_LANE_INLINE inline __attribute__((always_inline))

// Step I of 64. The compiler may not reorder the sum: the newest word (b) comes last in it.
template <unsigned I>
BASALT_LANE_INLINE void scalar_md5_step(uint32_t* s, const uint8_t* data) {
  constexpr unsigned kShifts[4][4] = {
      {7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};
  constexpr unsigned kFirst[4] = {0, 1, 5, 0};
  constexpr unsigned kStride[4] = {1, 5, 3, 7};
  constexpr unsigned kRound = I / 16;
  constexpr unsigned kWord = (kFirst[kRound] + kStride[kRound] * (I % 16)) % 16;
  constexpr unsigned kShift = kShifts[kRound][I % 4];
  uint32_t& a = s[(64 - I) % 4];
  const uint32_t b = s[(65 - I) % 4], c = s[(66 - I) % 4], d = s[(67 - I) % 4];
  uint32_t word;  // little-endian, as MD5 has it
  __builtin_memcpy(&word, data + 4 * kWord, 4);
  uint32_t sum = a + word + kMd5Sines[I];
  if constexpr (kRound == 1) sum += c & ~d;  // has no bit in common with what follows
  asm("" : "+r"(sum));
  if constexpr (kRound == 0) {
    sum += ((c ^ d) & b) ^ d;
  } else if constexpr (kRound == 1) {
    sum += b & d;
  } else if constexpr (kRound == 2) {
    sum += (c ^ d) ^ b;
  } else {
    sum += c ^ (b | ~d);
  }
  sum = (sum << kShift) | (sum >> (32 - kShift));
  asm("" : "+r"(sum));
  a = b + sum;
}

template <unsigned M, unsigned I>
BASALT_LANE_INLINE void scalar_md5_four(uint32_t (*s)[4], const uint8_t* const* data) {
#pragma clang loop unroll(full)
  for (unsigned i = 0; i < M; ++i) scalar_md5_step<I>(s[i], data[i]);
#pragma clang loop unroll(full)
  for (unsigned i = 0; i < M; ++i) scalar_md5_step<I + 1>(s[i], data[i]);
#pragma clang loop unroll(full)
  for (unsigned i = 0; i < M; ++i) scalar_md5_step<I + 2>(s[i], data[i]);
#pragma clang loop unroll(full)
  for (unsigned i = 0; i < M; ++i) scalar_md5_step<I + 3>(s[i], data[i]);
}

// No SHA-256 beside the MD5.
struct NoSha256 {
  NoSha256(const HashLane*, size_t) {}
  void begin_block() {}
  template <unsigned I>
  void four_rounds() {}
  void end_block() {}
  void store() {}
};

template <unsigned M, class Sha, unsigned I>
BASALT_LANE_INLINE void both_sixteen(uint32_t (*s)[4], const uint8_t* const* data, Sha& sha) {
  scalar_md5_four<M, I>(s, data);
  sha.template four_rounds<I>();
  scalar_md5_four<M, I + 4>(s, data);
  sha.template four_rounds<I + 4>();
  scalar_md5_four<M, I + 8>(s, data);
  sha.template four_rounds<I + 8>();
  scalar_md5_four<M, I + 12>(s, data);
  sha.template four_rounds<I + 12>();
}

// M messages of MD5, and beside them those of `Sha`, over `blocks` blocks each.
template <unsigned M, class Sha>
BASALT_LANE_INLINE void scalar_lanes(const HashLane* md5, const HashLane* sha256, size_t blocks) {
  uint32_t start[M == 0 ? 1 : M][4], s[M == 0 ? 1 : M][4];
  const uint8_t* data[M == 0 ? 1 : M];
#pragma clang loop unroll(full)
  for (unsigned i = 0; i < M; ++i) {
    data[i] = md5[i].data;
#pragma clang loop unroll(full)
    for (unsigned w = 0; w < 4; ++w) s[i][w] = md5[i].state[w];
  }
  Sha sha(sha256, blocks);
  for (size_t block = 0; block < blocks; ++block) {
#pragma clang loop unroll(full)
    for (unsigned i = 0; i < M; ++i) {
#pragma clang loop unroll(full)
      for (unsigned w = 0; w < 4; ++w) start[i][w] = s[i][w];
    }
    sha.begin_block();
    both_sixteen<M, Sha, 0>(s, data, sha);
    both_sixteen<M, Sha, 16>(s, data, sha);
    both_sixteen<M, Sha, 32>(s, data, sha);
    both_sixteen<M, Sha, 48>(s, data, sha);
    sha.end_block();
#pragma clang loop unroll(full)
    for (unsigned i = 0; i < M; ++i) {
      data[i] += kHashBlockBytes;
#pragma clang loop unroll(full)
      for (unsigned w = 0; w < 4; ++w) s[i][w] += start[i][w];
    }
  }
  sha.store();
#pragma clang loop unroll(full)
  for (unsigned i = 0; i < M; ++i) {
#pragma clang loop unroll(full)
    for (unsigned w = 0; w < 4; ++w) md5[i].state[w] = s[i][w];
  }
}
