// The maintenance thread: everything that blocks and is not on anybody's way. Prepares segments and
// own files, writes zeros ahead of the lanes, recycles emptied segments, unlinks own files, watches
// free space.
#include <algorithm>
#include <cstdlib>

#include "base/check.h"
#include "base/log.h"
#include "storage/files_local.h"

namespace basalt::storage {
namespace {

constexpr uint32_t kIdlePeriodMs = 100;
// Below max(64 MiB + two log segments, 2 %) of free space new data waits, so that erases,
// checkpoints and collection always have room; a share of small disks only (48 MiB of 1 GiB),
// bounded on huge ones.
constexpr uint64_t kLowWaterBytesMin = 64u << 20;
constexpr uint64_t kLowWaterBytesMax = uint64_t{32} << 30;
// Below so many times the low-water mark collection is urgent, and new data is paced. The room in
// between is what the pace is regulated with; docs/reliability.md has the curve that they are from.
constexpr uint64_t kShortShare = 3;
constexpr uint64_t kPacedShare = 2;
// Each look at the free space hands out this part of what is above the low-water mark: a few looks
// take it all, so that the waiting go on evenly and not in a rush with each emptied segment.
constexpr uint64_t kCreditPart = 4;

struct FreeDeleter {
  void operator()(uint8_t* memory) const { std::free(memory); }
};

uint32_t new_generation(Random& random, uint32_t old) {
  for (;;) {
    auto generation = static_cast<uint32_t>(random.u64());
    if (generation != 0 && generation != old) return generation;
  }
}

// A segment of no epoch is a spare that was never written to (keep_spares).
bool was_used(const SegmentEntry* entry) { return entry->epoch != 0; }

// What was used is taken first, from the back: it needs no zeros ahead of the log.
void add_raw(std::vector<SegmentEntry*>& raw, SegmentEntry* entry) {
  raw.insert(was_used(entry) ? raw.end() : raw.begin(), entry);
}

// Where the first block lies that was never written: the file system converts unwritten extents at
// the first write, so it knows. Everything before may be written with one flush.
uint64_t first_hole(const UniqueFd& fd, uint64_t size) {
  const int64_t hole = fd.disk().seek(fd.get(), kSegmentDataOffset, SEEK_HOLE);
  if (hole < 0) return kSegmentDataOffset;
  return std::min(size, static_cast<uint64_t>(hole) / kBlockBytes * kBlockBytes);
}

}  // namespace

// One round; the next one at once if there was anything to do.
uint32_t LocalFiles::maintain() {
  bool more = supply_cores();
  more |= zero_ahead();
  more |= reclaim_segments();
  more |= unlink_own_files();
  more |= keep_spares();
  if (const uint64_t now = platform_.clock->monotonic_ns(); now >= next_space_check_ns_) {
    refresh_space();
    next_space_check_ns_ = now + uint64_t{kIdlePeriodMs} * 1'000'000;
  }
  if (more) return 0;
  flush_log();
  return kIdlePeriodMs;
}

// An error of the device ends writing; a full disk or table of descriptors is reported to who
// waits, and the next request tries again.
void LocalFiles::note_failure(const Error& error, const char* what) {
  if (error.code == Code::kNoSpace || error.code == Code::kBusy) {
    log_warn(error.code == Code::kBusy ? "no file descriptor" : "no space",
             {{"for", what}, {"detail", error.detail}});
  } else {
    poison(std::string(what) + ": " + error.detail);
  }
}

// One round over the cores; true if anything was prepared.
bool LocalFiles::supply_cores() {
  bool did = false;
  for (unsigned number = 0; number < core_count_; ++number) {
    Core& core = *cores_[number];
    std::unique_lock lock(mutex_);
    if (!healthy()) return false;
    bool log = core.log.wanted && core.log.ready == nullptr;
    bool bulk = core.bulk.wanted && core.bulk.ready == nullptr;
    unsigned own = core.own_ready.size() < core.own_target / 2 + 1 && core.own_target > 0
                       ? core.own_target - static_cast<unsigned>(core.own_ready.size())
                       : 0;
    lock.unlock();
    auto supply = [&](auto& slot, auto prepare, const char* what) {
      auto prepared = prepare(number);
      if (!prepared) note_failure(prepared.error(), what);
      std::unique_lock relock(mutex_);
      slot.wanted = false;
      if (prepared) {
        slot.ready = *prepared;
        did = true;
      } else if (slot.needed) {
        slot.error = prepared.error();
      }
      if (std::exchange(slot.needed, false)) poke_locked(core);
    };
    if (log) supply(core.log, [this](unsigned n) { return prepare_log(n); }, "prepare log segment");
    if (bulk)
      supply(core.bulk, [this](unsigned n) { return prepare_bulk(n); }, "prepare bulk segment");
    if (own > 0) {
      Status made = make_own_files(number, own);
      if (!made) note_failure(made.error(), "create own file");
      lock.lock();
      if (made) {
        did = true;
      } else {
        core.own_target =
            static_cast<unsigned>(core.own_ready.size());  // not again until somebody asks
        if (core.own_needed && core.own_ready.empty()) core.own_error = made.error();
      }
      if (std::exchange(core.own_needed, false)) poke_locked(core);
    }
  }
  return did;
}

bool LocalFiles::zero_ahead() {
  bool did = false;
  for (auto& core : cores_) {
    std::shared_ptr<LogSegment> segment;
    {
      std::unique_lock lock(mutex_);
      segment = core->log_active;
    }
    if (segment == nullptr || !healthy()) continue;
    LogSegment::Range range = segment->begin_zeroing();
    if (range.begin == range.end) continue;
    // By a descriptor of its own: the kernel tells an error of writing back once to each open file,
    // and the lane must hear of it too.
    auto fd = open_direct(path_of(FileKind::kLog, segment->number), O_RDWR);
    Status written = fd ? Status() : Status(std::unexpected(fd.error()));
    if (written)
      written =
          write_at(*fd, Bytes(zeros_, range.end - range.begin), range.begin, "zero log segment");
    // Synced here, so that the journal commit for the converted extents is not left to the lane's
    // next batch.
    if (written) written = sync_file(*fd, "sync log segment");
    if (!written && written.error().code != Code::kNoSpace && written.error().code != Code::kBusy)
      poison(written.error().detail);
    bool lane_waits = segment->end_zeroing(written.has_value());
    if (lane_waits) {
      std::unique_lock lock(mutex_);
      poke_locked(*core);
    }
    did |= written.has_value();
  }
  return did;
}

// --- Segments

Result<UniqueFd> LocalFiles::open_direct(const std::string& path, int flags) {
  if (direct_io()) {
    UniqueFd fd(disk_, disk_.open(directory_.get(), path.c_str(), flags | O_DIRECT));
    if (fd) return fd;
    if (fd.get() != -EINVAL) return fail_open(-fd.get(), path);
    log_warn("the file system knows no O_DIRECT; writes go through the page cache");
    direct_io_ = false;
    flags &= ~O_EXCL;  // the failed open may have left the file behind
  }
  UniqueFd fd(disk_, disk_.open(directory_.get(), path.c_str(), flags));
  if (!fd) return fail_open(-fd.get(), path);
  return fd;
}

void LocalFiles::remove_file(FileKind kind, uint32_t number) {
  std::string path = path_of(kind, number);
  // Cores keep descriptors for reading in a cache; truncating gives the space back now and not when
  // those go.
  UniqueFd fd(disk_, disk_.open(directory_.get(), path.c_str(), O_WRONLY));
  if (fd && disk_.truncate(fd.get(), 0) != 0) log_warn("cannot truncate", {{"file", path}});
  if (const int removed = disk_.unlink(directory_.get(), path.c_str());
      removed != 0 && removed != -ENOENT) {
    log_warn("cannot remove", {{"file", path}, {"errno", -removed}});
  }
}

Result<SegmentEntry*> LocalFiles::create_segment(FileKind kind, UniqueFd& fd) {
  BASALT_TRY(number, take_number());
  uint64_t size =
      kind == FileKind::kLog ? superblock_.log_segment_bytes : superblock_.bulk_segment_bytes;
  std::string path = path_of(kind, number);
  auto create = [&]() -> Status {
    BASALT_TRY(file, open_direct(path, O_RDWR | O_CREAT | O_EXCL));
    fd = std::move(file);
    int result = -EINTR;
    while (result == -EINTR) result = disk_.allocate(fd.get(), size);
    if (result != 0) {
      if (result != -EOPNOTSUPP) return fail_errno(-result, "allocate " + path);
      result = disk_.truncate(fd.get(), size);
      if (result != 0) return fail_errno(-result, "size " + path);
    }
    BASALT_CHECK_OK(sync_file(fd, "sync " + path));
    const char* name = kind == FileKind::kLog ? "log" : "bulk";
    BASALT_TRY(directory, open_at(disk_, directory_.get(), name, O_RDONLY | O_DIRECTORY));
    return sync_directory(directory, std::string("sync directory ") + name);
  };
  if (Status created = create(); !created) {
    fd.reset();
    remove_file(kind, number);
    return std::unexpected(created.error());
  }
  auto entry = std::make_unique<SegmentEntry>();
  entry->number = number;
  entry->kind = kind;
  entry->size_bytes = size;
  SegmentEntry* result = entry.get();
  std::unique_lock lock(mutex_);
  index_segment(*entry);
  segments_.push_back(std::move(entry));
  return result;
}

// An emptied segment, or a new one.
Result<SegmentEntry*> LocalFiles::raw_segment(FileKind kind, UniqueFd& fd) {
  SegmentEntry* entry = nullptr;
  {
    std::unique_lock lock(mutex_);
    auto& raw = kind == FileKind::kLog ? raw_log_ : raw_bulk_;
    if (!raw.empty()) {
      entry = raw.back();
      raw.pop_back();
      segments_reused_ += was_used(entry);
    }
  }
  if (entry == nullptr) return create_segment(kind, fd);
  auto file = open_direct(path_of(kind, entry->number), O_RDWR);
  if (!file) {
    const std::unique_lock lock(mutex_);
    add_raw(kind == FileKind::kLog ? raw_log_ : raw_bulk_, entry);
    segments_reused_ -= was_used(entry);
    return std::unexpected(file.error());
  }
  fd = std::move(*file);
  wait_for_earlier_writes(fd);
  return entry;
}

// The first copy, synced, then the second: a segment in reuse always has a valid header, old or
// new.
Status LocalFiles::write_header(SegmentEntry& entry, const UniqueFd& fd, bool fresh) {
  SegmentHeader header;
  header.uuid = superblock_.uuid;
  header.number = entry.number;
  header.generation = entry.generation.load(std::memory_order_relaxed);
  header.kind = static_cast<uint8_t>(entry.kind);
  header.lane = entry.lane;
  header.lane_count = entry.lane_count;
  header.epoch = entry.epoch;
  header.sequence = entry.sequence;
  header.size_bytes = entry.size_bytes;
  std::unique_ptr<uint8_t, FreeDeleter> block(
      static_cast<uint8_t*>(std::aligned_alloc(kBlockBytes, kBlockBytes)));
  BASALT_CHECK(block != nullptr);
  encode_segment_header(header, MutableBytes(block.get(), kBlockBytes));
  BASALT_CHECK_OK(write_at(fd, Bytes(block.get(), kBlockBytes), 0, "write segment header"));
  if (!fresh) BASALT_CHECK_OK(sync_file(fd, "sync segment header"));
  BASALT_CHECK_OK(
      write_at(fd, Bytes(block.get(), kBlockBytes), kBlockBytes, "write segment header"));
  return sync_file(fd, "sync segment header");
}

Result<std::shared_ptr<LogSegment>> LocalFiles::prepare_log(unsigned number) {
  auto segment = std::make_shared<LogSegment>();
  BASALT_TRY(entry, raw_segment(FileKind::kLog, segment->fd));
  bool fresh = entry->generation.load(std::memory_order_relaxed) == 0;
  {
    std::unique_lock lock(mutex_);
    entry->generation = new_generation(*platform_.random, entry->generation);
    entry->lane = number;
    entry->lane_count = core_count_;
    entry->epoch = superblock_.epoch;
    entry->sequence = ++cores_[number]->log_sequence;
    entry->live.store(0, std::memory_order_relaxed);
    entry->added.store(0, std::memory_order_relaxed);
    entry->foreign = false;
    entry->last_lsn = UINT64_MAX;
    entry->state = SegmentEntry::State::kPrepared;
  }
  BASALT_CHECK_OK(write_header(*entry, segment->fd, fresh));
  segment->entry = entry;
  segment->number = entry->number;
  segment->generation = entry->generation;
  segment->size = entry->size_bytes;
  segment->position = kSegmentDataOffset;
  segment->zeroed_to = fresh ? kSegmentDataOffset : first_hole(segment->fd, entry->size_bytes);
  return segment;
}

Result<std::shared_ptr<BulkSegment>> LocalFiles::prepare_bulk(unsigned number) {
  auto segment = std::make_shared<BulkSegment>();
  BASALT_TRY(entry, raw_segment(FileKind::kBulk, segment->fd));
  bool fresh = entry->generation.load(std::memory_order_relaxed) == 0;
  {
    std::unique_lock lock(mutex_);
    entry->generation = new_generation(*platform_.random, entry->generation);
    entry->lane = number;
    entry->lane_count = core_count_;
    entry->epoch = superblock_.epoch;
    entry->sequence = 0;
    entry->live.store(0, std::memory_order_relaxed);
    entry->added.store(0, std::memory_order_relaxed);
    entry->foreign = false;
    entry->state = SegmentEntry::State::kPrepared;
  }
  BASALT_CHECK_OK(write_header(*entry, segment->fd, fresh));
  segment->entry = entry;
  segment->number = entry->number;
  segment->generation = entry->generation;
  segment->size = entry->size_bytes;
  return segment;
}

bool LocalFiles::reclaim_segments() {
  std::vector<SegmentEntry*> surplus;
  {
    std::unique_lock lock(mutex_);
    if (!reclaim_due_ || !healthy()) return false;
    bool blocked = false;
    for (auto& entry : segments_) {
      if (!is_reclaimable(*entry)) {
        // Emptied, but a reader or writer still holds it: look again, nobody will tell us.
        blocked |= entry->state == SegmentEntry::State::kSealed &&
                   entry->live.load(std::memory_order_relaxed) <= 0;
        continue;
      }
      auto& raw = entry->kind == FileKind::kLog ? raw_log_ : raw_bulk_;
      uint64_t size = entry->kind == FileKind::kLog ? superblock_.log_segment_bytes
                                                    : superblock_.bulk_segment_bytes;
      entry->live.store(0, std::memory_order_relaxed);
      size_t spares = entry->kind == FileKind::kLog ? spare_log_segments() : kSpareSegmentsMax;
      const bool fits = entry->size_bytes == size && entry->generation != 0;
      if (fits && raw.size() >= spares && was_used(entry.get())) {
        // In the place of a spare that was never used.
        if (SegmentEntry* unused = raw.front(); !was_used(unused)) {
          unused->state = SegmentEntry::State::kGone;
          surplus.push_back(unused);
          raw.erase(raw.begin());
        }
      }
      if (fits && raw.size() < spares) {
        entry->state = SegmentEntry::State::kRaw;
        add_raw(raw, entry.get());
      } else {
        entry->state = SegmentEntry::State::kGone;
        surplus.push_back(entry.get());
      }
    }
    reclaim_due_ = blocked;
  }
  for (SegmentEntry* entry : surplus) remove_file(entry->kind, entry->number);
  if (!surplus.empty() && pace_.paced()) next_space_check_ns_ = 0;
  return !surplus.empty();
}

// One spare log segment if some are missing and the disk has room above the low-water mark.
bool LocalFiles::keep_spares() {
  {
    std::unique_lock lock(mutex_);
    bool attached =
        std::any_of(cores_.begin(), cores_.end(), [](auto& core) { return core->io != nullptr; });
    if (!attached || !recovered_ || !replay_finished_ || !healthy() || below_low_water())
      return false;
    if (raw_log_.size() >= spare_log_segments()) return false;
    if (disk_free_bytes_ < low_water_bytes_ + 2 * superblock_.log_segment_bytes) return false;
  }
  UniqueFd fd;
  auto entry = create_segment(FileKind::kLog, fd);
  if (!entry) {
    note_failure(entry.error(), "prepare spare log segment");
    return false;
  }
  // A header of no epoch: there is nothing in it to replay, and nothing is damaged.
  SegmentEntry& spare = **entry;
  {
    std::unique_lock lock(mutex_);
    spare.generation = new_generation(*platform_.random, 0);
  }
  Status written = write_header(spare, fd, true);
  std::unique_lock lock(mutex_);
  if (written) {
    add_raw(raw_log_, &spare);
    return true;
  }
  spare.state = SegmentEntry::State::kGone;
  lock.unlock();
  remove_file(FileKind::kLog, spare.number);
  note_failure(written.error(), "prepare spare log segment");
  return false;
}

// --- Own files

Status LocalFiles::make_own_files(unsigned number, unsigned count) {
  std::vector<OwnFile> made;
  std::vector<std::string> directories;
  Status status;
  for (unsigned i = 0; i < count && status; ++i) {
    status = [&]() -> Status {
      BASALT_TRY(file_number, take_number());
      std::string path = path_of(FileKind::kOwn, file_number);
      std::string directory = path.substr(0, path.rfind('/'));
      if (directory != own_directory_) {
        BASALT_TRY(blob, open_at(disk_, directory_.get(), "blob", O_RDONLY | O_DIRECTORY));
        BASALT_CHECK_OK(
            make_directory(disk_, blob.get(), directory.substr(directory.rfind('/') + 1).c_str()));
        own_directory_ = directory;
      }
      BASALT_TRY(file, open_direct(path, O_RDWR | O_CREAT | O_EXCL));
      made.push_back({file_number, std::move(file)});
      if (directories.empty() || directories.back() != directory) directories.push_back(directory);
      return {};
    }();
  }
  for (const std::string& path : directories) {
    if (!status) break;
    auto directory = open_at(disk_, directory_.get(), path, O_RDONLY | O_DIRECTORY);
    status = directory ? sync_directory(*directory, "sync directory " + path)
                       : Status(std::unexpected(directory.error()));
  }
  if (!status) {
    for (OwnFile& file : made) remove_file(FileKind::kOwn, file.number);
    return status;
  }
  std::unique_lock lock(mutex_);
  for (OwnFile& file : made) {
    own_files_[file.number].held = true;
    cores_[number]->own_ready.push_back(std::move(file));
  }
  return {};
}

bool LocalFiles::unlink_own_files() {
  // A log write that failed may be on the disk all the same, and name a file whose writer gave it
  // back: the restart finds out what is true, and until then nothing goes. Asked with the mutex,
  // which poison() takes before anybody hears of the failure.
  std::vector<uint32_t> numbers;
  {
    std::unique_lock lock(mutex_);
    if (!healthy()) return false;
    size_t count = unlink_queue_.size();
    for (size_t i = 0; i < count; ++i) {
      Unlink item = unlink_queue_.front();
      unlink_queue_.pop_front();
      auto found = own_files_.find(item.number);
      if (found == own_files_.end()) continue;
      OwnEntry& entry = found->second;
      if (entry.live > 0 || entry.held) {  // a copy took it up meanwhile
        entry.queued = false;
        continue;
      }
      if (!guards_.passed(std::max(item.stamp, entry.stamp))) {
        unlink_queue_.push_back(item);  // tried again each period
        continue;
      }
      own_files_.erase(found);
      numbers.push_back(item.number);
    }
  }
  for (uint32_t number : numbers) remove_file(FileKind::kOwn, number);
  return !numbers.empty();
}

void LocalFiles::refresh_space() {
  Disk::Space space;
  if (disk_.space(directory_.get(), space) != 0) return;
  const uint64_t disk = space.bytes;
  uint64_t low_water = std::max(kLowWaterBytesMin + 2 * superblock_.log_segment_bytes, disk / 50);
  low_water = std::min({low_water, kLowWaterBytesMax, disk / 64 * 3});
  std::unique_lock lock(mutex_);
  low_water_bytes_ = low_water;
  disk_bytes_ = disk;
  disk_free_bytes_ = space.free_bytes;
  // Spare log segments are not counted: they are there for the deletes of a full disk.
  uint64_t reusable = raw_bulk_.size() * superblock_.bulk_segment_bytes;
  const uint64_t usable = disk_free_bytes_ + reusable;
  bool below = usable < low_water;
  const bool paced = usable < kPacedShare * low_water;
  short_.store(usable < kShortShare * low_water, std::memory_order_relaxed);
  const bool was_paced = pace_.paced();
  pace_.look({.paced = paced,
              .below = below,
              .credit_bytes = below ? 0 : (usable - low_water) / kCreditPart + 1});
  if (was_paced || paced) {
    for (auto& core : cores_) poke_locked(*core);
    reclaim_due_ = true;  // what retain_log() keeps is wanted now
  }
  if (below != below_low_water_.exchange(below, std::memory_order_relaxed)) {
    lock.unlock();
    if (below) {
      log_warn("free space is below the low-water mark; writes wait for garbage collection",
               {{"low_water_bytes", low_water}});
    } else {
      log_info("free space is above the low-water mark again");
    }
  }
}

}  // namespace basalt::storage
