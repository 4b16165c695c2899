// BlobStore: write-once blobs (object bodies above kInlineBodyBytesMax, parts) and checked reads of
// every blob.
//
// One per core, used on its thread only; any core can read any blob. A BlobRef names a blob for
// ever: a blob that no record refers to any more is released by the shard that dropped the record
// (engine-internal), after every ReadGuard taken before has gone.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/completion.h"
#include "base/result.h"
#include "storage/types.h"

namespace basalt::storage {

struct SealedBlob {
  BlobRef ref;
};

struct WriterReady : Completion {
  Status result;  // error: the write failed (kNoSpace, kIo, kReadOnly); the writer is dead
};

struct SealBlob : Completion {
  Result<SealedBlob> result;
};

// Streams one blob to stable storage. At most kBlobWriteBytesInFlightMax are under way; then room()
// is empty and the caller waits (and so stops reading its socket). Destroying an unsealed or
// unrecorded writer gives the space back.
class BlobWriter {
 public:
  virtual ~BlobWriter() = default;

  // Room in the current aligned buffer; the caller fills a prefix of it and calls advance(). Empty:
  // wait().
  virtual MutableBytes room() = 0;
  virtual void advance(size_t bytes) = 0;
  // From this position of the blob on, bytes stay where they are after they were written, for a
  // caller that still reads them, until a later call moves the position on or the writer goes. What
  // is kept counts as under way. At first nothing is kept.
  virtual void keep_from(uint64_t position) = 0;
  // Completes when room() is not empty, or with the error of a failed write. The writer is not
  // destroyed before.
  virtual void wait(WriterReady& ready) = 0;
  // Writes what is left and the chunk table, then fdatasync; completes when the blob is durable.
  // The blob belongs to whoever records it with MetaShard::apply. If that apply fails, call
  // discard().
  virtual void seal(SealBlob& seal) = 0;
  // After seal(): the blob was not recorded; its space may be used again.
  virtual void discard() = 0;
  // After seal(): a record that names the blob is durable.
  virtual void recorded() = 0;
};
constexpr size_t kBlobWriteBytesInFlightMax = 4 << 20;
// Longest blob: what fits one chunk table of 1 MiB. S3's largest single PUT or part is 5 GiB.
constexpr uint64_t kBlobBytesMax = uint64_t{16} << 30;
constexpr uint64_t kSizeUnknown = UINT64_MAX;

// A verified range of a blob. `data` lies in `buffer`.
struct BlobSlice {
  Buffer buffer;
  Bytes data;
};

struct ReadBlob : Completion {
  BlobRef blob;
  uint64_t offset = 0;  // in the blob's data
  uint32_t length = 0;  // 1 to kBlobReadBytesMax, within the blob

  Result<BlobSlice> result;  // kCorrupt: the bytes on disk are not the bytes that were written

  ReadBlob(const BlobRef& b, uint64_t o, uint32_t l) : blob(b), offset(o), length(l) {}
};
// Chosen so that a read with its chunk alignment fits the largest pooled buffer.
constexpr uint32_t kBlobReadBytesMax = 1048576 - 131072;

// Below this a read, and one write of head and body, is cheaper than a sendfile of its own.
constexpr uint32_t kFileRangeBytesMin = 32 * 1024;

// A range of a blob as it lies in an open file, for sendfile(2). Valid while the ReadGuard lives.
// What lies in front of the first whole page is a copy, to go with the head of a response: the
// kernel moves 16 pages at a time, and a body of 64 KiB that touches 17 would take two turns and a
// packet that waits between them (measured: 48 us instead of 22).
struct FileRange {
  BlobRef blob;
  uint64_t blob_offset = 0;  // of the whole range, with `lead`
  int fd = -1;
  uint64_t offset = 0;  // in the file, behind `lead`
  uint64_t length = 0;  // without `lead`
  Bytes lead;           // in `memory`
  Buffer memory;

  uint64_t size() const { return lead.size() + length; }
};

// Keeps every blob reachable now in place: taken before the look-up, dropped after the last byte
// was sent.
class ReadGuard {
 public:
  virtual ~ReadGuard() = default;
};

class BlobStore {
 public:
  virtual ~BlobStore() = default;

  // `size` in bytes (exactly as many must come before seal()), or kSizeUnknown. Errors: kNoSpace
  // (where it is short the writer's wait() or seal() waits, and may fail with it), kReadOnly, kBusy
  // (no buffer), kInvalid (size 0), kTooLarge. Does not wait for the file: room() takes the first
  // bytes while a helper thread prepares it.
  virtual Result<std::unique_ptr<BlobWriter>> create(uint64_t size) = 0;
  // The same below the low-water mark: for garbage collection, whose writes give space back.
  virtual Result<std::unique_ptr<BlobWriter>> create_reclaiming(uint64_t size) {
    return create(size);
  }
  virtual void read(ReadBlob& request) = 0;
  // The range as a file range if it is resident in the page cache and was verified since it was
  // read in: then sendfile(2) does not block. Nothing otherwise (use read()), and for ranges below
  // kFileRangeBytesMin.
  virtual std::optional<FileRange> file_range(const BlobRef& blob, uint64_t offset,
                                              uint64_t length) = 0;
  // Whether [offset, end of the range), a position of its file, is still resident and verified:
  // pages may have been taken back, and read in anew for somebody else. To be asked again whenever
  // the caller had to wait.
  virtual bool still_there(const FileRange& range, uint64_t offset, uint64_t length) {
    (void)range, (void)offset, (void)length;
    return false;
  }
  virtual std::unique_ptr<ReadGuard> guard() = 0;
};

}  // namespace basalt::storage
