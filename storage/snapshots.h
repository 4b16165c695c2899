// Snapshots of the indexes: compacted copies of every shard's LMDB environment, made while the
// server runs, so that a damaged index can be made anew without losing a write.
//
// A snapshot is DIR/snapshot/STAMP/ with NN.mdb per shard, a copy of the superblock, and
// manifest.json (written last: a directory without one is left over from a crash and is removed).
// Each copy is read back page by page and record by record before the snapshot counts; one of a
// damaged index is refused. The newest few are kept.
//
// Snapshot + log: from the newest snapshot on, log segments are kept although everything in them is
// checkpointed and dead (LocalFiles::retain_log). So its index and the log together give every
// acknowledged write. When what is kept only for this grows above a bound, the next snapshot comes
// early; below the low-water mark of free space nothing is kept, and then a rebuild says what is
// missing.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "storage/engine.h"
#include "storage/index.h"
#include "storage/index_audit.h"

namespace basalt::storage {

class LocalFiles;

struct SnapshotFile {
  std::string name;  // in the snapshot's directory
  uint64_t bytes = 0;
  uint32_t crc = 0;  // CRC-32C of the file
};

struct SnapshotInfo {
  std::string directory;  // with the whole path
  std::string stamp;
  int64_t made_ms = 0;
  uint64_t epoch = 0;
  // Per shard: everything up to here is in its copy.
  std::vector<uint64_t> applied;
  std::vector<SnapshotFile> files;
  uint64_t bytes() const;
  uint64_t lowest_lsn() const;
};

// Those with a manifest that can be read, newest first.
std::vector<SnapshotInfo> list_snapshots(const std::string& data_directory);
// Every file is there with its size and checksum. kCorrupt says which is not.
Status verify_snapshot(const SnapshotInfo& snapshot);

// A copy begins between two checkpoints; how long it waits for one to end (it takes a second or so,
// and one that fails ends all writing), and how often it looks.
constexpr uint64_t kPartlyMsMax = 120'000;
constexpr uint64_t kPartlyRetryMs = 10;

// Copies one index as it is between two checkpoints, compacted, to `path` (created, synced); `pace`
// is called with the bytes of each piece before it is written. It may wait, unless `waits` is false
// (see IndexWalk), or stop the copy by an error.
using CopyPace = std::function<Status(size_t bytes, bool waits)>;
Result<SnapshotFile> copy_index(Index& index, const std::string& path, const CopyPace& pace);
// Reads the copy back and checks every page and row; the position that it covers. kCorrupt: it (or
// the index it came from) is damaged.
Result<LogPosition> check_index_copy(const std::string& path, unsigned shard,
                                     const VisitRecord& visit = {});

class Snapshots {
 public:
  struct Parts {
    LocalFiles& files;
    std::vector<Index*> indexes;
    const EngineOptions& options;
    const Clock& clock;
    std::function<Status()> flush;  // as Scrub::Parts::flush
  };
  explicit Snapshots(Parts parts);
  ~Snapshots();

  // Before recovery has finished (nothing was recycled yet): keeps the log from the newest
  // snapshot.
  void retain();
  void begin();
  void end();

  // Any thread: one soon. kBusy: one is being made.
  Status create();

  struct Snapshot {
    std::string stamp;
    int64_t made_ms = 0;
    uint64_t bytes = 0;
  };
  struct Status_ {
    bool running = false;
    uint64_t bytes_done = 0;
    std::string error;  // of the last attempt; "" if it was good
    uint64_t failures = 0;
    int64_t made_ms = 0;              // of the newest; 0: there is none
    uint64_t log_bytes_retained = 0;  // kept only for a rebuild
    std::vector<Snapshot> snapshots;  // newest first
  };
  Status_ status() const;

 private:
  void run();
  Status make();
  Status make_in(const std::string& directory, SnapshotInfo& info);
  void remove_old();
  void refresh();
  uint64_t retained_bytes_max() const;

  const Parts parts_;
  std::thread thread_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  bool wanted_ = false;
  int64_t tried_ms_ = 0;
  Status_ status_;
};

}  // namespace basalt::storage
