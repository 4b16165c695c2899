// The reading half of recovery, for tools that have no Files: see replay_log() in storage/lane.h.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "storage/files_local.h"
#include "storage/lane.h"

namespace basalt::storage {

// A data directory, by the disk that opened it.
struct DiskPlace {
  Disk& disk;
  int directory_fd;
};

struct ReplayOptions {
  // What a batch says to be checkpointed is in the index, and a log before that may be missing.
  // False where the index comes from elsewhere (a snapshot, or nothing): then every record above
  // `applied` is visited, and what is missing in between is damage.
  bool trust_checkpoints = true;
  // Whoever serves what was visited before it is checkpointed needs it to stay: batches at the end
  // of a chain, of which no later one says that they are durable, are written again in their place
  // and synced. (A sync alone would not do: it tells of a failure once, and that may have been in
  // an earlier process.) Nothing is written where something is damaged.
  bool make_durable = false;
};

// As replay_log(), over these segments of the directory.
Status replay_log_files(const DiskPlace& place, std::vector<LocalFiles::LogFile> files,
                        std::span<const LogPosition> applied, const ReplayOptions& options,
                        const std::function<Status(const RecoveredRecord&)>& visit);

}  // namespace basalt::storage
