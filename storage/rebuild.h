// rebuild-index: makes the indexes of a data directory anew. No server has it open.
//
// From a snapshot and the log (the default): the newest snapshot whose files are as they were
// written, and every log record since. The log from the newest snapshot on is kept for this, so the
// result is every acknowledged write; where something is missing after all, the report says between
// which positions.
//
// From segments alone: every record that is still in a log segment, in order. That is what remains
// when there is neither an index nor a snapshot. Log segments without live bodies are used again,
// and with them go, for ever: records of objects that lie in the index (up to 512 bytes) or in bulk
// segments and files of their own (above 128 KiB), buckets, accounts, and deletions. So such
// objects are missing, and an object may be one that was deleted or replaced since: those that a
// missing part of the log could have touched are listed. Buckets and accounts are taken from
// whatever index or snapshot can still be read.
//
// The old indexes go to the quarantine, with records whose bytes are not there any more.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "storage/findings.h"

namespace basalt::storage {

struct RebuildOptions {
  std::string directory;
  bool from_segments = false;
  std::string snapshot;  // stamp of the snapshot to use; "": the newest good one
  uint64_t lmdb_map_bytes = uint64_t{1} << 40;
  std::function<void(const std::string&)> progress;
};

struct RebuildReport {
  std::string source;  // the snapshot's stamp, or "segments"
  uint64_t records = 0;
  uint64_t log_records = 0;
  // What is not as it was; empty: everything acknowledged is in the indexes.
  std::vector<std::string> losses;
  uint64_t dropped = 0;  // records whose bytes are not there (in the quarantine's records.jsonl)
  uint64_t uncertain =
      0;  // may have been deleted or replaced (in the quarantine's uncertain.jsonl)
  uint64_t control_records = 0;  // buckets and accounts that did not come from the log
  std::string quarantine;
};

// Errors: kBusy, kNotFound (no directory; no good snapshot), kCorrupt (no superblock), kIo.
Result<RebuildReport> rebuild_index(const RebuildOptions& options);

}  // namespace basalt::storage
