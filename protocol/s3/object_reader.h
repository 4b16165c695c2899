// ObjectReader: an object's content, or a range of it, in windows, with the next window being read
// while the caller uses the present one. And its two users that operations share: sending content,
// copying content.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "base/bytes.h"
#include "base/task.h"
#include "protocol/s3/error.h"
#include "protocol/s3/op.h"
#include "shards/client.h"
#include "storage/blob_store.h"
#include "storage/record.h"

namespace basalt::s3 {

// Content = record.body (inline or in the log) followed by record.blobs. The record and a ReadGuard
// outlive the reader. Memory: two windows. Every byte handed out as data was verified
// (storage/blob_store.h). Before the reader goes, next() must have returned its last piece, or
// settle() been awaited: no read may be in flight.
class ObjectReader {
 public:
  struct Options {
    uint64_t first = 0;
    uint64_t length = 0;
    uint32_t window_bytes_max = storage::kBlobReadBytesMax;
    bool use_files = false;  // hand out file ranges (for sendfile) where the store has them
  };
  struct Piece {
    Bytes data;                              // valid until the next call
    std::optional<storage::FileRange> file;  // instead of data
    uint64_t size() const { return file ? file->length : data.size(); }
  };

  ObjectReader(storage::BlobStore& store, const storage::RecordView& record,
               const Options& options);

  // The next piece; size 0 at the end. After an error only settle() is allowed.
  Task<Result<Piece>> next();
  Task<void> settle();

 private:
  struct Window {
    Bytes bytes;                             // of an inline body
    const storage::BlobRef* blob = nullptr;  // or of a blob
    uint64_t offset = 0;
    uint32_t length = 0;
  };
  struct Slot {
    std::optional<Window> window;
    std::optional<storage::FileRange> file;
    std::optional<Call<storage::ReadBlob>> read;
    storage::BlobSlice slice;
    void clear();
  };

  std::optional<Window> cut_window();
  bool prepare(Slot& slot);
  void start_read(Slot& slot);

  storage::BlobStore& store_;
  const storage::RecordView& record_;
  Options options_;
  uint64_t remaining_;
  size_t segment_ = 0;  // 0: the body, n: blobs[n - 1]
  uint64_t segment_offset_ = 0;
  std::array<Slot, 2> slots_;
  size_t turn_ = 0;
};

// Sends the response whose head the caller has filled, with this part of the record's content as
// its body: small content in one write together with the head, large content streamed (sendfile
// where the page cache has verified bytes). A read error after the head was sent leaves the
// response unfinished, which cuts the connection.
Task<S3Result<Reply>> send_content(Op& op, const storage::RecordView& record, uint64_t first,
                                   uint64_t length);

}  // namespace basalt::s3
