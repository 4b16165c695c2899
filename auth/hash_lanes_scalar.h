// MD5 of a few messages side by side in the general registers, and SHA-256 of a few with the SHA
// instructions, in one loop: what one chain of dependent steps leaves idle the others use, and the
// two kinds hardly share an execution unit. Only for hash_lanes_scalar.cc and hash_lanes_sha.cc,
// which include it with their instruction set switched on for what follows: it includes nothing,
// and everything in it has internal linkage.

#pragma once

#define BASALT_LANE_INLINE inline __attribute__((always_inline))

constexpr uint32_t kScalarSines[64] = {
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391};

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
  uint32_t sum = a + word + kScalarSines[I];
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
