// A model of the engine in memory: the same MetaShard and BlobStore semantics over std::map,
// nothing durable. For tests: the contract tests run against it and the local engine, and rooms
// above test against it without a disk.
//
// Its simplicity is the point; it shares only the checks of the input with the local engine.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_set>
#include <vector>

#include "base/buffer.h"
#include "base/completion.h"
#include "storage/blob_store.h"
#include "storage/engine.h"
#include "storage/meta_shard.h"

namespace basalt::storage {

// The blobs of all cores of a model.
class MemoryBlobs {
 public:
  uint32_t add(std::vector<uint8_t> bytes);
  // False: no such blob (released, or never there) or out of range.
  bool read(const BlobRef& blob, uint64_t offset, MutableBytes out) const;
  void release(const BlobRef& blob);
  size_t count() const;

 private:
  mutable std::mutex mutex_;
  std::map<uint32_t, std::vector<uint8_t>> blobs_;
  uint32_t next_ = 1;
};

// A core with all shards s where s % core_count == core.
struct MemoryCoreOptions {
  unsigned core = 0;
  unsigned core_count = 1;
  unsigned shard_count = 1;
};
std::unique_ptr<CoreEngine> make_memory_core(const MemoryCoreOptions& options,
                                             std::shared_ptr<MemoryBlobs> blobs,
                                             RunQueue& run_queue, BufferPool& buffers);

}  // namespace basalt::storage
