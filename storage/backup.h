// Backup: a consistent copy of a running engine's data, that can be verified and restored without
// it.
//
// DEST holds the files of a data directory under their own names (superblock, shard/NN/data.mdb,
// log/, bulk/, blob/) and manifest.json with size and CRC-32C of each, written last: without it the
// backup is not whole. It holds every object as it was when its shard's index was copied; every
// write that was acknowledged before the backup began is in it. While it is made nothing that it
// may need is used again or unlinked (a ReadGuard is held), so space does not come back meanwhile.
//
// Verify reads everything: the manifest's checksums, every page and record of the indexes, every
// byte of every blob. Restore writes a new data directory, which a server opens like any other.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "storage/engine.h"
#include "storage/findings.h"
#include "storage/index.h"

namespace basalt::storage {

class LocalFiles;

struct BackupStatus {
  bool running = false;
  std::string destination, stage;
  uint64_t bytes_done = 0, files_done = 0, files_total = 0;  // total: 0 until it is known
  int64_t started_ms = 0, ended_ms = 0;
  std::string error;  // of the last one; "" if it was good, or there was none
};

class Backup {
 public:
  struct Parts {
    LocalFiles& files;
    std::vector<Index*> indexes;
    const EngineOptions& options;
    const Clock& clock;
    std::function<Status()> flush;  // as Scrub::Parts::flush
  };
  explicit Backup(Parts parts) : parts_(std::move(parts)) {}
  ~Backup();

  // Any thread. `destination`: an absolute path; made if it is missing, else empty. kBusy: one is
  // under way; kInvalid: the destination. `bytes_per_second`: 0 no bound.
  Status create(const std::string& destination, uint64_t bytes_per_second);
  Status cancel();  // kInvalid: none is under way
  BackupStatus status() const;

 private:
  void run(std::string destination, uint64_t bytes_per_second);
  Status make(const std::string& destination);
  Status pace(size_t bytes, bool waits);
  void stage(std::string name);

  const Parts parts_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::thread thread_;
  bool stop_ = false;
  uint64_t bytes_per_second_ = 0, pace_bytes_ = 0, pace_start_ns_ = 0;
  BackupStatus status_;
};

struct BackupCheck {
  uint64_t files = 0, bytes = 0, records = 0, blobs = 0;
  uint64_t finding_count = 0;
  std::vector<Finding> findings;
};
constexpr size_t kBackupFindingsMax = 10'000;

// kNotFound: no manifest; kCorrupt: the manifest cannot be read.
Result<BackupCheck> verify_backup(const std::string& backup,
                                  const std::function<void(const std::string&)>& progress);
// `directory` is missing or empty. Every file is checked while it is copied: kCorrupt names the
// first that is not as it was, and what was written so far is no data directory (it has no
// superblock).
Status restore_backup(const std::string& backup, const std::string& directory,
                      const std::function<void(const std::string&)>& progress);

}  // namespace basalt::storage
