// Random bytes from the kernel (getrandom(2)); for ids and keys. Aborts if the kernel has none.
#pragma once

#include <cstdint>
#include <string>

#include "base/bytes.h"

namespace basalt {

void fill_random(MutableBytes out);
uint64_t random_u64();
// `count` characters of A-Z a-z 0-9, uniformly.
std::string random_alphanumeric(size_t count);

}  // namespace basalt
