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

// As replay_log(), over these segments of the directory. `trust_checkpoints`: what a batch says to
// be checkpointed is in the index, and a log before that may be missing. False where the index
// comes from elsewhere (a snapshot, or nothing): then every record above `applied` is visited, and
// what is missing in between is damage.
Status replay_log_files(const DiskPlace& place, std::vector<LocalFiles::LogFile> files,
                        std::span<const LogPosition> applied, bool trust_checkpoints,
                        const std::function<Status(const RecoveredRecord&)>& visit);

}  // namespace basalt::storage
