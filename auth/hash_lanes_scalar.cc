#include <cstddef>
#include <cstdint>

#include "auth/hash_lanes_isa.h"

#if defined(__x86_64__)

namespace basalt::auth {
namespace {
#include "auth/hash_lanes_scalar.h"
}  // namespace

void md5_scalar_2(const HashLane* lanes, size_t blocks) {
  scalar_lanes<2, NoSha256>(lanes, nullptr, blocks);
}

}  // namespace basalt::auth

#endif
