// Scrub: looks for damage at rest, on a thread of its own with the lowest priorities for CPU and
// disk, at a bandwidth budget.
//
// A light scrub checks the superblock's copies, segment headers, the log that recovery may need,
// every page and record of every index, the sums that the index keeps, and that each blob's file is
// there, of the right generation and long enough. A deep scrub besides reads every live byte of
// every blob from the disk and checks it. What nobody refers to is not read. Each begins with a
// checkpoint, so that what was acknowledged before is in the index.
//
// Nothing is repaired and nothing deleted: what is damaged is named (file, offset, key), in the
// log, by status() and in the metrics. Position, findings and the time each file was last verified
// survive a restart (DIR/scrub.json).
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "storage/blob_verify.h"
#include "storage/engine.h"
#include "storage/findings.h"
#include "storage/index.h"
#include "storage/index_audit.h"

namespace basalt::storage {

class LocalFiles;

// Findings kept with their names; more are only counted.
constexpr size_t kScrubFindingsMax = 10'000;
// One batch of a deep scrub: records looked at in one snapshot of the index, blobs among them, and
// bytes of them (one blob may be longer).
constexpr size_t kScrubBatchRecords = 32'768;
constexpr size_t kScrubBatchBlobs = 262'144;
constexpr uint64_t kScrubBatchBytes = 1u << 30;
// Blobs that lie this close in a file are read together.
constexpr uint64_t kScrubGapBytes = 64u << 10;

enum class ScrubMode : uint8_t { kLight, kDeep };
enum class ScrubState : uint8_t { kIdle, kRunning, kPaused };

struct ScrubStatus {
  ScrubState state = ScrubState::kIdle;
  ScrubMode mode = ScrubMode::kLight;
  std::string stage;              // of a scrub under way: "index", "blobs", ...
  uint64_t bytes_per_second = 0;  // 0: no bound
  int64_t started_ms = 0;         // of the last scrub, or the one under way
  int64_t ended_ms = 0;           // 0: it has not ended
  unsigned shards_done = 0, shards = 0;
  uint64_t records = 0, blobs = 0, bytes = 0;
  uint64_t finding_count = 0;
  std::vector<Finding> findings;                // of the last scrub, or the one under way
  int64_t last_light_ms = 0, last_deep_ms = 0;  // when one last ended
  struct File {
    std::string file;
    int64_t verified_ms = 0;  // last time a deep scrub had read all its live bytes
    uint64_t findings = 0;    // then
  };
  std::vector<File> files;
};

class Scrub {
 public:
  struct Parts {
    LocalFiles& files;
    std::vector<Index*> indexes;
    const EngineOptions& options;
    const Clock& clock;
    // Everything that was acknowledged before the call is in the indexes when it returns. kBusy:
    // not within a minute; kReadOnly: writes have stopped.
    std::function<Status()> flush;
  };
  explicit Scrub(Parts parts);
  ~Scrub();

  // The thread; a scrub that the last run left under way goes on.
  void begin();
  void end();

  // Any thread. kBusy: one is under way. `bytes_per_second`: for this scrub; 0 no bound; absent:
  // as configured.
  Status start(ScrubMode mode, std::optional<uint64_t> bytes_per_second);
  Status pause();   // kInvalid: none is running
  Status resume();  // kInvalid: none is paused
  Status cancel();  // kInvalid: none is under way
  ScrubStatus status(bool with_findings) const;

 private:
  // Where a scrub goes on after a pause or a restart.
  struct Position {
    unsigned stage = 0;  // 0 flush, 1 superblock and segments, 2 indexes, 3 blobs, 4 done
    unsigned shard = 0;
    size_t table = 0;
    std::string key;  // raw key of the index from which the next batch begins
  };
  struct FileFacts {
    bool missing = false;
    uint64_t bytes = 0;
    uint32_t generation = 0;  // of a segment; 0: it has no valid header
  };

  void run();
  void run_scrub();
  Status step();
  Status check_fixed();
  bool in_use(uint32_t number, uint32_t generation) const;
  void check_log(const std::string& path, uint32_t number, uint32_t generation, uint64_t end);
  Status check_index(unsigned shard);
  Status check_blobs(unsigned shard);
  Status pace(size_t bytes, bool waits = true);
  void find(Finding finding);
  Result<std::unique_ptr<IndexPages>> open_index(unsigned shard, const IndexWalk& walk);
  Result<IndexReader::Snapshot> pin(unsigned shard, IndexPages& pages,
                                    const IndexPages::Damaged& damaged);
  std::optional<std::string> look(const BlobRef& blob, std::string& path);
  bool still_named(unsigned shard, const KeyView& key, const BlobRef& blob);
  void load_state();
  void save_state();
  std::string state_path() const;

  const Parts parts_;
  std::thread thread_;

  // The thread's own.
  Position position_;
  std::vector<std::unique_ptr<IndexReader>> readers_;
  std::unordered_map<uint64_t, FileFacts> facts_;  // by kind << 32 | number
  std::unique_ptr<BlobVerifier> verifier_;
  std::vector<LayerNames> layers_;
  uint64_t pace_start_ns_ = 0, pace_bytes_ = 0;
  uint64_t saved_ns_ = 0;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  ScrubStatus status_;
  std::map<std::string, ScrubStatus::File> files_;
  std::set<std::string> seen_;  // of findings, so that none is listed twice
  bool stop_ = false;
  bool cancel_ = false;
};

}  // namespace basalt::storage
