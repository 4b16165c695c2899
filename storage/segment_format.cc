#include "storage/segment_format.h"

#include "base/check.h"
#include "base/crc32c.h"
#include "storage/seeded_bugs.h"

namespace basalt::storage {
namespace {

constexpr std::array<char, 8> kSegmentMagic = {'B', 'S', 'L', 'T', 'S', 'E', 'G', '1'};
constexpr std::array<char, 8> kBatchMagic = {'B', 'S', 'L', 'T', 'B', 'A', 'T', '1'};
constexpr uint32_t kRecordMagic = 0x31434552;  // "REC1"

template <class T>
Bytes bytes_from(const T& value, size_t start) {
  return Bytes(reinterpret_cast<const uint8_t*>(&value), sizeof value).subspan(start);
}

// The checksum covers what stands behind it.
constexpr size_t kSegmentCrcStart = offsetof(SegmentHeader, format_version);
constexpr size_t kBatchCrcStart = offsetof(BatchHeader, generation);
constexpr size_t kRecordCrcStart = offsetof(RecordHeader, lsn);

struct RecordShape {
  size_t body_offset;   // from the record's start
  size_t table_offset;  // meaningless without a table
  size_t table_bytes;
  size_t bytes;
};

RecordShape shape_of(size_t mutations_bytes, size_t body_bytes) {
  RecordShape shape{};
  shape.body_offset = round_up(sizeof(RecordHeader) + mutations_bytes, kRecordAlignment);
  shape.table_offset = shape.body_offset + chunk_table_offset(BlobKind::kLog, body_bytes);
  shape.table_bytes = chunk_table_bytes(body_bytes);
  size_t end = shape.table_bytes > 0 ? shape.table_offset + shape.table_bytes
                                     : shape.body_offset + body_bytes;
  shape.bytes = round_up(end, kRecordAlignment);
  return shape;
}

BlobRef body_ref(const RecordHeader& record, uint32_t file, uint32_t generation,
                 uint64_t body_offset) {
  BlobRef ref;
  if (record.body_bytes <= kIndexBodyBytesMax) return ref;
  ref.length = record.body_bytes;
  ref.offset = body_offset;
  ref.file = file;
  ref.generation = generation;
  ref.root = record.body_root;
  ref.kind = static_cast<uint8_t>(BlobKind::kLog);
  return ref;
}

}  // namespace

void encode_segment_header(SegmentHeader header, MutableBytes block) {
  BASALT_CHECK(block.size() == kBlockBytes);
  header.magic = kSegmentMagic;
  header.crc = crc32c(bytes_from(header, kSegmentCrcStart));
  std::memset(block.data(), 0, block.size());
  std::memcpy(block.data(), &header, sizeof header);
}

std::optional<SegmentHeader> parse_segment_header(Bytes block) {
  SegmentHeader header;
  if (block.size() < sizeof header) return std::nullopt;
  std::memcpy(&header, block.data(), sizeof header);
  if (header.magic != kSegmentMagic) return std::nullopt;
  if (!crc_matches(header.crc, crc32c(bytes_from(header, kSegmentCrcStart)))) return std::nullopt;
  if (header.format_version != kFormatVersion || header.generation == 0 || header.lane_count == 0 ||
      header.lane >= header.lane_count || header.size_bytes < kSegmentDataOffset + kBlockBytes ||
      header.size_bytes > kSegmentBytesMax) {
    return std::nullopt;
  }
  return header;
}

uint32_t body_root(Bytes body, uint32_t generation, std::array<uint32_t, 2>& table) {
  if (body.size() <= kBlobChunkBytes) return crc32c(body, generation);
  table[0] = crc32c(body.first(kBlobChunkBytes), generation);
  table[1] = crc32c(body.subspan(kBlobChunkBytes), generation);
  return crc32c(bytes_from(table, 0), generation);
}

size_t record_bytes(size_t mutations_bytes, size_t body_bytes) {
  return shape_of(mutations_bytes, body_bytes).bytes;
}

void BatchBuilder::start(MutableBytes memory, size_t capacity, uint32_t file, uint32_t generation,
                         uint64_t offset) {
  BASALT_CHECK(capacity <= memory.size() && capacity % kBlockBytes == 0);
  memory_ = memory;
  capacity_ = capacity;
  used_ = sizeof(BatchHeader);
  file_ = file;
  generation_ = generation;
  offset_ = offset;
  count_ = 0;
  first_lsn_ = 0;
}

BlobRef BatchBuilder::add(uint64_t lsn, uint16_t shard, Bytes mutations, Bytes body) {
  RecordShape shape = shape_of(mutations.size(), body.size());
  BASALT_CHECK(fits(shape.bytes) && body.size() <= kInlineBodyBytesMax);
  if (count_ == 0) first_lsn_ = lsn;
  BASALT_CHECK(lsn == first_lsn_ + count_);
  uint8_t* out = memory_.data() + used_;

  RecordHeader record;
  record.magic = kRecordMagic;
  record.lsn = lsn;
  record.mutations_bytes = static_cast<uint32_t>(mutations.size());
  record.body_bytes = static_cast<uint32_t>(body.size());
  record.record_bytes = static_cast<uint32_t>(shape.bytes);
  record.shard = shard;

  std::memcpy(out + sizeof record, mutations.data(), mutations.size());
  size_t end = sizeof record + mutations.size();
  if (!body.empty()) {
    std::memset(out + end, 0, shape.body_offset - end);
    std::memcpy(out + shape.body_offset, body.data(), body.size());
    end = shape.body_offset + body.size();
    std::array<uint32_t, 2> table{};
    // Of the copy: what is checked is what will be written, and it is in the cache now.
    record.body_root = body_root(Bytes(out + shape.body_offset, body.size()), generation_, table);
    if (shape.table_bytes > 0) {
      std::memset(out + end, 0, shape.table_offset - end);
      std::memcpy(out + shape.table_offset, table.data(), shape.table_bytes);
      end = shape.table_offset + shape.table_bytes;
    }
  }
  std::memset(out + end, 0, shape.bytes - end);
  record.crc = crc32c(bytes_from(record, kRecordCrcStart), generation_);
  record.crc = crc32c(Bytes(out + sizeof record, mutations.size()), record.crc);
  std::memcpy(out, &record, sizeof record);

  BlobRef ref = body_ref(record, file_, generation_, offset_ + used_ + shape.body_offset);
  used_ += shape.bytes;
  ++count_;
  return ref;
}

Bytes BatchBuilder::finish(BatchHeader header) {
  BASALT_CHECK(count_ > 0);
  size_t bytes = round_up(used_, kBlockBytes);
  std::memset(memory_.data() + used_, 0, bytes - used_);
  header.magic = kBatchMagic;
  header.generation = generation_;
  header.count = count_;
  header.bytes = static_cast<uint32_t>(bytes);
  header.used_bytes = static_cast<uint32_t>(used_);
  header.first_lsn = first_lsn_;
  header.crc = crc32c(bytes_from(header, kBatchCrcStart), generation_);
  std::memcpy(memory_.data(), &header, sizeof header);
  return memory_.first(bytes);
}

std::optional<BatchHeader> parse_batch_header(Bytes bytes, uint32_t generation) {
  BatchHeader header;
  if (bytes.size() < sizeof header) return std::nullopt;
  std::memcpy(&header, bytes.data(), sizeof header);
  if constexpr (seeded::kNoGeneration) generation = header.generation;
  if (header.magic != kBatchMagic || header.generation != generation) return std::nullopt;
  if (!crc_matches(header.crc, crc32c(bytes_from(header, kBatchCrcStart), generation)))
    return std::nullopt;
  // From here on it is ours; the rest guards against our own mistakes and against a forged file.
  bool sizes = header.bytes % kBlockBytes == 0 && header.bytes >= kBlockBytes &&
               header.bytes <= kBatchBytesMax && header.used_bytes <= header.bytes &&
               header.used_bytes > sizeof(BatchHeader) && header.count > 0 &&
               header.count <= header.bytes / kRecordAlignment;
  if (!sizes) return std::nullopt;
  bool numbers = header.first_lsn >> kLsnEpochShift == header.epoch &&
                 header.last_lsn() >> kLsnEpochShift == header.epoch &&
                 header.previous_lsn < header.first_lsn &&
                 header.durable_lsn <= header.previous_lsn &&
                 header.checkpointed_lsn <= header.durable_lsn;
  if (!numbers) return std::nullopt;
  return header;
}

Result<bool> visit_batch(Bytes batch, const BatchHeader& header, uint32_t file, uint64_t offset,
                         const std::function<Status(const RecoveredRecord&)>& visit) {
  if (batch.size() != header.bytes) return false;
  Bytes used = batch.first(header.used_bytes);
  // Twice over the batch: nothing of it is applied unless all of it is there.
  for (bool checking : {true, false}) {
    size_t position = sizeof(BatchHeader);
    for (uint32_t i = 0; i < header.count; ++i) {
      RecordHeader record;
      if (used.size() - position < sizeof record) return false;
      std::memcpy(&record, used.data() + position, sizeof record);
      Bytes rest = used.subspan(position);
      if (checking) {
        if (record.magic != kRecordMagic || record.lsn != header.first_lsn + i) return false;
        if (record.mutations_bytes > kMutationsBytesMax || record.body_bytes > kInlineBodyBytesMax)
          return false;
      }
      RecordShape shape = shape_of(record.mutations_bytes, record.body_bytes);
      if (checking && (record.record_bytes != shape.bytes || shape.bytes > rest.size()))
        return false;
      Bytes mutations = rest.subspan(sizeof record, record.mutations_bytes);
      Bytes body;
      if (record.body_bytes > 0) body = rest.subspan(shape.body_offset, record.body_bytes);
      if (checking) {
        uint32_t crc = crc32c(bytes_from(record, kRecordCrcStart), header.generation);
        if (!crc_matches(record.crc, crc32c(mutations, crc))) return false;
        std::array<uint32_t, 2> table{};
        if (!body.empty() &&
            !crc_matches(record.body_root, body_root(body, header.generation, table)))
          return false;
        if (!seeded::kNoCrc && shape.table_bytes > 0 &&
            std::memcmp(rest.data() + shape.table_offset, table.data(), shape.table_bytes) != 0) {
          return false;
        }
      } else {
        RecoveredRecord recovered;
        recovered.epoch = header.epoch;
        recovered.lsn = record.lsn;
        recovered.shard = record.shard;
        recovered.mutations = mutations;
        recovered.body = body;
        recovered.body_ref =
            body_ref(record, file, header.generation, offset + position + shape.body_offset);
        BASALT_CHECK_OK(visit(recovered));
      }
      position += shape.bytes;
    }
    if (position != used.size()) return false;
  }
  return true;
}

}  // namespace basalt::storage
