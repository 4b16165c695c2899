// Layout of LMDB 0.9's file (mdb.c: MDB_page, MDB_node, MDB_db, MDB_meta), data version 1, 64 bit,
// no DUPSORT; for those who read it without liblmdb (index_tree, index_pages).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/bytes.h"

namespace basalt::storage::lmdb {

// Page: u64 own number, u16 pad, u16 flags, u16 lower, u16 upper (or u32 pages of a large value),
// then u16 offsets of the nodes up to `lower`; the nodes tile [upper, end).
constexpr size_t kPageHeaderBytes = 16;
constexpr size_t kPageFlagsAt = 10, kPageLowerAt = 12, kPageUpperAt = 14;
// Node: u16 low, u16 high (both: bytes of the value, or with the flags: the child), u16 flags, u16
// bytes of the key; the key; the value, or the number of its first page.
constexpr size_t kNodeHeaderBytes = 8;
constexpr size_t kTreeBytes = 48;
constexpr size_t kMetaBytes = 136;
constexpr uint32_t kMagic = 0xBEEFC0DE;
constexpr uint32_t kDataVersion = 1;
constexpr uint16_t kBranch = 1, kLeaf = 2, kOverflow = 4, kMetaPage = 8;
constexpr uint16_t kBigData = 1, kSubTree = 2;
constexpr uint16_t kIntegerKey = 8;
constexpr uint64_t kNoPage = ~uint64_t{0};
constexpr unsigned kDepthMax = 32;
constexpr uint32_t kPageBytesMin = 4096, kPageBytesMax = 32768;

template <class T>
T load(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

inline int compare(Bytes a, Bytes b, bool integers) {
  if (integers && a.size() == 8 && b.size() == 8) {
    const auto x = load<uint64_t>(a.data()), y = load<uint64_t>(b.data());
    return x < y ? -1 : x > y ? 1 : 0;
  }
  const size_t both = std::min(a.size(), b.size());
  const int order = both == 0 ? 0 : std::memcmp(a.data(), b.data(), both);
  if (order != 0) return order;
  return a.size() < b.size() ? -1 : a.size() > b.size() ? 1 : 0;
}

inline uint64_t overflow_pages(uint64_t value_bytes, uint32_t page_bytes) {
  return (kPageHeaderBytes - 1 + value_bytes) / page_bytes + 1;
}

}  // namespace basalt::storage::lmdb
