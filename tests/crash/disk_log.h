// The log of the recording disk: what happened to a block device, in order of completion.
//
// A file of entries without gaps: the header below (40 bytes, as it lies in memory), then for a
// write its bytes. Entry numbers count from 0. The log is written before the answer goes back, so
// whoever has seen an answer finds its entry.
#pragma once

#include <cstdint>

namespace basalt::crash {

enum class EntryType : uint32_t {
  kWrite = 1,  // `length` bytes follow
  kZeros = 2,  // a write of nothing but zeros; no bytes follow
  kFlush = 3,  // every entry before number `arrived` is on stable storage from here on
};

struct EntryHeader {
  uint64_t number = 0;
  // How many entries there were when the request came in: what was answered before it (a flush
  // covers exactly that).
  uint64_t arrived = 0;
  uint64_t offset = 0;
  uint64_t length = 0;
  EntryType type = EntryType::kWrite;
  uint32_t reserved = 0;
};
static_assert(sizeof(EntryHeader) == 40);

}  // namespace basalt::crash
