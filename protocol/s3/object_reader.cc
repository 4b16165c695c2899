#include "protocol/s3/object_reader.h"

#include <algorithm>

#include "protocol/s3/failure.h"

namespace basalt::s3 {
namespace {

// Longest range that is handed out as a part of a file: the slice of one sendfile.
constexpr uint64_t kFileWindowBytes = 1u << 20;

// Asks the store about a part of a file whose sending had to wait for the client.
class RangeCheck final : public reactor::FileCheck {
 public:
  RangeCheck(storage::BlobStore& store, const storage::FileRange& range)
      : store_(store), range_(range) {}
  bool still_there(uint64_t offset, uint64_t length) override {
    return store_.still_there(range_, offset, length);
  }

 private:
  storage::BlobStore& store_;
  const storage::FileRange& range_;
};

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

// The window where the reader stands, of at most `bytes_max`; nothing at the end.
std::optional<ObjectReader::Window> ObjectReader::window_here(uint64_t bytes_max) {
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
    const uint64_t aligned_max = bytes_max - segment_offset_ % storage::kBlobChunkBytes;
    Window window;
    window.length =
        static_cast<uint32_t>(std::min({segment_bytes - segment_offset_, remaining_, aligned_max}));
    window.offset = segment_offset_;
    if (body && kind_of(blob) == storage::BlobKind::kIndex) {
      window.bytes = record_.inline_body.subspan(segment_offset_, window.length);
    } else {
      window.blob = &blob;
    }
    return window;
  }
  return std::nullopt;
}

void ObjectReader::pass(const Window& window) {
  segment_offset_ += window.length;
  remaining_ -= window.length;
}

void ObjectReader::start_read(Slot& slot) {
  slot.read.reset();
  slot.read.emplace([this](storage::ReadBlob& request) { store_.read(request); },
                    *slot.window->blob, slot.window->offset, slot.window->length);
}

bool ObjectReader::prepare(Slot& slot) {
  if (options_.use_files) {
    const auto window = window_here(kFileWindowBytes);
    if (window && window->blob != nullptr) {
      slot.file = store_.file_range(*window->blob, window->offset, window->length);
      if (slot.file) {
        slot.window = window;
        pass(*window);
        return true;
      }
    }
  }
  slot.window = window_here(options_.window_bytes_max);
  if (!slot.window) return false;
  pass(*slot.window);
  if (slot.window->blob != nullptr) start_read(slot);
  return true;
}

// Not behind a part of a file: that is sent without being read, and what follows it is asked for
// when it is its turn, because it may be resident too.
void ObjectReader::read_ahead() {
  const bool calm = options_.pool == nullptr || options_.pool->bytes_in_use() <= kPoolBytesCalm;
  const size_t wanted = calm ? slots_.size() : 2;
  while (count_ < wanted && !slots_[(front_ + count_ - 1) % slots_.size()].file) {
    if (!prepare(slots_[(front_ + count_) % slots_.size()])) return;
    ++count_;
  }
}

Task<Result<ObjectReader::Piece>> ObjectReader::next() {
  if (handed_out_) {
    slots_[front_].clear();
    front_ = (front_ + 1) % slots_.size();
    --count_;
    handed_out_ = false;
  }
  if (count_ == 0) {
    if (!prepare(slots_[front_])) {
      if (remaining_ != 0)
        co_return fail(Code::kCorrupt, "object content is shorter than its record says");
      co_return Piece{};
    }
    count_ = 1;
  }
  handed_out_ = true;
  read_ahead();
  Slot& slot = slots_[front_];
  Piece piece;
  if (slot.file) {
    piece.file = &*slot.file;
  } else if (slot.window->blob == nullptr) {
    piece.data = slot.window->bytes;
  } else {
    if (!slot.read) start_read(slot);
    auto slice = co_await *slot.read;
    if (!slice && slice.error().code == Code::kBusy) {
      // There was no memory for it. The windows before it have given theirs back by now, and those
      // behind it do so: they are read when it is their turn.
      co_await drop_read_ahead();
      start_read(slot);
      slice = co_await *slot.read;
    }
    if (!slice) co_return std::unexpected(std::move(slice).error());
    slot.slice = std::move(*slice);
    if (slot.slice.data.size() != slot.window->length)
      co_return fail(Code::kCorrupt, "short read of a blob");
    piece.data = slot.slice.data;
  }
  co_return piece;
}

Task<void> ObjectReader::drop_read_ahead() {
  for (size_t i = 1; i < count_; ++i) {
    Slot& slot = slots_[(front_ + i) % slots_.size()];
    if (slot.read && !slot.read->await_ready()) (void)co_await *slot.read;
    slot.read.reset();
  }
}

// Nothing was cut into windows behind a part of a file, so the reader still stands at its end.
void ObjectReader::give_back(uint64_t bytes) {
  segment_offset_ -= bytes;
  remaining_ += bytes;
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
  options.pool = &op.services.buffers;
  options.use_files = length >= storage::kFileRangeBytesMin && exchange.can_sendfile();
  ObjectReader reader(op.shards().blobs(), record, options);

  auto piece = co_await reader.next();
  if (!piece) {
    co_await reader.settle();
    co_return std::unexpected(std::move(piece).error());
  }
  if (piece->file == nullptr && piece->data.size() == length) {
    Status sent = co_await exchange.send(piece->data);
    co_await reader.settle();
    if (!sent) co_return std::unexpected(std::move(sent).error());
    co_return Reply::streamed();
  }

  Status status = co_await exchange.begin(length);
  while (status && piece->size() != 0) {
    if (const storage::FileRange* file = piece->file; file != nullptr) {
      if (!file->lead.empty()) status = co_await exchange.write_more(file->lead);
      RangeCheck check(op.shards().blobs(), *file);
      if (status) status = co_await exchange.sendfile(file->fd, file->offset, file->length, &check);
      if (status && check.unsent != 0) reader.give_back(check.unsent);
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
