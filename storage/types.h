// The words of the storage engine: tables, keys, blob references, records, preconditions.
//
// No S3 words here: a "space" is what S3 calls a bucket incarnation, "meta" is opaque to storage.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "base/bytes.h"

namespace basalt::storage {

// Ordered tables of a shard. The numbers are on disk.
enum class Table : uint8_t {
  kCurrent = 0,  // name = object key
  kVersion = 1,  // name = object key, 0x00, big-endian ~sequence (noncurrent versions; reserved)
  kUpload = 2,   // name = object key, 0x00, upload id (16 bytes)
  kPart = 3,  // name = upload id (16 bytes), big-endian part number (2 bytes); space as the upload
  kBucket = 4,    // home shard only, space 0; name = bucket name
  kIdentity = 5,  // home shard only, space 0; name = "account/ID" or "key/ACCESSKEY"
  kOutbox = 6,    // reserved for events
};
constexpr size_t kTableCount = 7;

// Longest name in any table: a 1,024-byte key, a NUL and a 16-byte suffix.
constexpr size_t kNameBytesMax = 1041;
// Bytes that travel inside a log record beside its metadata; larger bodies go through
// BlobStore::create.
constexpr size_t kInlineBodyBytesMax = 128 * 1024;
// Bodies up to this size are kept in the index value itself.
constexpr size_t kIndexBodyBytesMax = 512;
// Unit of the data checksums: every chunk of this many bytes of a blob has a CRC-32C, checked on
// each cold read.
constexpr size_t kBlobChunkBytes = 64 * 1024;

// Spaces: 0 is the control space; user spaces are random, non-zero, below 2^63 (the top bit marks
// layer ids on disk).
constexpr uint64_t kControlSpace = 0;

struct KeyView {
  Table table = Table::kCurrent;
  uint64_t space = 0;
  std::string_view name;  // 1 to kNameBytesMax bytes, any bytes
};

// Where a blob is, 32 bytes, opaque above storage/ except for equality and `length`.
struct BlobRef {
  uint64_t length = 0;      // data bytes
  uint64_t offset = 0;      // in the file, where the data starts
  uint32_t file = 0;        // segment number or own-file number
  uint32_t generation = 0;  // of the segment when the blob was written; seeds every checksum
  uint32_t root = 0;        // CRC of the data (one chunk) or of the chunk CRC table (several)
  uint8_t kind = 0;         // BlobKind
  uint8_t reserved[3] = {};

  friend bool operator==(const BlobRef& a, const BlobRef& b) {
    return std::memcmp(&a, &b, sizeof a) == 0;
  }
};
static_assert(sizeof(BlobRef) == 32);

enum class BlobKind : uint8_t {
  kNone = 0,
  kIndex = 1,  // bytes are in the index value (Record::inline_body)
  kLog = 2,    // in a log segment, beside its record
  kBulk = 3,   // in a bulk segment (128 KiB < length < 4 MiB)
  kFile = 4,   // a file of its own (from 4 MiB)
};

struct Precondition {
  enum class Kind : uint8_t {
    kAbsent,      // no record under the key
    kExists,      // a record
    kTagEquals,   // a record whose tag is `tag`; kNotFound if there is no record
    kTagDiffers,  // no record, or one whose tag is not `tag`
    kSeqEquals,   // a record whose sequence is `seq`
  };
  Kind kind;
  KeyView key;
  std::string_view tag = {};
  uint64_t seq = 0;
};

}  // namespace basalt::storage
