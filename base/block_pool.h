// Small memory of short life from free lists of the calling thread: coroutine frames, guards,
// records, builders. A request takes a dozen such blocks and gives them back microseconds later;
// from here they cost a few instructions, and the general allocator is not asked at all once the
// lists are warm.
//
// Sizes are rounded up to 64 bytes; blocks above kBlockBytesMax come from operator new each time. A
// thread keeps at most kBlocksKeptBytesMax in its lists; what is given back beyond that, or after
// the thread's end, is freed. A block may be given back on another thread than the one it was taken
// on (it joins that thread's lists). In builds with a sanitizer every block is operator new's, so
// that a use after the end is still seen.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

namespace basalt {

constexpr size_t kBlockBytesMax = 4096;
constexpr size_t kBlocksKeptBytesMax = size_t{1} << 20;

// 16-byte aligned. Give back with the same number of bytes.
void* take_block(size_t bytes);
void give_block(void* block, size_t bytes) noexcept;
// What the calling thread keeps for reuse.
size_t block_bytes_kept();

// Base of a class whose objects come from here. Not for arrays.
struct Pooled {
  static void* operator new(size_t bytes) { return take_block(bytes); }
  static void operator delete(void* block, size_t bytes) noexcept { give_block(block, bytes); }
};

// Bytes that know how many they are.
class BlockBytes {
 public:
  BlockBytes() = default;
  explicit BlockBytes(size_t size) : data_(static_cast<uint8_t*>(take_block(size))), size_(size) {}
  BlockBytes(BlockBytes&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  BlockBytes& operator=(BlockBytes&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~BlockBytes() {
    if (data_ != nullptr) give_block(data_, size_);
  }
  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace basalt
