#include "storage/blob_reader.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "storage/seeded_bugs.h"
#include "storage/segment_format.h"

namespace basalt::storage {
namespace {

constexpr size_t kFreeReadsMax = 64;
// Of recent_misses_: from here on small reads ask first; it takes a few misses in a row to get
// there, and as many hits as this allows to get back.
constexpr unsigned kAskFirst = 2 * kReadsPerMiss;
constexpr unsigned kRecentMissesMax = 4 * kReadsPerMiss;

uint64_t round_down(uint64_t offset) { return offset / kBlockBytes * kBlockBytes; }

FileKind file_kind(BlobKind kind) {
  if (kind == BlobKind::kLog) return FileKind::kLog;
  return kind == BlobKind::kBulk ? FileKind::kBulk : FileKind::kOwn;
}

bool is_stored(const BlobRef& blob) {
  auto kind = static_cast<BlobKind>(blob.kind);
  return (kind == BlobKind::kLog || kind == BlobKind::kBulk || kind == BlobKind::kFile) &&
         blob.length > 0 && blob.length <= kBlobBytesMax &&
         (kind != BlobKind::kLog || blob.length <= kInlineBodyBytesMax);
}

}  // namespace

size_t BlobReader::RefHash::operator()(const BlobRef& ref) const {
  return (ref.offset ^ (uint64_t{ref.file} << 40) ^ ref.generation) * 0x9E3779B97F4A7C15ull;
}

BlobReader::BlobReader(LocalFiles& files, Io& io, RunQueue& run_queue, BufferPool& buffers,
                       EngineStats& stats)
    : files_(files),
      io_(io),
      run_queue_(run_queue),
      buffers_(buffers),
      stats_(stats),
      recent_misses_(kAskFirst) {}

BlobReader::~BlobReader() { BASALT_CHECK(in_flight_ == 0); }

Result<BlobReader::OpenFile*> BlobReader::open_file(const BlobRef& blob) {
  if (!closing_.empty()) close_evicted();
  if (auto found = open_by_number_.find(blob.file); found != open_by_number_.end()) {
    open_.splice(open_.begin(), open_, found->second);
    return &open_.front();
  }
  std::string path = LocalFiles::path_of(file_kind(static_cast<BlobKind>(blob.kind)), blob.file);
  Disk& disk = files_.disk();
  UniqueFd fd(disk, disk.open(files_.directory_fd(), path.c_str(), O_RDONLY));
  if (!fd) {
    if (fd.get() == -ENOENT) return std::unexpected(corrupt(blob, 0, "the file is missing"));
    return fail_open(-fd.get(), path);
  }
  // Readers ask for what they need in pieces of up to 1 MiB; read-ahead would only fill the cache
  // with neighbours, and with bytes that nobody has checked (see VerifiedChunks).
  disk.advise(fd.get(), POSIX_FADV_RANDOM);
  if (open_.size() >= kReadFdsMax) {
    for (auto it = std::prev(open_.end());; --it) {
      if (it->users == 0) {
        // A FileRange may still be in use by a reader: closed when the guards of now are gone.
        closing_.push_back({std::move(it->fd), files_.guards().advance()});
        open_by_number_.erase(it->number);
        open_.erase(it);
        break;
      }
      if (it == open_.begin()) break;
    }
  }
  open_.emplace_front();
  open_.front().number = blob.file;
  open_.front().fd = std::move(fd);
  open_by_number_[blob.file] = open_.begin();
  return &open_.front();
}

void BlobReader::close_evicted() {
  std::erase_if(closing_, [this](const Closing& one) { return files_.guards().passed(one.stamp); });
}

std::unique_ptr<BlobReader::Read> BlobReader::take_read() {
  if (free_reads_.empty()) return std::make_unique<Read>();
  std::unique_ptr<Read> read = std::move(free_reads_.back());
  free_reads_.pop_back();
  return read;
}

void BlobReader::read(ReadBlob& request) {
  const BlobRef& blob = request.blob;
  auto refuse = [&](Error error) {
    request.result = std::unexpected(std::move(error));
    run_queue_.post(request);
  };
  if (!is_stored(blob) || request.length == 0 || request.length > kBlobReadBytesMax ||
      request.offset >= blob.length || request.length > blob.length - request.offset) {
    return refuse({Code::kInvalid, "range of a blob"});
  }
  auto kind = static_cast<BlobKind>(blob.kind);
  auto file = open_file(blob);
  if (!file) return refuse(file.error());

  std::unique_ptr<Read> owned = take_read();
  Read& read = *owned;
  read.request = &request;
  read.file = *file;
  read.table = nullptr;
  read.table_behind_data = false;
  read.first_chunk = request.offset / kBlobChunkBytes;
  read.last_chunk = (request.offset + request.length - 1) / kBlobChunkBytes;
  uint64_t begin = read.first_chunk * kBlobChunkBytes;
  uint64_t end = std::min((read.last_chunk + 1) * kBlobChunkBytes, blob.length);
  uint64_t table_bytes = chunk_table_bytes(blob.length);
  if (table_bytes > 0) read.table = cached_table(blob);
  bool need_table = table_bytes > 0 && read.table == nullptr;
  if (need_table && kind == BlobKind::kLog) {
    // At most two chunks and eight bytes, next to each other.
    read.table_behind_data = true;
    read.first_chunk = 0;
    read.last_chunk = chunk_count(blob.length) - 1;
    begin = 0;
    end = chunk_table_offset(kind, blob.length) + table_bytes;
    need_table = false;
  }
  read.way = choose_way(*read.file, blob, begin, end - begin);
  const uint64_t data_offset = blob.offset + begin;
  const uint64_t table_offset = blob.offset + chunk_table_offset(kind, blob.length);
  // What is read past the page cache is whole blocks.
  const auto take = [&](uint64_t offset, uint64_t length) {
    if (read.way != Way::kDirect) return buffers_.take(length);
    return buffers_.take(round_up(offset + length, kBlockBytes) - round_down(offset));
  };
  read.data = take(data_offset, end - begin);
  if (need_table) read.table_buffer = take(table_offset, table_bytes);
  if (!read.data || (need_table && !read.table_buffer) ||
      files_.platform().happens(Chaos::Point::kNoBuffer)) {
    read.data.release();
    read.table_buffer.release();
    if (free_reads_.size() < kFreeReadsMax) free_reads_.push_back(std::move(owned));
    return refuse({Code::kBusy, "no buffer for a read"});
  }
  owned.release();  // comes back in answer()
  ++read.file->users;
  ++in_flight_;
  read.stamp = files_.verified().stamp(blob, read.first_chunk, read.last_chunk);
  read.pending =
      1;  // held while starting, so that an operation that ends at once does not finish the read
  start(read, read.data_op, read.data, static_cast<uint32_t>(end - begin), data_offset);
  read.chunks = read.data.data() + read.data_op.skip;
  if (need_table) {
    start(read, read.table_op, read.table_buffer, static_cast<uint32_t>(table_bytes), table_offset);
  }
  if (--read.pending == 0) finish(read);
}

BlobReader::Way BlobReader::choose_way(OpenFile& file, const BlobRef& blob, uint64_t begin,
                                       uint64_t length) {
  const bool small = blob.length < kFileRangeBytesMin;
  if (!residency_known_ || (small && recent_misses_ < kAskFirst)) return Way::kTry;
  // Of large blobs it is asked always, also for a small piece: whoever may be sending these bytes
  // as a part of the file must be told before they are read anew, and the attempt could do that.
  const uint64_t offset = blob.offset + begin;
  if (is_resident(file.fd.get(), offset, length)) return Way::kTry;
  if (!residency_known_) return Way::kTry;
  if (small) count_miss();
  const uint64_t blocks = round_up(offset + length, kBlockBytes) - round_down(offset);
  if (blocks > BufferPool::kSizes.back() || !open_direct(file, blob)) return Way::kCache;
  return cold_reads_.again(blob, begin) ? Way::kCache : Way::kDirect;
}

void BlobReader::count_miss() {
  recent_misses_ = std::min(recent_misses_ + kReadsPerMiss, kRecentMissesMax);
}

bool BlobReader::open_direct(OpenFile& file, const BlobRef& blob) {
  if (file.direct_refused || !files_.direct_io()) return false;
  if (file.direct) return true;
  const std::string path =
      LocalFiles::path_of(file_kind(static_cast<BlobKind>(blob.kind)), blob.file);
  Disk& disk = files_.disk();
  file.direct = UniqueFd(disk, disk.open(files_.directory_fd(), path.c_str(), O_RDONLY | O_DIRECT));
  file.direct_refused = !file.direct;
  return !file.direct_refused;
}

void BlobReader::start(Read& read, Op& op, Buffer& buffer, uint32_t length, uint64_t offset) {
  op.fn = &BlobReader::op_ended;
  op.reader = this;
  op.read = &read;
  op.kind = IoOp::Kind::kRead;
  op.fd = read.file->fd.get();
  op.data = buffer.data();
  op.offset = offset;
  op.result = op.length = op.wanted = length;
  op.skip = 0;
  switch (read.way) {
    case Way::kTry: {
      const bool small = read.request->blob.length < kFileRangeBytesMin;
      Disk& disk = files_.disk();
      if (disk.read_resident(read.file->fd.get(), {op.data, length}, offset) == int64_t{length}) {
        if (small && recent_misses_ > 0) --recent_misses_;
        return;
      }
      // A partial answer is thrown away, it is rare. The attempt started the disk but did not wait
      // for it; of small reads, which are never sent as a part of the file, the neighbours in the
      // log are told right behind it.
      if (small) count_miss();
      start_cached(read, op);
      break;
    }
    case Way::kCache:
      start_cached(read, op);
      break;
    case Way::kDirect:
      op.skip = static_cast<uint32_t>(offset % kBlockBytes);
      op.wanted = op.skip + length;
      op.offset = offset - op.skip;
      op.length = static_cast<uint32_t>(round_up(op.wanted, kBlockBytes));
      op.fd = read.file->direct.get();
      break;
  }
  ++read.pending;
  io_.submit(op);
}

// Pages come with this read: they are not checked yet.
void BlobReader::start_cached(Read& read, Op& op) {
  VerifiedChunks& verified = files_.verified();
  verified.cold_read(read.request->blob, read.first_chunk, read.last_chunk);
  read.stamp = verified.stamp(read.request->blob, read.first_chunk, read.last_chunk);
  op.fd = read.file->fd.get();
}

bool BlobReader::retry_cached(Op& op) {
  Read& read = *op.read;
  if (read.way != Way::kDirect || op.fd != read.file->direct.get()) return false;
  if (op.result != -EINVAL && (op.result < 0 || op.result >= int64_t{op.wanted})) return false;
  // A result that is too short is left to the page cache, too: the file may end within a block.
  if (op.result == -EINVAL) read.file->direct_refused = true;
  start_cached(read, op);
  op.data += op.skip;
  op.offset += op.skip;
  op.length = op.wanted = op.wanted - op.skip;
  io_.submit(op);
  return true;
}

void BlobReader::op_ended(Completion& completion) {
  auto& op = static_cast<Op&>(completion);
  if (op.reader->retry_cached(op)) return;
  if (--op.read->pending == 0) op.reader->finish(*op.read);
}

void BlobReader::finish(Read& read) { answer(read, verify(read)); }

Error BlobReader::corrupt(const BlobRef& blob, uint64_t offset, const char* what) {
  stats_.corrupt_reads.fetch_add(1, std::memory_order_relaxed);
  std::string path = LocalFiles::path_of(file_kind(static_cast<BlobKind>(blob.kind)), blob.file);
  log_error("stored bytes are damaged", {{"file", path},
                                         {"offset", offset},
                                         {"blob_offset", blob.offset},
                                         {"blob_length", blob.length},
                                         {"reason", what}});
  return {Code::kCorrupt, fmt::format("{} at {}: {}", path, offset, what)};
}

Status BlobReader::verify(Read& read) {
  const BlobRef& blob = read.request->blob;
  for (const Op* op : {&read.data_op, &read.table_op}) {
    if (op == &read.table_op && !read.table_buffer) continue;
    if (op->result < 0) {
      stats_.io_errors.fetch_add(1, std::memory_order_relaxed);
      return fail_errno(static_cast<int>(-op->result),
                        fmt::format("read of file {:08x} at {}", blob.file, op->offset));
    }
    if (op->result < static_cast<int64_t>(op->wanted)) {
      return std::unexpected(corrupt(blob, blob.offset, "the file ends before the blob does"));
    }
  }
  uint64_t begin = read.first_chunk * kBlobChunkBytes;
  uint64_t chunks = chunk_count(blob.length);
  if (chunks > 1 && read.table == nullptr) {
    Bytes bytes =
        read.table_behind_data
            ? Bytes(read.chunks + chunk_table_offset(BlobKind::kLog, blob.length), chunks * 4)
            : Bytes(read.table_buffer.data() + read.table_op.skip, chunks * 4);
    if (!crc_matches(blob.root, crc32c(bytes, blob.generation))) {
      return std::unexpected(
          corrupt(blob, blob.offset + blob.length, "checksum of the chunk table"));
    }
    auto table = std::make_shared<Table>(chunks);
    std::memcpy(table->data(), bytes.data(), bytes.size());
    read.table = table;
    if (!read.table_behind_data) cache_table(blob, read.table);
  }
  for (uint64_t chunk = read.first_chunk; chunk <= read.last_chunk; ++chunk) {
    uint64_t start = chunk * kBlobChunkBytes;
    size_t length = std::min<uint64_t>(kBlobChunkBytes, blob.length - start);
    uint32_t crc = crc32c(Bytes(read.chunks + (start - begin), length), blob.generation);
    if (!crc_matches(chunks > 1 ? (*read.table)[chunk] : blob.root, crc)) {
      return std::unexpected(corrupt(blob, blob.offset + start, "checksum of the data"));
    }
  }
  // What came past the page cache says nothing about what is in it.
  if (blob.length >= kFileRangeBytesMin && read.data_op.fd != read.file->direct.get()) {
    files_.verified().set(blob, read.first_chunk, read.last_chunk, read.stamp);
  }
  return {};
}

void BlobReader::answer(Read& read, Status status) {
  ReadBlob& request = *read.request;
  if (status) {
    uint64_t begin = read.first_chunk * kBlobChunkBytes;
    Bytes data(read.chunks + (request.offset - begin), request.length);
    request.result = BlobSlice{std::move(read.data), data};
    stats_.blob_reads.fetch_add(1, std::memory_order_relaxed);
    stats_.blob_read_bytes.fetch_add(request.length, std::memory_order_relaxed);
  } else {
    request.result = std::unexpected(status.error());
  }
  read.data.release();
  read.table_buffer.release();
  read.table = nullptr;
  --read.file->users;
  --in_flight_;
  std::unique_ptr<Read> owned(&read);
  if (free_reads_.size() < kFreeReadsMax) free_reads_.push_back(std::move(owned));
  run_queue_.post(request);
}

std::shared_ptr<const BlobReader::Table> BlobReader::cached_table(const BlobRef& blob) {
  auto found = tables_by_ref_.find(blob);
  if (found == tables_by_ref_.end()) return nullptr;
  tables_.splice(tables_.begin(), tables_, found->second);
  return tables_.front().table;
}

void BlobReader::cache_table(const BlobRef& blob, std::shared_ptr<const Table> table) {
  if (tables_by_ref_.contains(blob)) return;
  table_bytes_ += table->size() * 4;
  tables_.push_front({blob, std::move(table)});
  tables_by_ref_[blob] = tables_.begin();
  while (table_bytes_ > kTableCacheBytesMax && tables_.size() > 1) {
    table_bytes_ -= tables_.back().table->size() * 4;
    tables_by_ref_.erase(tables_.back().ref);
    tables_.pop_back();
  }
}

// False also where the kernel cannot tell.
bool BlobReader::is_resident(int fd, uint64_t offset, uint64_t length) {
  if (!residency_known_) return false;
  const int64_t cached = files_.disk().resident_pages(fd, offset, length);
  if (cached == -ENOSYS || cached == -EPERM) residency_known_ = false;
  const uint64_t pages = (offset + length - 1) / kBlockBytes - offset / kBlockBytes + 1;
  return cached >= static_cast<int64_t>(pages);
}

std::optional<FileRange> BlobReader::file_range(const BlobRef& blob, uint64_t offset,
                                                uint64_t length) {
  if (!residency_known_ || !is_stored(blob) || blob.length < kFileRangeBytesMin ||
      length < kFileRangeBytesMin || length > kFileRangeBytesMax)
    return std::nullopt;
  if (offset >= blob.length || length > blob.length - offset) return std::nullopt;
  // Without O_DIRECT a file that is used again is written to in the page cache, where a socket may
  // still refer to what it was.
  if (!files_.direct_io()) return std::nullopt;
  const uint64_t first = offset / kBlobChunkBytes;
  const uint64_t last = (offset + length - 1) / kBlobChunkBytes;
  if (!files_.verified().is_set(blob, first, last)) return std::nullopt;
  auto file = open_file(blob);
  if (!file) return std::nullopt;
  int fd = (*file)->fd.get();
  const uint64_t begin = blob.offset + offset;
  if (!is_resident(fd, begin, length)) return std::nullopt;
  FileRange range{blob, offset, fd, begin, length, {}, {}};
  if (const uint64_t lead = round_up(begin, kBlockBytes) - begin; lead != 0) {
    range.memory = buffers_.take(lead);
    if (!range.memory) return std::nullopt;
    const MutableBytes copy(range.memory.data(), lead);
    if (files_.disk().read_resident(fd, copy, begin) != static_cast<int64_t>(lead))
      return std::nullopt;
    range.lead = copy;
    range.offset += lead;
    range.length -= lead;
  }
  // Once more: these pages may have come just now with somebody's read, which is not checked yet.
  if (!files_.verified().is_set(blob, first, last)) return std::nullopt;
  return range;
}

bool BlobReader::still_there(const FileRange& range, uint64_t offset, uint64_t length) {
  if (!is_resident(range.fd, offset, length)) return false;
  const uint64_t first = range.blob_offset / kBlobChunkBytes;
  const uint64_t last = (range.blob_offset + range.size() - 1) / kBlobChunkBytes;
  return files_.verified().is_set(range.blob, first, last);
}

}  // namespace basalt::storage
