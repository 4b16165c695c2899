// Scans: pages of the records of one or several shards of a core, in byte order of their names.
//
// Several shards are merged where they lie: of each no more is read than the page shows, and a
// record goes from the index page to the caller's in one step.
#pragma once

#include <cstdint>
#include <span>

#include "base/result.h"
#include "storage/meta_shard.h"
#include "storage/shard_state.h"

namespace basalt::storage {

// A page ends early (with `more` set) when it holds this much: records with ten thousand blobs each
// must not add up to gigabytes.
constexpr size_t kScanPageBytesMax = 8u << 20;
constexpr uint32_t kScanEntriesMax = 10'000;

// As if the shards were one; a name is in one of them only. On the shards' core. kInvalid: options
// out of range; kIo, kCorrupt: of an index.
Result<ScanPage> scan_shards(std::span<ShardState* const> shards, const ScanOptions& options);

}  // namespace basalt::storage
