#include "storage/engine.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/log.h"
#include "storage/checkpointer.h"
#include "storage/core_engine.h"
#include "storage/files.h"
#include "storage/files_local.h"
#include "storage/garbage.h"
#include "storage/generated/record_generated.h"
#include "storage/index.h"
#include "storage/lane.h"
#include "storage/maintenance.h"
#include "storage/shard_state.h"

namespace basalt::storage {

namespace {

constexpr auto kFlushTimeMax = std::chrono::minutes(1);
// Of all shards together; a share of small disks.
constexpr uint64_t kIndexReserveBytes = 64u << 20;

class LocalEngine final : public Engine, public Maintenance {
 public:
  LocalEngine(const EngineOptions& options, const Clock& clock)
      : options_(options), clock_(clock) {}
  ~LocalEngine() override {
    backup_.reset();
    snapshots_.reset();
    scrub_.reset();
    collector_.reset();
    for (const LocalCore* core : cores_) BASALT_CHECK(core == nullptr);
  }

  Status recover();

  unsigned shard_count() const override { return static_cast<unsigned>(states_.size()); }
  uint64_t hash_seed() const override { return files_->superblock().hash_seed; }

  std::unique_ptr<CoreEngine> attach(unsigned core, Io& io, RunQueue& run_queue,
                                     BufferPool& buffers) override {
    BASALT_CHECK(core < options_.core_count);
    auto attached = std::make_unique<LocalCore>(
        LocalCore::Parts{options_, clock_, *files_, totals_, states_,
                         [this](uint32_t file) { collector_->file_damaged(file); },
                         [this, core](LocalCore&) {
                           const std::lock_guard lock(cores_mutex_);
                           cores_[core] = nullptr;
                         },
                         recovering(core), [this, core] { core_recovered(core); }},
        core, io, run_queue, buffers);
    const std::lock_guard lock(cores_mutex_);
    BASALT_CHECK(cores_[core] == nullptr);
    cores_[core] = attached.get();
    return attached;
  }

  bool healthy() const override { return files_->healthy(); }
  std::string health_text() const override { return files_->health_text(); }
  void end_waits() override { files_->end_waits(); }
  SpaceUse space_use() const override {
    SpaceUse use = files_->space_use();
    const std::lock_guard lock(cores_mutex_);
    for (const LocalCore* core : cores_) {
      if (core == nullptr) continue;
      use.records_moved += core->records_moved();
      use.bytes_moved += core->bytes_moved();
    }
    return use;
  }
  uint64_t space_bytes(uint64_t space) const override {
    return static_cast<uint64_t>(std::max<int64_t>(0, totals_.of(space).bytes));
  }
  uint64_t space_objects(uint64_t space) const override {
    return static_cast<uint64_t>(std::max<int64_t>(0, totals_.of(space).objects));
  }
  Maintenance* maintenance() override { return scrub_ == nullptr ? nullptr : this; }
  Scrub& scrub() override { return *scrub_; }
  Snapshots& snapshots() override { return *snapshots_; }
  Backup& backup() override { return *backup_; }

 private:
  Status open_indexes();
  Status replay(bool& damaged);
  Status checkpoint_all(const LogPosition* position);
  bool write_overlays(const LogPosition* position);
  bool write_recovered();
  bool recovering(unsigned core) const;
  void core_recovered(unsigned core);
  void set_live_of_indexes();
  void start_collector();
  void start_maintenance();
  std::vector<Index*> index_list() const;
  Status flush();

  const EngineOptions options_;
  const Clock& clock_;
  std::unique_ptr<Files> files_;
  std::vector<std::unique_ptr<Index>> indexes_;
  std::vector<std::unique_ptr<ShardState>> states_;
  SpaceTotals totals_;
  std::set<uint32_t> files_seen_;  // recovery: files whose live bytes were ever set or changed
  bool replay_in_pieces_ = false;  // recovery: the log did not fit into the overlays
  bool piece_failed_ = false;      // then they hold it all the same

  mutable std::mutex cores_mutex_;
  std::vector<LocalCore*> cores_;
  std::vector<bool> recovering_;  // by core: its first checkpoint is not made yet
  std::unique_ptr<GarbageCollector> collector_;
  std::unique_ptr<Scrub> scrub_;
  std::unique_ptr<Snapshots> snapshots_;
  std::unique_ptr<Backup> backup_;
};

Status LocalEngine::open_indexes() {
  const unsigned count = files_->superblock().shard_count;
  const LocalFiles& files = local(*files_);
  // Only a directory that never served has no indexes: then no segment was made either. An empty
  // one in place of one that was lost would let everything it named be freed.
  const bool fresh =
      options_.platform != nullptr || (files.segments().empty() && !files.has_own_files());
  const uint64_t reserve = std::clamp<uint64_t>(
      std::min(kIndexReserveBytes, files_->space_use().disk_bytes / 64) / count, 256u << 10,
      16u << 20);
  for (unsigned shard = 0; shard < count; ++shard) {
    struct stat info{};
    const std::string path = files_->shard_directory(shard) + "/data.mdb";
    if (!fresh && (::stat(path.c_str(), &info) != 0 || info.st_size == 0)) {
      return fail(
          Code::kCorrupt,
          fmt::format("{} is missing or empty: make it anew with 'basaltd rebuild-index'", path));
    }
    BASALT_TRY(index, Index::open({.directory = files_->shard_directory(shard),
                                   .shard = shard,
                                   .map_bytes = options_.lmdb_map_bytes,
                                   .reserve_bytes = reserve,
                                   .clock = &clock_}));
    for (const auto& [space, sum] : index->space_sums()) totals_.add(space, sum);
    indexes_.push_back(std::move(index));
    states_.push_back(std::make_unique<ShardState>(*indexes_.back(), *files_));
  }
  return {};
}

// The live bytes of every file are the sums that the indexes keep; what an earlier step of the
// recovery counted and no index refers to is none.
void LocalEngine::set_live_of_indexes() {
  std::map<uint32_t, int64_t> live;
  for (const uint32_t file : files_seen_) live[file] = 0;
  for (const auto& index : indexes_) {
    for (const auto& [file, sum] : index->file_sums()) live[file] += sum.bytes;
  }
  for (const auto& [file, bytes] : live) {
    files_seen_.insert(file);
    if (bytes < 0)
      log_error("live bytes of a file are negative", {{"file", file}, {"bytes", bytes}});
    files_->set_live(file, std::max<int64_t>(0, bytes));
  }
}

// Writes all overlays into the indexes, shards in parallel. Overlays that were written are empty
// afterwards; what they dropped is no longer known by name, so that live bytes are too many.
Status LocalEngine::checkpoint_all(const LogPosition* position) {
  std::atomic<size_t> next{0};
  std::mutex mutex;
  Status result;
  const auto work = [&] {
    for (size_t shard = next++; shard < states_.size(); shard = next++) {
      ShardState& state = *states_[shard];
      state.freeze();
      Status status = checkpoint_overlay(*indexes_[shard], *state.frozen(), position, totals_);
      std::vector<BlobRef> dropped;
      if (status) {
        state.thaw(dropped);
      } else {
        state.unfreeze();
      }
      const std::lock_guard lock(mutex);
      for (const BlobRef& blob : dropped) files_seen_.insert(blob.file);
      if (!status && result) result = std::move(status);
    }
  };
  const size_t helpers =
      std::min<size_t>(states_.size(), files_->platform().helpers->parallel()) - 1;
  std::vector<std::thread> threads;
  for (size_t i = 0; i < helpers; ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  return result;
}

Status LocalEngine::replay(bool& damaged) {
  std::vector<LogPosition> applied;
  for (const auto& index : indexes_) applied.push_back(index->applied());
  size_t records = 0;
  const uint64_t bytes_max = options_.overlay_bytes_max * std::max(1u, options_.core_count);
  const auto visit = [&](const RecoveredRecord& record) -> Status {
    if (record.shard >= states_.size()) {
      return fail(Code::kCorrupt, fmt::format("log record {} names shard {} of {}", record.lsn,
                                              record.shard, states_.size()));
    }
    if (record.lsn <= applied[record.shard].lsn) return {};
    const AlignedBytes bytes(record.mutations);
    const auto batch = verify_batch(bytes.view(), record.body.size());
    if (!batch) {
      return fail(Code::kCorrupt, fmt::format("log record {} of shard {}: {}", record.lsn,
                                              record.shard, batch.error().detail));
    }
    indexes_[record.shard]->mark_partly();
    states_[record.shard]->insert(**batch, record.lsn, record.body, record.body_ref);
    if (in_file(record.body_ref)) files_seen_.insert(record.body_ref.file);
    // A log longer than memory should hold (an earlier run had more cores, or more memory for
    // them): write what there is. The positions stay, so that a crash from here on replays
    // everything again.
    if (++records % 1024 == 0 && !piece_failed_) {
      uint64_t bytes_used = 0;
      for (const auto& state : states_) bytes_used += state->bytes();
      if (bytes_used > bytes_max) {
        replay_in_pieces_ = true;
        piece_failed_ = !write_overlays(nullptr);
      }
    }
    return {};
  };
  const auto status = replay_log(*files_, applied, visit);
  uint64_t indexed = 0;
  for (const auto& state : states_) indexed += state->met_in_index();
  if (records != 0) log_info("log replayed", {{"records", records}, {"indexed_already", indexed}});
  if (status) return {};
  if (status.error().code != Code::kCorrupt) return status;
  // Case H (STORAGE-ENGINE): something acknowledged is damaged. Nothing is written, so that nothing
  // is lost beyond it; reads serve what could be recovered, and the operator decides.
  damaged = true;
  log_error("the log is damaged; opening read-only", {{"error", status.error().detail}});
  files_->poison(status.error().detail);
  return {};
}

Status LocalEngine::recover() {
  BASALT_TRY(files, Files::open(options_));
  files_ = std::move(files);
  cores_.resize(options_.core_count);
  BASALT_CHECK_OK(open_indexes());
  set_live_of_indexes();
  bool damaged = false;
  BASALT_CHECK_OK(replay(damaged));
  recovering_.assign(options_.core_count, false);
  if (!damaged) {
    // What was replayed is served from the overlays; each core's first checkpoint writes it, beside
    // the first requests. The overlays of a log that did not fit have been written in pieces: then
    // the rest is written here, and the live bytes are counted anew.
    const bool indexed = replay_in_pieces_ && !piece_failed_ && write_recovered();
    recovering_.assign(options_.core_count, !indexed);
    if (options_.platform == nullptr) {
      // Before anything is used again: what the newest snapshot needs of the log stays.
      snapshots_ = std::make_unique<Snapshots>(Snapshots::Parts{
          local(*files_), index_list(), options_, clock_, [this] { return flush(); }});
      snapshots_->retain();
    }
    if (indexed) finish_replay(*files_);
    if (files_->healthy()) files_->drop_orphans();
  }
  start_collector();
  start_maintenance();
  return {};
}

// False: what was not written stays in the overlays, durable in the log and readable, and the
// server starts. Where it is for want of space the cores try again; else writes stop.
bool LocalEngine::write_overlays(const LogPosition* position) {
  const Status status = checkpoint_all(position);
  if (status) return true;
  if (status.error().code == Code::kNoSpace) {
    log_warn("checkpoint waits for space", {{"error", status.error().detail}});
  } else {
    log_error("checkpoint failed; writes stop", {{"error", status.error().detail}});
    files_->poison(status.error().detail);
  }
  return false;
}

bool LocalEngine::write_recovered() {
  const uint64_t epoch = files_->superblock().epoch;
  const LogPosition start{.epoch = epoch, .lsn = epoch << kLsnEpochShift};
  if (!write_overlays(&start)) return false;
  for (const auto& index : indexes_) {
    if (const Status status = index->reload(); !status) {
      files_->poison(status.error().detail);
      return false;
    }
  }
  set_live_of_indexes();
  return true;
}

bool LocalEngine::recovering(unsigned core) const {
  const std::lock_guard lock(cores_mutex_);
  return recovering_[core];
}

// Once every core has made its first checkpoint, every shard has a position of this epoch.
void LocalEngine::core_recovered(unsigned core) {
  const std::lock_guard lock(cores_mutex_);
  recovering_[core] = false;
  if (std::ranges::none_of(recovering_, [](bool recovering) { return recovering; })) {
    finish_replay(*files_);
  }
}

std::vector<Index*> LocalEngine::index_list() const {
  std::vector<Index*> list;
  for (const auto& index : indexes_) list.push_back(index.get());
  return list;
}

// Everything acknowledged so far is in the indexes, committed, when this returns. Not on a core's
// thread.
Status LocalEngine::flush() {
  std::vector<std::pair<unsigned, uint64_t>> tickets;
  {
    const std::lock_guard lock(cores_mutex_);
    for (unsigned i = 0; i < cores_.size(); ++i) {
      if (cores_[i] != nullptr) tickets.emplace_back(i, cores_[i]->request_flush());
    }
  }
  const auto deadline = std::chrono::steady_clock::now() + kFlushTimeMax;
  for (;;) {
    bool done = true;
    {
      const std::lock_guard lock(cores_mutex_);
      for (const auto& [core, ticket] : tickets) {
        // A core that has gone made its last checkpoint.
        done &= cores_[core] == nullptr || cores_[core]->flushed(ticket);
      }
    }
    if (done) return {};
    if (!files_->healthy()) return fail(Code::kReadOnly, files_->health_text());
    if (std::chrono::steady_clock::now() > deadline) {
      return fail(Code::kBusy, "no checkpoint within a minute");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

void LocalEngine::start_maintenance() {
  // Scrub and its kin read the real disk, on threads of their own: not on a simulated machine.
  if (options_.platform != nullptr) return;
  if (snapshots_ == nullptr) {  // the log is damaged, and nothing is used again
    snapshots_ = std::make_unique<Snapshots>(Snapshots::Parts{
        local(*files_), index_list(), options_, clock_, [this] { return flush(); }});
  }
  scrub_ = std::make_unique<Scrub>(
      Scrub::Parts{local(*files_), index_list(), options_, clock_, [this] { return flush(); }});
  backup_ = std::make_unique<Backup>(
      Backup::Parts{local(*files_), index_list(), options_, clock_, [this] { return flush(); }});
  scrub_->begin();
  snapshots_->begin();
}

void LocalEngine::start_collector() {
  std::vector<Index*> indexes;
  for (const auto& index : indexes_) indexes.push_back(index.get());
  collector_ = std::make_unique<GarbageCollector>(
      *files_, std::move(indexes), options_,
      GarbageCollector::Hooks{.offer =
                                  [this](const Relocation& relocation) {
                                    const std::lock_guard lock(cores_mutex_);
                                    LocalCore* core = cores_[relocation.shard % cores_.size()];
                                    return core != nullptr && core->offer(relocation);
                                  },
                              .outstanding =
                                  [this] {
                                    const std::lock_guard lock(cores_mutex_);
                                    size_t count = 0;
                                    for (LocalCore* core : cores_)
                                      count +=
                                          core == nullptr ? 0 : core->relocations_outstanding();
                                    return count;
                                  },
                              .moved =
                                  [this] {
                                    const std::lock_guard lock(cores_mutex_);
                                    uint64_t count = 0;
                                    for (LocalCore* core : cores_)
                                      count += core == nullptr ? 0 : core->records_moved();
                                    return count;
                                  },
                              .request_checkpoints =
                                  [this] {
                                    const std::lock_guard lock(cores_mutex_);
                                    for (LocalCore* core : cores_) {
                                      if (core != nullptr) core->request_checkpoint();
                                    }
                                  }});
  collector_->start();
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::open(const EngineOptions& options, const Clock& clock) {
  if (options.core_count == 0) return fail(Code::kInvalid, "no cores");
  auto engine = std::make_unique<LocalEngine>(options, clock);
  BASALT_CHECK_OK(engine->recover());
  return engine;
}

}  // namespace basalt::storage
