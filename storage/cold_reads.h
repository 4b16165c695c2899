// ColdReads: what one core lately read past the page cache. Whoever asks for the same bytes again
// within the memory of this table gets them through the page cache, so that the third reader finds
// them there; what is read once (a scan, a backup, a random read over more data than there is
// memory for) pushes nothing out of it. It is the ghost list of the 2Q algorithm (Johnson and
// Shasha, 1994), without an order: a later read of another place may overwrite an entry.
//
// A wrong answer, either way, costs time and never correctness. Core's thread only.
#pragma once

#include <cstdint>
#include <memory>

#include "storage/types.h"

namespace basalt::storage {

// Two bytes each, touched only as they are used. With objects of 4 KiB that is 4 GiB of data for a
// core, with large ones (a place is a window of 256 KiB) more than a server has memory.
constexpr size_t kColdReadsMax = 1u << 20;

class ColdReads {
 public:
  ColdReads();

  // Is this the second read of the place, `offset` bytes into the blob? Then it is forgotten, else
  // remembered.
  bool again(const BlobRef& blob, uint64_t offset);

 private:
  struct FreeMemory {
    void operator()(uint16_t* memory) const;
  };
  std::unique_ptr<uint16_t[], FreeMemory> tags_;
};

}  // namespace basalt::storage
