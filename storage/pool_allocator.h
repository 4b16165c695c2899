// Memory of FlatBuffers builders from the thread's block pool (base/block_pool.h): most records and
// batches are a few hundred bytes that live for one request.
#pragma once

#include <flatbuffers/flatbuffers.h>

#include "base/block_pool.h"

namespace basalt::storage {

class PoolAllocator final : public flatbuffers::Allocator {
 public:
  uint8_t* allocate(size_t size) override { return static_cast<uint8_t*>(take_block(size)); }
  void deallocate(uint8_t* memory, size_t size) override { give_block(memory, size); }

  // Has no state: one serves all builders.
  static PoolAllocator* shared() {
    static PoolAllocator allocator;
    return &allocator;
  }
};

}  // namespace basalt::storage
