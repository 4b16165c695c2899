#include "storage/verified_chunks.h"

#include <atomic>
#include <cstdlib>

#include "base/check.h"
#include "storage/segment_format.h"

namespace basalt::storage {
namespace {

constexpr uint64_t kChunkBits = (uint64_t{1} << kVerifiedBlockChunks) - 1;
static_assert(kVerifiedBlockChunks <= 16);

uint64_t mix(uint64_t value) {  // splitmix64's finalizer
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

uint64_t file_hash(const BlobRef& blob) {
  return mix((uint64_t{blob.file} << 32) | blob.generation);
}

bool in_log(const BlobRef& blob) { return static_cast<BlobKind>(blob.kind) == BlobKind::kLog; }

// Behind the last byte that a read of the body takes.
uint64_t body_end(const BlobRef& blob) {
  const uint64_t table = chunk_table_bytes(blob.length);
  return blob.offset +
         (table == 0 ? blob.length : chunk_table_offset(BlobKind::kLog, blob.length) + table);
}

// Zeros that take no memory until they are written to.
template <class T>
T* zeroed(size_t count) {
  void* memory = std::calloc(count, sizeof(T));
  BASALT_CHECK(memory != nullptr);
  return static_cast<T*>(memory);
}

uint64_t chunk_bits(uint64_t block, uint64_t first, uint64_t last) {
  const uint64_t begin = block * kVerifiedBlockChunks;
  uint64_t bits = 0;
  for (uint64_t i = 0; i < kVerifiedBlockChunks; ++i) {
    if (begin + i >= first && begin + i <= last) bits |= uint64_t{1} << i;
  }
  return bits;
}

}  // namespace

void VerifiedChunks::FreeMemory::operator()(void* memory) const { std::free(memory); }

VerifiedChunks::VerifiedChunks()
    : blocks_(zeroed<uint64_t>(kVerifiedBlocksMax)),
      bodies_(zeroed<uint64_t>(kVerifiedBodiesMax)),
      pages_(zeroed<uint32_t>(kVerifiedPagesMax)) {}

// A block and not a chunk is what is hashed: if each chunk had a place of its own, a window of 16
// would be lost to a collision of any of them.
VerifiedChunks::Place VerifiedChunks::place(const BlobRef& blob, uint64_t block) const {
  const uint64_t hash =
      mix((blob.offset + block * kVerifiedBlockChunks * kBlobChunkBytes) ^ file_hash(blob));
  return {&blocks_[hash % kVerifiedBlocksMax], hash & ~kChunkBits};
}

uint64_t* VerifiedChunks::body_entry(const BlobRef& blob) const {
  return &bodies_[mix(blob.offset ^ file_hash(blob)) % kVerifiedBodiesMax];
}

// The generation does not matter here: the page is the same one.
uint32_t* VerifiedChunks::page_reads(const BlobRef& blob, uint64_t offset) const {
  return &pages_[mix((uint64_t{blob.file} << 32) ^ (offset / kBlockBytes)) % kVerifiedPagesMax];
}

uint32_t* VerifiedChunks::chunk_reads(const BlobRef& blob, uint64_t chunk) const {
  return &pages_[mix(~(blob.offset + chunk * kBlobChunkBytes) ^ file_hash(blob)) %
                 kVerifiedPagesMax];
}

// Counted before the bits go: set() looks at the count again when it has put its bits.
void VerifiedChunks::cold_read(const BlobRef& blob, uint64_t first, uint64_t last) {
  if (in_log(blob)) {
    std::atomic_ref(*page_reads(blob, blob.offset)).fetch_add(1);
    std::atomic_ref(*page_reads(blob, body_end(blob) - 1)).fetch_add(1);
    return;
  }
  for (uint64_t chunk = first; chunk <= last; ++chunk) {
    std::atomic_ref(*chunk_reads(blob, chunk)).fetch_add(1);
  }
  clear(blob, first, last);
}

template <class Change>
void VerifiedChunks::change(const BlobRef& blob, uint64_t first, uint64_t last, Change&& changed) {
  for (uint64_t block = first / kVerifiedBlockChunks; block <= last / kVerifiedBlockChunks;
       ++block) {
    const auto [entry, tag] = place(blob, block);
    const uint64_t bits = chunk_bits(block, first, last);
    std::atomic_ref shared(*entry);
    uint64_t old = shared.load();
    while (!shared.compare_exchange_weak(old, changed(old, tag, bits))) {
    }
  }
}

// An entry that is another block's stays.
void VerifiedChunks::clear(const BlobRef& blob, uint64_t first, uint64_t last) {
  change(blob, first, last, [](uint64_t old, uint64_t tag, uint64_t bits) {
    return (old & ~kChunkBits) == tag ? old & ~bits : old;
  });
}

uint64_t VerifiedChunks::stamp(const BlobRef& blob, uint64_t first, uint64_t last) const {
  uint64_t reads = 0;
  if (in_log(blob)) {
    reads = (uint64_t{std::atomic_ref(*page_reads(blob, blob.offset)).load()} << 32) |
            std::atomic_ref(*page_reads(blob, body_end(blob) - 1)).load();
  } else {
    for (uint64_t chunk = first; chunk <= last; ++chunk) {
      reads = mix(reads) + std::atomic_ref(*chunk_reads(blob, chunk)).load();
    }
  }
  // Never 0, which marks an unused entry.
  return mix(mix(blob.offset ^ file_hash(blob)) ^ mix(reads)) | 1;
}

void VerifiedChunks::set(const BlobRef& blob, uint64_t first, uint64_t last, uint64_t stamp) {
  if (in_log(blob)) {
    std::atomic_ref(*body_entry(blob)).store(stamp);
    return;
  }
  if (this->stamp(blob, first, last) != stamp) return;
  change(blob, first, last, [](uint64_t old, uint64_t tag, uint64_t bits) {
    return (old & ~kChunkBits) == tag ? old | bits : tag | bits;
  });
  if (this->stamp(blob, first, last) != stamp) clear(blob, first, last);
}

bool VerifiedChunks::is_set(const BlobRef& blob, uint64_t first, uint64_t last) const {
  if (in_log(blob)) return std::atomic_ref(*body_entry(blob)).load() == stamp(blob, first, last);
  for (uint64_t block = first / kVerifiedBlockChunks; block <= last / kVerifiedBlockChunks;
       ++block) {
    const auto [entry, tag] = place(blob, block);
    const uint64_t bits = chunk_bits(block, first, last);
    const uint64_t value = std::atomic_ref(*entry).load();
    if ((value & ~kChunkBits) != tag || (value & bits) != bits) return false;
  }
  return true;
}

}  // namespace basalt::storage
