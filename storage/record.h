// Record: one entry of a table as readers get it, owning its bytes.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include "base/block_pool.h"
#include "base/bytes.h"
#include "storage/types.h"

namespace basalt::storage {

// Views into memory owned by somebody else (a Record, a ScanPage, an LMDB page during a
// transaction).
struct RecordView {
  // Changes with every write of the key; greater = later (within the life of a data directory).
  // Garbage collection rewrites a record to move its bytes and so changes it too: seq guards a
  // read-modify-write (kSeqEquals), it does not name content. Whoever needs an identity of the
  // content keeps one in `tag` or `meta`.
  uint64_t seq = 0;
  uint64_t size = 0;  // logical bytes
  std::string_view tag;
  Bytes meta;
  std::span<const BlobRef> blobs;  // in order; their bytes concatenated are the content
  BlobRef
      body;  // kNone, kIndex or kLog: the content that was written inside the batch, before `blobs`
  Bytes inline_body;  // with kIndex
};

class Record {
 public:
  Record() = default;
  // Copies everything the view shows into one allocation.
  explicit Record(const RecordView& view);
  // Takes the memory that the view points into.
  Record(BlockBytes bytes, const RecordView& view) : bytes_(std::move(bytes)), view_(view) {}
  Record(Record&&) noexcept = default;
  Record& operator=(Record&&) noexcept = default;

  const RecordView& view() const { return view_; }
  const RecordView* operator->() const { return &view_; }

 private:
  BlockBytes bytes_;
  RecordView view_;
};

}  // namespace basalt::storage
