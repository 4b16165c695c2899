// The bytes of segments: headers, log batches, log records, chunk tables. Pure functions over
// memory, so that they can be fuzzed; no file is touched here. Widths and order of every field:
// docs/on-disk-format.md. All integers are little-endian (the structs are copied as they are; a
// big-endian host does not compile).
//
// Every checksum is CRC-32C seeded with the segment's generation, which changes each time the
// segment is recycled: what an earlier life left behind never validates.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>

#include "base/bytes.h"
#include "base/result.h"
#include "storage/files.h"
#include "storage/lane.h"
#include "storage/types.h"

namespace basalt::storage {

static_assert(std::endian::native == std::endian::little);

constexpr uint32_t kFormatVersion = 1;
constexpr size_t kBlockBytes = 4096;  // unit of O_DIRECT transfers and of alignment on disk
// Both kinds of segment start with two copies of their header, one a block.
constexpr uint64_t kSegmentDataOffset = 2 * kBlockBytes;
constexpr uint64_t kLogSegmentBytesMin = 1u << 20;  // holds the largest record
constexpr uint64_t kBulkSegmentBytesMin = 1u << 20;
constexpr uint64_t kSegmentBytesMax = 1u << 30;

struct SegmentHeader {
  std::array<char, 8> magic{};
  uint32_t crc = 0;  // of all that follows; seeded with 0, because the generation is in it
  uint32_t format_version = kFormatVersion;
  std::array<uint8_t, 16> uuid{};  // of the data directory
  uint32_t number = 0;
  uint32_t generation = 0;
  uint8_t kind = 0;  // FileKind
  uint8_t reserved0[3] = {};
  uint32_t lane = 0;        // the core it was prepared for
  uint32_t lane_count = 0;  // lanes in that epoch: shard s writes to lane s % lane_count
  uint32_t reserved1 = 0;
  uint64_t epoch = 0;
  uint64_t sequence = 0;  // order of the log segments of one lane in one epoch
  uint64_t size_bytes = 0;
  uint8_t reserved2[48] = {};
};
static_assert(sizeof(SegmentHeader) == 128);

struct BatchHeader {
  std::array<char, 8> magic{};
  uint32_t crc = 0;  // of all that follows, seeded with the generation
  uint32_t generation = 0;
  uint32_t lane = 0;
  uint32_t count = 0;       // records
  uint32_t bytes = 0;       // whole batch, a multiple of 4096
  uint32_t used_bytes = 0;  // up to the end of the last record; zeros behind
  uint64_t epoch = 0;
  uint64_t batch_number = 0;  // counts the lane's batches of the epoch
  uint64_t first_lsn = 0;
  uint64_t previous_lsn = 0;      // the last one of the batch before (epoch << 40 for the first)
  uint64_t durable_lsn = 0;       // known to be on stable storage when this batch was sent
  uint64_t checkpointed_lsn = 0;  // known to be in the index, committed, then
  uint8_t reserved[48] = {};

  uint64_t last_lsn() const { return first_lsn + count - 1; }
};
static_assert(sizeof(BatchHeader) == 128);

struct RecordHeader {
  uint32_t magic = 0;
  uint32_t crc = 0;  // of the rest of the header and the mutations, seeded with the generation
  uint64_t lsn = 0;
  uint32_t mutations_bytes = 0;
  uint32_t body_bytes = 0;
  uint32_t body_root = 0;     // as BlobRef::root; 0 without a body
  uint32_t record_bytes = 0;  // all of it, with padding: a multiple of 64
  uint16_t shard = 0;
  uint8_t reserved[30] = {};
};
static_assert(sizeof(RecordHeader) == 64);

constexpr size_t kRecordAlignment = 64;
constexpr size_t kBatchBytesMax = 4u << 20;

// --- Segment headers. `block` is one kBlockBytes block.
void encode_segment_header(SegmentHeader header, MutableBytes block);
std::optional<SegmentHeader> parse_segment_header(Bytes block);

// --- Blobs.
constexpr uint64_t chunk_count(uint64_t length) {
  return length / kBlobChunkBytes + (length % kBlobChunkBytes != 0 ? 1 : 0);
}
constexpr uint64_t chunk_table_bytes(uint64_t length) {
  return chunk_count(length) > 1 ? chunk_count(length) * 4 : 0;
}
// From the start of the data.
constexpr uint64_t chunk_table_offset(BlobKind kind, uint64_t length) {
  return round_up(length, kind == BlobKind::kLog ? 4 : kBlockBytes);
}
// What a blob takes up in a bulk segment or a file of its own.
constexpr uint64_t stored_bytes(uint64_t length) {
  return round_up(length, kBlockBytes) + round_up(chunk_table_bytes(length), kBlockBytes);
}
// Root of a body of at most kInlineBodyBytesMax; writes the chunk table (if it has one) to `table`.
uint32_t body_root(Bytes body, uint32_t generation, std::array<uint32_t, 2>& table);
static_assert(chunk_count(kInlineBodyBytesMax) <= 2);

// --- Log batches.
size_t record_bytes(size_t mutations_bytes, size_t body_bytes);
constexpr size_t kRecordBytesMax =
    sizeof(RecordHeader) + kMutationsBytesMax + kInlineBodyBytesMax + 3 * kRecordAlignment;

static_assert(kSegmentDataOffset + sizeof(BatchHeader) + kRecordBytesMax + kBlockBytes <
              kLogSegmentBytesMin);

// Forms a batch in `memory` (zeroed or not; every byte up to the batch's end is written).
class BatchBuilder {
 public:
  // `capacity` is at most memory.size(), a multiple of kBlockBytes. `file`, `offset`: where the
  // batch will be written.
  void start(MutableBytes memory, size_t capacity, uint32_t file, uint32_t generation,
             uint64_t offset);
  bool fits(size_t record_bytes) const { return used_ + record_bytes <= capacity_; }
  // `lsn` of the first is first_lsn, then rising by one. Returns the body's reference (kNone for a
  // small one).
  BlobRef add(uint64_t lsn, uint16_t shard, Bytes mutations, Bytes body);
  // Fills in what depends on the moment of writing and returns the bytes to write.
  Bytes finish(BatchHeader header);

  uint32_t count() const { return count_; }
  uint64_t first_lsn() const { return first_lsn_; }
  size_t used() const { return used_; }

 private:
  MutableBytes memory_;
  size_t capacity_ = 0;
  size_t used_ = 0;
  uint32_t file_ = 0;
  uint32_t generation_ = 0;
  uint64_t offset_ = 0;
  uint32_t count_ = 0;
  uint64_t first_lsn_ = 0;
};

// A header that is what it says: magic, generation, checksum, and sizes that fit each other.
// `bytes`: at least 128.
std::optional<BatchHeader> parse_batch_header(Bytes bytes, uint32_t generation);
// Checks every record of the batch (header, mutations, body) and then calls `visit` for each, in
// order. `batch` is the whole batch, header included. Returns false, before any visit, if a record
// is not whole. An error of `visit` ends it.
Result<bool> visit_batch(Bytes batch, const BatchHeader& header, uint32_t file, uint64_t offset,
                         const std::function<Status(const RecoveredRecord&)>& visit);

}  // namespace basalt::storage
