#include "storage/blob_verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/check.h"
#include "base/crc32c.h"
#include "storage/files_local.h"
#include "storage/seeded_bugs.h"
#include "storage/segment_format.h"

namespace basalt::storage {

namespace {
constexpr size_t kWindowBytes = 1u << 20;
// Bytes asked for in one read: a window, less what alignment at both ends may take.
constexpr size_t kPieceBytes = kWindowBytes - 2 * kBlockBytes;
// Chunks checked per read of a large blob; a whole number, within a piece.
constexpr uint64_t kChunksAtOnce = kPieceBytes / kBlobChunkBytes;
}  // namespace

FileKind file_kind_of(BlobKind kind) {
  if (kind == BlobKind::kLog) return FileKind::kLog;
  return kind == BlobKind::kBulk ? FileKind::kBulk : FileKind::kOwn;
}

void BlobVerifier::Freer::operator()(uint8_t* memory) const { std::free(memory); }

BlobVerifier::BlobVerifier(int directory, Pace pace)
    : directory_(directory),
      pace_(std::move(pace)),
      window_(static_cast<uint8_t*>(std::aligned_alloc(kBlockBytes, kWindowBytes))) {
  BASALT_CHECK(window_ != nullptr);
}

BlobVerifier::~BlobVerifier() = default;

void BlobVerifier::forget() {
  fd_.reset();
  path_.clear();
  window_bytes_ = 0;
}

std::optional<BlobVerifier::Damage> BlobVerifier::open(const BlobRef& blob) {
  const auto kind = static_cast<BlobKind>(blob.kind);
  const bool stored = kind == BlobKind::kLog || kind == BlobKind::kBulk || kind == BlobKind::kFile;
  if (!stored || blob.length == 0 || blob.length > kBlobBytesMax || blob.file == 0 ||
      (kind == BlobKind::kLog && blob.length > kInlineBodyBytesMax)) {
    return Damage{Finding::Kind::kBlob, "", blob.offset, "the reference is impossible"};
  }
  std::string path = LocalFiles::path_of(file_kind_of(kind), blob.file);
  if (path != path_ || !fd_) {
    forget();
    fd_ = UniqueFd(::openat(directory_, path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT));
    if (!fd_ && errno == EINVAL) {
      fd_ = UniqueFd(::openat(directory_, path.c_str(), O_RDONLY | O_CLOEXEC));
    }
    if (!fd_) {
      if (errno == ENOENT) {
        return Damage{Finding::Kind::kMissing, path, blob.offset, "the file is missing"};
      }
      return Damage{Finding::Kind::kIo, path, blob.offset,
                    fail_errno(errno, "open").error().detail};
    }
    path_ = std::move(path);
  }
  struct stat info{};
  if (::fstat(fd_.get(), &info) != 0) {
    return Damage{Finding::Kind::kIo, path_, blob.offset, fail_errno(errno, "stat").error().detail};
  }
  file_bytes_ = static_cast<uint64_t>(info.st_size);
  const uint64_t table_bytes = chunk_table_bytes(blob.length);
  const uint64_t bytes =
      table_bytes > 0 ? chunk_table_offset(kind, blob.length) + table_bytes : blob.length;
  if (blob.offset > file_bytes_ || bytes > file_bytes_ - blob.offset) {
    return Damage{Finding::Kind::kBlob, path_, blob.offset, "the file ends before the blob does"};
  }
  return std::nullopt;
}

std::optional<BlobVerifier::Damage> BlobVerifier::look(const BlobRef& blob) { return open(blob); }

Result<Bytes> BlobVerifier::read(uint64_t offset, size_t length, uint64_t read_until) {
  if (offset < window_start_ || offset + length > window_start_ + window_bytes_) {
    const uint64_t begin = offset / kBlockBytes * kBlockBytes;
    const uint64_t wanted = std::max<uint64_t>(offset + length, read_until);
    const size_t bytes =
        std::min<uint64_t>(round_up(wanted - begin, kBlockBytes), uint64_t{kWindowBytes});
    window_bytes_ = 0;
    if (pace_) BASALT_CHECK_OK(pace_(bytes));
    BASALT_TRY(got, read_at(fd_.get(), {window_.get(), bytes}, begin));
    bytes_read_ += got;
    window_start_ = begin;
    window_bytes_ = got;
  }
  const size_t begin = offset - window_start_;
  if (begin >= window_bytes_) return Bytes();
  return Bytes(window_.get() + begin, std::min(length, window_bytes_ - begin));
}

Result<std::optional<BlobVerifier::Damage>> BlobVerifier::verify(const BlobRef& blob,
                                                                 uint64_t read_until) {
  if (auto damage = open(blob)) return damage;
  const auto kind = static_cast<BlobKind>(blob.kind);
  const auto damage = [&](uint64_t offset, std::string what,
                          Finding::Kind of = Finding::Kind::kBlob) {
    return std::optional<Damage>(Damage{of, path_, offset, std::move(what)});
  };
  // An error of the device at one place: the blob is damaged there. The pace's stops everything.
  std::optional<Damage> failed;
  bool cancelled = false;
  const auto bytes_at = [&](uint64_t offset, size_t length, uint64_t until) -> Bytes {
    auto bytes = read(offset, length, until);
    if (!bytes) {
      cancelled = bytes.error().code == Code::kCancelled;
      failed = damage(offset, bytes.error().detail, Finding::Kind::kIo);
      return {};
    }
    if (bytes->size() < length) failed = damage(offset, "the file ends before the blob does");
    return *bytes;
  };
  const auto give_up = [&]() -> Result<std::optional<Damage>> {
    if (cancelled) return fail(Code::kCancelled);
    return failed;
  };

  const uint64_t chunks = chunk_count(blob.length);
  if (chunks > 1) {
    const uint64_t table_bytes = chunk_table_bytes(blob.length);
    const uint64_t table_offset = blob.offset + chunk_table_offset(kind, blob.length);
    table_.resize(chunks);
    auto* table = reinterpret_cast<uint8_t*>(table_.data());
    for (uint64_t done = 0; done < table_bytes;) {
      const size_t count = std::min<uint64_t>(kPieceBytes, table_bytes - done);
      const Bytes bytes = bytes_at(table_offset + done, count, 0);
      if (failed) return give_up();
      std::memcpy(table + done, bytes.data(), count);
      done += count;
    }
    if (!crc_matches(blob.root, crc32c({table, table_bytes}, blob.generation))) {
      return damage(table_offset, "checksum of the chunk table");
    }
  }
  for (uint64_t chunk = 0; chunk < chunks; chunk += kChunksAtOnce) {
    const uint64_t start = chunk * kBlobChunkBytes;
    const uint64_t end = std::min(blob.length, (chunk + kChunksAtOnce) * kBlobChunkBytes);
    const Bytes bytes =
        bytes_at(blob.offset + start, end - start, end == blob.length ? read_until : 0);
    if (failed) return give_up();
    for (uint64_t at = start; at < end; at += kBlobChunkBytes) {
      const size_t length = std::min<uint64_t>(kBlobChunkBytes, end - at);
      const uint32_t crc = crc32c(bytes.subspan(at - start, length), blob.generation);
      if (!crc_matches(chunks > 1 ? table_[at / kBlobChunkBytes] : blob.root, crc)) {
        return damage(blob.offset + at, "checksum of the data");
      }
    }
  }
  return std::optional<Damage>();
}

}  // namespace basalt::storage
