// Opening a data directory: what it may be, formatting a fresh one, listing what is there.
#include <dirent.h>
#include <fmt/core.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <functional>

#include "base/check.h"
#include "base/log.h"
#include "storage/files_local.h"
#include "storage/format_migrations.h"
#include "storage/superblock.h"

namespace basalt::storage {
namespace {

// File numbers reserved by one write of the superblock. A crash forgets which of them were used, so
// the next open goes on behind them.
constexpr uint32_t kNumbersAtOnce = 4096;

// Eight hexadecimal digits.
std::optional<uint32_t> parse_number(const std::string& name) {
  uint32_t number = 0;
  if (name.size() != 8) return std::nullopt;
  auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number, 16);
  if (error != std::errc() || end != name.data() + name.size() || number == 0) return std::nullopt;
  return number;
}

// Magic numbers of statfs(2). flock, O_DIRECT and fsync mean something else on these, or nothing
// (RELIABILITY: promise P1 is made for a local file system).
const char* network_filesystem(const Disk::Space& space) {
  switch (space.type) {
    case 0x6969:
      return "NFS";
    case 0x517B:
      return "SMB";
    case 0xFE534D42:
      return "SMB2";
    case 0xFF534D42:
      return "CIFS";
    case 0x65735546:
      return "FUSE";
    case 0x01021997:
      return "9P";
    case 0x00C36400:
      return "Ceph";
    case 0x5346414F:
      return "AFS";
    case 0x0BD00BD0:
      return "Lustre";
    case 0x47504653:
      return "GPFS";
    case 0x19830326:
      return "BeeGFS";
    default:
      return nullptr;
  }
}

// A directory without a superblock may be formatted only if it holds nothing but what an
// interrupted format leaves.
Status check_formattable(Disk& disk, int directory_fd) {
  return disk.list(directory_fd, ".", [&](const std::string& name, unsigned char type) -> Status {
    if (type == DT_SOCK || name == "lock" || name == "lost+found" || name == "superblock.tmp")
      return {};
    if (type == DT_DIR && (name == "log" || name == "bulk" || name == "blob" || name == "shard")) {
      return disk.list(
          directory_fd, name.c_str(), [&](const std::string& inner, unsigned char kind) -> Status {
            std::string path = name + "/" + inner;
            if (kind == DT_DIR && name == "shard") {
              return disk.list(
                  directory_fd, path.c_str(),
                  [&](const std::string& file, unsigned char) -> Status {
                    return fail(
                        Code::kInvalid,
                        fmt::format("no superblock, but {}/{} is there: not formatting over it",
                                    path, file));
                  });
            }
            return fail(
                Code::kInvalid,
                fmt::format("no superblock, but {} is there: not formatting over it", path));
          });
    }
    return fail(
        Code::kInvalid,
        fmt::format(
            "the data directory is not empty and not ours ({} is there): not formatting over it",
            name));
  });
}

}  // namespace

Result<std::unique_ptr<Files>> Files::open(const EngineOptions& options) {
  const std::string& path = options.directory;
  Disk& disk = *(options.platform != nullptr ? *options.platform : system_platform()).disk;
  if (options.core_count == 0) return fail(Code::kInvalid, "core_count is 0");
  if (const int made = disk.make_directory(AT_FDCWD, path.c_str()); made == 0) {
    size_t slash = path.find_last_of('/', path.find_last_not_of('/'));
    std::string parent = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    BASALT_TRY(fd, open_at(disk, AT_FDCWD, parent, O_RDONLY | O_DIRECTORY));
    BASALT_CHECK_OK(sync_directory(fd, "sync " + parent));
  } else if (made != -EEXIST) {
    return fail_errno(-made, "make directory " + path);
  }
  BASALT_TRY(directory, open_at(disk, AT_FDCWD, path, O_RDONLY | O_DIRECTORY));

  Disk::Space space;
  if (const int got = disk.space(directory.get(), space); got != 0)
    return fail_errno(-got, "statfs " + path);
  if (const char* name = network_filesystem(space);
      name != nullptr && !options.allow_network_filesystem) {
    return fail(Code::kInvalid,
                fmt::format("{} is on {}: durability cannot be promised on a network or user-space "
                            "file system",
                            path, name));
  }

  BASALT_TRY(lock, open_at(disk, directory.get(), "lock", O_RDWR | O_CREAT));
  if (const int locked = disk.lock(lock.get()); locked != 0) {
    if (locked == -EWOULDBLOCK) return fail(Code::kBusy, path + " is in use by another process");
    return fail_errno(-locked, "lock " + path);
  }

  auto files = std::make_unique<LocalFiles>(options, std::move(directory), std::move(lock));
  BASALT_CHECK_OK(files->start());
  return files;
}

LocalFiles::LocalFiles(const EngineOptions& options, UniqueFd directory, UniqueFd lock)
    : options_(options),
      platform_(options.platform != nullptr ? *options.platform : system_platform()),
      disk_(*platform_.disk),
      core_count_(options.core_count),
      directory_(std::move(directory)),
      lock_(std::move(lock)),
      guards_(options.core_count + 1),
      checkpointed_(new std::atomic<uint64_t>[options.core_count]()) {
  for (unsigned i = 0; i < core_count_; ++i) cores_.push_back(std::make_unique<Core>());
  void* top = ::mmap(nullptr, (size_t{1} << (32 - kLeafBits)) * sizeof(std::atomic<Leaf*>),
                     PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  BASALT_CHECK(top != MAP_FAILED);
  top_ = static_cast<std::atomic<Leaf*>*>(top);
  void* zeros = ::mmap(nullptr, kZeroStepBytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  BASALT_CHECK(zeros != MAP_FAILED);
  zeros_ = static_cast<uint8_t*>(zeros);
}

uint64_t LocalFiles::default_segment_bytes() const {
  Disk::Space space;
  const uint64_t total = disk_.space(directory_.get(), space) == 0 ? space.bytes : 0;
  uint64_t bytes = total / 256 / (1u << 20) * (1u << 20);
  return std::clamp<uint64_t>(bytes, 4u << 20, 256u << 20);
}

Status LocalFiles::format() {
  BASALT_CHECK_OK(check_formattable(disk_, directory_.get()));
  Superblock superblock;
  platform_.random->fill(superblock.uuid);
  superblock.shard_count = options_.shard_count_at_format;
  superblock.log_segment_bytes = options_.log_segment_bytes;
  superblock.bulk_segment_bytes = options_.bulk_segment_bytes;
  if (superblock.log_segment_bytes == 0) superblock.log_segment_bytes = default_segment_bytes();
  if (superblock.bulk_segment_bytes == 0) superblock.bulk_segment_bytes = default_segment_bytes();
  superblock.hash_seed = platform_.random->u64();
  if (superblock.shard_count == 0 || superblock.shard_count > 4096 ||
      !std::has_single_bit(superblock.shard_count)) {
    return fail(Code::kInvalid, "the number of shards must be a power of two up to 4096");
  }
  for (uint64_t bytes : {superblock.log_segment_bytes, superblock.bulk_segment_bytes}) {
    if (bytes % kBlockBytes != 0 || bytes < kLogSegmentBytesMin || bytes > kSegmentBytesMax) {
      return fail(Code::kInvalid, "segments have 1 MiB to 1 GiB, in multiples of 4096 bytes");
    }
  }
  for (const char* name : {"log", "bulk", "blob", "shard"})
    BASALT_CHECK_OK(make_directory(disk_, directory_.get(), name));
  for (unsigned shard = 0; shard < superblock.shard_count; ++shard) {
    BASALT_CHECK_OK(
        make_directory(disk_, directory_.get(), fmt::format("shard/{:02}", shard).c_str()));
  }
  BASALT_TRY(shards, open_at(disk_, directory_.get(), "shard", O_RDONLY | O_DIRECTORY));
  BASALT_CHECK_OK(sync_directory(shards, "sync directory shard"));
  BASALT_CHECK_OK(create_superblock(directory_.get(), superblock, disk_));
  log_info("data directory formatted", {{"directory", options_.directory},
                                        {"shards", superblock.shard_count},
                                        {"log_segment_bytes", superblock.log_segment_bytes},
                                        {"bulk_segment_bytes", superblock.bulk_segment_bytes}});
  return {};
}

Status LocalFiles::start() {
  auto found = read_superblock(directory_.get(), disk_);
  if (!found && found.error().code == Code::kNotFound) {
    BASALT_CHECK_OK(format());
    found = read_superblock(directory_.get(), disk_);
  }
  if (!found) return std::unexpected(found.error());
  superblock_ = *found;
  BASALT_CHECK_OK(migrate_format(
      {disk_, directory_.get()}, superblock_, kFormatVersion, format_migrations(),
      [&](const Superblock& next) { return update_superblock(directory_.get(), next, disk_); }));
  if (superblock_.epoch + 1 >= uint64_t{1} << (64 - kLsnEpochShift)) {
    return fail(Code::kTooLarge, "the data directory was opened too often");
  }
  BASALT_CHECK_OK(list_segments(FileKind::kLog));
  BASALT_CHECK_OK(list_segments(FileKind::kBulk));
  BASALT_CHECK_OK(list_own_files());
  next_number_ = std::max(next_number_, superblock_.number_limit);
  if (next_number_ > UINT32_MAX - 2 * kNumbersAtOnce)
    return fail(Code::kTooLarge, "file numbers are used up");
  superblock_.epoch += 1;
  superblock_.number_limit = next_number_ + kNumbersAtOnce;
  BASALT_CHECK_OK(update_superblock(directory_.get(), superblock_, disk_));
  refresh_space();
  BASALT_TRY(helper, platform_.helpers->start("maintenance", [this] { return maintain(); }));
  const std::lock_guard lock(mutex_);
  helper_ = std::move(helper);
  return {};
}

Result<uint32_t> LocalFiles::take_number() {
  if (next_number_ == superblock_.number_limit) {
    Superblock raised = superblock_;
    if (raised.number_limit > UINT32_MAX - kNumbersAtOnce)
      return fail(Code::kNoSpace, "file numbers are used up");
    raised.number_limit += kNumbersAtOnce;
    BASALT_CHECK_OK(update_superblock(directory_.get(), raised, disk_));
    superblock_.number_limit = raised.number_limit;
  }
  return next_number_++;
}

void LocalFiles::index_segment(SegmentEntry& entry) {
  std::atomic<Leaf*>& slot = top_[entry.number >> kLeafBits];
  Leaf* leaf = slot.load(std::memory_order_relaxed);
  if (leaf == nullptr) {
    leaves_.push_back(std::make_unique<Leaf>());
    leaf = leaves_.back().get();
    slot.store(leaf, std::memory_order_release);
  }
  (*leaf)[entry.number & ((size_t{1} << kLeafBits) - 1)].store(&entry, std::memory_order_release);
}

Status LocalFiles::list_segments(FileKind kind) {
  const char* name = kind == FileKind::kLog ? "log" : "bulk";
  return disk_.list(directory_.get(), name, [&](const std::string& file, unsigned char) -> Status {
    auto number = parse_number(file);
    if (!number) {
      log_warn("unknown file in the data directory", {{"file", std::string(name) + "/" + file}});
      return {};
    }
    std::string path = path_of(kind, *number);
    BASALT_TRY(fd, open_at(disk_, directory_.get(), path, O_RDONLY));
    const int64_t size = disk_.size(fd.get());
    if (size < 0) return fail_errno(static_cast<int>(-size), "stat " + path);
    auto entry = std::make_unique<SegmentEntry>();
    entry->number = *number;
    entry->kind = kind;
    entry->foreign = true;
    entry->state = SegmentEntry::State::kDamaged;
    entry->size_bytes = static_cast<uint64_t>(size);
    for (uint64_t copy = 0; copy < 2 && entry->state == SegmentEntry::State::kDamaged; ++copy) {
      std::array<uint8_t, kBlockBytes> block{};
      // An unreadable copy is as good as none; the other one may do.
      auto got = read_at(fd, block, copy * kBlockBytes);
      auto header = got ? parse_segment_header(block) : std::nullopt;
      if (!header || header->number != *number || header->kind != static_cast<uint8_t>(kind) ||
          header->uuid != superblock_.uuid) {
        continue;
      }
      entry->generation = header->generation;
      entry->lane = header->lane;
      entry->lane_count = header->lane_count;
      entry->epoch = header->epoch;
      entry->sequence = header->sequence;
      entry->size_bytes = header->size_bytes;
      entry->state = SegmentEntry::State::kSealed;
    }
    next_number_ = std::max(next_number_, *number + 1);
    index_segment(*entry);
    segments_.push_back(std::move(entry));
    return {};
  });
}

Status LocalFiles::list_own_files() {
  return disk_.list(
      directory_.get(), "blob", [&](const std::string& group, unsigned char type) -> Status {
        if (type != DT_DIR) return {};
        return disk_.list(
            directory_.get(), ("blob/" + group).c_str(),
            [&](const std::string& file, unsigned char) -> Status {
              auto number = parse_number(file);
              if (!number || path_of(FileKind::kOwn, *number) != "blob/" + group + "/" + file) {
                log_warn("unknown file in the data directory",
                         {{"file", "blob/" + group + "/" + file}});
                return {};
              }
              next_number_ = std::max(next_number_, *number + 1);
              own_files_.try_emplace(*number);
              own_files_at_open_.push_back(*number);
              return {};
            });
      });
}

}  // namespace basalt::storage
