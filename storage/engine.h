// Engine: the local storage engine of one data directory. Format: docs/on-disk-format.md. Design:
// docs/architecture.md.
//
// One Engine a process, one CoreEngine a core. Threads of its own: a checkpointer per core, one
// maintenance thread (segment preparation, garbage collection). Order of life: open() on the main
// thread (format if empty, lock, recover all lanes, which makes every shard ready) -> attach() on
// each core's thread -> run -> CoreEngine::stop() on each core (waits for its writes, last
// checkpoint) -> destroy CoreEngines on their threads -> destroy Engine.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/completion.h"
#include "base/poller.h"
#include "base/result.h"
#include "storage/blob_store.h"
#include "storage/io.h"
#include "storage/meta_shard.h"

namespace basalt::storage {

struct Platform;

struct EngineOptions {
  std::string directory;
  unsigned core_count = 1;
  unsigned shard_count_at_format = 8;  // power of two, at least core_count rounded up
  uint64_t log_segment_bytes =
      0;  // at format; 0 = by disk size: 1/256 of the file system, 4 to 256 MiB
  uint64_t bulk_segment_bytes = 0;              // at format; 0 = likewise
  uint64_t lmdb_map_bytes = uint64_t{1} << 40;  // address space only
  uint32_t checkpoint_entries = 100'000;        // a checkpoint starts at any of these three
  uint64_t checkpoint_log_bytes = 256u << 20;
  uint32_t checkpoint_interval_ms = 30'000;
  uint64_t overlay_bytes_max = 256u << 20;  // per core; beyond it new batches wait
  uint64_t own_file_bytes_min = 4u << 20;   // bodies from here on get a file of their own
  double gc_live_ratio_max = 0.5;           // segments with less live data are collected
  uint32_t gc_sealed_age_ms = 600'000;
  uint32_t gc_interval_ms = 10'000;  // between two looks for segments to collect
  bool allow_network_filesystem = false;
  // Scrubs (storage/scrub.h): budget of one that was not told otherwise (0: none), and seconds
  // between two of a kind (0: only when asked).
  uint64_t scrub_bytes_per_second = 64u << 20;
  uint64_t scrub_light_interval_s = 0;
  uint64_t scrub_deep_interval_s = 0;
  // Snapshots of the indexes (storage/snapshots.h): seconds between two (0: only when asked), and
  // how many are kept.
  uint64_t snapshot_interval_s = 0;
  uint64_t snapshot_bytes_per_second = 64u << 20;
  unsigned snapshots_kept = 3;
  const Platform* platform = nullptr;  // storage/platform.h; null: the machine itself
};

// Counters are read by any thread (relaxed), written by the owner.
struct EngineStats {
  std::atomic<uint64_t> log_batches{0}, log_records{0}, log_bytes{0}, device_flushes{0};
  std::atomic<uint64_t> overlay_entries{0}, overlay_bytes{0};
  // What is held now, and its limit.
  std::atomic<uint64_t> overlay_bytes_max{0}, buffer_bytes{0}, buffer_bytes_max{0};
  std::atomic<uint64_t> io_in_flight{0}, io_at_once_max{0};
  std::atomic<uint64_t> index_read_age_ms{0};  // Index::oldest_walk_ms(); kPacedWalkMsMax
  // Of the core's shards, as of their last checkpoint. Lag: commits since the oldest read
  // transaction began.
  std::atomic<uint64_t> index_file_bytes{0}, index_used_bytes{0}, index_reader_lag{0};
  std::atomic<uint64_t> index_damage{0};  // damaged pages and rows met, since the open
  std::atomic<uint64_t> checkpoints{0}, checkpoint_entries{0}, checkpoint_ms_total{0};
  std::atomic<uint64_t> blob_writes{0}, blob_write_bytes{0}, blob_reads{0}, blob_read_bytes{0};
  std::atomic<uint64_t> corrupt_reads{0}, io_errors{0};
};

struct SpaceUse {
  uint64_t disk_bytes = 0, disk_free_bytes = 0;  // statfs of the data directory
  uint64_t log_segments = 0, bulk_segments = 0, own_files = 0;
  uint64_t segment_live_bytes = 0;
  uint64_t segments_reused = 0;  // emptied segments taken into use again since the open
  uint64_t records_moved = 0;    // by garbage collection, since the open
  uint64_t bytes_moved = 0;      // of their bodies and blobs
  uint64_t writes_waiting = 0;   // for room near the low-water mark
  // New data waits for garbage collection; where there is nothing to collect it is kNoSpace.
  bool below_low_water = false;
};

class CoreEngine : public Poller {
 public:
  // shard % core_count == this core.
  virtual MetaShard& shard(unsigned shard) = 0;
  // One page over all shards of this core, as if they were one (ScanPage): each is read as far as
  // the page goes, and no further. At once, on the core's thread.
  virtual Result<ScanPage> scan(const ScanOptions& options) = 0;
  virtual BlobStore& blobs() = 0;
  virtual const EngineStats& stats() const = 0;
  // Finishes writes in flight, refuses new ones with kCancelled, checkpoints; then completes.
  virtual void stop(Completion& stopped) = 0;
};

class Maintenance;

class Engine {
 public:
  virtual ~Engine() = default;

  static Result<std::unique_ptr<Engine>> open(const EngineOptions& options, const Clock& clock);

  virtual unsigned shard_count() const = 0;
  virtual uint64_t hash_seed() const = 0;  // of the data directory; for shard_of
  virtual std::unique_ptr<CoreEngine> attach(unsigned core, Io& io, RunQueue& run_queue,
                                             BufferPool& buffers) = 0;

  // Any thread.
  virtual bool healthy() const = 0;  // false once any write failed (P7)
  virtual std::string health_text() const = 0;
  virtual SpaceUse space_use() const = 0;
  // Writes that wait for room are refused with kBusy from now on: the server is about to stop.
  virtual void end_waits() {}
  virtual uint64_t space_bytes(uint64_t space) const = 0;  // counted at the last checkpoint
  virtual uint64_t space_objects(uint64_t space) const = 0;

  // Scrub, snapshots, backup (storage/maintenance.h). nullptr: this engine has none.
  virtual Maintenance* maintenance() { return nullptr; }
};

}  // namespace basalt::storage
