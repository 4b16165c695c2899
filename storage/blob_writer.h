// Writing of one blob: aligned buffers, chunk checksums, O_DIRECT writes, chunk table, fdatasync.
// Owned by the core's LocalBlobStore, which outlives the caller's handle until every write has
// ended.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "base/buffer.h"
#include "storage/blob_store.h"
#include "storage/files_local.h"
#include "storage/io.h"

namespace basalt::storage {

constexpr size_t kWriteBufferBytes = 1u << 20;

// What a writer needs of its store.
class BlobPlaces {
 public:
  struct Place {
    BlobKind kind = BlobKind::kNone;
    uint32_t file = 0;
    uint32_t generation = 0;
    uint64_t offset = 0;
    int fd = -1;
    std::shared_ptr<BulkSegment> bulk;  // pinned
    OwnFile own;
  };
  virtual ~BlobPlaces() = default;
  // Nothing: not ready yet; BlobWriteState::try_place() is called again.
  virtual Result<std::optional<Place>> find_place(BlobKind kind, uint64_t bytes) = 0;
  virtual void give_back(Place& place) = 0;
  // Makes durable what has been written to the place's segment, in one with others' (SharedFlush).
  virtual void flush(Place& place, IoOp& call) = 0;
};

class BlobWriteState {
 public:
  BlobWriteState(BlobPlaces& places, LocalFiles& files, Io& io, RunQueue& run_queue,
                 BufferPool& buffers, EngineStats& stats, BlobKind kind, uint64_t size, bool paced,
                 Buffer first);

  MutableBytes room();
  void advance(size_t bytes);
  void keep_from(uint64_t position);
  void wait(WriterReady& ready);
  void seal(SealBlob& seal);
  void drop_handle();  // the caller's handle is gone
  void give_back();    // discard()
  void recorded();

  void try_place();
  bool waits_for_place() const { return !placed_ && !error_ && !over_; }
  // Nothing refers to it any more: no handle and nothing in flight.
  bool finished() const { return handle_gone_ && over_ && in_flight_ == 0; }
  const std::optional<Error>& error() const { return error_; }
  bool busy() const { return in_flight_ > 0; }

 private:
  struct Op : IoOp {
    BlobWriteState* state = nullptr;
    Buffer buffer;
    uint64_t end = 0;  // of the blob's bytes in the buffer; 0: none (chunk table)
  };
  struct Piece {
    Buffer buffer;
    size_t bytes = 0;
    uint64_t end = 0;
  };

  uint64_t bytes_left() const { return (known() ? size_ : kBlobBytesMax) - length_; }
  Op& take_op();
  bool known() const { return size_ != kSizeUnknown; }
  void pump();
  void add_checksums(Bytes data);
  void write(Piece piece, uint64_t offset, size_t bytes);
  void write_table();
  void submit(Op& op);
  static void op_ended(Completion& completion);
  void ended(Op& op);
  void fail_with(Error error);
  void release_place();
  void answer_waiting();
  void done_with(Buffer buffer, uint64_t end);
  void free_buffer(Buffer buffer);

  BlobPlaces& places_;
  LocalFiles& files_;
  Io& io_;
  RunQueue& run_queue_;
  BufferPool& buffers_;
  EngineStats& stats_;
  const BlobKind kind_;
  const uint64_t size_;

  bool paced_;  // has to wait for room still, with its first buffer only; see Files::take_room()
  RoomTicket ticket_;
  bool placed_ = false;
  bool ready_to_write_ = false;  // placed, and allocated if that was wanted
  BlobPlaces::Place place_;

  Buffer current_;
  size_t filled_ = 0;
  size_t current_capacity_ = 0;
  Buffer spare_;
  std::deque<Piece> queued_;
  std::vector<Piece> kept_;  // written, or given up after an error; see keep_from()
  uint64_t keep_from_ = UINT64_MAX;
  size_t bytes_held_ = 0;  // of all buffers but the spare one
  uint64_t length_ = 0;    // taken from the caller
  uint64_t written_ = 0;   // handed to io
  uint64_t table_written_ = 0;
  std::vector<uint32_t> chunks_;
  uint64_t checked_ = 0;    // bytes whose checksums are in chunks_ ...
  uint32_t chunk_crc_ = 0;  // ... or in this, the chunk that is not whole yet
  uint32_t root_ = 0;

  std::vector<std::unique_ptr<Op>> ops_;
  std::vector<Op*> free_ops_;
  size_t in_flight_ = 0;

  WriterReady* ready_ = nullptr;
  SealBlob* seal_ = nullptr;
  bool sealing_ = false;
  bool syncing_ = false;
  bool sealed_ = false;
  bool over_ = false;  // the place is given back once nothing is in flight
  bool handle_gone_ = false;
  std::optional<Error> error_;
};

}  // namespace basalt::storage
