#include "protocol/s3/object_writer.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"
#include "protocol/s3/failure.h"
#include "protocol/s3/object_reader.h"

namespace basalt::s3 {
namespace {

// How far the digests may be behind: so much of a body stays in memory after it was written.
constexpr uint64_t kHashLagBytesMax = uint64_t{2} << 20;

// The digests read what the sink's buffers hold, so they let go before the sink does.
struct Release {
  RequestBody& body;
  ~Release() { body.release(); }
};

// With digests to compute, a window is what one core hashes in a few hundred microseconds.
constexpr uint32_t kHashedWindowBytes = 2 * storage::kBlobChunkBytes;

}  // namespace

NewContent& NewContent::operator=(NewContent&& other) noexcept {
  if (this != &other) {
    discard();
    buffer_ = std::move(other.buffer_);
    body_bytes_ = other.body_bytes_;
    writer_ = std::move(other.writer_);
    blob_ = other.blob_;
  }
  return *this;
}

NewContent::~NewContent() { discard(); }

void NewContent::discard() {
  if (writer_) writer_->discard();
  writer_.reset();
}

void NewContent::recorded() {
  if (writer_) writer_->recorded();
  writer_.reset();
}

// Where bytes go: room() to fill, advance(), finish(). Destroyed unfinished, it leaves nothing.
class ContentSink {
 public:
  S3Result<> open(Op& op, uint64_t length, Placement placement) {
    length_ = length;
    if (length == 0) return {};
    if (placement == Placement::kInlineIfSmall && length <= storage::kInlineBodyBytesMax) {
      content_.buffer_ = op.services.buffers.take(length);
      if (!content_.buffer_) return s3_fail(S3Code::kSlowDown);
      return {};
    }
    auto writer = op.shards().blobs().create(length);
    if (!writer) return std::unexpected(S3Error(std::move(writer).error()));
    writer_ = std::move(*writer);
    return {};
  }

  bool full() const { return written_ == length_; }
  uint64_t written() const { return written_; }
  bool has_room() { return !writer_ || !writer_->room().empty(); }
  // From `position` on the bytes stay in memory after they were written.
  void keep_from(uint64_t position) {
    if (writer_) writer_->keep_from(position);
  }
  // What is to be sealed; null for a body in memory.
  storage::BlobWriter* writer() { return writer_.get(); }

  // Not empty unless everything announced has arrived.
  Task<S3Result<MutableBytes>> room() {
    if (written_ == length_) co_return MutableBytes();
    if (!writer_) co_return content_.buffer_.bytes().subspan(written_, length_ - written_);
    MutableBytes room = writer_->room();
    while (room.empty()) {
      CO_CHECK(shards::wait_room(*writer_));
      room = writer_->room();
    }
    co_return room.first(std::min<uint64_t>(room.size(), length_ - written_));
  }

  void advance(size_t bytes) {
    written_ += bytes;
    if (writer_) writer_->advance(bytes);
  }

  Task<S3Result<NewContent>> finish() {
    BASALT_CHECK(written_ == length_);
    if (!writer_) co_return in_memory();
    auto sealed = co_await shards::seal_blob(*writer_);
    if (!sealed) co_return std::unexpected(std::move(sealed).error());
    co_return in_blob(*sealed);
  }

  NewContent in_memory() {
    content_.body_bytes_ = length_;
    return std::move(content_);
  }
  NewContent in_blob(const storage::SealedBlob& sealed) {
    content_.blob_ = sealed.ref;
    content_.writer_ = std::move(writer_);
    return std::move(content_);
  }

 private:
  NewContent content_;
  std::unique_ptr<storage::BlobWriter> writer_;
  uint64_t length_ = 0;
  uint64_t written_ = 0;
};

Task<S3Result<NewContent>> store_body(Op& op, Placement placement, auth::Hasher* extra) {
  RequestBody& body = *op.body;
  ContentSink sink;
  const Release release{body};
  S3_CHECK(sink.open(op, body.length(), placement));
  sink.keep_from(0);
  std::array<uint8_t, 64> none;
  while (!(sink.full() && body.ended())) {
    // Without room the buffers may be those that the digests hold.
    const uint64_t lag_max = sink.full() || sink.has_room() ? kHashLagBytesMax : 0;
    if (sink.written() - body.hashed() > lag_max) co_await body.hash_to(sink.written() - lag_max);
    sink.keep_from(body.hashed());
    CO_TRY(room, sink.room());
    // A full sink still reads once more: only a read of 0 says that the body ended where it should
    // and verified.
    const MutableBytes into = room.empty() ? MutableBytes(none) : room;
    CO_TRY(count, body.read(into));
    if (count == 0) break;
    if (room.empty()) co_return s3_fail(S3Code::kIncompleteBody);
    if (extra != nullptr) extra->update(room.first(count));
    sink.advance(count);
  }
  if (!sink.full()) co_return s3_fail(S3Code::kIncompleteBody);
  if (sink.writer() == nullptr) {
    CO_CHECK(body.read(none));
    co_return sink.in_memory();
  }
  // The disk works while the last bytes are hashed. What does not verify is not recorded.
  auto seal = shards::seal_blob(*sink.writer());
  body.finish_digests();
  auto sealed = co_await seal;
  auto verified = co_await body.read(none);
  sink.keep_from(UINT64_MAX);
  if (!verified) co_return std::unexpected(std::move(verified).error());
  if (!sealed) co_return std::unexpected(std::move(sealed).error());
  co_return sink.in_blob(*sealed);
}

Task<S3Result<NewContent>> store_copy(Op& op, const storage::RecordView& source, uint64_t first,
                                      uint64_t length, Placement placement,
                                      std::span<auth::Hasher> hashers) {
  ContentSink sink;
  S3_CHECK(sink.open(op, length, placement));
  ObjectReader::Options options;
  options.first = first;
  options.length = length;
  options.pool = &op.services.buffers;
  if (!hashers.empty()) options.window_bytes_max = kHashedWindowBytes;
  ObjectReader reader(op.shards().blobs(), source, options);

  S3Result<> status;
  while (status) {
    auto piece = co_await reader.next();
    if (!piece) {
      status = std::unexpected(S3Error(std::move(piece).error()));
      break;
    }
    if (piece->size() == 0) break;
    Bytes rest = piece->data;
    for (auth::Hasher& hasher : hashers) hasher.update(rest);
    while (!rest.empty()) {
      auto room = co_await sink.room();
      if (!room) {
        status = std::unexpected(std::move(room).error());
        break;
      }
      const size_t count = std::min(room->size(), rest.size());
      std::memcpy(room->data(), rest.data(), count);
      sink.advance(count);
      rest = rest.subspan(count);
    }
  }
  co_await reader.settle();
  if (!status) co_return std::unexpected(std::move(status).error());
  co_return co_await sink.finish();
}

}  // namespace basalt::s3
