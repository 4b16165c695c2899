// The bytes of segments: what is written parses, what is damaged anywhere does not, and nothing of
// an earlier life of the segment does.
#include "storage/segment_format.h"

#include <gtest/gtest.h>

#include "base/random.h"
#include "tests/unit/storage/storage_fixture.h"

namespace basalt::storage {
namespace {

constexpr uint64_t kEpoch = 7;
constexpr uint64_t kFirst = (kEpoch << kLsnEpochShift) + 11;

struct Seen {
  uint64_t lsn;
  uint16_t shard;
  std::vector<uint8_t> mutations, body;
  BlobRef ref;
};

struct Formed {
  std::vector<uint8_t> memory = std::vector<uint8_t>(1 << 20, 0xaa);
  std::vector<uint8_t> bytes;
  std::vector<Seen> records;
};

Formed form(uint32_t generation, std::initializer_list<std::pair<size_t, size_t>> sizes) {
  Formed formed;
  BatchBuilder builder;
  builder.start(formed.memory, formed.memory.size(), 5, generation, 40960);
  uint64_t lsn = kFirst;
  for (auto [mutations_bytes, body_bytes] : sizes) {
    Seen record{lsn,
                static_cast<uint16_t>(lsn % 4),
                pattern(mutations_bytes, lsn),
                pattern(body_bytes, lsn + 1),
                {}};
    EXPECT_TRUE(builder.fits(record_bytes(mutations_bytes, body_bytes)));
    record.ref = builder.add(lsn, record.shard, record.mutations, record.body);
    formed.records.push_back(record);
    ++lsn;
  }
  BatchHeader header;
  header.epoch = kEpoch;
  header.lane = 2;
  header.batch_number = 3;
  header.previous_lsn = kFirst - 1;
  header.durable_lsn = kFirst - 2;
  Bytes bytes = builder.finish(header);
  formed.bytes.assign(bytes.begin(), bytes.end());
  return formed;
}

// How many records a batch yields; -1 if it is not whole.
int count(Bytes bytes, uint32_t generation, std::vector<Seen>* out = nullptr) {
  auto header = parse_batch_header(bytes, generation);
  if (!header || header->bytes > bytes.size()) return -1;
  int visited = 0;
  auto whole = visit_batch(bytes.first(header->bytes), *header, 5, 40960,
                           [&](const RecoveredRecord& record) -> Status {
                             ++visited;
                             if (out != nullptr) {
                               out->push_back({record.lsn,
                                               record.shard,
                                               {record.mutations.begin(), record.mutations.end()},
                                               {record.body.begin(), record.body.end()},
                                               record.body_ref});
                             }
                             return {};
                           });
  return whole && *whole ? visited : -1;
}

TEST(SegmentFormat, BatchRoundTrip) {
  Formed formed = form(99, {{1, 0},
                            {200, 1},
                            {333, kIndexBodyBytesMax},
                            {64, kIndexBodyBytesMax + 1},
                            {100, 4096},
                            {7, kBlobChunkBytes},
                            {7, kBlobChunkBytes + 1},
                            {500, kInlineBodyBytesMax}});
  EXPECT_EQ(formed.bytes.size() % kBlockBytes, 0u);
  std::vector<Seen> seen;
  ASSERT_EQ(count(formed.bytes, 99, &seen), 8);
  for (size_t i = 0; i < seen.size(); ++i) {
    const Seen& want = formed.records[i];
    EXPECT_EQ(seen[i].lsn, want.lsn);
    EXPECT_EQ(seen[i].shard, want.shard);
    EXPECT_EQ(seen[i].mutations, want.mutations);
    EXPECT_EQ(seen[i].body, want.body);
    EXPECT_EQ(seen[i].ref, want.ref);
    if (want.body.size() <= kIndexBodyBytesMax) {
      EXPECT_EQ(want.ref, BlobRef{});
    } else {
      EXPECT_EQ(want.ref.kind, static_cast<uint8_t>(BlobKind::kLog));
      EXPECT_EQ(want.ref.length, want.body.size());
      ASSERT_EQ(0, std::memcmp(formed.bytes.data() + (want.ref.offset - 40960), want.body.data(),
                               want.body.size()));
    }
  }
}

TEST(SegmentFormat, EveryFlippedByteIsNoticed) {
  Formed formed = form(99, {{50, 0}, {60, 700}, {10, 3000}});
  ASSERT_EQ(count(formed.bytes, 99), 3);
  auto header = parse_batch_header(formed.bytes, 99);
  size_t unnoticed = 0;
  for (size_t i = 0; i < header->used_bytes; ++i) {
    formed.bytes[i] ^= 0x20;
    if (count(formed.bytes, 99) == 3) ++unnoticed;
    formed.bytes[i] ^= 0x20;
  }
  // Only padding between and behind the parts (zeros, never read) may change.
  EXPECT_LT(unnoticed, 3 * 3 * kRecordAlignment);
}

TEST(SegmentFormat, AnotherGenerationNeverValidates) {
  Formed formed = form(99, {{50, 100}});
  EXPECT_EQ(count(formed.bytes, 98), -1);
  // Even if the number in the header were right, the checksums are seeded with it.
  uint32_t other = 98;
  std::memcpy(formed.bytes.data() + offsetof(BatchHeader, generation), &other, 4);
  EXPECT_EQ(count(formed.bytes, 98), -1);
}

TEST(SegmentFormat, TruncatedBatch) {
  Formed formed = form(99, {{50, 100'000}, {50, 100'000}});
  for (size_t keep = 0; keep < formed.bytes.size(); keep += 512) {
    std::vector<uint8_t> torn = formed.bytes;
    std::fill(torn.begin() + static_cast<ptrdiff_t>(keep), torn.end(), 0);
    auto header = parse_batch_header(formed.bytes, 99);
    EXPECT_EQ(count(torn, 99), keep < header->used_bytes ? -1 : 2) << keep;
  }
}

TEST(SegmentFormat, SegmentHeader) {
  std::vector<uint8_t> block(kBlockBytes, 0xff);
  SegmentHeader header;
  fill_random(header.uuid);
  header.number = 12;
  header.generation = 77;
  header.kind = static_cast<uint8_t>(FileKind::kLog);
  header.lane = 1;
  header.lane_count = 4;
  header.epoch = 9;
  header.sequence = 3;
  header.size_bytes = 8 << 20;
  encode_segment_header(header, block);
  auto parsed = parse_segment_header(block);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->uuid, header.uuid);
  EXPECT_EQ(parsed->number, 12u);
  EXPECT_EQ(parsed->generation, 77u);
  EXPECT_EQ(parsed->sequence, 3u);
  for (size_t i = 0; i < sizeof header; ++i) {
    block[i] ^= 1;
    EXPECT_FALSE(parse_segment_header(block)) << i;
    block[i] ^= 1;
  }
}

TEST(SegmentFormat, StoredSizes) {
  EXPECT_EQ(chunk_count(1), 1u);
  EXPECT_EQ(chunk_count(kBlobChunkBytes), 1u);
  EXPECT_EQ(chunk_count(kBlobChunkBytes + 1), 2u);
  EXPECT_EQ(stored_bytes(1), 4096u);
  EXPECT_EQ(stored_bytes(65536), 65536u);
  EXPECT_EQ(stored_bytes(65537), 65536u + 4096 + 4096);
}

}  // namespace
}  // namespace basalt::storage
