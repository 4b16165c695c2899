// Finding: one thing that is wrong with a data directory, as scrub, fsck and rebuild report it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "storage/types.h"

namespace basalt::storage {

// A key that owns its name.
struct OwnedKey {
  Table table = Table::kCurrent;
  uint64_t space = 0;
  std::string name;

  KeyView view() const { return {table, space, name}; }
};

struct Finding {
  enum class Kind : uint8_t {
    kSuperblock,  // a copy of the superblock
    kSegment,     // a segment's header
    kLog,         // a log batch that recovery may need
    kIndex,       // structure or own rows of a shard's index
    kRecord,      // a record in the index fails its check
    kBlob,        // a record's bytes: damaged, out of bounds, of another generation
    kMissing,     // a file that a record names is not there
    kTotals,      // a sum that the index keeps is not the sum of its records
    kOrphan,      // a file or directory entry that nobody names; harmless
    kIo,          // the device answered a read with an error
  };
  Kind kind = Kind::kIndex;
  std::string file;  // relative to the data directory
  uint64_t offset = 0;
  std::string what;
  std::optional<unsigned> shard;
  std::optional<OwnedKey> key;
};

constexpr const char* finding_name(Finding::Kind kind) {
  switch (kind) {
    case Finding::Kind::kSuperblock:
      return "superblock";
    case Finding::Kind::kSegment:
      return "segment";
    case Finding::Kind::kLog:
      return "log";
    case Finding::Kind::kIndex:
      return "index";
    case Finding::Kind::kRecord:
      return "record";
    case Finding::Kind::kBlob:
      return "blob";
    case Finding::Kind::kMissing:
      return "missing";
    case Finding::Kind::kTotals:
      return "totals";
    case Finding::Kind::kOrphan:
      return "orphan";
    case Finding::Kind::kIo:
      return "io";
  }
  return "unknown";
}

using Report = std::function<void(Finding)>;

}  // namespace basalt::storage
