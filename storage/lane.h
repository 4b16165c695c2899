// Lane: the append-only log of one core. Aligned O_DIRECT batches, write + fdatasync, natural group
// commit: the next batch leaves when the last flush returns (a large one beside it). A completed
// append is on stable storage together with every earlier one.
//
// Thread: the core's. Formats: docs/on-disk-format.md (segment header, batch header, record
// header).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "base/completion.h"
#include "base/result.h"
#include "storage/blob_store.h"
#include "storage/engine.h"
#include "storage/files.h"
#include "storage/io.h"
#include "storage/types.h"

namespace basalt::storage {

// Bytes of appends that wait behind the batch being formed; beyond it append() completes with
// kBusy.
constexpr size_t kLaneQueueBytesMax = 32u << 20;
// A mutation batch above this is refused with kTooLarge (a manifest of 10,000 parts takes 320 KB).
constexpr size_t kMutationsBytesMax = 512u << 10;

struct Append : Completion {
  uint16_t shard = 0;
  Bytes mutations;  // verified fb::MutationBatch; read until the completion
  Bytes body;       // at most kInlineBodyBytesMax

  // Set by append(): the record's sequence number. 0: refused, the completion is posted. Rising,
  // not always dense: numbers of appends that failed before they were written are skipped.
  uint64_t lsn = 0;
  // Set when complete. With a body longer than kIndexBodyBytesMax: where it is (kLog). Otherwise
  // kind kNone.
  BlobRef body_ref;
  Status result;  // kIo (sticky), kNoSpace, kReadOnly, kBusy, kTooLarge, kInvalid (empty
                  // mutations), kCancelled
};

class Lane {
 public:
  // Waits for batches in flight (polls `io` and runs the run queue), then completes what was not
  // written with kCancelled.
  virtual ~Lane() = default;
  // Needs no poll() to make progress: it posts its own next step to the run queue. Completions come
  // in LSN order.
  virtual void append(Append& append) = 0;
  // Everything with an LSN at or below the returned one is durable and its completion was posted;
  // `file`, `offset`: the place from which a reader finds every later record.
  virtual LogPosition durable_position() const = 0;
  virtual uint64_t bytes_since_checkpoint() const = 0;
  // Appends whose completion was not posted yet (posted ones may still wait in the run queue).
  virtual size_t queued() const = 0;
  virtual bool poll() = 0;  // each loop turn; harmless to leave out
  // Pauses new batches while the overlay is over its bound.
  virtual void hold(bool held) = 0;
};

// At most one of each per core. Both are destroyed on the core's thread, before `io`. The
// destructor of a BlobStore waits for what its writers and reads have in flight, as Lane's does.
std::unique_ptr<Lane> make_lane(Files& files, unsigned core, Io& io, RunQueue& run_queue,
                                EngineStats& stats);
std::unique_ptr<BlobStore> make_blob_store(Files& files, unsigned core,
                                           const EngineOptions& options, Io& io,
                                           RunQueue& run_queue, BufferPool& buffers,
                                           EngineStats& stats);

// lsn = epoch << kLsnEpochShift | counter from 1.
constexpr unsigned kLsnEpochShift = 40;

// --- Recovery (main thread, before any lane exists; plain blocking reads).
struct RecoveredRecord {
  uint64_t epoch = 0;
  uint64_t lsn = 0;
  uint16_t shard = 0;
  Bytes mutations;  // CRC checked, flatbuffer not yet verified
  Bytes body;
  BlobRef body_ref;  // as Append::body_ref
};
// Reads every log record that may be missing from the index, in (epoch, lane, LSN) order, and hands
// it to `visit`: those of shard s with an LSN above applied[s].lsn (the position stored with the
// shard's last checkpoint; zero if none). Segments that lie wholly before are not read. What was
// visited is on stable storage afterwards, and may be served before it is checkpointed. The first
// checkpoint of a shard stores a position of this epoch, at least {epoch of the superblock, LSN
// epoch << kLsnEpochShift}. A torn tail ends a lane quietly; a damaged record before the
// acknowledged end (a later valid batch proves it was acknowledged) is kCorrupt with the place in
// its text: the caller opens read-only. Then all that can still be read, also behind the damage,
// has been visited. An error of `visit` ends the replay.
Status replay_log(Files& files, std::span<const LogPosition> applied,
                  const std::function<Status(const RecoveredRecord&)>& visit);
// After recovery has been checkpointed, all shards: all log segments that existed before are sealed
// and wholly in the index. Any thread.
void finish_replay(Files& files);

}  // namespace basalt::storage
