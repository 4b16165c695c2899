#include "storage/scrub.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>

#include "base/check.h"
#include "base/log.h"
#include "storage/files_local.h"
#include "storage/key_slices.h"
#include "storage/low_priority.h"
#include "storage/record_codec.h"
#include "storage/segment_format.h"
#include "storage/superblock.h"

namespace basalt::storage {

namespace {

constexpr unsigned kStageFlush = 0, kStageFixed = 1, kStageIndex = 2, kStageBlobs = 3,
                   kStageDone = 4;
constexpr const char* kStageNames[] = {"checkpoint", "files", "index", "blobs", "done"};
// How often the position is written down. What a crash forgets is read again.
constexpr uint64_t kSaveIntervalNs = 30'000'000'000;
// A batch that is on its way to the disk looks damaged: it is looked at again after this time.
constexpr auto kLogRetryTime = std::chrono::milliseconds(1000);
constexpr int kLogTries = 4;
constexpr int kPinTries = 100;

uint64_t fact_key(FileKind kind, uint32_t number) {
  return uint64_t{static_cast<uint8_t>(kind)} << 32 | number;
}

}  // namespace

Scrub::Scrub(Parts parts) : parts_(std::move(parts)) {
  for (Index* index : parts_.indexes) readers_.push_back(std::make_unique<IndexReader>(*index));
  layers_.resize(parts_.indexes.size() * kTableCount);
  verifier_ = std::make_unique<BlobVerifier>(parts_.files.directory_fd(),
                                             [this](size_t bytes) { return pace(bytes); });
  status_.shards = static_cast<unsigned>(parts_.indexes.size());
  status_.bytes_per_second = parts_.options.scrub_bytes_per_second;
  load_state();
}

Scrub::~Scrub() { end(); }

void Scrub::begin() {
  thread_ = std::thread([this] { run(); });
}

void Scrub::end() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

// --- Commands

Status Scrub::start(ScrubMode mode, std::optional<uint64_t> bytes_per_second) {
  const std::lock_guard lock(mutex_);
  if (status_.state != ScrubState::kIdle) {
    return fail(Code::kBusy, "a scrub is under way: 'scrub status' shows it");
  }
  status_.state = ScrubState::kRunning;
  status_.mode = mode;
  status_.bytes_per_second = bytes_per_second.value_or(parts_.options.scrub_bytes_per_second);
  status_.started_ms = parts_.clock.wall_ms();
  status_.ended_ms = 0;
  status_.shards_done = 0;
  status_.records = status_.blobs = status_.bytes = 0;
  status_.finding_count = 0;
  status_.findings.clear();
  status_.stage = kStageNames[0];
  seen_.clear();
  cancel_ = false;
  position_ = {};  // the thread looks at it only while a scrub runs
  changed_.notify_all();
  return {};
}

Status Scrub::pause() {
  const std::lock_guard lock(mutex_);
  if (status_.state != ScrubState::kRunning) return fail(Code::kInvalid, "no scrub is running");
  status_.state = ScrubState::kPaused;
  changed_.notify_all();
  return {};
}

Status Scrub::resume() {
  const std::lock_guard lock(mutex_);
  if (status_.state != ScrubState::kPaused) return fail(Code::kInvalid, "no scrub is paused");
  status_.state = ScrubState::kRunning;
  changed_.notify_all();
  return {};
}

Status Scrub::cancel() {
  const std::lock_guard lock(mutex_);
  if (status_.state == ScrubState::kIdle) return fail(Code::kInvalid, "no scrub is under way");
  cancel_ = true;
  status_.state = ScrubState::kRunning;
  changed_.notify_all();
  return {};
}

ScrubStatus Scrub::status(bool with_findings) const {
  const std::lock_guard lock(mutex_);
  if (with_findings) {
    ScrubStatus status = status_;
    for (const auto& [name, file] : files_) status.files.push_back(file);
    return status;
  }
  ScrubStatus status;
  status.state = status_.state;
  status.mode = status_.mode;
  status.records = status_.records;
  status.blobs = status_.blobs;
  status.bytes = status_.bytes;
  status.finding_count = status_.finding_count;
  status.last_light_ms = status_.last_light_ms;
  status.last_deep_ms = status_.last_deep_ms;
  return status;
}

// --- The thread

void Scrub::run() {
  lower_priority();
  std::unique_lock lock(mutex_);
  const auto due = [&](int64_t last_ms, uint64_t interval_s) {
    return interval_s != 0 &&
           parts_.clock.wall_ms() - last_ms >= static_cast<int64_t>(interval_s) * 1000;
  };
  while (!stop_) {
    if (status_.state == ScrubState::kRunning) {
      lock.unlock();
      run_scrub();
      lock.lock();
      continue;
    }
    changed_.wait_for(lock, std::chrono::seconds(1));
    if (stop_ || status_.state != ScrubState::kIdle) continue;
    // A deep scrub does what a light one does.
    const bool deep = due(status_.last_deep_ms, parts_.options.scrub_deep_interval_s);
    const bool light = due(std::max(status_.last_light_ms, status_.last_deep_ms),
                           parts_.options.scrub_light_interval_s);
    if (!deep && !light) continue;
    lock.unlock();
    [[maybe_unused]] const auto started =
        start(deep ? ScrubMode::kDeep : ScrubMode::kLight, std::nullopt);
    lock.lock();
  }
  // A command may have come after the last save: a scrub that was started, and perhaps paused, goes
  // on from there after the restart.
  const bool under_way = status_.state != ScrubState::kIdle;
  lock.unlock();
  if (under_way) save_state();
}

// Steps until the scrub has ended, is paused, or the engine stops.
void Scrub::run_scrub() {
  pace_start_ns_ = parts_.clock.monotonic_ns();
  pace_bytes_ = 0;
  {
    const std::lock_guard lock(mutex_);
    log_info(position_.stage == 0 ? "scrub started" : "scrub goes on",
             {{"mode", status_.mode == ScrubMode::kDeep ? "deep" : "light"},
              {"bytes_per_second", status_.bytes_per_second}});
  }
  flush_log();
  save_state();
  bool ended = false;
  for (;;) {
    const Status stepped = step();
    {
      const std::lock_guard lock(mutex_);
      if (cancel_) {
        ended = true;
      } else if (stop_ || status_.state == ScrubState::kPaused) {
        break;
      }
    }
    if (!stepped && !ended && stepped.error().code != Code::kCancelled) {
      find({Finding::Kind::kIo, "", 0, stepped.error().detail, {}, {}});
      // The step cannot be done; the next one may.
      if (position_.stage == kStageIndex || position_.stage == kStageBlobs) {
        if (position_.stage == kStageBlobs && ++position_.table < kTableCount) {
          position_.key.clear();
        } else {
          position_.table = 0;
          position_.key.clear();
          if (++position_.shard == parts_.indexes.size()) {
            position_.shard = 0;
            ++position_.stage;
          }
        }
      } else {
        ++position_.stage;
      }
    }
    ended |= position_.stage == kStageDone;
    if (ended) break;
    if (parts_.clock.monotonic_ns() - saved_ns_ > kSaveIntervalNs) save_state();
  }
  if (ended) {
    const std::lock_guard lock(mutex_);
    status_.state = ScrubState::kIdle;
    status_.ended_ms = parts_.clock.wall_ms();
    if (!cancel_) {
      (status_.mode == ScrubMode::kDeep ? status_.last_deep_ms : status_.last_light_ms) =
          status_.ended_ms;
      if (status_.mode == ScrubMode::kDeep) {
        std::map<std::string, ScrubStatus::File> files;
        const auto note = [&](const std::string& path) {
          files[path] = {path, status_.started_ms, 0};
        };
        for (const auto& info : parts_.files.segments()) {
          note(LocalFiles::path_of(info.kind, info.number));
        }
        for (const uint32_t number : parts_.files.own_files()) {
          note(LocalFiles::path_of(FileKind::kOwn, number));
        }
        for (const Finding& finding : status_.findings) {
          if (const auto at = files.find(finding.file); at != files.end()) ++at->second.findings;
        }
        files_ = std::move(files);
      }
    }
    log_line(status_.finding_count == 0 ? LogLevel::kInfo : LogLevel::kError,
             cancel_ ? "scrub cancelled" : "scrub ended",
             {{"mode", status_.mode == ScrubMode::kDeep ? "deep" : "light"},
              {"records", status_.records},
              {"blobs", status_.blobs},
              {"bytes", status_.bytes},
              {"findings", status_.finding_count}});
    cancel_ = false;
  }
  verifier_->forget();
  facts_.clear();
  save_state();
  flush_log();
}

Status Scrub::step() {
  {
    const std::lock_guard lock(mutex_);
    status_.stage = kStageNames[position_.stage];
    status_.shards_done =
        position_.stage == kStageIndex || position_.stage == kStageBlobs ? position_.shard : 0;
  }
  switch (position_.stage) {
    case kStageFlush:
      // Without a checkpoint (writes have stopped) what is in the indexes is looked at all the
      // same.
      if (const auto flushed = parts_.flush(); !flushed) {
        if (flushed.error().code == Code::kCancelled) return flushed;
        log_warn("scrub without a checkpoint", {{"why", flushed.error().detail}});
      }
      position_.stage = kStageFixed;
      return {};
    case kStageFixed:
      BASALT_CHECK_OK(check_fixed());
      position_.stage = kStageIndex;
      position_.shard = 0;
      return {};
    case kStageIndex: {
      BASALT_CHECK_OK(check_index(position_.shard));
      if (++position_.shard < parts_.indexes.size()) return {};
      position_ = {};
      const std::lock_guard lock(mutex_);
      position_.stage = status_.mode == ScrubMode::kDeep ? kStageBlobs : kStageDone;
      return {};
    }
    case kStageBlobs:
      return check_blobs(position_.shard);
    default:
      return {};
  }
}

Status Scrub::pace(size_t bytes, bool waits) {
  std::unique_lock lock(mutex_);
  pace_bytes_ += bytes;
  status_.bytes += bytes;
  for (;;) {
    if (stop_ || cancel_ || status_.state != ScrubState::kRunning) return fail(Code::kCancelled);
    if (status_.bytes_per_second == 0) return {};
    if (!waits) {
      pace_start_ns_ = parts_.clock.monotonic_ns();
      pace_bytes_ = 0;
      return {};
    }
    const uint64_t due_ns =
        pace_start_ns_ + static_cast<uint64_t>(1e9 * static_cast<double>(pace_bytes_) /
                                               static_cast<double>(status_.bytes_per_second));
    const uint64_t now_ns = parts_.clock.monotonic_ns();
    if (now_ns >= due_ns) {
      // Time that was not used is not saved up: a burst would be felt.
      if (now_ns - due_ns > 200'000'000) {
        pace_start_ns_ = now_ns;
        pace_bytes_ = 0;
      }
      return {};
    }
    changed_.wait_for(lock, std::chrono::nanoseconds(due_ns - now_ns));
  }
}

void Scrub::find(Finding finding) {
  const std::string id =
      fmt::format("{}|{}|{}|{}|{}", finding.file, finding.offset,
                  finding.key ? finding.key->name : std::string(),
                  finding.key ? finding.key->space : 0, finding.key ? "" : finding.what);
  const std::lock_guard lock(mutex_);
  if (seen_.contains(id)) return;
  ++status_.finding_count;
  if (status_.findings.size() >= kScrubFindingsMax) return;
  seen_.insert(id);
  log_error("scrub found damage",
            {{"kind", finding_name(finding.kind)},
             {"file", finding.file},
             {"offset", finding.offset},
             {"key", finding.key ? printable(finding.key->view()) : std::string()},
             {"what", finding.what}});
  status_.findings.push_back(std::move(finding));
}

// --- What does not depend on an index

Status Scrub::check_fixed() {
  auto copies = check_superblock_copies(parts_.files.directory_fd());
  if (!copies) {
    find({Finding::Kind::kSuperblock, "superblock", 0, copies.error().detail, {}, {}});
  } else {
    for (size_t i = 0; i < 2; ++i) {
      if ((*copies)[i].empty()) continue;
      find({Finding::Kind::kSuperblock,
            "superblock",
            i * kBlockBytes,
            fmt::format("copy {} {}", i, (*copies)[i]),
            {},
            {}});
    }
  }
  std::unique_ptr<uint8_t, decltype(&std::free)> block(
      static_cast<uint8_t*>(std::aligned_alloc(kBlockBytes, kBlockBytes)), &std::free);
  BASALT_CHECK(block != nullptr);
  for (const auto& info : parts_.files.segments()) {
    using State = SegmentEntry::State;
    // Emptied ones hold nothing, and their headers are rewritten when they are used again.
    if (info.state == State::kRaw || info.state == State::kGone) continue;
    const std::string path = LocalFiles::path_of(info.kind, info.number);
    for (uint64_t copy = 0; copy < 2; ++copy) {
      BASALT_CHECK_OK(pace(kBlockBytes));
      UniqueFd fd(
          ::openat(parts_.files.directory_fd(), path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT));
      if (!fd)
        fd = UniqueFd(::openat(parts_.files.directory_fd(), path.c_str(), O_RDONLY | O_CLOEXEC));
      std::string what;
      if (!fd) {
        what = errno == ENOENT ? "the file is missing" : fail_errno(errno, "open").error().detail;
      } else if (auto got = read_at(fd.get(), {block.get(), kBlockBytes}, copy * kBlockBytes);
                 !got || *got != kBlockBytes) {
        what = got ? "the file is too short" : got.error().detail;
      } else if (auto header = parse_segment_header({block.get(), kBlockBytes}); !header) {
        what = fmt::format("copy {} of the header is damaged", copy);
      } else if (header->number != info.number || header->kind != static_cast<uint8_t>(info.kind) ||
                 header->uuid != parts_.files.superblock().uuid ||
                 header->generation != info.generation) {
        what = fmt::format("copy {} of the header is another segment's", copy);
      }
      if (what.empty()) continue;
      // It may have been unlinked or taken into use again since the list was made.
      if (!in_use(info.number, info.generation)) break;
      find({Finding::Kind::kSegment, path, copy * kBlockBytes, std::move(what), {}, {}});
    }
  }
  // Recovery reads the segments that lanes write to from their beginning.
  for (const auto& active : parts_.files.active_logs()) {
    check_log(LocalFiles::path_of(FileKind::kLog, active.number), active.number, active.generation,
              active.position);
    BASALT_CHECK_OK(pace(0));
  }
  return {};
}

// Whether the segment is still what it was: the generation rises with each use.
bool Scrub::in_use(uint32_t number, uint32_t generation) const {
  const auto segments = parts_.files.segments();
  return std::ranges::any_of(segments, [&](const LocalFiles::SegmentInfo& info) {
    return info.number == number && info.generation == generation &&
           info.state != SegmentEntry::State::kRaw && info.state != SegmentEntry::State::kGone;
  });
}

void Scrub::check_log(const std::string& path, uint32_t number, uint32_t generation, uint64_t end) {
  UniqueFd fd(::openat(parts_.files.directory_fd(), path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT));
  if (!fd) fd = UniqueFd(::openat(parts_.files.directory_fd(), path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return;
  std::unique_ptr<uint8_t, decltype(&std::free)> memory(
      static_cast<uint8_t*>(std::aligned_alloc(kBlockBytes, kBatchBytesMax)), &std::free);
  BASALT_CHECK(memory != nullptr);
  uint64_t offset = kSegmentDataOffset;
  int tries = 0;
  while (offset < end) {
    if (!pace(kBlockBytes)) return;
    std::optional<BatchHeader> header;
    const auto got = read_at(fd.get(), {memory.get(), kBlockBytes}, offset);
    if (got && *got == kBlockBytes)
      header = parse_batch_header({memory.get(), kBlockBytes}, generation);
    bool whole = false;
    if (header && offset + header->bytes <= end) {
      if (!pace(header->bytes)) return;
      const auto rest = read_at(fd.get(), {memory.get(), header->bytes}, offset);
      if (rest && *rest == header->bytes) {
        const auto visited = visit_batch({memory.get(), header->bytes}, *header, number, offset,
                                         [](const RecoveredRecord&) -> Status { return {}; });
        whole = visited && *visited;
      }
    }
    if (whole) {
      offset += header->bytes;
      tries = 0;
      continue;
    }
    // The lane may be writing there.
    if (++tries < kLogTries) {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, kLogRetryTime, [this] { return stop_ || cancel_; });
      if (stop_ || cancel_) return;
      continue;
    }
    // It may have been filled, emptied and taken into use again meanwhile.
    if (!in_use(number, generation)) return;
    find(
        {Finding::Kind::kLog, path, offset, "a batch that recovery would read is damaged", {}, {}});
    // On to the next whole batch.
    do {
      offset += kBlockBytes;
      if (offset >= end || !pace(kBlockBytes)) return;
      const auto next = read_at(fd.get(), {memory.get(), kBlockBytes}, offset);
      header = next && *next == kBlockBytes
                   ? parse_batch_header({memory.get(), kBlockBytes}, generation)
                   : std::nullopt;
    } while (!header);
    tries = 0;
  }
}

// --- Indexes

Result<std::unique_ptr<IndexPages>> Scrub::open_index(unsigned shard, const IndexWalk& walk) {
  return IndexPages::open(parts_.indexes[shard]->directory() + "/data.mdb",
                          [this, &walk](size_t bytes) { return pace(bytes, !walk.overdue()); });
}

// A read transaction, and `pages` at the state that it sees.
Result<IndexReader::Snapshot> Scrub::pin(unsigned shard, IndexPages& pages,
                                         const IndexPages::Damaged& damaged) {
  for (int tries = 0;; ++tries) {
    BASALT_TRY(snapshot, readers_[shard]->begin());
    std::vector<PageDamage> seen;
    const auto selected =
        pages.select(snapshot.transaction(), [&](const PageDamage& one) { seen.push_back(one); });
    if (selected) {
      for (const PageDamage& one : seen) damaged(one);
      return std::move(snapshot);
    }
    if (selected.error().code != Code::kNotFound || tries == kPinTries) {
      for (const PageDamage& one : seen) damaged(one);
      return std::unexpected(selected.error());
    }
  }
}

// What is wrong with the place of a blob, if anything. Never reads the file.
std::optional<std::string> Scrub::look(const BlobRef& blob, std::string& path) {
  const auto kind = static_cast<BlobKind>(blob.kind);
  const FileKind file_kind = file_kind_of(kind);
  path = LocalFiles::path_of(file_kind, blob.file);
  const auto [at, fresh] = facts_.try_emplace(fact_key(file_kind, blob.file));
  FileFacts& facts = at->second;
  if (fresh) {
    struct stat info{};
    facts.missing = ::fstatat(parts_.files.directory_fd(), path.c_str(), &info, 0) != 0;
    facts.bytes = facts.missing ? 0 : static_cast<uint64_t>(info.st_size);
    if (file_kind != FileKind::kOwn) facts.generation = parts_.files.segment_generation(blob.file);
  }
  const FileFacts& known = facts;
  if (known.missing) return "the file is missing";
  if (file_kind != FileKind::kOwn && known.generation != 0 && known.generation != blob.generation) {
    return "the segment is of another generation: it was used again";
  }
  const uint64_t table = chunk_table_bytes(blob.length);
  const uint64_t bytes = table > 0 ? chunk_table_offset(kind, blob.length) + table : blob.length;
  if (blob.length == 0 || blob.offset > known.bytes || bytes > known.bytes - blob.offset) {
    return "the file ends before the blob does";
  }
  return std::nullopt;
}

// Whether the committed index still names the blob under the key. While it does, the blob's space
// is not used again; so what was seen before this call is damage, and else it proves nothing.
bool Scrub::still_named(unsigned shard, const KeyView& key, const BlobRef& blob) {
  auto snapshot = readers_[shard]->begin();
  if (!snapshot) return true;
  const auto value = snapshot->get(key);
  if (!value) return value.error().code != Code::kNotFound;
  std::vector<uint64_t> memory((value->size() + 7) / 8);
  std::memcpy(memory.data(), value->data(), value->size());
  const auto record =
      decode_record(key, {reinterpret_cast<const uint8_t*>(memory.data()), value->size()});
  if (!record) return true;
  bool named = false;
  for_each_file_blob(*record, [&](const BlobRef& other) { named |= other == blob; });
  return named;
}

Status Scrub::check_index(unsigned shard) {
  const std::string file = fmt::format("shard/{:02}/data.mdb", shard);
  std::optional<IndexWalk> walk(std::in_place, *parts_.indexes[shard]);
  auto pages = open_index(shard, *walk);
  if (!pages) {
    find({Finding::Kind::kIndex, file, 0, pages.error().detail, shard, {}});
    return {};
  }
  struct Suspect {
    OwnedKey key;
    BlobRef blob;
  };
  std::vector<Suspect> suspects;
  {
    facts_.clear();
    const auto early = [&](const PageDamage& damage) {
      find({Finding::Kind::kIndex, file, damage.page * 4096, damage.what, shard, {}});
    };
    auto snapshot = pin(shard, **pages, early);
    if (!snapshot) {
      if (snapshot.error().code == Code::kCancelled) return std::unexpected(snapshot.error());
      find({Finding::Kind::kIndex, file, 0, snapshot.error().detail, shard, {}});
      return {};
    }
    uint64_t records = 0;
    std::string path;
    const auto visit = [&](const KeyView& key, const RecordView& record, Bytes) {
      if (++records % 1024 == 0) {
        const std::lock_guard lock(mutex_);
        status_.records += 1024;
      }
      for_each_file_blob(record, [&](const BlobRef& blob) {
        if (suspects.size() < kScrubFindingsMax && look(blob, path)) {
          suspects.push_back({{key.table, key.space, std::string(key.name)}, blob});
        }
      });
    };
    const auto report = [&](Finding finding) { find(std::move(finding)); };
    const auto audited = audit_index(**pages, shard, file, visit, report);
    if (!audited) {
      if (audited.error().code == Code::kCancelled) return std::unexpected(audited.error());
      find({Finding::Kind::kIndex, file, 0, audited.error().detail, shard, {}});
    } else if (audited->records_unchecked != 0) {
      log_warn("records with long names were not checked",
               {{"shard", shard}, {"records", audited->records_unchecked}});
    }
    const std::lock_guard lock(mutex_);
    status_.records += records % 1024;
  }
  walk.reset();
  for (const Suspect& suspect : suspects) {
    if (!still_named(shard, suspect.key.view(), suspect.blob)) continue;
    facts_.clear();
    std::string path;
    const auto wrong = look(suspect.blob, path);
    if (!wrong) continue;
    find({*wrong == "the file is missing" ? Finding::Kind::kMissing : Finding::Kind::kBlob, path,
          suspect.blob.offset, *wrong, shard, suspect.key});
  }
  return {};
}

// --- Blobs

// One batch: records from position_ on are collected in one short snapshot, their blobs are read in
// the order of the disk.
Status Scrub::check_blobs(unsigned shard) {
  struct Item {
    BlobRef blob;
    size_t key;
  };
  std::vector<OwnedKey> keys;
  std::vector<Item> items;
  uint64_t bytes = 0;
  size_t records = 0;
  std::string next;
  bool more = false;
  LayerNames& layers = layers_[shard * kTableCount + position_.table];
  const auto ignore = [](const PageDamage&) {};  // check_index() has told of it
  {
    const IndexWalk walk(*parts_.indexes[shard]);
    BASALT_TRY(pages, open_index(shard, walk));
    const auto snapshot = pin(shard, *pages, ignore);
    if (!snapshot) return std::unexpected(snapshot.error());
    const auto table = static_cast<Table>(position_.table);
    std::vector<uint64_t> scratch;
    const auto visit = [&](Bytes key, Bytes value, uint64_t) {
      if (records >= kScrubBatchRecords || items.size() >= kScrubBatchBlobs ||
          bytes >= kScrubBatchBytes) {
        next.assign(as_text(key));
        more = true;
        return false;
      }
      if (layers.take(key, value) != LayerNames::Row::kRecord) return true;
      ++records;
      scratch.resize((value.size() + 7) / 8);
      std::memcpy(scratch.data(), value.data(), value.size());
      const KeyView name{table, layers.space(), layers.name()};
      const auto record =
          decode_record(name, {reinterpret_cast<const uint8_t*>(scratch.data()), value.size()});
      if (!record) return true;
      bool any = false;
      for_each_file_blob(*record, [&](const BlobRef& blob) {
        if (!any) keys.push_back({table, name.space, std::string(name.name)});
        any = true;
        items.push_back({blob, keys.size() - 1});
        bytes += blob.length;
      });
      return true;
    };
    // After a restart the links before the position are learnt again.
    if (!position_.key.empty() && layers.highest_layer() == 0) {
      const auto learn = [&](Bytes key, Bytes value, uint64_t) {
        if (as_text(key) >= position_.key) return false;
        if (key.size() == kLinkKeyBytes) layers.take(key, value);
        return true;
      };
      BASALT_CHECK_OK(pages->walk(kIndexTableNames[position_.table], {}, learn, ignore));
    }
    BASALT_CHECK_OK(
        pages->walk(kIndexTableNames[position_.table], as_bytes(position_.key), visit, ignore));
  }
  std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) {
    return std::tuple(a.blob.file, a.blob.offset) < std::tuple(b.blob.file, b.blob.offset);
  });
  verifier_->forget();
  for (size_t i = 0; i < items.size(); ++i) {
    const BlobRef& blob = items[i].blob;
    // As far as small neighbours follow closely, one read serves them all.
    uint64_t until = blob.offset + blob.length;
    for (size_t j = i + 1; j < items.size(); ++j) {
      const BlobRef& other = items[j].blob;
      if (other.file != blob.file || other.offset > until + kScrubGapBytes ||
          other.offset + other.length > blob.offset + (1u << 20)) {
        break;
      }
      until = std::max(until, other.offset + other.length + 8);
    }
    BASALT_TRY(damage, verifier_->verify(blob, until));
    if (damage) {
      const OwnedKey& key = keys[items[i].key];
      if (still_named(shard, key.view(), blob)) {
        find({damage->kind, damage->file, damage->offset, damage->what, shard, key});
      }
    }
    const std::lock_guard lock(mutex_);
    ++status_.blobs;
  }
  if (more) {
    position_.key = std::move(next);
    return {};
  }
  layers.clear();
  position_.key.clear();
  if (++position_.table < kTableCount) return {};
  position_.table = 0;
  if (++position_.shard == parts_.indexes.size()) {
    position_ = {};
    position_.stage = kStageDone;
  }
  return {};
}

}  // namespace basalt::storage
