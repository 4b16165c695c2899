// Seeded bugs: mistakes that a storage engine could well make, built in on purpose to prove that
// the tests find them (docs/reliability.md, "Seeded bugs"). One at a time, chosen by the CMake
// option BASALT_SEEDED_BUG; `none`, the default, compiles to nothing. CMake refuses one in a
// release build, and basaltd says it loudly at start.
//
// For storage/*.cc; others ask seeded_bug_name(), because only the room's own sources see the
// option.
#pragma once

#include <cstdint>
#include <string_view>

namespace basalt::storage {

#ifndef BASALT_SEEDED_BUG
#define BASALT_SEEDED_BUG none
#endif

namespace seeded {

enum class Bug : uint8_t {
  none,
  ack_before_flush,  // a log batch counts as durable when it is written, not when it is flushed
  no_crc,            // checksums of log batches, records and blobs are not looked at
  early_recycle,     // a log segment is used again before a checkpoint covers it
  no_generation,  // recovery takes any generation's batches, also what a segment held in an earlier
                  // life
  bulk_not_synced,       // a large body's record goes to the log before its bytes are flushed
  mdb_nosync,            // the index is opened with MDB_NOSYNC
  later_batch_first,     // of two batches in flight the one that ends first is acknowledged first
  directory_not_synced,  // new files and directories are synced, the directories that name them are
                         // not
};

constexpr Bug kBug = Bug::BASALT_SEEDED_BUG;

constexpr bool kAckBeforeFlush = kBug == Bug::ack_before_flush;
constexpr bool kNoCrc = kBug == Bug::no_crc;
constexpr bool kEarlyRecycle = kBug == Bug::early_recycle;
constexpr bool kNoGeneration = kBug == Bug::no_generation;
constexpr bool kBulkNotSynced = kBug == Bug::bulk_not_synced;
constexpr bool kMdbNosync = kBug == Bug::mdb_nosync;
constexpr bool kLaterBatchFirst = kBug == Bug::later_batch_first;
constexpr bool kDirectoryNotSynced = kBug == Bug::directory_not_synced;

}  // namespace seeded

// The name of the bug that this build was given; "none" in every build that is meant to be used.
std::string_view seeded_bug_name();

// Does a stored checksum match? Where log and blobs are checked, so that a seeded bug can be blind
// there.
constexpr bool crc_matches(uint32_t stored, uint32_t computed) {
  return seeded::kNoCrc || stored == computed;
}

}  // namespace basalt::storage
