// The bytes of a record in the index and in the overlay (the same bytes, so that a checkpoint is a
// plain put), and the checks on everything that came from disk or from a caller: nothing here is
// used before it passed them.
//
// Index value, little-endian (docs/on-disk-format.md, "Index"):
//   u64 seq | BlobRef body (32) | u32 inline_bytes | u16 flags (0) | u16 reserved (0) | fb::Record
//   | inline body | u32 crc32c of all before it, seeded with the CRC of (table, space, name)
// The seed makes a value that turns up under another key (a misdirected write) fail its check.
#pragma once

#include <flatbuffers/flatbuffers.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"
#include "storage/record.h"
#include "storage/types.h"

namespace basalt::storage::fb {
struct Record;
struct Mutation;
struct MutationBatch;
}  // namespace basalt::storage::fb

namespace basalt::storage {

constexpr size_t kIndexHeaderBytes = 48;
constexpr size_t kIndexTrailerBytes = 4;
constexpr size_t kTagBytesMax = 64;
// A manifest of 10,000 parts and the records around it, in one batch.
constexpr size_t kMutationsPerBatchMax = 10'100;

// Bytes that somebody owns, 16-byte aligned (operator new). Empty: a tombstone, where that makes
// sense.
struct ValueBuffer {
  std::unique_ptr<uint8_t[]> bytes;
  uint32_t size = 0;

  Bytes view() const { return {bytes.get(), size}; }
};

// The in-memory form of a key: table (1), space (8, big-endian), name. Byte order is the order of
// the tables.
constexpr size_t kFullKeyPrefixBytes = 9;
constexpr size_t kFullKeyBytesMax = kFullKeyPrefixBytes + kNameBytesMax;
class FullKey {
 public:
  explicit FullKey(const KeyView& key);  // a name beyond kNameBytesMax + 1 is cut there
  std::string_view view() const { return {bytes_, size_}; }

 private:
  char bytes_[kFullKeyBytesMax + 1];
  size_t size_;
};
KeyView parse_full_key(std::string_view full_key);

uint32_t key_crc(const KeyView& key);
// The same for many names of one space: its part is computed once.
class SpaceCrc {
 public:
  SpaceCrc(Table table, uint64_t space);
  uint32_t of(std::string_view name) const;

 private:
  uint32_t seed_;
};

// Encodes records into index values. Keeps its builder's memory; one per thread of use.
class RecordEncoder {
 public:
  RecordEncoder();
  // `body` with kind kIndex and `inline_body`, or kLog, or kNone and nothing.
  ValueBuffer encode(const KeyView& key, uint64_t seq, const fb::Record& record,
                     const BlobRef& body, Bytes inline_body);

 private:
  flatbuffers::FlatBufferBuilder builder_;
};

// Checks CRC, lengths and structure. `value` is 8-byte aligned; the view points into it. kCorrupt.
Result<RecordView> decode_record(const KeyView& key, Bytes value);
// The same with the CRC of the key.
Result<RecordView> decode_value(uint32_t key_checksum, Bytes value);

// A batch that passed every check: structure, count, names, tables, spaces, tags, at most one body
// and none without an owner. kInvalid otherwise. The flatbuffer's structs may be misaligned: read
// blobs with read_blobs(). `bytes` is 8-byte aligned (see AlignedBytes).
Result<const fb::MutationBatch*> verify_batch(Bytes bytes, size_t body_bytes);

KeyView key_of(const fb::Mutation& mutation);
std::string_view tag_of(const fb::Record& record);
size_t blob_count(const fb::Record& record);
BlobRef blob_at(const fb::Record& record, size_t index);

// `bytes` itself if it is 8-byte aligned, else a copy held here.
class AlignedBytes {
 public:
  explicit AlignedBytes(Bytes bytes);
  Bytes view() const { return view_; }

 private:
  std::unique_ptr<uint8_t[]> copy_;
  Bytes view_;
};

// Whether the blob lies in a segment or file (and so is accounted and released), not in the record
// itself.
inline bool in_file(const BlobRef& blob) {
  const auto kind = static_cast<BlobKind>(blob.kind);
  return kind == BlobKind::kLog || kind == BlobKind::kBulk || kind == BlobKind::kFile;
}

// Calls `visit(blob)` for the body and each blob of a record that lie in files.
template <class Visit>
void for_each_file_blob(const RecordView& record, Visit&& visit) {
  if (in_file(record.body)) visit(record.body);
  for (const BlobRef& blob : record.blobs) {
    if (in_file(blob)) visit(blob);
  }
}

struct BlobRefHash {
  size_t operator()(const BlobRef& blob) const;
};

// A key for a log line or an error text: control and non-ASCII bytes as \xNN, cut at 200 bytes.
std::string printable(const KeyView& key);

// Big-endian integers of the disk formats' keys, little-endian ones of their values.
void store_be64(uint8_t* out, uint64_t value);
uint64_t load_be64(const uint8_t* in);
void store_be32(uint8_t* out, uint32_t value);
uint32_t load_be32(const uint8_t* in);
void store_le32(uint8_t* out, uint32_t value);
uint32_t load_le32(const uint8_t* in);
void store_le64(uint8_t* out, uint64_t value);
uint64_t load_le64(const uint8_t* in);

}  // namespace basalt::storage
