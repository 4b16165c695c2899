#include "protocol/s3/object_reader.h"

#include <algorithm>

#include "protocol/s3/failure.h"

namespace basalt::s3 {
namespace {

// Above this much body memory in use on the core, readers take small windows: slow clients must not
// starve the others.
constexpr size_t kPoolBytesCalm = 128u << 20;
// Fits a 256 KiB buffer with its chunk alignment.
constexpr uint32_t kSmallWindowBytes = 3 * storage::kBlobChunkBytes;

storage::BlobKind kind_of(const storage::BlobRef& blob) {
  return static_cast<storage::BlobKind>(blob.kind);
}

}  // namespace

void ObjectReader::Slot::clear() {
  window.reset();
  file.reset();
  read.reset();
  slice = {};
}

ObjectReader::ObjectReader(storage::BlobStore& store, const storage::RecordView& record,
                           const Options& options)
    : store_(store), record_(record), options_(options), remaining_(options.length) {
  uint64_t skip = options.first;
  while (remaining_ != 0) {
    const uint64_t segment_bytes = segment_ == 0 ? record_.body.length
                                   : segment_ <= record_.blobs.size()
                                       ? record_.blobs[segment_ - 1].length
                                       : UINT64_MAX;
    if (skip < segment_bytes) break;
    skip -= segment_bytes;
    ++segment_;
  }
  segment_offset_ = skip;
}

std::optional<ObjectReader::Window> ObjectReader::cut_window() {
  while (remaining_ != 0 && segment_ <= record_.blobs.size()) {
    const bool body = segment_ == 0;
    const storage::BlobRef& blob = body ? record_.body : record_.blobs[segment_ - 1];
    const uint64_t segment_bytes =
        body && kind_of(blob) == storage::BlobKind::kNone ? 0 : blob.length;
    if (segment_offset_ >= segment_bytes) {
      ++segment_;
      segment_offset_ = 0;
      continue;
    }
    // Windows end at chunk boundaries, so that no chunk is read twice.
    const uint64_t aligned_max =
        options_.window_bytes_max - segment_offset_ % storage::kBlobChunkBytes;
    Window window;
    window.length =
        static_cast<uint32_t>(std::min({segment_bytes - segment_offset_, remaining_, aligned_max}));
    window.offset = segment_offset_;
    if (body && kind_of(blob) == storage::BlobKind::kIndex) {
      window.bytes = record_.inline_body.subspan(segment_offset_, window.length);
    } else {
      window.blob = &blob;
    }
    segment_offset_ += window.length;
    remaining_ -= window.length;
    return window;
  }
  return std::nullopt;
}

void ObjectReader::start_read(Slot& slot) {
  slot.read.reset();
  slot.read.emplace([this](storage::ReadBlob& request) { store_.read(request); },
                    *slot.window->blob, slot.window->offset, slot.window->length);
}

bool ObjectReader::prepare(Slot& slot) {
  slot.window = cut_window();
  if (!slot.window) return false;
  if (slot.window->blob == nullptr) return true;
  if (options_.use_files) {
    slot.file = store_.file_range(*slot.window->blob, slot.window->offset, slot.window->length);
    if (slot.file && slot.file->length == slot.window->length) return true;
    slot.file.reset();
  }
  start_read(slot);
  return true;
}

Task<Result<ObjectReader::Piece>> ObjectReader::next() {
  slots_[turn_ ^ 1].clear();
  Slot& slot = slots_[turn_];
  const bool ahead = slot.window.has_value();
  if (!ahead && !prepare(slot)) {
    if (remaining_ != 0)
      co_return fail(Code::kCorrupt, "object content is shorter than its record says");
    co_return Piece{};
  }
  Piece piece;
  if (slot.window->blob == nullptr) {
    piece.data = slot.window->bytes;
  } else if (slot.file) {
    piece.file = slot.file;
  } else {
    auto slice = co_await *slot.read;
    if (!slice && slice.error().code == Code::kBusy && ahead) {
      // The read-ahead found no memory; the window before it has given its own back by now.
      start_read(slot);
      slice = co_await *slot.read;
    }
    if (!slice) co_return std::unexpected(std::move(slice).error());
    slot.slice = std::move(*slice);
    if (slot.slice.data.size() != slot.window->length)
      co_return fail(Code::kCorrupt, "short read of a blob");
    piece.data = slot.slice.data;
  }
  turn_ ^= 1;
  prepare(slots_[turn_]);
  co_return piece;
}

Task<void> ObjectReader::settle() {
  for (Slot& slot : slots_) {
    if (slot.read && !slot.read->await_ready()) (void)co_await *slot.read;
  }
}

Task<S3Result<Reply>> send_content(Op& op, const storage::RecordView& record, uint64_t first,
                                   uint64_t length) {
  session::Exchange& exchange = op.exchange;
  if (length == 0) {
    CO_CHECK(exchange.send(Bytes()));
    co_return Reply::streamed();
  }
  ObjectReader::Options options;
  options.first = first;
  options.length = length;
  if (op.services.buffers.bytes_in_use() > kPoolBytesCalm)
    options.window_bytes_max = kSmallWindowBytes;
  options.use_files = length > storage::kInlineBodyBytesMax && exchange.can_sendfile();
  ObjectReader reader(op.shards().blobs(), record, options);

  auto piece = co_await reader.next();
  if (!piece) {
    co_await reader.settle();
    co_return std::unexpected(std::move(piece).error());
  }
  if (!piece->file && piece->data.size() == length) {
    Status sent = co_await exchange.send(piece->data);
    co_await reader.settle();
    if (!sent) co_return std::unexpected(std::move(sent).error());
    co_return Reply::streamed();
  }

  Status status = co_await exchange.begin(length);
  while (status && piece->size() != 0) {
    if (piece->file) {
      status =
          co_await exchange.sendfile(piece->file->fd, piece->file->offset, piece->file->length);
    } else {
      status = co_await exchange.write(piece->data);
    }
    if (!status) break;
    piece = co_await reader.next();
    if (!piece) {
      status = std::unexpected(std::move(piece).error());
      break;
    }
  }
  if (!status) {
    co_await reader.settle();
    S3Error error(std::move(status).error());
    error.close = true;
    co_return std::unexpected(std::move(error));
  }
  CO_CHECK(exchange.end());
  co_return Reply::streamed();
}

}  // namespace basalt::s3
