#include "storage/offline.h"

#include <fmt/format.h>
#include <sys/file.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <map>

#include "base/check.h"
#include "base/log.h"
#include "storage/blob_verify.h"
#include "storage/checkpointer.h"
#include "storage/key_slices.h"
#include "storage/replay.h"
#include "storage/shard_state.h"
#include "storage/superblock.h"

namespace basalt::storage {

namespace {

namespace fs = std::filesystem;

constexpr size_t kFillEntriesMax = 20'000;
constexpr size_t kFillBytesMax = 64u << 20;
// What a replay gathers in memory before it is written to the indexes.
constexpr uint64_t kReplayBytesMax = 256u << 20;

std::optional<uint32_t> number_of(const std::string& name) {
  uint32_t number = 0;
  if (name.size() != 8) return std::nullopt;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number, 16);
  if (error != std::errc() || end != name.data() + name.size() || number == 0) return std::nullopt;
  return number;
}

std::string hex(Bytes bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const uint8_t byte : bytes) fmt::format_to(std::back_inserter(out), "{:02x}", byte);
  return out;
}

// What ShardState wants of Files, without any: a tool counts live bytes from the finished index.
class NoFiles final : public Files {
 public:
  explicit NoFiles(const Superblock& superblock) : superblock_(superblock) {}
  const Superblock& superblock() const override { return superblock_; }
  std::string shard_directory(unsigned) const override { return {}; }
  void set_live(uint32_t, int64_t) override {}
  void add_live(const BlobRef&) override {}
  void release(std::span<const BlobRef>) override {}
  void drop_orphans() override {}
  std::unique_ptr<ReadGuard> guard(unsigned) override { return nullptr; }
  void checkpointed(unsigned, uint64_t) override {}
  std::vector<Victim> victims(double, uint32_t, size_t) override { return {}; }
  SpaceUse space_use() const override { return {}; }
  bool below_low_water() const override { return false; }
  void poison(std::string) override {}
  bool healthy() const override { return true; }
  std::string health_text() const override { return {}; }

 private:
  const Superblock& superblock_;
};

}  // namespace

std::string stamp_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y%m%dT%H%M%SZ", &parts);
  return text;
}

Status sync_path(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "open " + path);
  return sync_file(fd.get(), "sync " + path);
}

Status make_directories(const std::string& path) {
  const fs::path target(path);
  fs::path at;
  for (const fs::path& part : target) {
    const fs::path parent = at;
    at /= part;
    if (part == "/" || part.empty()) continue;
    if (::mkdir(at.c_str(), 0700) == 0) {
      BASALT_CHECK_OK(sync_path(parent.empty() ? "." : parent.string()));
    } else if (errno != EEXIST) {
      return fail_errno(errno, "make directory " + at.string());
    }
  }
  return {};
}

// --- OfflineDirectory

Result<std::unique_ptr<OfflineDirectory>> OfflineDirectory::open(const std::string& path) {
  std::unique_ptr<OfflineDirectory> directory(new OfflineDirectory);
  directory->path_ = path;
  directory->fd_ = UniqueFd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory->fd_) {
    if (errno == ENOENT) return fail(Code::kNotFound, path + " does not exist");
    return fail_errno(errno, "open " + path);
  }
  struct stat info{};
  if (::fstatat(directory->fd(), "superblock", &info, 0) != 0 &&
      ::fstatat(directory->fd(), "lock", &info, 0) != 0) {
    return fail(Code::kNotFound, path + " is not a data directory: it has no superblock");
  }
  directory->lock_ =
      UniqueFd(::openat(directory->fd(), "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!directory->lock_) return fail_errno(errno, "open " + path + "/lock");
  if (::flock(directory->lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) {
      return fail(Code::kBusy, path + " is in use: stop the server first");
    }
    return fail_errno(errno, "lock " + path);
  }
  BASALT_TRY(superblock, read_superblock(directory->fd()));
  if (superblock.format_version != kFormatVersion) {
    return fail(Code::kCorrupt, fmt::format("{} has format {}, this program knows format {}: start "
                                            "it with the program that wrote it",
                                            path, superblock.format_version, kFormatVersion));
  }
  directory->superblock_ = superblock;
  BASALT_CHECK_OK(directory->list());
  return directory;
}

Status OfflineDirectory::list() {
  try {
    std::vector<uint8_t> block(kBlockBytes);
    for (const FileKind kind : {FileKind::kLog, FileKind::kBulk}) {
      const std::string name = kind == FileKind::kLog ? "log" : "bulk";
      if (!fs::is_directory(path_ + "/" + name)) continue;
      for (const auto& entry : fs::directory_iterator(path_ + "/" + name)) {
        const auto number = number_of(entry.path().filename());
        if (!number) {
          strangers_.push_back(name + "/" + entry.path().filename().string());
          continue;
        }
        OfflineSegment segment;
        segment.number = *number;
        segment.kind = kind;
        segment.path = LocalFiles::path_of(kind, *number);
        segment.file_bytes = entry.file_size();
        UniqueFd fd(::openat(fd_.get(), segment.path.c_str(), O_RDONLY | O_CLOEXEC));
        for (uint64_t copy = 0; fd && copy < 2; ++copy) {
          const auto got = read_at(fd.get(), block, copy * kBlockBytes);
          if (!got || *got != kBlockBytes) continue;
          auto header = parse_segment_header(block);
          if (header && header->number == *number && header->kind == static_cast<uint8_t>(kind) &&
              header->uuid == superblock_.uuid) {
            segment.copies[copy] = *header;
          }
        }
        segments_.push_back(std::move(segment));
      }
    }
    if (fs::is_directory(path_ + "/blob")) {
      for (const auto& group : fs::directory_iterator(path_ + "/blob")) {
        if (!group.is_directory()) continue;
        for (const auto& entry : fs::directory_iterator(group.path())) {
          const std::string relative =
              "blob/" + group.path().filename().string() + "/" + entry.path().filename().string();
          const auto number = number_of(entry.path().filename());
          if (number && LocalFiles::path_of(FileKind::kOwn, *number) == relative) {
            own_files_.push_back(*number);
          } else {
            strangers_.push_back(relative);
          }
        }
      }
    }
  } catch (const fs::filesystem_error& error) {
    return fail(Code::kIo, error.what());
  }
  std::sort(own_files_.begin(), own_files_.end());
  std::sort(segments_.begin(), segments_.end(),
            [](const OfflineSegment& a, const OfflineSegment& b) { return a.number < b.number; });
  return {};
}

Status OfflineDirectory::list_again() {
  segments_.clear();
  own_files_.clear();
  strangers_.clear();
  return list();
}

const OfflineSegment* OfflineDirectory::find(FileKind kind, uint32_t number) const {
  const auto at = std::lower_bound(
      segments_.begin(), segments_.end(), number,
      [](const OfflineSegment& segment, uint32_t value) { return segment.number < value; });
  if (at == segments_.end() || at->number != number || at->kind != kind) return nullptr;
  return &*at;
}

bool OfflineDirectory::has_own_file(uint32_t number) const {
  return std::binary_search(own_files_.begin(), own_files_.end(), number);
}

std::string OfflineDirectory::shard_directory(unsigned shard) const {
  return fmt::format("{}/shard/{:02}", path_, shard);
}

std::string OfflineDirectory::shard_file(unsigned shard) const {
  return fmt::format("shard/{:02}/data.mdb", shard);
}

std::optional<Finding> OfflineDirectory::look(const BlobRef& blob) const {
  const auto kind = static_cast<BlobKind>(blob.kind);
  const FileKind file_kind = file_kind_of(kind);
  const std::string path = LocalFiles::path_of(file_kind, blob.file);
  const auto wrong = [&](Finding::Kind finding, std::string what) {
    return Finding{finding, path, blob.offset, std::move(what), {}, {}};
  };
  uint64_t file_bytes = 0;
  if (file_kind == FileKind::kOwn) {
    if (!has_own_file(blob.file)) return wrong(Finding::Kind::kMissing, "the file is missing");
    struct stat info{};
    if (::fstatat(fd_.get(), path.c_str(), &info, 0) != 0) {
      return wrong(Finding::Kind::kIo, fail_errno(errno, "stat").error().detail);
    }
    file_bytes = static_cast<uint64_t>(info.st_size);
  } else {
    const OfflineSegment* segment = find(file_kind, blob.file);
    if (segment == nullptr) return wrong(Finding::Kind::kMissing, "the file is missing");
    // Without a header the data may still be right: its checksums are seeded with the generation.
    if (segment->header() != nullptr && segment->header()->generation != blob.generation) {
      return wrong(Finding::Kind::kBlob, "the segment is of another generation: it was used again");
    }
    file_bytes = segment->file_bytes;
  }
  const uint64_t table = chunk_table_bytes(blob.length);
  const uint64_t bytes = table > 0 ? chunk_table_offset(kind, blob.length) + table : blob.length;
  if (blob.length == 0 || blob.offset > file_bytes || bytes > file_bytes - blob.offset) {
    return wrong(Finding::Kind::kBlob, "the file ends before the blob does");
  }
  return std::nullopt;
}

Result<std::string> OfflineDirectory::quarantine() {
  if (!quarantine_.empty()) return quarantine_;
  std::string name = path_ + "/quarantine/" + stamp_now();
  for (int i = 1; fs::exists(name); ++i)
    name = fmt::format("{}/quarantine/{}-{}", path_, stamp_now(), i);
  BASALT_CHECK_OK(make_directories(name));
  quarantine_ = name;
  return name;
}

Result<std::string> OfflineDirectory::move_to_quarantine(const std::string& relative) {
  BASALT_TRY(target, quarantine());
  const fs::path from = fs::path(path_) / relative, to = fs::path(target) / relative;
  BASALT_CHECK_OK(make_directories(to.parent_path().string()));
  if (::rename(from.c_str(), to.c_str()) != 0) return fail_errno(errno, "move " + from.string());
  BASALT_CHECK_OK(sync_path(to.parent_path().string()));
  BASALT_CHECK_OK(sync_path(from.parent_path().string()));
  return to.string();
}

std::vector<LocalFiles::LogFile> OfflineDirectory::log_files() const {
  std::vector<LocalFiles::LogFile> list;
  for (const OfflineSegment& segment : segments_) {
    if (segment.kind != FileKind::kLog) continue;
    LocalFiles::LogFile file;
    file.number = segment.number;
    file.damaged = segment.header() == nullptr;
    if (!file.damaged) file.header = *segment.header();
    file.header.number = segment.number;
    list.push_back(std::move(file));
  }
  return list;
}

Status OfflineDirectory::rewrite_superblock() { return update_superblock(fd_.get(), superblock_); }

Status OfflineDirectory::rewrite_header(const OfflineSegment& segment,
                                        const SegmentHeader& header) {
  UniqueFd fd(::openat(fd_.get(), segment.path.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "open " + segment.path);
  std::vector<uint8_t> block(kBlockBytes);
  encode_segment_header(header, block);
  for (uint64_t copy = 0; copy < 2; ++copy) {
    BASALT_CHECK_OK(write_at(fd.get(), block, copy * kBlockBytes, "write segment header"));
    BASALT_CHECK_OK(sync_file(fd.get(), "sync segment header"));
  }
  return {};
}

Status install_index(OfflineDirectory& directory, unsigned shard, const std::string& fresh) {
  const std::string old = directory.shard_directory(shard);
  const std::string relative = fmt::format("shard/{:02}", shard);
  if (::access(old.c_str(), F_OK) != 0) {
    if (::rename(fresh.c_str(), old.c_str()) != 0) return fail_errno(errno, "rename " + fresh);
    return sync_path(directory.path() + "/shard");
  }
  if (::renameat2(AT_FDCWD, fresh.c_str(), AT_FDCWD, old.c_str(), RENAME_EXCHANGE) == 0) {
    BASALT_CHECK_OK(sync_path(directory.path() + "/shard"));
    // What lies under the fresh name is the old index now.
    BASALT_TRY(target, directory.quarantine());
    BASALT_CHECK_OK(make_directories(target + "/shard"));
    const std::string to = target + "/" + relative;
    if (::rename(fresh.c_str(), to.c_str()) != 0) return fail_errno(errno, "move " + fresh);
    BASALT_CHECK_OK(sync_path(target + "/shard"));
    return sync_path(directory.path() + "/shard");
  }
  if (errno != EINVAL && errno != ENOSYS) return fail_errno(errno, "exchange " + fresh);
  // Between these two the shard has no index, and a server refuses to start until this tool has
  // run again.
  BASALT_TRY(moved, directory.move_to_quarantine(relative));
  (void)moved;
  if (::rename(fresh.c_str(), old.c_str()) != 0) return fail_errno(errno, "rename " + fresh);
  return sync_path(directory.path() + "/shard");
}

Status restore_superblock(const std::string& directory, const std::string& snapshot,
                          std::string& quarantine) {
  UniqueFd from(::open(snapshot.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!from) return fail_errno(errno, "open " + snapshot);
  BASALT_TRY(superblock, read_superblock(from.get()));
  // Numbers and epochs may have gone on since the copy was made. Going too far costs nothing.
  std::error_code ignored;
  uint32_t highest = 0;
  for (const char* name : {"log", "bulk", "blob"}) {
    for (const auto& entry : fs::recursive_directory_iterator(directory + "/" + name, ignored)) {
      const auto number = number_of(entry.path().filename());
      if (!number) continue;
      highest = std::max(highest, *number);
      if (std::string_view(name) == "blob") continue;
      UniqueFd fd(::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC));
      std::vector<uint8_t> block(kBlockBytes);
      for (uint64_t copy = 0; fd && copy < 2; ++copy) {
        const auto got = read_at(fd.get(), block, copy * kBlockBytes);
        const auto header = got && *got == kBlockBytes ? parse_segment_header(block) : std::nullopt;
        if (header && header->uuid == superblock.uuid) {
          superblock.epoch = std::max(superblock.epoch, header->epoch);
        }
      }
    }
  }
  superblock.number_limit = std::max(superblock.number_limit, highest + 1);
  quarantine = directory + "/quarantine/" + stamp_now();
  for (int i = 1; fs::exists(quarantine); ++i) {
    quarantine = fmt::format("{}/quarantine/{}-{}", directory, stamp_now(), i);
  }
  BASALT_CHECK_OK(make_directories(quarantine));
  const std::string old = directory + "/superblock";
  // A copy, not a move: create_superblock() replaces the old one in one step.
  if (::link(old.c_str(), (quarantine + "/superblock").c_str()) != 0 && errno != ENOENT) {
    return fail_errno(errno, "keep " + old);
  }
  UniqueFd to(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!to) return fail_errno(errno, "open " + directory);
  return create_superblock(to.get(), superblock);
}

// --- The log

Result<SegmentBatches> scan_log_segment(
    const OfflineDirectory& directory, const OfflineSegment& segment,
    const std::function<Status(const BatchHeader&, const RecoveredRecord&)>& visit,
    const std::function<void(uint64_t offset)>& damaged) {
  SegmentBatches result;
  if (segment.header() != nullptr) result.generation = segment.header()->generation;
  UniqueFd fd(::openat(directory.fd(), segment.path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "open " + segment.path);
  std::vector<uint8_t> window(2 * kBatchBytesMax);
  uint64_t start = 0;
  size_t have = 0;
  const auto at = [&](uint64_t offset, size_t length) -> Bytes {
    if (offset < start || offset + length > start + have) {
      start = offset;
      const auto got = read_at(fd.get(), window, offset);
      have = got ? *got : 0;
    }
    return {window.data() + (offset - start), std::min<size_t>(length, start + have - offset)};
  };
  for (uint64_t offset = kSegmentDataOffset; offset + kBlockBytes <= segment.file_bytes;) {
    if (offset % (1u << 20) == 0) {
      const off_t data = ::lseek(fd.get(), static_cast<off_t>(offset), SEEK_DATA);
      if (data < 0 && errno == ENXIO) break;
      if (data > 0)
        offset = std::max(offset, static_cast<uint64_t>(data) / kBlockBytes * kBlockBytes);
    }
    const Bytes block = at(offset, kBlockBytes);
    if (block.size() < kBlockBytes) {
      have = 0;
      offset += kBlockBytes;
      continue;
    }
    // A batch carries the generation that its checksum is seeded with.
    uint32_t generation = result.generation;
    if (generation == 0) std::memcpy(&generation, block.data() + 12, sizeof generation);
    const auto header = parse_batch_header(block, generation);
    bool whole = false;
    if (header) {
      const Bytes batch = at(offset, header->bytes);
      if (batch.size() == header->bytes) {
        BASALT_TRY(visited, visit_batch(batch, *header, segment.number, offset,
                                        [&](const RecoveredRecord& record) {
                                          return visit(*header, record);
                                        }));
        whole = visited;
      }
    }
    if (!whole) {
      // Behind the last batch lies what an earlier life of the segment left, or nothing. Batches
      // that are missing in between the caller sees by their numbers.
      if (header) damaged(offset);
      offset += kBlockBytes;
      continue;
    }
    result.generation = generation;
    if (result.batches++ == 0) result.first_lsn = header->first_lsn;
    result.last_lsn = std::max(result.last_lsn, header->last_lsn());
    offset += header->bytes;
  }
  return result;
}

Result<ReplayResult> replay_into(OfflineDirectory& directory,
                                 std::vector<std::unique_ptr<Index>>& indexes,
                                 std::span<const LogPosition> applied, bool trust_checkpoints) {
  ReplayResult result;
  NoFiles files(directory.superblock());
  SpaceTotals totals;
  std::vector<std::unique_ptr<ShardState>> states;
  for (auto& index : indexes) states.push_back(std::make_unique<ShardState>(*index, files));
  const auto write = [&]() -> Status {
    for (size_t shard = 0; shard < states.size(); ++shard) {
      states[shard]->freeze();
      const Status written =
          checkpoint_overlay(*indexes[shard], *states[shard]->frozen(), nullptr, totals);
      std::vector<BlobRef> dropped;
      states[shard]->thaw(dropped);
      BASALT_CHECK_OK(written);
    }
    return {};
  };
  std::string broken;
  const auto visit = [&](const RecoveredRecord& record) -> Status {
    if (record.shard >= states.size()) {
      broken = fmt::format("log record {} names shard {}", record.lsn, record.shard);
      return {};
    }
    const AlignedBytes bytes(record.mutations);
    const auto batch = verify_batch(bytes.view(), record.body.size());
    if (!batch) {
      broken = fmt::format("log record {}: {}", record.lsn, batch.error().detail);
      return {};
    }
    states[record.shard]->insert(**batch, record.lsn, record.body, record.body_ref);
    if (++result.records % 1024 != 0) return {};
    uint64_t bytes_used = 0;
    for (const auto& state : states) bytes_used += state->bytes();
    return bytes_used > kReplayBytesMax ? write() : Status{};
  };
  const auto replayed = replay_log_files({system_disk(), directory.fd()}, directory.log_files(),
                                         applied, {.trust_checkpoints = trust_checkpoints}, visit);
  if (!replayed) {
    if (replayed.error().code != Code::kCorrupt) return std::unexpected(replayed.error());
    result.damage = replayed.error().detail;
  }
  if (result.damage.empty()) result.damage = broken;
  BASALT_CHECK_OK(write());
  return result;
}

Status mark_applied(Index& index, const Superblock& superblock) {
  const uint64_t epoch = superblock.epoch + 1;
  const LogPosition position{.epoch = epoch, .lsn = epoch << kLsnEpochShift};
  IndexWriter writer(index);
  BASALT_CHECK_OK(writer.begin());
  BASALT_CHECK_OK(writer.set_applied(position));
  return writer.commit();
}

// --- Filling an index

Status IndexFiller::put(const KeyView& key, Bytes value) {
  Change change{{key.table, key.space, std::string(key.name)}, {}, value.size(), false};
  change.value.resize((value.size() + 7) / 8);
  std::memcpy(change.value.data(), value.data(), value.size());
  return add(std::move(change));
}

Status IndexFiller::erase(const KeyView& key) {
  return add({{key.table, key.space, std::string(key.name)}, {}, 0, true});
}

Status IndexFiller::add(Change change) {
  bytes_ += change.bytes + change.key.name.size();
  changes_.push_back(std::move(change));
  if (changes_.size() < kFillEntriesMax && bytes_ < kFillBytesMax) return {};
  return flush(nullptr);
}

Status IndexFiller::flush(const LogPosition* applied) {
  for (;;) {
    const auto write = [&]() -> Status {
      BASALT_CHECK_OK(writer_.begin());
      for (const Change& change : changes_) {
        if (change.erase) {
          BASALT_CHECK_OK(writer_.erase(change.key.view()));
        } else {
          BASALT_CHECK_OK(
              writer_.put(change.key.view(),
                          {reinterpret_cast<const uint8_t*>(change.value.data()), change.bytes}));
        }
      }
      if (applied != nullptr) BASALT_CHECK_OK(writer_.set_applied(*applied));
      return writer_.commit();
    };
    const Status written = write();
    if (written) break;
    writer_.abort();
    if (!writer_.map_full()) return written;
    BASALT_CHECK_OK(writer_.grow_map());
  }
  changes_.clear();
  bytes_ = 0;
  return {};
}

Status IndexFiller::finish(const LogPosition* applied) { return flush(applied); }

// --- Quarantine

Status QuarantineList::add(const std::string& line) {
  if (!fd_) {
    BASALT_TRY(directory, directory_.quarantine());
    const std::string path = directory + "/" + name_;
    fd_ = UniqueFd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!fd_) return fail_errno(errno, "create " + path);
  }
  const std::string text = line + "\n";
  BASALT_CHECK_OK(write_at(fd_.get(), as_bytes(text), offset_, "write " + name_));
  offset_ += text.size();
  ++lines_;
  return {};
}

Status QuarantineList::finish() {
  if (!fd_) return {};
  BASALT_CHECK_OK(sync_file(fd_.get(), "sync " + name_));
  BASALT_TRY(directory, directory_.quarantine());
  return sync_path(directory);
}

std::string record_line(const KeyView& key, Bytes value, std::string_view why) {
  std::string reason;
  for (const char c : why) {
    if (c == '"' || c == '\\') reason.push_back('\\');
    if (static_cast<unsigned char>(c) >= 0x20) reason.push_back(c);
  }
  return fmt::format(R"({{"table":{},"space":{},"name":"{}","value":"{}","why":"{}"}})",
                     static_cast<unsigned>(key.table), key.space, hex(as_bytes(key.name)),
                     hex(value), reason);
}

Status keep_blob(OfflineDirectory& directory, const BlobRef& blob) {
  const auto kind = static_cast<BlobKind>(blob.kind);
  const std::string path = LocalFiles::path_of(file_kind_of(kind), blob.file);
  UniqueFd from(::openat(directory.fd(), path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!from) return {};  // there is nothing to keep
  BASALT_TRY(target, directory.quarantine());
  BASALT_CHECK_OK(make_directories(target + "/blobs"));
  const std::string name = fmt::format("{}/blobs/{:08x}-{}", target, blob.file, blob.offset);
  UniqueFd to(::open(name.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!to) return fail_errno(errno, "create " + name);
  const uint64_t table = chunk_table_bytes(blob.length);
  const uint64_t bytes = table > 0 ? chunk_table_offset(kind, blob.length) + table : blob.length;
  std::vector<uint8_t> piece(1u << 20);
  for (uint64_t done = 0; done < bytes;) {
    const size_t count = std::min<uint64_t>(piece.size(), bytes - done);
    const auto got = read_at(from.get(), MutableBytes(piece).first(count), blob.offset + done);
    // What cannot be read stays a hole.
    if (got) {
      if (*got == 0) break;
      BASALT_CHECK_OK(write_at(to.get(), Bytes(piece).first(*got), done, "write " + name));
    }
    done += count;
  }
  BASALT_CHECK_OK(sync_file(to.get(), "sync " + name));
  return sync_path(target + "/blobs");
}

}  // namespace basalt::storage
