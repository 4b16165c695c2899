#include "base/buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>

#include "base/check.h"

namespace basalt {
namespace {

constexpr size_t kLargest = BufferPool::kSizes.size() - 1;
static_assert(BufferPool::kHugePageBytes == 2u << 20);

bool first_half(const uint8_t* half) {
  return reinterpret_cast<uintptr_t>(half) % BufferPool::kHugePageBytes == 0;
}

uint8_t* other_half(uint8_t* half) {
  return first_half(half) ? half + BufferPool::kSizes[kLargest]
                          : half - BufferPool::kSizes[kLargest];
}

// Not from the allocator, which would use the address range for other things afterwards. Null:
// there is no memory.
uint8_t* map_huge_page() {
  constexpr size_t kBytes = BufferPool::kHugePageBytes;
  void* mapped =
      mmap(nullptr, 2 * kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* begin = static_cast<uint8_t*>(mapped);
  const size_t before = (kBytes - reinterpret_cast<uintptr_t>(begin) % kBytes) % kBytes;
  if (before != 0) munmap(begin, before);
  munmap(begin + before + kBytes, kBytes - before);
  madvise(begin + before, kBytes, MADV_HUGEPAGE);  // small pages do as well
  return begin + before;
}

}  // namespace

void Buffer::release() {
  if (data_ == nullptr) return;
  pool_->give_back(std::exchange(data_, nullptr), std::exchange(size_, 0));
}

BufferPool::BufferPool() : BufferPool(Limits{}) {}
BufferPool::BufferPool(Limits limits) : limits_(limits) {}

BufferPool::~BufferPool() {
  BASALT_CHECK(bytes_in_use_ == 0);
  for (uint8_t* half : free_[kLargest]) {
    if (first_half(half)) munmap(half, kHugePageBytes);
  }
  free_[kLargest].clear();
  for (auto& list : free_) {
    for (uint8_t* data : list) std::free(data);
  }
}

// Both halves of a new huge page: one is the caller's, the other is kept.
uint8_t* BufferPool::allocate_half() {
  uint8_t* pair = map_huge_page();
  if (pair == nullptr) return nullptr;
  free_[kLargest].push_back(other_half(pair));
  bytes_kept_ += kSizes[kLargest];
  return pair;
}

// Frees the huge page of `half`, if nobody uses the other one.
bool BufferPool::free_pair(uint8_t* half) {
  auto& list = free_[kLargest];
  const auto other = std::find(list.begin(), list.end(), other_half(half));
  if (other == list.end()) return false;
  list.erase(other);
  bytes_kept_ -= kSizes[kLargest];
  munmap(first_half(half) ? half : other_half(half), kHugePageBytes);
  return true;
}

Buffer BufferPool::take(size_t size_wanted) { return take(size_wanted, limits_.bytes_max); }
Buffer BufferPool::take_beyond_limit(size_t size_wanted) { return take(size_wanted, UINT64_MAX); }

Buffer BufferPool::take(size_t size_wanted, uint64_t bytes_max) {
  for (size_t i = 0; i < kSizes.size(); ++i) {
    const size_t size = kSizes[i];
    if (size < size_wanted) continue;
    if (bytes_in_use_ + size > bytes_max) return {};
    uint8_t* data = nullptr;
    if (!free_[i].empty()) {
      data = free_[i].back();
      free_[i].pop_back();
      bytes_kept_ -= size;
    } else {
      data = i == kLargest ? allocate_half()
                           : static_cast<uint8_t*>(std::aligned_alloc(kAlignment, size));
      if (data == nullptr) return {};
    }
    bytes_in_use_ += size;
    return Buffer(data, size, this);
  }
  return {};
}

void BufferPool::give_back(uint8_t* data, size_t size) {
  bytes_in_use_ -= size;
  for (size_t i = 0; i < kSizes.size(); ++i) {
    if (kSizes[i] != size) continue;
    const bool over = bytes_kept_ + size > limits_.kept_bytes_max;
    if (over && i != kLargest) {
      std::free(data);
    } else if (!over || !free_pair(data)) {
      free_[i].push_back(data);
      bytes_kept_ += size;
    }
    return;
  }
  BASALT_CHECK(false);
}

}  // namespace basalt
