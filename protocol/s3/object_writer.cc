#include "protocol/s3/object_writer.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"
#include "protocol/s3/failure.h"
#include "protocol/s3/object_reader.h"

namespace basalt::s3 {
namespace {

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
    if (writer_) {
      auto sealed = co_await shards::seal_blob(*writer_);
      if (!sealed) co_return std::unexpected(std::move(sealed).error());
      content_.blob_ = sealed->ref;
      content_.writer_ = std::move(writer_);
    } else {
      content_.body_bytes_ = length_;
    }
    co_return std::move(content_);
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
  S3_CHECK(sink.open(op, body.length(), placement));
  std::array<uint8_t, 64> none;
  while (true) {
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
  co_return co_await sink.finish();
}

Task<S3Result<NewContent>> store_copy(Op& op, const storage::RecordView& source, uint64_t first,
                                      uint64_t length, Placement placement,
                                      std::span<auth::Hasher> hashers) {
  ContentSink sink;
  S3_CHECK(sink.open(op, length, placement));
  ObjectReader::Options options;
  options.first = first;
  options.length = length;
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
