// The low-level functions of OpenSSL are deprecated, but only they let a stream's state in and out.
#define OPENSSL_SUPPRESS_DEPRECATED
#include "auth/hash_lanes.h"

#include <openssl/md5.h>
#include <openssl/sha.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <algorithm>
#include <array>
#include <vector>

#include "auth/hash_lanes_isa.h"

namespace basalt::auth {
namespace {

void md5_single(const HashLane* lanes, size_t blocks) {
  uint32_t* state = lanes->state;
  MD5_CTX context{};
  context.A = state[0];
  context.B = state[1];
  context.C = state[2];
  context.D = state[3];
  MD5_Update(&context, lanes->data, blocks * kHashBlockBytes);
  state[0] = context.A;
  state[1] = context.B;
  state[2] = context.C;
  state[3] = context.D;
}

void sha256_single(const HashLane* lanes, size_t blocks) {
  SHA256_CTX context{};
  std::copy_n(lanes->state, 8, context.h);
  context.md_len = SHA256_DIGEST_LENGTH;
  SHA256_Update(&context, lanes->data, blocks * kHashBlockBytes);
  std::copy_n(context.h, 8, lanes->state);
}

#if defined(__x86_64__)
bool has_sha_instructions() {
  // __builtin_cpu_supports() does not know SHA: leaf 7, EBX bit 29.
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  return (ebx >> 29 & 1) != 0 && __builtin_cpu_supports("avx");
}
#endif

std::vector<JointKernel> find_joint_kernels() {
  std::vector<JointKernel> kernels;
#if defined(__x86_64__)
  if (has_sha_instructions()) {
    kernels.push_back({"sha", 1, 1, both_instructed_1});
    kernels.push_back({"sha", 2, 2, both_instructed_2});
  }
#endif
  return kernels;
}

std::array<std::vector<LaneKernel>, kLaneHashCount> find_kernels() {
  std::vector<LaneKernel> md5 = {{"openssl", 1, md5_single}};
  std::vector<LaneKernel> sha256 = {{"openssl", 1, sha256_single}};
#if defined(__x86_64__)
  md5.push_back({"scalar", 2, md5_scalar_2});
  if (has_sha_instructions()) sha256.push_back({"sha", 2, sha256_instructed_2});
  if (__builtin_cpu_supports("avx2")) {
    md5.push_back({"avx2", 8, md5_avx2_8});
    sha256.push_back({"avx2", 8, sha256_avx2_8});
  }
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
    md5.push_back({"avx512", 16, md5_avx512_16});
    md5.push_back({"avx512x2", 32, md5_avx512_32});
    sha256.push_back({"avx512", 16, sha256_avx512_16});
  } else if (__builtin_cpu_supports("avx2")) {
    md5.push_back({"avx2x2", 16, md5_avx2_16});
  }
#endif
  return {std::move(md5), std::move(sha256)};
}

}  // namespace

std::span<const LaneKernel> lane_kernels(LaneHash hash) {
  static const std::array<std::vector<LaneKernel>, kLaneHashCount> kernels = find_kernels();
  return kernels[static_cast<size_t>(hash)];
}

std::span<const JointKernel> joint_kernels() {
  static const std::vector<JointKernel> kernels = find_joint_kernels();
  return kernels;
}

}  // namespace basalt::auth
