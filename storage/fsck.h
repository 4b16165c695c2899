// fsck: checks a data directory that no server has open, and repairs it if it is told to.
//
// Checks: both copies of the superblock, segment headers, every page, row and record of every
// index, the sums that the indexes keep, that each record's blobs can be where it says (with
// `deep`: all their bytes), that the log can be replayed, and files that nobody names.
//
// Repair never deletes. A damaged copy (superblock, segment header) is written again from the good
// one. A damaged index is made anew from its readable records and the log; the old one, records
// that cannot be kept and the stored bytes of their blobs go to DIR/quarantine/STAMP. Afterwards
// the server starts; what was lost is listed.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "storage/findings.h"

namespace basalt::storage {

// Findings kept; more are counted.
constexpr size_t kFsckFindingsMax = 100'000;

struct FsckOptions {
  std::string directory;
  bool deep = false;
  bool repair = false;
  uint64_t lmdb_map_bytes = uint64_t{1} << 40;
  std::function<void(const std::string&)> progress;  // a line for the operator; may be empty
};

struct FsckReport {
  uint64_t records = 0, blobs = 0, bytes = 0, log_records = 0;
  uint64_t finding_count = 0;  // orphans not counted: they are harmless
  uint64_t orphan_count = 0;
  std::vector<Finding> findings;
  std::vector<std::string> repairs;  // what was done, a sentence each
  std::string quarantine;            // where what was taken out is, "" if nothing was
  bool sound() const { return finding_count == 0; }
};

// Errors: kBusy (a server has it), kNotFound, kCorrupt (nothing to go by: no superblock), kIo.
Result<FsckReport> fsck(const FsckOptions& options);

}  // namespace basalt::storage
