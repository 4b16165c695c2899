// Bodies: what objects are made of, and what is known of them before the clock starts.
//
// All bodies are windows of one random pattern that repeats every kPatternBytes. Where a body
// begins depends on its size and its variant, and the variant on the key: so the reader of any
// object knows every byte of it, sending needs no copy (sendfile from a memory file), and the
// digests that signing wants are computed once, in prepare(). The pattern's length is a prime
// number of pages: an offset that is wrong by a power of two shows.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "bench/options.h"

namespace basalt::bench {

struct BodyDigest {
  std::string sha256_hex;                          // kHeader
  std::string crc32_base64;                        // the trailer forms
  std::vector<std::array<char, 64>> chunk_sha256;  // the signed chunk forms, one a chunk
};

// A body of `size` bytes; byte i is the pattern's at (begin + i) % kPatternBytes.
struct Body {
  uint64_t begin = 0;
  uint64_t size = 0;
  uint32_t variant = 0;
};

class Bodies {
 public:
  static constexpr uint64_t kPatternBytes = uint64_t{2053} * 4096;
  static constexpr uint64_t kChunkBytes = 64 * 1024;  // of the aws-chunked forms
  static constexpr uint32_t kVariantsMax = 64;

  // The pattern is the same on every machine and in every run.
  static Result<std::unique_ptr<Bodies>> create();
  ~Bodies();
  Bodies(const Bodies&) = delete;
  Bodies& operator=(const Bodies&) = delete;

  // Fewer variants for larger bodies, whose digests cost more: 64 up to 4 MiB, 2 from 128 MiB.
  static uint32_t variants(uint64_t size);
  static Body body(uint64_t size, uint64_t random);
  // Computes what `signing` needs for all variants of these sizes. Before the workers start;
  // afterwards this is constant.
  void prepare(const std::vector<uint64_t>& sizes, Signing signing);
  const BodyDigest& digest(const Body& body) const;  // of a size that was prepared

  // At least kPatternBytes may be read from `at` % kPatternBytes on (the pattern is mapped twice in
  // a row).
  const uint8_t* at(uint64_t position) const { return pattern_ + position % kPatternBytes; }
  int fd() const { return fd_; }

 private:
  Bodies() = default;
  BodyDigest compute(const Body& body, Signing signing) const;

  uint8_t* pattern_ = nullptr;
  int fd_ = -1;
  Signing prepared_for_ = Signing::kNone;
  std::unordered_map<uint64_t, BodyDigest> digests_;
};

// splitmix64's finaliser: a bijection that looks random.
constexpr uint64_t mix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace basalt::bench
