#include "base/buffer.h"

#include <cstdlib>

#include "base/check.h"

namespace basalt {

void Buffer::release() {
  if (data_ == nullptr) return;
  pool_->give_back(std::exchange(data_, nullptr), std::exchange(size_, 0));
}

BufferPool::BufferPool() : BufferPool(Limits{}) {}
BufferPool::BufferPool(Limits limits) : limits_(limits) {}

BufferPool::~BufferPool() {
  BASALT_CHECK(bytes_in_use_ == 0);
  for (auto& list : free_) {
    for (uint8_t* data : list) std::free(data);
  }
}

Buffer BufferPool::take(size_t size_wanted) {
  for (size_t i = 0; i < kSizes.size(); ++i) {
    const size_t size = kSizes[i];
    if (size < size_wanted) continue;
    if (bytes_in_use_ + size > limits_.bytes_max) return {};
    uint8_t* data = nullptr;
    if (!free_[i].empty()) {
      data = free_[i].back();
      free_[i].pop_back();
      bytes_kept_ -= size;
    } else {
      data = static_cast<uint8_t*>(std::aligned_alloc(kAlignment, size));
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
    if (bytes_kept_ + size > limits_.kept_bytes_max) {
      std::free(data);
    } else {
      free_[i].push_back(data);
      bytes_kept_ += size;
    }
    return;
  }
  BASALT_CHECK(false);
}

}  // namespace basalt
