// What index.cc, index_reader.cc and index_writer.cc share: the tables by name, the rows that are
// not records, and liblmdb's values and errors as ours. Not for others.
#pragma once

#include <fmt/format.h>
#include <lmdb.h>

#include <cerrno>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/result.h"
#include "storage/index.h"

namespace basalt::storage {

// Those of records by their number, then three of our own.
inline const std::vector<std::string_view> kTableList = {"cur", "ver", "mpu", "part", "bkt",
                                                         "iam", "out", "sys", "seg",  "cnt"};
inline constexpr size_t kSysTable = kTableCount, kSegTable = kTableCount + 1,
                        kCntTable = kTableCount + 2;
constexpr std::string_view kFormatKey = "format";
constexpr std::string_view kAppliedKey = "applied";
constexpr std::string_view kNextLayerKey = "next_layer";

// Longest value there can be: a batch's mutations and its inline body, with room to spare. A longer
// one is a damaged length, and reading so far might leave the file; it is shown as empty, which
// fails every check.
constexpr size_t kValueBytesMax = 1u << 20;

inline MDB_val to_val(Bytes bytes) { return {bytes.size(), const_cast<uint8_t*>(bytes.data())}; }
inline Bytes to_bytes(const MDB_val& value) {
  if (value.mv_size > kValueBytesMax) {
    return {static_cast<const uint8_t*>(value.mv_data), size_t{0}};
  }
  return {static_cast<const uint8_t*>(value.mv_data), value.mv_size};
}

inline std::unexpected<Error> lmdb_error(int code, std::string_view what) {
  std::string text = fmt::format("index: {}: {}", what, mdb_strerror(code));
  switch (code) {
    case MDB_NOTFOUND:
      return fail(Code::kNotFound);
    case MDB_MAP_FULL:
    case ENOSPC:
    case EDQUOT:
      return fail(Code::kNoSpace, std::move(text));
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
      return fail(Code::kCorrupt, std::move(text));
    case MDB_READERS_FULL:
      return fail(Code::kBusy, std::move(text));
    default:
      return fail(Code::kIo, std::move(text));
  }
}

// Rows of sys, seg and cnt: payload + crc32c seeded with the key's CRC.
template <size_t kPayloadBytes>
struct Row {
  uint8_t bytes[kPayloadBytes + 4];

  void finish(Bytes key) {
    store_le32(bytes + kPayloadBytes, crc32c(Bytes(bytes, kPayloadBytes), crc32c(key)));
  }
  static bool check(Bytes key, Bytes value) {
    return value.size() == kPayloadBytes + 4 && load_le32(value.data() + kPayloadBytes) ==
                                                    crc32c(value.first(kPayloadBytes), crc32c(key));
  }
};
constexpr size_t kAppliedBytes = 32;  // epoch, lsn, offset (8 each), file (4), zero (4)
constexpr size_t kSumBytes = 16;      // two signed counts
constexpr size_t kFormatBytes = 8;    // version, shard

template <size_t kPayloadBytes>
int put_row(MDB_txn* txn, MDB_dbi dbi, Bytes key, Row<kPayloadBytes>& row) {
  row.finish(key);
  MDB_val k = to_val(key), v = to_val(row.bytes);
  return mdb_put(txn, dbi, &k, &v, 0);
}

}  // namespace basalt::storage
