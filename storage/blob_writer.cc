#include "storage/blob_writer.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/crc32c.h"
#include "storage/seeded_bugs.h"
#include "storage/segment_format.h"

namespace basalt::storage {
namespace {

// EFBIG: a file size limit (RLIMIT_FSIZE, or the file system's) is the same to the caller as a full
// disk.
bool is_space_error(int error) { return error == ENOSPC || error == EDQUOT || error == EFBIG; }

}  // namespace

BlobWriteState::BlobWriteState(BlobPlaces& places, LocalFiles& files, Io& io, RunQueue& run_queue,
                               BufferPool& buffers, EngineStats& stats, BlobKind kind,
                               uint64_t size, bool paced, Buffer first)
    : places_(places),
      files_(files),
      io_(io),
      run_queue_(run_queue),
      buffers_(buffers),
      stats_(stats),
      kind_(kind),
      size_(size),
      paced_(paced),
      ticket_(known() ? stored_bytes(size) : kWriteBufferBytes, first.size()),
      spare_(std::move(first)) {
  if (known()) chunks_.reserve(chunk_count(size_));
}

MutableBytes BlobWriteState::room() {
  if (error_ || sealing_ || over_) return {};
  uint64_t left = bytes_left();
  if (left == 0) return {};
  if (!current_) {
    size_t wanted = std::min<uint64_t>(left, kWriteBufferBytes);
    if (spare_) {
      current_ = std::move(spare_);
    } else if (!paced_ &&
               bytes_held_ + round_up(wanted, kBlockBytes) <= kBlobWriteBytesInFlightMax) {
      // An empty pool only means fewer buffers: a writer keeps its first one until it ends.
      current_ = buffers_.take(round_up(wanted, kBlockBytes));
    }
    if (!current_) return {};
    // Whole chunks but for the blob's last piece.
    current_capacity_ =
        current_.size() >= wanted ? wanted : current_.size() / kBlobChunkBytes * kBlobChunkBytes;
    BASALT_CHECK(current_capacity_ > 0);
    bytes_held_ += current_.size();
    filled_ = 0;
  }
  return current_.bytes().subspan(filled_, current_capacity_ - filled_);
}

void BlobWriteState::advance(size_t bytes) {
  if (bytes == 0 || error_) return;
  BASALT_CHECK(current_ && filled_ + bytes <= current_capacity_);
  filled_ += bytes;
  length_ += bytes;
  // The bytes have just come and are in the processor's caches; a megabyte later they are not. The
  // seed is the place's, so without one they wait for pump().
  if (const uint64_t begin = length_ - filled_; placed_ && checked_ >= begin) {
    add_checksums(current_.bytes().first(filled_).subspan(checked_ - begin));
  }
  if (filled_ == current_capacity_) {
    queued_.push_back({std::move(current_), filled_, length_});
    pump();
  }
}

void BlobWriteState::keep_from(uint64_t position) {
  keep_from_ = position;
  for (size_t i = 0; i < kept_.size();) {
    if (kept_[i].end > position) {
      ++i;
      continue;
    }
    Piece piece = std::move(kept_[i]);
    kept_.erase(kept_.begin() + static_cast<ptrdiff_t>(i));
    free_buffer(std::move(piece.buffer));
  }
  if (sealing_) pump();  // a chunk table may wait for a buffer
  answer_waiting();
}

// The disk has the buffer's bytes, or will never have them.
void BlobWriteState::done_with(Buffer buffer, uint64_t end) {
  if (end > keep_from_ && !over_) {
    kept_.push_back({std::move(buffer), 0, end});
  } else {
    free_buffer(std::move(buffer));
  }
}

void BlobWriteState::free_buffer(Buffer buffer) {
  bytes_held_ -= buffer.size();
  if (!spare_ && !over_) spare_ = std::move(buffer);
}

void BlobWriteState::wait(WriterReady& ready) {
  BASALT_CHECK(ready_ == nullptr);
  ready_ = &ready;
  if (!known() && !error_ && bytes_left() == 0) return fail_with({Code::kTooLarge, "blob"});
  answer_waiting();
}

void BlobWriteState::seal(SealBlob& seal) {
  BASALT_CHECK(!sealing_);
  sealing_ = true;
  seal_ = &seal;
  if (!error_ && (length_ == 0 || (known() && length_ != size_))) {
    fail_with({Code::kInvalid, fmt::format("blob of {} bytes sealed after {}", size_, length_)});
  }
  if (error_) return answer_waiting();
  if (current_) {
    queued_.push_back({std::move(current_), filled_, length_});
    filled_ = 0;
  }
  pump();
}

void BlobWriteState::try_place() {
  if (placed_ || error_ || over_) return;
  if (paced_ && files_.healthy()) {
    switch (files_.take_room(ticket_)) {
      case Room::kYes:
        paced_ = false;
        answer_waiting();
        break;
      case Room::kWait:
        return;
      case Room::kNone:
        return fail_with({Code::kNoSpace, "the disk is full: below the low-water mark"});
      case Room::kCrowd:
        return fail_with({Code::kBusy, "too many writes wait for space"});
      case Room::kEnded:
        return fail_with({Code::kBusy, "the server stops"});
    }
  }
  auto found = places_.find_place(kind_, known() ? stored_bytes(size_) : 0);
  if (!found) return fail_with(found.error());
  if (!*found) return;
  place_ = std::move(**found);
  placed_ = true;
  if (kind_ == BlobKind::kFile && known()) {
    // One extent instead of many, and a full disk shows before the data is written.
    Op& op = take_op();
    op.kind = IoOp::Kind::kAllocate;
    op.offset = stored_bytes(size_);
    return submit(op);
  }
  ready_to_write_ = true;
  pump();
}

// The next bytes of the blob.
void BlobWriteState::add_checksums(Bytes data) {
  while (!data.empty()) {
    const size_t have = checked_ % kBlobChunkBytes;
    const size_t count = std::min(kBlobChunkBytes - have, data.size());
    chunk_crc_ = crc32c(data.first(count), have == 0 ? place_.generation : chunk_crc_);
    checked_ += count;
    data = data.subspan(count);
    if (have + count == kBlobChunkBytes) chunks_.push_back(chunk_crc_);
  }
}

// Sends what can be sent: full buffers, then (sealing) the table, then the fdatasync.
void BlobWriteState::pump() {
  if (error_ || over_ || !ready_to_write_) return;
  while (!queued_.empty()) {
    Piece piece = std::move(queued_.front());
    queued_.pop_front();
    uint8_t* data = piece.buffer.data();
    // What came before the place was found.
    const uint64_t begin = piece.end - piece.bytes;
    if (checked_ < piece.end) add_checksums(Bytes(data, piece.bytes).subspan(checked_ - begin));
    // The blob's last piece is the only one that may end within a chunk.
    if (piece.end % kBlobChunkBytes != 0) chunks_.push_back(chunk_crc_);
    // Only the last piece is not made of whole blocks; zeros fill its last one.
    size_t padded = round_up(piece.bytes, kBlockBytes);
    std::memset(data + piece.bytes, 0, padded - piece.bytes);
    uint64_t offset = place_.offset + written_;
    written_ += padded;
    write(std::move(piece), offset, padded);
  }
  if (!sealing_) return;
  if (chunks_.size() > 1) {
    write_table();
    if (error_ || table_written_ < round_up(chunks_.size() * 4, kBlockBytes)) return;
  } else {
    root_ = chunks_.front();
  }
  if (in_flight_ > 0 || syncing_) return;
  syncing_ = true;
  Op& op = take_op();
  op.kind = IoOp::Kind::kDataSync;
  if constexpr (seeded::kBulkNotSynced) {
    op.fn = &BlobWriteState::op_ended;
    op.state = this;
    op.result = 0;
    ++in_flight_;
    return run_queue_.post(op);
  }
  if (kind_ == BlobKind::kBulk) {
    op.fn = &BlobWriteState::op_ended;
    op.state = this;
    ++in_flight_;
    return places_.flush(place_, op);
  }
  stats_.device_flushes.fetch_add(1, std::memory_order_relaxed);
  submit(op);
}

void BlobWriteState::write_table() {
  Bytes table(reinterpret_cast<const uint8_t*>(chunks_.data()), chunks_.size() * 4);
  if (table_written_ == 0) root_ = crc32c(table, place_.generation);
  uint64_t total = round_up(table.size(), kBlockBytes);
  while (table_written_ < total) {
    Buffer buffer = std::move(spare_);
    if (!buffer)
      buffer = buffers_.take(std::min<uint64_t>(total - table_written_, kWriteBufferBytes));
    if (!buffer) {
      // One of our own writes that is under way brings one back. Without one nobody may: the caller
      // waits for the seal, and keeps the body's buffers until then.
      if (in_flight_ > 0) return;
      buffer = buffers_.take_beyond_limit(kBlockBytes);
      if (!buffer) return fail_with({Code::kBusy, "no memory for a chunk table"});
    }
    size_t bytes =
        std::min<uint64_t>(total - table_written_, buffer.size() / kBlockBytes * kBlockBytes);
    size_t here =
        table_written_ < table.size() ? std::min<size_t>(bytes, table.size() - table_written_) : 0;
    std::memcpy(buffer.data(), table.data() + table_written_, here);
    std::memset(buffer.data() + here, 0, bytes - here);
    uint64_t offset = place_.offset + round_up(length_, kBlockBytes) + table_written_;
    table_written_ += bytes;
    bytes_held_ += buffer.size();
    write({std::move(buffer), bytes}, offset, bytes);
  }
}

void BlobWriteState::write(Piece piece, uint64_t offset, size_t bytes) {
  Op& op = take_op();
  op.kind = IoOp::Kind::kWrite;
  op.buffer = std::move(piece.buffer);
  op.end = piece.end;
  op.data = op.buffer.data();
  op.length = static_cast<uint32_t>(bytes);
  op.offset = offset;
  stats_.blob_write_bytes.fetch_add(bytes, std::memory_order_relaxed);
  submit(op);
}

BlobWriteState::Op& BlobWriteState::take_op() {
  if (free_ops_.empty()) {
    ops_.push_back(std::make_unique<Op>());
    free_ops_.push_back(ops_.back().get());
  }
  Op& op = *free_ops_.back();
  free_ops_.pop_back();
  return op;
}

void BlobWriteState::submit(Op& op) {
  op.fn = &BlobWriteState::op_ended;
  op.state = this;
  op.fd = place_.fd;
  ++in_flight_;
  io_.submit(op);
}

void BlobWriteState::op_ended(Completion& completion) {
  auto& op = static_cast<Op&>(completion);
  op.state->ended(op);
}

void BlobWriteState::ended(Op& op) {
  --in_flight_;
  free_ops_.push_back(&op);
  if (op.buffer) done_with(std::move(op.buffer), op.end);
  bool good =
      op.kind == IoOp::Kind::kWrite ? op.result == static_cast<int64_t>(op.length) : op.result >= 0;
  // A file system without fallocate writes all the same.
  if (op.kind == IoOp::Kind::kAllocate && op.result == -EOPNOTSUPP) good = true;
  if (op.kind == IoOp::Kind::kDataSync && good && !files_.healthy()) {
    // Of a failed write of the same file the kernel may have told another writer, and only that
    // one.
    fail_with({Code::kReadOnly, files_.health_text()});
  } else if (!good) {
    int error = op.result < 0 ? static_cast<int>(-op.result) : EIO;
    std::string text =
        fmt::format("write of {} at {}: {}",
                    LocalFiles::path_of(kind_ == BlobKind::kBulk ? FileKind::kBulk : FileKind::kOwn,
                                        place_.file),
                    op.offset, std::strerror(error));
    // A flush that fails for want of space has lost bytes of whoever wrote to the file, and its
    // next flush would not say so.
    if (is_space_error(error) && op.kind != IoOp::Kind::kDataSync) {
      fail_with({Code::kNoSpace, std::move(text)});
    } else {
      stats_.io_errors.fetch_add(1, std::memory_order_relaxed);
      files_.poison(text);
      fail_with({Code::kIo, std::move(text)});
    }
  } else if (op.kind == IoOp::Kind::kAllocate) {
    ready_to_write_ = true;
  } else if (op.kind == IoOp::Kind::kDataSync && !error_) {
    sealed_ = true;
    if (kind_ == BlobKind::kFile) place_.own.fd.reset();
    stats_.blob_writes.fetch_add(1, std::memory_order_relaxed);
    if (seal_ != nullptr) {
      BlobRef ref;
      ref.length = length_;
      ref.offset = place_.offset;
      ref.file = place_.file;
      ref.generation = place_.generation;
      ref.root = root_;
      ref.kind = static_cast<uint8_t>(kind_);
      seal_->result = SealedBlob{ref};
      run_queue_.post(*std::exchange(seal_, nullptr));
    }
  }
  if (over_) {
    if (in_flight_ == 0) release_place();
    return;
  }
  if (!sealed_) pump();
  answer_waiting();
}

void BlobWriteState::fail_with(Error error) {
  if (!error_) error_ = std::move(error);
  // The caller may be filling current_ (a socket is being read into it) or still read what it gave.
  while (!queued_.empty()) {
    Piece piece = std::move(queued_.front());
    queued_.pop_front();
    done_with(std::move(piece.buffer), piece.end);
  }
  answer_waiting();
}

void BlobWriteState::answer_waiting() {
  if (ready_ != nullptr && (error_ || sealing_ || bytes_left() == 0 || !room().empty())) {
    ready_->result = error_ ? Status(std::unexpected(*error_)) : Status();
    run_queue_.post(*std::exchange(ready_, nullptr));
  }
  if (seal_ != nullptr && error_) {
    seal_->result = std::unexpected(*error_);
    run_queue_.post(*std::exchange(seal_, nullptr));
  }
}

void BlobWriteState::drop_handle() {
  BASALT_CHECK(ready_ == nullptr && seal_ == nullptr);  // the caller's memory; see BlobWriter
  handle_gone_ = true;
  give_back();
}

void BlobWriteState::give_back() {
  if (over_) return;
  if (!error_ && !sealed_) error_ = Error{Code::kCancelled, "discarded"};
  answer_waiting();
  over_ = true;
  current_.release();
  spare_.release();
  queued_.clear();
  kept_.clear();
  if (in_flight_ == 0) release_place();
}

void BlobWriteState::recorded() {
  BASALT_CHECK(sealed_);
  give_back();  // nothing is freed: the file has live bytes now
}

void BlobWriteState::release_place() {
  if (!placed_) return;
  placed_ = false;
  places_.give_back(place_);
}

}  // namespace basalt::storage
