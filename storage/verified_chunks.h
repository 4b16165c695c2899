// VerifiedChunks: which stored bytes were checked since they last came from the disk, so that a
// page cache that still has them may be sent as it is. One for all cores, which share the page
// cache.
//
// Rules, for whoever reads data files through the page cache (the descriptors have read-ahead
// turned off, so pages come only with a read that names them):
//   1. before a read may bring pages from the disk: cold_read(). It takes back what is known of the
//      chunks, and of bodies in the log that share a page with them.
//   2. stamp() of the chunks before their bytes are looked at, set() with it after their checksums
//      were right: it does nothing if they were read anew meanwhile.
//   3. to send without a check: first that all pages are resident, then is_set().
// A chunk that fails its checksum is in the page cache after that, and not set: everybody goes on
// failing on it. A read past the page cache (O_DIRECT) brings no pages: it neither takes back nor
// sets. Whatever else reads data files while the engine is open reads so.
//
// Entries are found by a hash and the last one wins; losing one costs a check, never the check.
// Blobs with whole blocks of their own (bulk segments, own files) have an entry a MiB with a bit a
// chunk. A body in the log shares its first and last page with its neighbours in the batch: it has
// one entry, which counts only as long as neither page was read anew.
//
// Any thread.
#pragma once

#include <cstdint>
#include <memory>

#include "storage/types.h"

namespace basalt::storage {

// Blocks of 1 MiB of blobs: 32 GiB of data.
constexpr size_t kVerifiedBlocksMax = 32768;
constexpr uint64_t kVerifiedBlockChunks = (1u << 20) / kBlobChunkBytes;
constexpr size_t kVerifiedBodiesMax = 65536;
constexpr size_t kVerifiedPagesMax = 65536;  // two that share an entry count for each other

class VerifiedChunks {
 public:
  VerifiedChunks();

  // Log bodies are read whole: `first` and `last` chunk do not matter for them.
  void cold_read(const BlobRef& blob, uint64_t first, uint64_t last);
  uint64_t stamp(const BlobRef& blob, uint64_t first, uint64_t last) const;
  void set(const BlobRef& blob, uint64_t first, uint64_t last, uint64_t stamp);
  bool is_set(const BlobRef& blob, uint64_t first, uint64_t last) const;

 private:
  struct FreeMemory {
    void operator()(void* memory) const;
  };
  template <class T>
  using Array = std::unique_ptr<T[], FreeMemory>;

  struct Place {
    uint64_t* entry;
    uint64_t tag;  // upper 48 bits; the lower ones are the chunks
  };
  Place place(const BlobRef& blob, uint64_t block) const;
  uint64_t* body_entry(const BlobRef& blob) const;
  uint32_t* page_reads(const BlobRef& blob, uint64_t offset) const;
  uint32_t* chunk_reads(const BlobRef& blob, uint64_t chunk) const;
  // Each block's entry becomes changed(entry, tag, bits of the chunks).
  template <class Change>
  void change(const BlobRef& blob, uint64_t first, uint64_t last, Change&& changed);
  void clear(const BlobRef& blob, uint64_t first, uint64_t last);

  Array<uint64_t> blocks_;
  Array<uint64_t> bodies_;  // stamp() of a verified body
  Array<uint32_t> pages_;   // cold reads: of a page that is the first or last of a body, of a chunk
};

}  // namespace basalt::storage
