// LocalFiles: the one implementation of Files, with what Lane and BlobStore need of it besides.
//
// All that blocks (create, fallocate, fsync, unlink, zero-filling) is done by one maintenance
// thread. A core asks for a segment or an own file; if none is ready it gets "not yet" and
// SpaceClient::space_changed() is called on its thread when that has changed. Cores never wait for
// the thread.
//
// Locks: `mutex_` is held for look-ups and state changes only, never across a system call that may
// block. Live bytes of segments are atomics found without a lock, because every record with a body
// in the log counts there.
#pragma once

#include <array>
#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/completion.h"
#include "storage/files.h"
#include "storage/files_posix.h"
#include "storage/io.h"
#include "storage/platform.h"
#include "storage/read_guard.h"
#include "storage/segment_format.h"
#include "storage/verified_chunks.h"

namespace basalt::storage {

// Emptied bulk segments kept for reuse; more are unlinked, so that the file system gets
// the space.
constexpr size_t kSpareSegmentsMax = 1;
// Log segments are also made ahead of need, so that deletes find a place on a full disk: one for
// each core and one more, in these bounds (a segment has 1/256 of a small disk).
constexpr size_t kSpareLogSegmentsMin = 2;
constexpr size_t kSpareLogSegmentsMax = 4;
// Zeros are written at most so far before the log's end (less at the start of a segment: an idle
// server stays small).
constexpr uint64_t kZeroAheadBytesMax = 32u << 20;
constexpr uint64_t kZeroAheadBytesMin = 4u << 20;
constexpr uint64_t kZeroStepBytes = 4u << 20;
// Own files kept ready per core once large bodies arrive.
constexpr unsigned kOwnFilesReadyMax = 8;

// A segment's life: raw (emptied, contents worthless) -> prepared (new header on disk) -> active ->
// sealed -> raw ... Never deleted while LocalFiles lives, so that a pointer to it stays good
// without a lock.
struct SegmentEntry {
  enum class State : uint8_t {
    kRaw,
    kPrepared,
    kActive,
    kSealed,
    kDamaged,  // no valid header at open
    kGone,     // unlinked
  };

  uint32_t number = 0;
  FileKind kind = FileKind::kLog;
  std::atomic<uint32_t> generation{0};
  std::atomic<int64_t> live{0};
  // Sum of all that was ever live, of this life: what is missing in `live` is garbage. Of a segment
  // from before this open it is not known: its size.
  std::atomic<int64_t> added{0};
  std::atomic<uint64_t> release_stamp{0};  // of the last release; see GuardEpochs
  std::atomic<uint32_t> pins{0};           // blob writers that have an extent here and are not done

  // Guarded by LocalFiles::mutex_.
  State state = State::kRaw;
  bool foreign = false;  // its contents are from before this open
  uint32_t lane = 0;
  uint32_t lane_count = 1;
  uint64_t epoch = 0;
  uint64_t sequence = 0;
  uint64_t last_lsn = 0;
  uint64_t size_bytes = 0;
  uint64_t sealed_ms = 0;  // monotonic; 0 if foreign
};

// A log segment that a lane writes to.
struct LogSegment {
  SegmentEntry* entry = nullptr;
  UniqueFd fd;
  uint32_t number = 0;
  uint32_t generation = 0;
  uint64_t size = 0;
  std::atomic<uint64_t> position{0};  // the lane's; where the next batch goes

  // May [offset, end) be written now? Yes where zeros already are, and where nobody is just writing
  // them. A write into space that was only fallocated is as durable but costs the device a second
  // flush; waiting for zeros that the maintenance thread has not begun would cost more than that,
  // so such space is taken over from it. No: the maintenance thread is zeroing there at this
  // moment; space_changed() follows.
  bool claim(uint64_t end);
  // For the maintenance thread: the next range to zero, empty if it is far enough ahead.
  struct Range {
    uint64_t begin = 0, end = 0;
  };
  Range begin_zeroing();
  bool end_zeroing(bool done);  // true: the lane waits

  std::mutex mutex;
  uint64_t zeroed_to =
      0;  // below it every block was written since the file was created, or belongs to the lane
  bool zeroing = false;
  uint64_t zeroing_to = 0;
  bool lane_waits = false;
};

// A bulk segment of one core, which hands out extents in it by bumping a position.
struct BulkSegment {
  SegmentEntry* entry = nullptr;
  UniqueFd fd;
  uint32_t number = 0;
  uint32_t generation = 0;
  uint64_t size = 0;
};

struct OwnFile {
  uint32_t number = 0;
  UniqueFd fd;
};

class SpaceClient {
 public:
  virtual ~SpaceClient() = default;
  // On the core's thread: something that was not ready may be now.
  virtual void space_changed() = 0;
};

class LocalFiles final : public Files {
 public:
  LocalFiles(const EngineOptions& options, UniqueFd directory, UniqueFd lock);
  ~LocalFiles() override;
  Status
  start();  // reads or makes the superblock, raises the epoch, lists files, starts the thread

  // --- Files
  const Platform& platform() const override { return platform_; }
  const Superblock& superblock() const override { return superblock_; }
  std::string shard_directory(unsigned shard) const override;
  void set_live(uint32_t file, int64_t bytes) override;
  void add_live(const BlobRef& blob) override;
  void release(std::span<const BlobRef> blobs) override;
  void drop_orphans() override;
  std::unique_ptr<ReadGuard> guard(unsigned core) override { return guards_.take(core); }
  void checkpointed(unsigned lane, uint64_t lsn) override;
  std::vector<Victim> victims(double live_ratio_max, uint32_t sealed_age_ms,
                              size_t count_max) override;
  SpaceUse space_use() const override;
  bool room_to_collect() const override;
  uint64_t room_for_copies(FileKind kind) const override;
  bool space_is_short() const override { return short_.load(std::memory_order_relaxed); }
  Room take_room(RoomTicket& ticket) override {
    return pace_.ask(ticket, platform_.clock->monotonic_ns());
  }
  void end_waits() override;
  void set_collectable(bool collectable) override { pace_.set_collectable(collectable); }
  bool below_low_water() const override { return below_low_water_.load(std::memory_order_relaxed); }
  void poison(std::string why) override;
  bool healthy() const override { return healthy_.load(std::memory_order_acquire); }
  std::string health_text() const override;

  // --- For the cores: thread of the core. `lane` and `blobs` of one core share one Io.
  enum class Role : uint8_t { kLane, kBlobs };
  void attach(unsigned core, Role role, Io& io, SpaceClient& client);
  // The last LSN of the core's lane in this epoch: a second lane of the same core goes on behind
  // the first.
  uint64_t last_lsn(unsigned core) const;
  void set_last_lsn(unsigned core, uint64_t lsn);
  void detach(unsigned core, Role role);
  unsigned core_count() const { return core_count_; }

  // null: not ready yet, space_changed() follows. Errors: kNoSpace, kReadOnly.
  Result<std::shared_ptr<LogSegment>> take_log_segment(unsigned core);
  Result<std::shared_ptr<BulkSegment>> take_bulk_segment(unsigned core);
  Result<std::optional<OwnFile>> take_own_file(unsigned core);
  // A hint that take_*_segment will come soon.
  void prefetch_log_segment(unsigned core);
  void prefetch_bulk_segment(unsigned core);
  // The lane's position moved so far that more zeros are wanted.
  void kick();

  void seal_log(LogSegment& segment, uint64_t last_lsn);
  void seal_bulk(BulkSegment& segment);
  void pin(SegmentEntry& entry) { entry.pins.fetch_add(1, std::memory_order_relaxed); }
  void unpin(SegmentEntry& entry);
  // Ends the writer's hold on an own file. Without live bytes it is unlinked.
  void end_own_file(OwnFile file);

  uint64_t checkpointed_lsn(unsigned lane) const {
    return checkpointed_[lane].load(std::memory_order_acquire);
  }
  GuardEpochs& guards() { return guards_; }
  VerifiedChunks& verified() { return verified_; }
  // Data files are written past the page cache.
  bool direct_io() const { return direct_io_.load(std::memory_order_relaxed); }
  int directory_fd() const { return directory_.get(); }
  Disk& disk() const { return disk_; }
  static std::string path_of(FileKind kind, uint32_t number);

  // --- For replay (before any lane exists).
  struct LogFile {
    uint32_t number = 0;
    bool damaged = false;
    SegmentHeader header;
  };
  std::vector<LogFile> log_files() const;
  void finish_replay();

  // --- For scrub and backup. Any thread.
  struct SegmentInfo {
    uint32_t number;
    FileKind kind;
    uint32_t generation;
    SegmentEntry::State state;
    int64_t live;
    uint64_t size_bytes;
  };
  std::vector<SegmentInfo> segments() const;
  bool has_own_files() const;
  uint32_t segment_generation(uint32_t number) const;  // 0: there is no such segment
  std::vector<uint32_t> own_files() const;             // those with live bytes
  // The segments that lanes write to, and where the next batch of each goes.
  struct ActiveLog {
    uint32_t number;
    uint32_t generation;
    uint64_t position;
  };
  std::vector<ActiveLog> active_logs() const;
  // Keeps log segments with records above `lsn`, also where nothing in them is live, so that a
  // snapshot of the indexes that covers `lsn` and the log together are everything. UINT64_MAX: none
  // are kept, as at the start. Where new data is paced (take_room()) none are.
  void retain_log(uint64_t lsn);
  bool retains_log() const { return retain_from_.load(std::memory_order_relaxed) != UINT64_MAX; }
  uint64_t log_bytes_retained() const;  // of segments that are kept for nothing else
  // For the one helper thread that makes backups, which destroys it too: as guard() of a core.
  std::unique_ptr<ReadGuard> helper_guard() { return guards_.take(core_count_); }

 private:
  struct OwnEntry {
    int64_t live = 0;
    uint64_t stamp = 0;
    bool held = false;    // a writer has it
    bool queued = false;  // in unlink_queue_
  };
  struct Poke : Completion {
    LocalFiles* files = nullptr;
    unsigned core = 0;
    bool posted = false;  // guarded by mutex_
  };
  template <class T>
  struct Supply {
    bool wanted = false;  // prepare one
    bool needed = false;  // the core waits for it: report an error too
    std::shared_ptr<T> ready;
    std::optional<Error> error;
  };
  struct Core {
    // Of the core's thread.
    SpaceClient* lane = nullptr;
    SpaceClient* blobs = nullptr;
    // Guarded by mutex_.
    Io* io = nullptr;
    Poke* poke = nullptr;
    Supply<LogSegment> log;
    Supply<BulkSegment> bulk;
    std::shared_ptr<LogSegment> log_active;
    uint64_t log_sequence = 0;
    uint64_t last_lsn = 0;
    unsigned own_target = 0;
    bool own_needed = false;
    std::vector<OwnFile> own_ready;
    std::optional<Error> own_error;
  };

  // files_open.cc
  Status format();
  Status list_segments(FileKind kind);
  Status list_own_files();
  uint64_t default_segment_bytes() const;
  void index_segment(SegmentEntry& entry);

  // Any thread.
  SegmentEntry* find_segment(uint32_t number) const;
  static void run_poke(Completion& completion);
  void poke_locked(Core& core);
  bool postpone(Core& core);
  void kick_locked();
  void queue_unlink_locked(uint32_t number, OwnEntry& entry);
  bool is_reclaimable(const SegmentEntry& entry) const;  // mutex_ held
  bool is_dead(const SegmentEntry& entry) const;  // mutex_ held; reclaimable but for retain_log()
  bool is_retained(const SegmentEntry& entry) const;  // mutex_ held

  // files_maintenance.cc: the maintenance thread.
  uint32_t maintain();
  bool supply_cores();
  bool zero_ahead();
  bool reclaim_segments();
  bool unlink_own_files();
  bool keep_spares();
  size_t spare_log_segments() const;
  void refresh_space();
  Result<std::shared_ptr<LogSegment>> prepare_log(unsigned core);
  Result<std::shared_ptr<BulkSegment>> prepare_bulk(unsigned core);
  Result<SegmentEntry*> raw_segment(FileKind kind, UniqueFd& fd);
  Result<SegmentEntry*> create_segment(FileKind kind, UniqueFd& fd);
  Status write_header(SegmentEntry& entry, const UniqueFd& fd, bool fresh);
  Status make_own_files(unsigned core, unsigned count);
  Result<uint32_t> take_number();
  Result<UniqueFd> open_direct(const std::string& path, int flags);
  void remove_file(FileKind kind, uint32_t number);
  void note_failure(const Error& error, const char* what);

  const EngineOptions options_;
  const Platform platform_;
  Disk& disk_;
  const unsigned core_count_;
  const UniqueFd directory_;
  const UniqueFd lock_;
  Superblock superblock_;
  GuardEpochs guards_;
  VerifiedChunks verified_;
  // Of own files: there, and its name synced. The maintenance thread's.
  std::string own_directory_;
  std::atomic<bool> direct_io_{true};  // written by the maintenance thread, after start()

  mutable std::mutex mutex_;
  bool recovered_ = false;        // drop_orphans() was called
  bool replay_finished_ = false;  // finish_replay() was called
  bool reclaim_due_ = false;      // something changed that may have made a segment reclaimable
  std::vector<std::unique_ptr<Core>> cores_;
  std::vector<std::unique_ptr<Poke>> pokes_;
  std::vector<std::unique_ptr<SegmentEntry>> segments_;
  uint64_t segments_reused_ = 0;
  std::vector<SegmentEntry*> raw_log_;
  std::vector<SegmentEntry*> raw_bulk_;
  std::unordered_map<uint32_t, OwnEntry> own_files_;
  struct Unlink {
    uint32_t number;
    uint64_t stamp;
  };
  std::deque<Unlink> unlink_queue_;
  std::vector<uint32_t> own_files_at_open_;
  std::string health_text_ = "ok";
  uint64_t disk_bytes_ = 0;
  uint64_t disk_free_bytes_ = 0;
  uint64_t low_water_bytes_ = 0;

  std::atomic<bool> healthy_{true};
  std::atomic<bool> below_low_water_{false};
  std::atomic<bool> short_{false};
  WritePace pace_;
  std::atomic<uint64_t> retain_from_{UINT64_MAX};  // retain_log()
  std::unique_ptr<std::atomic<uint64_t>[]> checkpointed_;

  // Number -> entry, two levels; the upper one is mapped, so untouched parts take no memory.
  static constexpr size_t kLeafBits = 12;
  using Leaf = std::array<std::atomic<SegmentEntry*>, size_t{1} << kLeafBits>;
  std::atomic<Leaf*>* top_ = nullptr;
  std::vector<std::unique_ptr<Leaf>> leaves_;  // mutex_

  uint32_t next_number_ = 1;  // the maintenance thread's after start()
  uint8_t* zeros_ = nullptr;  // kZeroStepBytes, aligned
  uint64_t next_space_check_ns_ = 0;
  std::unique_ptr<Helper> helper_;
};

inline LocalFiles& local(Files& files) { return static_cast<LocalFiles&>(files); }

}  // namespace basalt::storage
