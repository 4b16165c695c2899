#include "storage/backup.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "storage/blob_verify.h"
#include "storage/files_local.h"
#include "storage/index_audit.h"
#include "storage/low_priority.h"
#include "storage/offline.h"
#include "storage/snapshots.h"
#include "storage/superblock.h"

namespace basalt::storage {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr size_t kPieceBytes = 1u << 20;
constexpr const char* kManifest = "manifest.json";
constexpr const char* kSealKey = "seal.key";

struct CopiedFile {
  std::string path;  // relative
  uint64_t bytes = 0;
  uint32_t crc = 0;
};

// As read_at(), but never from within a block on: O_DIRECT refuses that, and it is the file's end.
Result<size_t> read_blocks(int fd, MutableBytes out, uint64_t offset) {
  size_t done = 0;
  while (done < out.size() && done % kBlockBytes == 0) {
    const ssize_t got =
        ::pread(fd, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno(errno, "read");
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

// Copies a file with its holes; checks nothing. The CRC is of all bytes, holes as zeros.
Result<CopiedFile> copy_one(const std::string& from_root, const std::string& to_root,
                            const std::string& path, const CopyPace& pace) {
  const fs::path to = fs::path(to_root) / path;
  std::error_code ignored;
  if (!fs::is_directory(to.parent_path(), ignored)) {
    BASALT_CHECK_OK(make_directories(to.parent_path().string()));
  }
  // Past the page cache: a server that runs takes what it finds there for checked
  // (storage/verified_chunks.h).
  const std::string from = from_root + "/" + path;
  UniqueFd in(::open(from.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT));
  if (!in && errno == EINVAL) in = UniqueFd(::open(from.c_str(), O_RDONLY | O_CLOEXEC));
  if (!in) return fail_errno(errno, "open " + from);
  UniqueFd out(::open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!out) return fail_errno(errno, "create " + to.string());
  struct stat info{};
  if (::fstat(in.get(), &info) != 0) return fail_errno(errno, "stat " + path);
  const auto size = static_cast<uint64_t>(info.st_size);
  if (::ftruncate(out.get(), info.st_size) != 0) return fail_errno(errno, "size " + to.string());
  CopiedFile file{path, size, 0};
  const std::vector<uint8_t> zeros(kPieceBytes);
  std::vector<uint8_t> memory(kPieceBytes + kBlockBytes);
  uint8_t* piece = memory.data() + (-reinterpret_cast<uintptr_t>(memory.data()) % kBlockBytes);
  uint64_t offset = 0;
  while (offset < size) {
    const off_t data = ::lseek(in.get(), static_cast<off_t>(offset), SEEK_DATA);
    const uint64_t next = data < 0 ? (errno == ENXIO ? size : offset)
                                   : std::min<uint64_t>(size, static_cast<uint64_t>(data));
    while (offset < next) {
      const size_t count = std::min<uint64_t>(zeros.size(), next - offset);
      file.crc = crc32c(Bytes(zeros).first(count), file.crc);
      offset += count;
    }
    if (offset == size) break;
    const off_t hole = ::lseek(in.get(), static_cast<off_t>(offset), SEEK_HOLE);
    const uint64_t end = hole < 0 ? size : std::min<uint64_t>(size, static_cast<uint64_t>(hole));
    while (offset < end) {
      // From a whole block on, whole blocks, as O_DIRECT wants them; the file may end within one.
      const uint64_t skip = offset % kBlockBytes;
      const size_t count = std::min<uint64_t>(kPieceBytes - skip, end - offset);
      BASALT_CHECK_OK(pace(count, true));
      BASALT_TRY(
          got, read_blocks(in.get(), {piece, round_up(skip + count, kBlockBytes)}, offset - skip));
      if (got < skip + count) return fail(Code::kCorrupt, path + ": the file became shorter");
      const Bytes bytes(piece + skip, count);
      BASALT_CHECK_OK(write_at(out.get(), bytes, offset, "write " + to.string()));
      file.crc = crc32c(bytes, file.crc);
      offset += count;
    }
  }
  BASALT_CHECK_OK(sync_file(out.get(), "sync " + to.string()));
  ::posix_fadvise(out.get(), 0, 0, POSIX_FADV_DONTNEED);
  return file;
}

Status sync_tree(const std::string& root) {
  std::error_code error;
  for (const auto& entry : fs::recursive_directory_iterator(root, error)) {
    if (entry.is_directory()) BASALT_CHECK_OK(sync_path(entry.path().string()));
  }
  return sync_path(root);
}

Status write_manifest(const std::string& root, const Superblock& superblock, int64_t made_ms,
                      const std::vector<CopiedFile>& files) {
  json list = json::array();
  for (const CopiedFile& file : files) {
    list.push_back({{"path", file.path}, {"bytes", file.bytes}, {"crc32c", file.crc}});
  }
  std::string uuid;
  for (const uint8_t byte : superblock.uuid)
    fmt::format_to(std::back_inserter(uuid), "{:02x}", byte);
  json content{{"format_version", superblock.format_version},
               {"made_ms", made_ms},
               {"uuid", uuid},
               {"shards", superblock.shard_count},
               {"files", std::move(list)}};
  // Of the content, so that a damaged manifest is not taken for a damaged backup.
  const uint32_t crc = crc32c(as_bytes(content.dump()));
  const std::string text =
      json{{"version", 1}, {"crc32c", crc}, {"backup", std::move(content)}}.dump(1);
  const std::string temporary = root + "/" + kManifest + ".tmp";
  UniqueFd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd) return fail_errno(errno, "create " + temporary);
  BASALT_CHECK_OK(write_at(fd.get(), as_bytes(text), 0, "write manifest"));
  BASALT_CHECK_OK(sync_file(fd.get(), "sync manifest"));
  if (::rename(temporary.c_str(), (root + "/" + kManifest).c_str()) != 0) {
    return fail_errno(errno, "rename manifest");
  }
  return sync_path(root);
}

struct Manifest {
  unsigned shards = 0;
  std::vector<CopiedFile> files;
};

// A path of the manifest may only lead into the backup.
bool is_inside(const std::string& path) {
  if (path.empty() || path.front() == '/') return false;
  for (const fs::path& part : fs::path(path)) {
    if (part == "..") return false;
  }
  return true;
}

Result<Manifest> read_manifest(const std::string& root) {
  std::ifstream file(root + "/" + kManifest, std::ios::binary);
  if (!file) {
    return fail(Code::kNotFound,
                root + " has no manifest.json: it is no backup, or one that was not finished");
  }
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  try {
    const json in = json::parse(text);
    const int version = in.at("version").get<int>();
    if (version != 1) {
      return fail(Code::kCorrupt,
                  fmt::format("the backup has version {}, this program knows version 1", version));
    }
    const json& content = in.at("backup");
    if (in.at("crc32c").get<uint32_t>() != crc32c(as_bytes(content.dump()))) {
      return fail(Code::kCorrupt, root + "/manifest.json is damaged");
    }
    Manifest manifest;
    manifest.shards = content.at("shards").get<unsigned>();
    for (const json& one : content.at("files")) {
      manifest.files.push_back({one.at("path").get<std::string>(), one.at("bytes").get<uint64_t>(),
                                one.at("crc32c").get<uint32_t>()});
      if (!is_inside(manifest.files.back().path)) {
        return fail(Code::kCorrupt, root + "/manifest.json names a path outside of the backup");
      }
    }
    return manifest;
  } catch (const json::exception& error) {
    return fail(Code::kCorrupt, root + "/manifest.json cannot be read: " + error.what());
  }
}

bool is_empty_or_missing(const std::string& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return !error;
  return fs::is_directory(path, error) && fs::is_empty(path, error) && !error;
}

Status no_pace(size_t, bool) { return {}; }

}  // namespace

Backup::~Backup() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Status Backup::create(const std::string& destination, uint64_t bytes_per_second) {
  if (destination.empty() || destination.front() != '/') {
    return fail(Code::kInvalid, "the destination must be an absolute path");
  }
  const fs::path data = fs::weakly_canonical(parts_.options.directory);
  const fs::path target = fs::weakly_canonical(destination);
  if (std::mismatch(data.begin(), data.end(), target.begin(), target.end()).first == data.end()) {
    return fail(Code::kInvalid, "the destination is inside the data directory");
  }
  if (!is_empty_or_missing(destination)) {
    return fail(Code::kInvalid, destination + " is not empty: give a new directory");
  }
  const std::lock_guard lock(mutex_);
  if (status_.running) return fail(Code::kBusy, "a backup is under way: 'backup status' shows it");
  if (thread_.joinable()) thread_.join();  // of the last one, which has ended
  status_ = {};
  status_.running = true;
  status_.destination = destination;
  status_.started_ms = parts_.clock.wall_ms();
  stop_ = false;
  thread_ =
      std::thread([this, destination, bytes_per_second] { run(destination, bytes_per_second); });
  return {};
}

Status Backup::cancel() {
  const std::lock_guard lock(mutex_);
  if (!status_.running) return fail(Code::kInvalid, "no backup is under way");
  stop_ = true;
  changed_.notify_all();
  return {};
}

BackupStatus Backup::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

void Backup::stage(std::string name) {
  const std::lock_guard lock(mutex_);
  status_.stage = std::move(name);
}

Status Backup::pace(size_t bytes, bool waits) {
  std::unique_lock lock(mutex_);
  pace_bytes_ += bytes;
  status_.bytes_done += bytes;
  if (stop_) return fail(Code::kCancelled, "cancelled");
  if (bytes_per_second_ == 0) return {};
  if (!waits) {
    pace_start_ns_ = parts_.clock.monotonic_ns();
    pace_bytes_ = 0;
    return {};
  }
  const uint64_t due_ns =
      pace_start_ns_ + static_cast<uint64_t>(1e9 * static_cast<double>(pace_bytes_) /
                                             static_cast<double>(bytes_per_second_));
  const uint64_t now_ns = parts_.clock.monotonic_ns();
  if (due_ns > now_ns) {
    changed_.wait_for(lock, std::chrono::nanoseconds(due_ns - now_ns), [this] { return stop_; });
  }
  return {};
}

void Backup::run(std::string destination, uint64_t bytes_per_second) {
  lower_priority();
  bytes_per_second_ = bytes_per_second;
  pace_bytes_ = 0;
  pace_start_ns_ = parts_.clock.monotonic_ns();
  log_info("backup started", {{"destination", destination}});
  const Status made = make(destination);
  const std::lock_guard lock(mutex_);
  status_.running = false;
  status_.ended_ms = parts_.clock.wall_ms();
  if (made) {
    status_.stage = "done";
    log_info("backup made", {{"destination", destination},
                             {"files", status_.files_done},
                             {"bytes", status_.bytes_done}});
  } else {
    status_.stage = "failed";
    status_.error = made.error().detail;
    log_error("backup failed", {{"destination", destination}, {"why", made.error().detail}});
  }
  flush_log();
}

Status Backup::make(const std::string& destination) {
  // From here on nothing that a look-up can find is used again or unlinked.
  const auto guard = parts_.files.helper_guard();
  stage("checkpoint");
  BASALT_CHECK_OK(parts_.flush());
  BASALT_CHECK_OK(make_directories(destination));
  const auto pacing = [this](size_t bytes, bool waits) { return pace(bytes, waits); };
  std::vector<CopiedFile> files;
  std::set<std::string> named;
  for (Index* index : parts_.indexes) {
    stage(fmt::format("index of shard {:02}", index->shard()));
    const std::string relative = fmt::format("shard/{:02}/data.mdb", index->shard());
    const std::string path = destination + "/" + relative;
    BASALT_CHECK_OK(make_directories(fs::path(path).parent_path().string()));
    BASALT_TRY(copied, copy_index(*index, path, pacing));
    files.push_back({relative, copied.bytes, copied.crc});
    const auto visit = [&](const KeyView&, const RecordView& record, Bytes) {
      for_each_file_blob(record, [&](const BlobRef& blob) {
        named.insert(
            LocalFiles::path_of(file_kind_of(static_cast<BlobKind>(blob.kind)), blob.file));
      });
    };
    BASALT_TRY(position, check_index_copy(path, index->shard(), visit));
    (void)position;
  }
  {
    const std::lock_guard lock(mutex_);
    status_.files_done = files.size();
    status_.files_total = files.size() + named.size() + 1;
  }
  for (const std::string& path : named) {
    stage(path);
    auto copied = copy_one(parts_.options.directory, destination, path, pacing);
    // A file that is lost already: the backup holds what there is, and verify names the objects.
    if (!copied && ::access((parts_.options.directory + "/" + path).c_str(), F_OK) != 0) {
      log_error("a file that records name is missing and not in the backup", {{"file", path}});
      continue;
    }
    if (!copied) return std::unexpected(copied.error());
    files.push_back(*copied);
    const std::lock_guard lock(mutex_);
    ++status_.files_done;
  }
  stage("superblock and manifest");
  // The key that opens the sealed secrets, where it lies beside the data.
  if (::access((parts_.options.directory + "/" + kSealKey).c_str(), F_OK) == 0) {
    BASALT_TRY(copied, copy_one(parts_.options.directory, destination, kSealKey, pacing));
    files.push_back(copied);
  }
  UniqueFd to(::open(destination.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!to) return fail_errno(errno, "open " + destination);
  // From the file: the maintenance thread changes the one in memory.
  BASALT_TRY(superblock, read_superblock(parts_.files.directory_fd()));
  BASALT_CHECK_OK(create_superblock(to.get(), superblock));
  {
    std::ifstream file(destination + "/superblock", std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    files.push_back({"superblock", text.size(), crc32c(as_bytes(text))});
  }
  BASALT_CHECK_OK(sync_tree(destination));
  BASALT_CHECK_OK(write_manifest(destination, superblock, parts_.clock.wall_ms(), files));
  const std::lock_guard lock(mutex_);
  status_.files_done = status_.files_total = files.size();
  return {};
}

// --- Without a server

Result<BackupCheck> verify_backup(const std::string& backup,
                                  const std::function<void(const std::string&)>& progress) {
  BASALT_TRY(manifest, read_manifest(backup));
  BackupCheck check;
  const auto find = [&](Finding finding) {
    ++check.finding_count;
    if (check.findings.size() < kBackupFindingsMax) check.findings.push_back(std::move(finding));
  };
  std::vector<uint8_t> piece(kPieceBytes);
  for (const CopiedFile& file : manifest.files) {
    if (progress) progress(file.path);
    ++check.files;
    UniqueFd fd(::open((backup + "/" + file.path).c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) {
      find({Finding::Kind::kMissing, file.path, 0, "the file is missing", {}, {}});
      continue;
    }
    uint64_t offset = 0;
    uint32_t crc = 0;
    Status status;
    for (;;) {
      const auto got = read_at(fd.get(), piece, offset);
      if (!got) {
        status = std::unexpected(got.error());
        break;
      }
      if (*got == 0) break;
      crc = crc32c(Bytes(piece).first(*got), crc);
      offset += *got;
    }
    check.bytes += offset;
    if (!status) {
      find({Finding::Kind::kIo, file.path, offset, status.error().detail, {}, {}});
    } else if (offset != file.bytes) {
      find({Finding::Kind::kBlob,
            file.path,
            offset,
            fmt::format("the file has {} bytes, the manifest says {}", offset, file.bytes),
            {},
            {}});
    } else if (crc != file.crc) {
      find({Finding::Kind::kBlob,
            file.path,
            0,
            "the file's checksum is not that of the manifest",
            {},
            {}});
    }
  }
  // A backup of damaged data has right files and damaged objects: those are named too.
  UniqueFd directory(::open(backup.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory) return fail_errno(errno, "open " + backup);
  BlobVerifier verifier(directory.get(), {});
  struct Item {
    BlobRef blob;
    OwnedKey key;
  };
  for (unsigned shard = 0; shard < manifest.shards; ++shard) {
    const std::string file = fmt::format("shard/{:02}/data.mdb", shard);
    if (progress) progress(file);
    std::vector<Item> items;
    const auto read_items = [&]() -> Status {
      std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) {
        return std::tie(a.blob.file, a.blob.offset) < std::tie(b.blob.file, b.blob.offset);
      });
      for (const Item& item : items) {
        BASALT_TRY(damage, verifier.verify(item.blob, item.blob.offset + (256u << 10)));
        ++check.blobs;
        if (damage)
          find({damage->kind, damage->file, damage->offset, damage->what, shard, item.key});
      }
      items.clear();
      return {};
    };
    auto pages = IndexPages::open(backup + "/" + file);
    const auto damaged = [&](const PageDamage& one) {
      find({Finding::Kind::kIndex, file, one.page * 4096, one.what, shard, {}});
    };
    Status status =
        pages ? (*pages)->select(std::nullopt, damaged) : Status(std::unexpected(pages.error()));
    if (status) {
      const auto visit = [&](const KeyView& key, const RecordView& record, Bytes) {
        ++check.records;
        for_each_file_blob(record, [&](const BlobRef& blob) {
          items.push_back({blob, {key.table, key.space, std::string(key.name)}});
        });
        if (items.size() > 200'000 && status) status = read_items();
      };
      const auto audit = audit_index(**pages, shard, file, visit, find);
      if (!audit) status = std::unexpected(audit.error());
    }
    if (status) status = read_items();
    if (!status) find({Finding::Kind::kIndex, file, 0, status.error().detail, shard, {}});
  }
  return check;
}

Status restore_backup(const std::string& backup, const std::string& directory,
                      const std::function<void(const std::string&)>& progress) {
  BASALT_TRY(manifest, read_manifest(backup));
  UniqueFd from(::open(backup.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!from) return fail_errno(errno, "open " + backup);
  BASALT_TRY(superblock, read_superblock(from.get()));
  if (superblock.shard_count != manifest.shards) {
    return fail(Code::kCorrupt, "the superblock of the backup and its manifest differ");
  }
  if (!is_empty_or_missing(directory)) {
    return fail(Code::kInvalid, directory + " is not empty: give a new directory");
  }
  for (const char* name : {"log", "bulk", "blob", "shard"}) {
    BASALT_CHECK_OK(make_directories(directory + "/" + name));
  }
  for (const CopiedFile& file : manifest.files) {
    if (file.path == "superblock") continue;
    if (progress) progress(file.path);
    BASALT_TRY(copied, copy_one(backup, directory, file.path, no_pace));
    if (copied.bytes != file.bytes || copied.crc != file.crc) {
      return fail(Code::kCorrupt,
                  backup + "/" + file.path +
                      " is not as it was written; 'backup verify' tells what is damaged");
    }
  }
  // The log segments were copied for the bodies in them: nothing of them is to be replayed.
  for (unsigned shard = 0; shard < manifest.shards; ++shard) {
    BASALT_TRY(index, Index::open({.directory = fmt::format("{}/shard/{:02}", directory, shard),
                                   .shard = shard}));
    BASALT_CHECK_OK(mark_applied(*index, superblock));
  }
  BASALT_CHECK_OK(sync_tree(directory));
  // Last: what has no superblock is not opened, and not formatted over.
  UniqueFd to(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!to) return fail_errno(errno, "open " + directory);
  return create_superblock(to.get(), superblock);
}

}  // namespace basalt::storage
