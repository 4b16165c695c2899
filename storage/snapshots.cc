#include "storage/snapshots.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <lmdb.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "storage/files_local.h"
#include "storage/index_audit.h"
#include "storage/low_priority.h"
#include "storage/offline.h"
#include "storage/superblock.h"

namespace basalt::storage {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr size_t kPieceBytes = 1u << 20;
constexpr const char* kManifest = "manifest.json";
// After a failed attempt, and between two that the log's size asks for.
constexpr int64_t kRetryMs = 60'000;
// Where there is no snapshot yet, the first one comes so long after the start.
constexpr int64_t kFirstMs = 600'000;
// What log segments may hold only for a rebuild: the smaller of these.
constexpr uint64_t kRetainedBytesMax = uint64_t{4} << 30;
constexpr uint64_t kRetainedDiskShare = 64;  // 1/64 of the disk

std::string snapshot_root(const std::string& directory) { return directory + "/snapshot"; }

json manifest_json(const SnapshotInfo& info) {
  json files = json::array();
  for (const SnapshotFile& file : info.files) {
    files.push_back({{"name", file.name}, {"bytes", file.bytes}, {"crc32c", file.crc}});
  }
  return {{"version", 1},
          {"made_ms", info.made_ms},
          {"epoch", info.epoch},
          {"applied", info.applied},
          {"files", std::move(files)}};
}

Status write_file(const std::string& path, const std::string& text) {
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd) return fail_errno(errno, "create " + path);
  BASALT_CHECK_OK(write_at(fd.get(), as_bytes(text), 0, "write " + path));
  return sync_file(fd.get(), "sync " + path);
}

std::optional<SnapshotInfo> read_manifest(const fs::path& directory) {
  std::ifstream file(directory / kManifest, std::ios::binary);
  if (!file) return std::nullopt;
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  try {
    const json in = json::parse(text);
    if (in.at("version").get<int>() != 1) return std::nullopt;
    SnapshotInfo info;
    info.directory = directory.string();
    info.stamp = directory.filename().string();
    info.made_ms = in.at("made_ms").get<int64_t>();
    info.epoch = in.at("epoch").get<uint64_t>();
    info.applied = in.at("applied").get<std::vector<uint64_t>>();
    for (const json& one : in.at("files")) {
      info.files.push_back({one.at("name").get<std::string>(), one.at("bytes").get<uint64_t>(),
                            one.at("crc32c").get<uint32_t>()});
    }
    return info;
  } catch (const json::exception&) {
    return std::nullopt;
  }
}

}  // namespace

uint64_t SnapshotInfo::bytes() const {
  uint64_t sum = 0;
  for (const SnapshotFile& file : files) sum += file.bytes;
  return sum;
}

uint64_t SnapshotInfo::lowest_lsn() const {
  return applied.empty() ? 0 : *std::min_element(applied.begin(), applied.end());
}

std::vector<SnapshotInfo> list_snapshots(const std::string& data_directory) {
  std::vector<SnapshotInfo> list;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(snapshot_root(data_directory), ignored)) {
    if (auto info = read_manifest(entry.path())) list.push_back(std::move(*info));
  }
  std::sort(list.begin(), list.end(), [](const SnapshotInfo& a, const SnapshotInfo& b) {
    return std::tie(a.made_ms, a.stamp) > std::tie(b.made_ms, b.stamp);
  });
  return list;
}

namespace {

std::unexpected<Error> growth_waits(const Index& index) {
  return fail(Code::kBusy,
              fmt::format("the index of shard {:02} has to grow: try again later", index.shard()));
}

}  // namespace

Status verify_snapshot(const SnapshotInfo& snapshot) {
  std::vector<uint8_t> piece(kPieceBytes);
  for (const SnapshotFile& file : snapshot.files) {
    const std::string path = snapshot.directory + "/" + file.name;
    UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) return fail(Code::kCorrupt, path + " is missing");
    uint64_t offset = 0;
    uint32_t crc = 0;
    for (;;) {
      BASALT_TRY(got, read_at(fd.get(), piece, offset));
      if (got == 0) break;
      crc = crc32c(Bytes(piece).first(got), crc);
      offset += got;
    }
    if (offset != file.bytes || crc != file.crc) {
      return fail(Code::kCorrupt, path + " is not as it was written");
    }
  }
  return {};
}

namespace {

// Every page, before liblmdb follows them.
Status look_at_pages(Index& index, const CopyPace& pace) {
  const IndexWalk walk(index);
  Status stopped;  // the pages' walk takes anything but kCancelled for damage
  const auto paced = [&](size_t bytes) -> Status {
    stopped = pace(bytes, !walk.overdue());
    if (stopped && index.growth_waits()) stopped = growth_waits(index);
    if (!stopped) return fail(Code::kCancelled);
    return {};
  };
  BASALT_TRY(pages, IndexPages::open(index.directory() + "/data.mdb", paced));
  IndexReader reader(index);
  constexpr int kTries = 100;
  for (int tries = 0;; ++tries) {
    BASALT_TRY(snapshot, reader.begin());
    std::string first;
    const auto damaged = [&](const PageDamage& one) {
      if (first.empty()) first = fmt::format("page {} ({}): {}", one.page, one.table, one.what);
    };
    Status status = pages->select(snapshot.transaction(), damaged);
    if (!status && status.error().code == Code::kNotFound && tries != kTries) continue;
    if (status) {
      status = pages->check(
          [](std::string_view) -> IndexPages::Visit {
            return [](Bytes, Bytes, uint64_t) { return true; };
          },
          damaged);
    }
    BASALT_CHECK_OK(stopped);
    if (!first.empty()) {
      return fail(Code::kCorrupt,
                  fmt::format("the index of shard {:02} is damaged: {}", index.shard(), first));
    }
    return status;
  }
}

}  // namespace

namespace {

// As of a moment at which index.partly() is `whole`; nothing if there was none.
Result<std::optional<SnapshotFile>> copy_whole(Index& index, uint64_t whole,
                                               const std::string& path, const CopyPace& pace) {
  UniqueFd out(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!out) return fail_errno(errno, "create " + path);
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno(errno, "pipe");
  UniqueFd from(ends[0]), to(ends[1]);
  // LMDB writes into the pipe at its own speed; what comes out is paced. The copy is one read
  // transaction long.
  const IndexWalk walk(index);
  Status copied;
  std::thread copier([&] {
    lower_priority();
    copied = index.copy_to(to.get());
    to.reset();
  });
  SnapshotFile file{fs::path(path).filename().string(), 0, 0};
  Status status;
  bool began = false;  // the read transaction: with the first bytes
  bool missed = false;
  std::vector<uint8_t> piece(kPieceBytes);
  for (;;) {
    size_t filled = 0;
    bool end = false;
    while (filled < piece.size()) {
      const ssize_t got = ::read(from.get(), piece.data() + filled, piece.size() - filled);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0 && status) status = fail_errno(errno, "read from pipe");
      if (got <= 0) {
        end = true;
        break;
      }
      filled += static_cast<size_t>(got);
    }
    const Bytes bytes = Bytes(piece).first(filled);
    if (!std::exchange(began, true) && index.partly() != whole) {
      missed = true;
      status = fail(Code::kBusy);
    }
    if (status && !bytes.empty()) status = pace(bytes.size(), !walk.overdue());
    if (status && index.growth_waits()) {
      status = growth_waits(index);
    }
    if (status && !bytes.empty()) status = write_at(out.get(), bytes, file.bytes, "write " + path);
    if (status) file.crc = crc32c(bytes, file.crc);
    file.bytes += bytes.size();
    if (end) break;
    if (!status) from.reset();  // LMDB sees a broken pipe and gives up
    if (!status) break;
  }
  copier.join();
  if (missed) return std::nullopt;
  BASALT_CHECK_OK(status);
  BASALT_CHECK_OK(copied);
  BASALT_CHECK_OK(sync_file(out.get(), "sync " + path));
  // What was written is wanted from the disk when it is read back, and not in the cache afterwards.
  ::posix_fadvise(out.get(), 0, 0, POSIX_FADV_DONTNEED);
  return file;
}

}  // namespace

Result<SnapshotFile> copy_index(Index& index, const std::string& path, const CopyPace& pace) {
  BASALT_CHECK_OK(look_at_pages(index, pace));
  for (;;) {
    uint64_t whole = index.partly();
    for (uint64_t waited_ms = 0; whole % 2 == 1; waited_ms += kPartlyRetryMs) {
      if (waited_ms >= kPartlyMsMax) {
        return fail(Code::kBusy,
                    fmt::format("the checkpoint of shard {:02} does not end", index.shard()));
      }
      BASALT_CHECK_OK(pace(0, false));
      std::this_thread::sleep_for(std::chrono::milliseconds(kPartlyRetryMs));
      whole = index.partly();
    }
    BASALT_TRY(copied, copy_whole(index, whole, path, pace));
    if (copied) return *copied;
  }
}

Result<LogPosition> check_index_copy(const std::string& path, unsigned shard,
                                     const VisitRecord& visit) {
  BASALT_TRY(pages, IndexPages::open(path));
  std::string first;
  uint64_t findings = 0;
  const auto damaged = [&](const PageDamage& one) {
    if (findings++ == 0) first = one.what;
  };
  BASALT_CHECK_OK(pages->select(std::nullopt, damaged));
  const auto report = [&](Finding finding) {
    if (findings++ != 0) return;
    first = finding.what;
    if (finding.key) first += " (" + printable(finding.key->view()) + ")";
  };
  BASALT_TRY(audit, audit_index(*pages, shard, path, visit, report));
  if (findings != 0) {
    return fail(Code::kCorrupt, fmt::format("the index of shard {:02} is damaged ({} findings): {}",
                                            shard, findings, first));
  }
  if (!audit.applied) return fail(Code::kCorrupt, fmt::format("shard {:02}: no position", shard));
  return *audit.applied;
}

// --- Snapshots

Snapshots::Snapshots(Parts parts) : parts_(std::move(parts)) { refresh(); }

Snapshots::~Snapshots() { end(); }

void Snapshots::retain() {
  const auto list = list_snapshots(parts_.options.directory);
  parts_.files.retain_log(list.empty() || parts_.options.snapshot_interval_s == 0
                              ? UINT64_MAX
                              : list.front().lowest_lsn());
}

void Snapshots::begin() {
  thread_ = std::thread([this] { run(); });
}

void Snapshots::end() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Status Snapshots::create() {
  const std::lock_guard lock(mutex_);
  if (wanted_ || status_.running) return fail(Code::kBusy, "a snapshot is being made");
  wanted_ = true;
  changed_.notify_all();
  return {};
}

Snapshots::Status_ Snapshots::status() const {
  Status_ status;
  {
    const std::lock_guard lock(mutex_);
    status = status_;
    status.running |= wanted_;
  }
  status.log_bytes_retained = parts_.files.log_bytes_retained();
  return status;
}

uint64_t Snapshots::retained_bytes_max() const {
  const uint64_t disk = parts_.files.space_use().disk_bytes;
  return std::max<uint64_t>(std::min(kRetainedBytesMax, disk / kRetainedDiskShare),
                            4 * parts_.files.superblock().log_segment_bytes);
}

void Snapshots::refresh() {
  std::vector<Snapshot> found;
  for (const SnapshotInfo& info : list_snapshots(parts_.options.directory)) {
    found.push_back({info.stamp, info.made_ms, info.bytes()});
  }
  const std::lock_guard lock(mutex_);
  status_.snapshots = std::move(found);
  status_.made_ms = status_.snapshots.empty() ? 0 : status_.snapshots.front().made_ms;
}

void Snapshots::run() {
  lower_priority();
  const int64_t begun_ms = parts_.clock.wall_ms();
  std::unique_lock lock(mutex_);
  while (!stop_) {
    const int64_t now = parts_.clock.wall_ms();
    const auto interval_ms = static_cast<int64_t>(parts_.options.snapshot_interval_s) * 1000;
    bool due = wanted_;
    if (interval_ms != 0 && now - tried_ms_ >= std::min(kRetryMs, interval_ms)) {
      due |= status_.made_ms != 0 ? now - status_.made_ms >= interval_ms
                                  : now - begun_ms >= std::min(kFirstMs, interval_ms);
      lock.unlock();
      const bool large = parts_.files.log_bytes_retained() > retained_bytes_max();
      lock.lock();
      due |= large;
    }
    if (!due) {
      changed_.wait_for(lock, std::chrono::seconds(1));
      continue;
    }
    wanted_ = false;
    status_.running = true;
    status_.bytes_done = 0;
    tried_ms_ = now;
    lock.unlock();
    const Status made = make();
    if (!made && made.error().code != Code::kCancelled) {
      log_error("no snapshot of the indexes was made", {{"why", made.error().detail}});
      // Without a newer snapshot the log would grow until the disk is full.
      if (parts_.files.log_bytes_retained() > retained_bytes_max()) {
        log_warn("the log since the last snapshot is not kept any longer");
        parts_.files.retain_log(UINT64_MAX);
      }
    }
    flush_log();
    refresh();
    lock.lock();
    status_.running = false;
    status_.error = made ? std::string() : made.error().detail;
    status_.failures += !made;
  }
}

Status Snapshots::make() {
  BASALT_CHECK_OK(parts_.flush());
  const std::string root = snapshot_root(parts_.options.directory);
  BASALT_CHECK_OK(make_directories(root));
  SnapshotInfo info;
  info.made_ms = parts_.clock.wall_ms();
  info.epoch = parts_.files.superblock().epoch;
  info.stamp = stamp_now();
  for (int i = 1; ::access((root + "/" + info.stamp).c_str(), F_OK) == 0; ++i) {
    info.stamp = fmt::format("{}-{}", stamp_now(), i);
  }
  info.directory = root + "/" + info.stamp;
  BASALT_CHECK_OK(make_directories(info.directory));
  // Before the copies, which are of this moment or later: what is checkpointed meanwhile is behind
  // them. Only the first has no older one that keeps the log.
  const bool first = parts_.options.snapshot_interval_s != 0 && !parts_.files.retains_log();
  if (first) parts_.files.retain_log(info.epoch << kLsnEpochShift);
  const Status made = make_in(info.directory, info);
  if (!made) {
    if (first) parts_.files.retain_log(UINT64_MAX);
    std::error_code ignored;
    fs::remove_all(info.directory, ignored);  // ours, and not a snapshot yet
    return made;
  }
  parts_.files.retain_log(parts_.options.snapshot_interval_s == 0 ? UINT64_MAX : info.lowest_lsn());
  log_info("snapshot of the indexes made",
           {{"directory", info.directory}, {"bytes", info.bytes()}});
  remove_old();
  return {};
}

Status Snapshots::make_in(const std::string& directory, SnapshotInfo& info) {
  const uint64_t rate = parts_.options.snapshot_bytes_per_second;
  uint64_t start_ns = parts_.clock.monotonic_ns(), done = 0;
  const auto pace = [&](size_t bytes, bool waits) -> Status {
    done += bytes;
    std::unique_lock lock(mutex_);
    status_.bytes_done += bytes;
    if (stop_) return fail(Code::kCancelled, "the server stops");
    if (rate == 0) return {};
    if (!waits) {
      // What is ahead of the pace now need not be waited for later.
      start_ns = parts_.clock.monotonic_ns();
      done = 0;
      return {};
    }
    const uint64_t due_ns = start_ns + static_cast<uint64_t>(1e9 * static_cast<double>(done) /
                                                             static_cast<double>(rate));
    const uint64_t now_ns = parts_.clock.monotonic_ns();
    if (due_ns > now_ns) {
      changed_.wait_for(lock, std::chrono::nanoseconds(due_ns - now_ns), [this] { return stop_; });
    }
    return {};
  };
  for (Index* index : parts_.indexes) {
    const std::string path = fmt::format("{}/{:02}.mdb", directory, index->shard());
    BASALT_TRY(file, copy_index(*index, path, pace));
    BASALT_TRY(position, check_index_copy(path, index->shard()));
    info.applied.push_back(position.lsn);
    info.files.push_back(file);
  }
  UniqueFd to(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!to) return fail_errno(errno, "open " + directory);
  // From the file: the maintenance thread changes the one in memory.
  BASALT_TRY(superblock, read_superblock(parts_.files.directory_fd()));
  BASALT_CHECK_OK(create_superblock(to.get(), superblock));
  BASALT_CHECK_OK(write_file(directory + "/manifest.json.tmp", manifest_json(info).dump()));
  if (::rename((directory + "/manifest.json.tmp").c_str(), (directory + "/" + kManifest).c_str()) !=
      0) {
    return fail_errno(errno, "rename manifest");
  }
  BASALT_CHECK_OK(sync_path(directory));
  return sync_path(snapshot_root(parts_.options.directory));
}

void Snapshots::remove_old() {
  const auto list = list_snapshots(parts_.options.directory);
  std::vector<std::string> doomed;
  for (size_t i = std::max(1u, parts_.options.snapshots_kept); i < list.size(); ++i) {
    doomed.push_back(list[i].directory);
  }
  // Left over from an attempt that a crash ended.
  std::error_code ignored;
  for (const auto& entry :
       fs::directory_iterator(snapshot_root(parts_.options.directory), ignored)) {
    if (!fs::exists(entry.path() / kManifest, ignored)) doomed.push_back(entry.path().string());
  }
  for (const std::string& path : doomed) fs::remove_all(path, ignored);
}

}  // namespace basalt::storage
