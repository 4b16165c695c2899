// Arbitrary bytes as a log segment: parsing never reads outside its input, and what it accepts is
// consistent.
//
// The first four bytes are the generation, the next tells whether headers and checksums are made
// valid first (so that the inner checks are reached at all); the rest is the segment from its first
// batch on.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "base/crc32c.h"
#include "storage/segment_format.h"

namespace {

using namespace basalt;
using namespace basalt::storage;

void require(bool condition) {
  if (!condition) std::abort();
}

Bytes tail(const void* value, size_t size, size_t start) {
  return Bytes(static_cast<const uint8_t*>(value), size).subspan(start);
}

// Gives the batch at the start of `bytes` a plausible, correctly summed header; likewise its first
// record.
void repair(std::vector<uint8_t>& bytes, uint32_t generation) {
  if (bytes.size() < sizeof(BatchHeader)) return;
  BatchHeader header;
  std::memcpy(&header, bytes.data(), sizeof header);
  std::memcpy(header.magic.data(), "BSLTBAT1", 8);
  header.generation = generation;
  header.bytes = static_cast<uint32_t>(round_up(header.bytes % bytes.size() + 1, kBlockBytes));
  header.used_bytes %= header.bytes + 1;
  header.count = header.count % 5 + 1;
  header.epoch &= 0xffffff;
  header.first_lsn = header.epoch << kLsnEpochShift | 10;
  header.previous_lsn = header.first_lsn - 1;
  header.durable_lsn = header.previous_lsn - header.durable_lsn % 8;
  header.checkpointed_lsn = 0;
  size_t position = sizeof header;
  for (uint32_t i = 0; i < header.count && bytes.size() - position >= sizeof(RecordHeader); ++i) {
    RecordHeader record;
    std::memcpy(&record, bytes.data() + position, sizeof record);
    record.magic = 0x31434552;
    record.lsn = header.first_lsn + i;
    if (record.shard % 4 != 0) {
      record.mutations_bytes %= 3000;
      record.body_bytes %= 100'000;
    }
    size_t size = record_bytes(record.mutations_bytes, record.body_bytes);
    if (record.shard % 8 != 0) record.record_bytes = static_cast<uint32_t>(size);
    size_t room = bytes.size() - position - sizeof record;
    if (record.mutations_bytes <= room) {
      size_t body = round_up(sizeof record + record.mutations_bytes, kRecordAlignment);
      if (record.body_bytes > 0 && record.body_bytes <= kInlineBodyBytesMax &&
          size <= bytes.size() - position) {
        std::array<uint32_t, 2> table{};
        record.body_root =
            body_root(Bytes(bytes).subspan(position + body, record.body_bytes), generation, table);
        if (chunk_table_bytes(record.body_bytes) > 0) {
          std::memcpy(bytes.data() + position + body +
                          chunk_table_offset(BlobKind::kLog, record.body_bytes),
                      table.data(), chunk_table_bytes(record.body_bytes));
        }
      }
      record.crc = crc32c(tail(&record, sizeof record, offsetof(RecordHeader, lsn)), generation);
      record.crc = crc32c(Bytes(bytes).subspan(position + sizeof record, record.mutations_bytes),
                          record.crc);
    }
    std::memcpy(bytes.data() + position, &record, sizeof record);
    if (size > bytes.size() - position) break;
    position += size;
    if (i + 1 == header.count && header.reserved[0] % 4 != 0 && position <= header.bytes) {
      header.used_bytes = static_cast<uint32_t>(position);
    }
  }
  header.crc = crc32c(tail(&header, sizeof header, offsetof(BatchHeader, generation)), generation);
  std::memcpy(bytes.data(), &header, sizeof header);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 5) return 0;
  uint32_t generation = 0;
  std::memcpy(&generation, data, 4);
  bool repaired = (data[4] & 1) != 0;
  std::vector<uint8_t> segment(data + 5, data + size);
  if (repaired) {
    segment.resize(round_up(segment.size(), kBlockBytes));
    repair(segment, generation);
  }
  (void)parse_segment_header(segment);
  for (size_t offset = 0; offset < segment.size();) {
    Bytes rest = Bytes(segment).subspan(offset);
    auto header = parse_batch_header(rest, generation);
    if (!header || header->bytes > rest.size()) {
      offset += kBlockBytes;
      continue;
    }
    uint32_t visited = 0;
    uint64_t total = 0;
    auto whole = visit_batch(
        rest.first(header->bytes), *header, 1, offset,
        [&](const RecoveredRecord& record) -> Status {
          require(record.lsn == header->first_lsn + visited);
          for (uint8_t byte : record.mutations) total += byte;
          for (uint8_t byte : record.body) total += byte;
          if (record.body_ref.kind != 0) {
            require(record.body_ref.length == record.body.size());
            require(record.body_ref.offset >= offset &&
                    record.body_ref.offset + record.body.size() <= offset + header->bytes);
          }
          ++visited;
          return {};
        });
    require(whole.has_value());
    require(*whole ? visited == header->count : visited == 0);
    static volatile uint64_t sink;
    sink = total;
    (void)sink;
    offset += header->bytes;
  }
  return 0;
}
