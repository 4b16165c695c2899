// CRC-64/NVME (NVM Express NVM Command Set specification 1.0, 5.2.1.3.4): polynomial
// 0xad93d23594c93659, reflected 0x9a6c9329ac4bc9b5, initial value and final xor all ones.
// "123456789" gives 0xae8b14860a799888.
//
// x86-64 folds with carry-less multiplication, 128 bytes a round with VPCLMULQDQ or 64 with
// PCLMULQDQ (chosen at run time); elsewhere slicing by 8 tables.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/bytes.h"

namespace basalt::auth {

constexpr uint64_t kCrc64NvmePolynomial = 0x9a6c9329ac4bc9b5;  // reflected

// To continue over more bytes pass the previous result as `seed`.
uint64_t crc64_nvme(Bytes bytes, uint64_t seed = 0);
uint64_t crc64_nvme_portable(Bytes bytes, uint64_t seed = 0);

// The result of every kernel this processor can run, for the tests.
std::vector<std::pair<const char*, uint64_t>> crc64_nvme_all(Bytes bytes, uint64_t seed = 0);

}  // namespace basalt::auth
