#include "storage/cold_reads.h"

#include <cstdlib>

#include "base/check.h"

namespace basalt::storage {

void ColdReads::FreeMemory::operator()(uint16_t* memory) const { std::free(memory); }

// Zeros that take no memory until they are written to.
ColdReads::ColdReads() : tags_(static_cast<uint16_t*>(std::calloc(kColdReadsMax, 2))) {
  BASALT_CHECK(tags_ != nullptr);
}

bool ColdReads::again(const BlobRef& blob, uint64_t offset) {
  uint64_t hash = (blob.offset + offset) ^ (uint64_t{blob.file} << 40) ^ blob.generation;
  hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9u;  // splitmix64's finalizer
  hash = (hash ^ (hash >> 27)) * 0x94d049bb133111ebu;
  hash ^= hash >> 31;
  uint16_t& entry = tags_[hash % kColdReadsMax];
  const auto tag = static_cast<uint16_t>((hash >> 48) | 1);  // never 0, which marks an unused entry
  const bool found = entry == tag;
  entry = found ? 0 : tag;
  return found;
}

}  // namespace basalt::storage
