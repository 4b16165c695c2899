#include "storage/superblock.h"

#include <fmt/core.h>

#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <tuple>

#include "base/crc32c.h"
#include "storage/segment_format.h"

namespace basalt::storage {
namespace {

constexpr std::array<char, 8> kMagic = {'B', 'A', 'S', 'A', 'L', 'T', 'S', 'B'};
constexpr const char* kName = "superblock";
constexpr const char* kTemporaryName = "superblock.tmp";

struct DiskSuperblock {
  std::array<char, 8> magic{};
  uint32_t crc = 0;  // of all that follows in the struct
  uint32_t format_version = 0;
  uint64_t counter = 0;  // raised by every write
  std::array<uint8_t, 16> uuid{};
  uint32_t shard_count = 0;
  uint32_t number_limit = 0;
  uint64_t log_segment_bytes = 0;
  uint64_t bulk_segment_bytes = 0;
  uint64_t hash_seed = 0;
  uint64_t epoch = 0;
  uint8_t reserved[48] = {};
};
static_assert(sizeof(DiskSuperblock) == 128);

constexpr size_t kCrcStart = offsetof(DiskSuperblock, format_version);

uint32_t crc_of(const DiskSuperblock& block) {
  return crc32c(Bytes(reinterpret_cast<const uint8_t*>(&block), sizeof block).subspan(kCrcStart));
}

struct Copy {
  std::optional<DiskSuperblock> block;
  bool newer_format = false;
  uint32_t version = 0;
};

std::array<uint8_t, kBlockBytes> encode(const Superblock& superblock, uint64_t counter) {
  DiskSuperblock block;
  block.magic = kMagic;
  block.format_version = superblock.format_version;
  block.counter = counter;
  block.uuid = superblock.uuid;
  block.shard_count = superblock.shard_count;
  block.number_limit = superblock.number_limit;
  block.log_segment_bytes = superblock.log_segment_bytes;
  block.bulk_segment_bytes = superblock.bulk_segment_bytes;
  block.hash_seed = superblock.hash_seed;
  block.epoch = superblock.epoch;
  block.crc = crc_of(block);
  std::array<uint8_t, kBlockBytes> bytes{};
  std::memcpy(bytes.data(), &block, sizeof block);
  return bytes;
}

Result<std::array<Copy, 2>> read_copies(const UniqueFd& fd) {
  std::array<Copy, 2> copies;
  for (size_t i = 0; i < 2; ++i) {
    DiskSuperblock block;
    BASALT_TRY(got, read_at(fd, MutableBytes(reinterpret_cast<uint8_t*>(&block), sizeof block),
                            i * kBlockBytes));
    if (got != sizeof block || block.magic != kMagic) continue;
    // The version stands before anything a newer format may have changed, the checksum included.
    copies[i].version = block.format_version;
    copies[i].newer_format = block.format_version > kFormatVersion;
    bool sane = block.shard_count > 0 && block.shard_count <= 4096 &&
                std::has_single_bit(block.shard_count) &&
                block.log_segment_bytes >= kLogSegmentBytesMin &&
                block.log_segment_bytes <= kSegmentBytesMax &&
                block.bulk_segment_bytes >= kBulkSegmentBytesMin &&
                block.bulk_segment_bytes <= kSegmentBytesMax;
    if (!copies[i].newer_format && sane && block.crc == crc_of(block)) copies[i].block = block;
  }
  return copies;
}

// Which copy counts, or 2 if none is valid.
size_t newest(const std::array<Copy, 2>& copies) {
  if (!copies[0].block && !copies[1].block) return 2;
  if (!copies[0].block) return 1;
  if (!copies[1].block) return 0;
  return copies[0].block->counter >= copies[1].block->counter ? 0 : 1;
}

}  // namespace

Result<Superblock> read_superblock(int directory_fd, Disk& disk) {
  BASALT_TRY(fd, open_at(disk, directory_fd, kName, O_RDONLY));
  BASALT_TRY(copies, read_copies(fd));
  for (const Copy& copy : copies) {
    if (copy.newer_format) {
      return fail(
          Code::kCorrupt,
          fmt::format("the data directory has format {}, this program knows formats up to {}: "
                      "start it with the newer program that wrote it",
                      copy.version, kFormatVersion));
    }
  }
  size_t at = newest(copies);
  if (at == 2) return fail(Code::kCorrupt, "both copies of the superblock are damaged");
  const DiskSuperblock& block = *copies[at].block;
  Superblock superblock;
  superblock.format_version = block.format_version;
  superblock.uuid = block.uuid;
  superblock.shard_count = block.shard_count;
  superblock.number_limit = block.number_limit;
  superblock.log_segment_bytes = block.log_segment_bytes;
  superblock.bulk_segment_bytes = block.bulk_segment_bytes;
  superblock.hash_seed = block.hash_seed;
  superblock.epoch = block.epoch;
  return superblock;
}

Result<std::array<std::string, 2>> check_superblock_copies(int directory_fd, Disk& disk) {
  BASALT_TRY(fd, open_at(disk, directory_fd, kName, O_RDONLY));
  disk.advise(fd.get(), POSIX_FADV_DONTNEED);  // what is on the disk, not what is cached
  BASALT_TRY(copies, read_copies(fd));
  std::array<std::string, 2> wrong;
  for (size_t i = 0; i < 2; ++i) {
    if (copies[i].newer_format) {
      wrong[i] = fmt::format("is of format {}", copies[i].version);
    } else if (!copies[i].block) {
      wrong[i] = "is damaged";
    }
  }
  if (!copies[0].block || !copies[1].block) return wrong;
  // One that is behind was cut off between its two writes: legal, and mended by the next open.
  auto identity = [](const DiskSuperblock& block) {
    return std::tuple(block.uuid, block.shard_count, block.log_segment_bytes,
                      block.bulk_segment_bytes, block.hash_seed);
  };
  if (identity(*copies[0].block) != identity(*copies[1].block))
    wrong[1 - newest(copies)] = "is of another directory";
  return wrong;
}

Status create_superblock(int directory_fd, const Superblock& superblock, Disk& disk) {
  BASALT_TRY(fd, open_at(disk, directory_fd, kTemporaryName, O_WRONLY | O_CREAT | O_TRUNC));
  for (uint64_t i = 0; i < 2; ++i) {
    auto bytes = encode(superblock, 2 - i);
    BASALT_CHECK_OK(write_at(fd, bytes, i * kBlockBytes, "write superblock"));
  }
  BASALT_CHECK_OK(sync_file(fd, "sync superblock"));
  if (const int renamed = disk.rename(directory_fd, kTemporaryName, kName); renamed != 0) {
    return fail_errno(-renamed, "rename superblock");
  }
  return sync_directory(disk, directory_fd, "sync data directory");
}

Status update_superblock(int directory_fd, const Superblock& superblock, Disk& disk) {
  BASALT_TRY(fd, open_at(disk, directory_fd, kName, O_RDWR));
  BASALT_TRY(copies, read_copies(fd));
  size_t at = newest(copies);
  if (at == 2) return fail(Code::kCorrupt, "both copies of the superblock are damaged");
  uint64_t counter = copies[at].block->counter;
  for (uint64_t step = 1; step <= 2; ++step) {
    auto bytes = encode(superblock, counter + step);
    at = 1 - at;
    BASALT_CHECK_OK(write_at(fd, bytes, at * kBlockBytes, "write superblock"));
    BASALT_CHECK_OK(sync_file(fd, "sync superblock"));
  }
  return {};
}

}  // namespace basalt::storage
