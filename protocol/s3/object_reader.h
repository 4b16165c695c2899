// ObjectReader: an object's content, or a range of it, in windows, with the next windows being read
// while the caller uses the present one. And its two users that operations share: sending content,
// copying content.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/task.h"
#include "protocol/s3/error.h"
#include "protocol/s3/op.h"
#include "shards/client.h"
#include "storage/blob_store.h"
#include "storage/record.h"

namespace basalt::s3 {

// Windows that are read at once for one reader, the one in use included: on a disk a large read is
// as fast as several are under way, and small windows give the first byte early.
constexpr size_t kReadWindowsMax = 6;
constexpr uint32_t kReadWindowBytes = 256 * 1024;  // fills a pooled buffer
// Above this much body memory in use on the core one window is read ahead: slow clients must not
// starve the others.
constexpr size_t kPoolBytesCalm = 128u << 20;

// Content = record.body (inline or in the log) followed by record.blobs. The record and a ReadGuard
// outlive the reader. Memory: kReadWindowsMax windows. Every byte handed out as data was verified
// (storage/blob_store.h). Before the reader goes, next() must have returned its last piece, or
// settle() been awaited: no read may be in flight.
class ObjectReader {
 public:
  struct Options {
    uint64_t first = 0;
    uint64_t length = 0;
    uint32_t window_bytes_max = kReadWindowBytes;  // of data; a multiple of kBlobChunkBytes
    bool use_files = false;  // hand out file ranges (for sendfile) where the store has them
    const BufferPool* pool = nullptr;  // that the store reads into: asked how calm it is
  };
  struct Piece {
    Bytes data;                                // valid until the next call
    const storage::FileRange* file = nullptr;  // instead of data; valid until the next call
    uint64_t size() const { return file != nullptr ? file->size() : data.size(); }
  };

  ObjectReader(storage::BlobStore& store, const storage::RecordView& record,
               const Options& options);

  // The next piece; size 0 at the end. After an error only settle() is allowed.
  Task<Result<Piece>> next();
  Task<void> settle();
  // The last piece was a part of a file, and its last `bytes` did not go: they come again, as what
  // they are by then.
  void give_back(uint64_t bytes);

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

  std::optional<Window> window_here(uint64_t bytes_max);
  void pass(const Window& window);
  bool prepare(Slot& slot);
  void read_ahead();
  void start_read(Slot& slot);
  Task<void> drop_read_ahead();

  storage::BlobStore& store_;
  const storage::RecordView& record_;
  Options options_;
  uint64_t remaining_;  // not cut into windows yet
  size_t segment_ = 0;  // 0: the body, n: blobs[n - 1]
  uint64_t segment_offset_ = 0;
  // A ring: `count_` slots from `front_` on, the first of which the caller may be using.
  std::array<Slot, kReadWindowsMax> slots_;
  size_t front_ = 0;
  size_t count_ = 0;
  bool handed_out_ = false;
};

// Sends the response whose head the caller has filled, with this part of the record's content as
// its body: small content in one write together with the head, large content streamed (sendfile
// where the page cache has verified bytes). A read error after the head was sent leaves the
// response unfinished, which cuts the connection.
Task<S3Result<Reply>> send_content(Op& op, const storage::RecordView& record, uint64_t first,
                                   uint64_t length);

}  // namespace basalt::s3
