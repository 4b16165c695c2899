// Buffer and BufferPool: page-aligned memory for body bytes, bounded per core.
//
// Every buffer is 4096-aligned so that it can go to an O_DIRECT file as it is. A pool belongs to
// one core; a Buffer is returned to its pool on that core's thread (whoever passes bytes to another
// core lends a view and keeps the Buffer until the reply). When the pool's limit is reached take()
// returns an empty Buffer: the caller answers 503 SlowDown or stops reading its socket. Memory of
// released buffers is kept for reuse up to kept_bytes_max.
//
// The largest buffers are the halves of huge pages, where the system has some to give: the kernel
// then pins and describes a body's memory for the disk in one piece instead of 256. Half a huge
// page may so be kept beyond the limit for as long as the other half is in use.
#pragma once

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/bytes.h"

namespace basalt {

class BufferPool;

class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        pool_(other.pool_) {}
  Buffer& operator=(Buffer&& other) noexcept {
    if (this != &other) {
      release();
      data_ = std::exchange(other.data_, nullptr);
      size_ = std::exchange(other.size_, 0);
      pool_ = other.pool_;
    }
    return *this;
  }
  ~Buffer() { release(); }

  explicit operator bool() const { return data_ != nullptr; }
  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }  // capacity in bytes
  MutableBytes bytes() const { return {data_, size_}; }
  void release();

 private:
  friend class BufferPool;
  Buffer(uint8_t* data, size_t size, BufferPool* pool) : data_(data), size_(size), pool_(pool) {}
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
  BufferPool* pool_ = nullptr;
};

class BufferPool {
 public:
  static constexpr size_t kAlignment = 4096;
  // Capacities handed out: the smallest that holds the wanted size. Anything larger than the last
  // is refused.
  static constexpr std::array<size_t, 6> kSizes = {4096,          16384,  65536,
                                                   131072 + 4096, 262144, 1048576};
  static constexpr size_t kHugePageBytes = 2 * kSizes.back();

  struct Limits {
    size_t bytes_max = 384u << 20;      // handed out at once
    size_t kept_bytes_max = 64u << 20;  // kept for reuse when nobody uses them
  };
  BufferPool();
  explicit BufferPool(Limits limits);
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  Buffer take(size_t size_wanted);
  // Also beyond the limit. For the few blocks without which larger buffers would not come back.
  Buffer take_beyond_limit(size_t size_wanted);
  size_t bytes_in_use() const { return bytes_in_use_; }
  size_t bytes_max() const { return limits_.bytes_max; }

 private:
  friend class Buffer;
  Buffer take(size_t size_wanted, uint64_t bytes_max);
  void give_back(uint8_t* data, size_t size);
  uint8_t* allocate_half();
  bool free_pair(uint8_t* half);

  Limits limits_;
  size_t bytes_in_use_ = 0;
  size_t bytes_kept_ = 0;
  std::array<std::vector<uint8_t*>, kSizes.size()> free_;
};

}  // namespace basalt
