// Files: the data directory's files, their numbers, their space. One per Engine, shared by all
// cores and helper threads (a short mutex; never on the path of a small GET or PUT).
//
//   DIR/superblock        format version, uuid, shard count, segment sizes, hash seed, epoch
//                         counter; two copies + CRC
//   DIR/lock              flock(2) held while the engine is open
//   DIR/log/NNNNNNNN      log segments
//   DIR/bulk/NNNNNNNN     bulk segments
//   DIR/blob/XX/NNNNNNNN  own files (numbers in hexadecimal; XX = bits 8 to 15 of the number)
//   DIR/shard/NN/         LMDB environments
//
// Numbers are unique over all kinds. A segment is recycled in place with a new random generation;
// an own file's number is not used again. Every segment is created, sized and fsynced, and
// its directory fsynced, before its first use; of an own file the directory.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "storage/blob_store.h"
#include "storage/engine.h"
#include "storage/platform.h"
#include "storage/types.h"
#include "storage/write_pace.h"

namespace basalt::storage {

struct Superblock {
  uint32_t format_version = 1;
  std::array<uint8_t, 16> uuid{};
  uint32_t shard_count = 0;
  uint64_t log_segment_bytes = 0;
  uint64_t bulk_segment_bytes = 0;
  uint64_t hash_seed = 0;
  uint64_t epoch = 0;         // raised by every open
  uint32_t number_limit = 1;  // file numbers from here on were never given out
};

enum class FileKind : uint8_t { kLog = 1, kBulk = 2, kOwn = 3 };

// Where the log of a lane must be read again after a crash: everything at or before `lsn` is in the
// index.
struct LogPosition {
  uint64_t epoch = 0;
  uint64_t lsn = 0;   // LSNs are unique and rising over the life of the directory within a shard:
                      // epoch in the high bits makes them so (lsn = epoch << 40 | counter)
  uint32_t file = 0;  // log segment and offset of the batch that holds the next record
  uint64_t offset = 0;
};

class Files {
 public:
  virtual ~Files() = default;

  // Opens DIR: formats it if it is empty, takes the lock, checks version and file system, raises
  // the epoch, lists files.
  static Result<std::unique_ptr<Files>> open(const EngineOptions& options);

  virtual const Platform& platform() const { return system_platform(); }
  virtual const Superblock& superblock() const = 0;
  virtual std::string shard_directory(unsigned shard) const = 0;

  // --- Live bytes: the sum of BlobRef::length over the durable records that name the file (an
  // index keeps the same sum). References of kind kNone and kIndex are ignored everywhere.
  // Lock-free. Called with durable facts only: by the shard when a record is durable / dropped (any
  // thread). At open the index's persisted sums are loaded by set_live before replay adds to them.
  virtual void set_live(uint32_t file, int64_t bytes) = 0;
  virtual void add_live(const BlobRef& blob) = 0;
  // The record that named these is gone and that fact is in a committed checkpoint: live bytes fall
  // now; own files are unlinked, and empty segments become reusable, when every ReadGuard taken
  // before has gone. A reference to an earlier generation of a segment, or to a file that is gone,
  // is ignored, so releasing again after a crash is harmless.
  virtual void release(std::span<const BlobRef> blobs) = 0;
  // Once, after recovery: own files and bulk segments that no live bytes refer to are orphans of a
  // crash; frees them.
  virtual void drop_orphans() = 0;

  // --- Read guards (epochs). core < core_count; thread of that core.
  virtual std::unique_ptr<ReadGuard> guard(unsigned core) = 0;

  // --- Log segments as reclaimable space: every record of the lane up to `lsn` is in the index
  // (committed).
  virtual void checkpointed(unsigned lane, uint64_t lsn) = 0;

  // --- Garbage collection: sealed segments (log: checkpointed too) with live ratio below `ratio`,
  // worst first.
  struct Victim {
    uint32_t file;
    FileKind kind;
    int64_t live_bytes;
  };
  virtual std::vector<Victim> victims(double live_ratio_max, uint32_t sealed_age_ms,
                                      size_t count_max) = 0;

  virtual SpaceUse space_use() const = 0;
  virtual bool below_low_water()
      const = 0;  // cached, refreshed by the maintenance thread each 100 ms
  // Below the low-water mark collection has to leave the spare segments to deletes: is there more
  // than they need?
  virtual bool room_to_collect() const { return true; }
  // Bytes that collection may copy out of files of a kind before it gives anything back.
  virtual uint64_t room_for_copies(FileKind kind) const {
    (void)kind;
    return UINT64_MAX;
  }
  // Free space is so short that garbage collection is urgent; comes well before writes are paced.
  virtual bool space_is_short() const { return below_low_water(); }

  // May this new data be written? See WritePace. Whoever is to wait asks again (a core hears of it
  // by SpaceClient::space_changed(), each 100 ms). Any thread.
  virtual Room take_room(RoomTicket& ticket) {
    (void)ticket;
    return below_low_water() ? Room::kNone : Room::kYes;
  }
  // Nobody waits for room any more, until a core is attached: the server stops.
  virtual void end_waits() {}
  // From the collector: does it find anything that is worth collecting?
  virtual void set_collectable(bool collectable) { (void)collectable; }

  // --- Failure is sticky (P7).
  virtual void poison(std::string why) = 0;
  virtual bool healthy() const = 0;
  virtual std::string health_text() const = 0;
};

}  // namespace basalt::storage
