// Kernels that compress several independent MD5 or SHA-256 messages at once, one a vector lane
// (RFC 1321, FIPS 180-4). A single message is a chain of dependent steps, so one stream uses a
// fraction of a core's units; eight or sixteen streams in vector lanes, or two in general registers
// (two with the SHA instructions), take hardly longer than one.
//
// Every kernel works on the plain chaining state (4 or 8 words in host order), so a stream may be
// moved between kernels after any block. Pure functions; kernels that this processor cannot run are
// not listed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace basalt::auth {

constexpr size_t kHashBlockBytes = 64;  // of MD5 and of SHA-256
constexpr unsigned kHashLanesMax = 32;

enum class LaneHash : uint8_t { kMd5 = 0, kSha256 = 1 };
constexpr size_t kLaneHashCount = 2;

struct HashLane {
  uint32_t* state = nullptr;      // 4 words (MD5) or 8 (SHA-256)
  const uint8_t* data = nullptr;  // any alignment
};

struct LaneKernel {
  std::string_view name;
  unsigned lanes = 1;
  // Compresses `blocks` blocks of every one of `lanes` lanes. States are distinct; data may be
  // shared. A lane without work points to a state of nobody and to readable data.
  void (*compress)(const HashLane* lanes, size_t blocks) = nullptr;
};

// In order of lanes; the first is OpenSSL's single stream.
std::span<const LaneKernel> lane_kernels(LaneHash hash);

// Some lanes of both at once, over as many blocks. The two use different units of a core, so they
// cost less together than one after the other. The messages may be the same or not.
struct JointKernel {
  std::string_view name;
  unsigned md5 = 1;
  unsigned sha256 = 1;
  void (*compress)(const HashLane* md5, const HashLane* sha256, size_t blocks) = nullptr;
};

// May be empty.
std::span<const JointKernel> joint_kernels();

}  // namespace basalt::auth
