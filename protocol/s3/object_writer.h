// Writing content: a request's body or a range of another object, into memory (small) or a blob
// (large).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "auth/digest.h"
#include "base/buffer.h"
#include "base/task.h"
#include "protocol/s3/body.h"
#include "protocol/s3/error.h"
#include "protocol/s3/op.h"
#include "storage/blob_store.h"
#include "storage/record.h"

namespace basalt::s3 {

// Content that no record names yet. Goes away without a trace unless recorded() is called: a sealed
// blob is discarded.
class NewContent {
 public:
  NewContent() = default;
  NewContent(NewContent&&) noexcept = default;
  NewContent& operator=(NewContent&& other) noexcept;
  ~NewContent();

  Bytes body() const {
    return {buffer_.data(), body_bytes_};
  }  // for the batch: has_body if not empty
  std::span<const storage::BlobRef> blobs() const {
    return {&blob_, writer_ ? size_t{1} : size_t{0}};
  }
  // The apply that names the content succeeded.
  void recorded();

 private:
  friend class ContentSink;
  void discard();

  Buffer buffer_;
  size_t body_bytes_ = 0;
  std::unique_ptr<storage::BlobWriter> writer_;  // sealed
  storage::BlobRef blob_;
};

enum class Placement : uint8_t {
  kInlineIfSmall,  // up to kInlineBodyBytesMax in the batch
  kBlob,           // always a blob (parts, whose blobs are concatenated later)
};

// Reads the whole request body. `extra` is updated with every byte (nullptr: none). Nothing stays
// on any failure.
Task<S3Result<NewContent>> store_body(Op& op, Placement placement, auth::Hasher* extra);

// Copies a verified range of a record's content, updating `hashers`. The source's ReadGuard is held
// by the caller.
Task<S3Result<NewContent>> store_copy(Op& op, const storage::RecordView& source, uint64_t first,
                                      uint64_t length, Placement placement,
                                      std::span<auth::Hasher> hashers);

}  // namespace basalt::s3
