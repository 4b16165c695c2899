// Client: all that the rest of the server sees of the shards. One per core, used on its thread
// only.
//
// A call to a shard of this core is a direct call; another core's shard is reached by a bounded
// SPSC ring of FlatBuffers messages (shards/messages.fbs). Either way the call completes through
// this core's run queue. A full ring completes the call with kBusy (503 SlowDown), never waits.
//
// Placement: every row that belongs to one object (kCurrent, kVersion, kUpload, kPart) lies on
// shard_of(space, object key), so that one apply() covers them. The control tables (kBucket,
// kIdentity; space 0) lie on shard 0, the home shard.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "base/buffer.h"
#include "base/result.h"
#include "base/task.h"
#include "storage/blob_store.h"
#include "storage/meta_shard.h"
#include "storage/types.h"

namespace basalt::shards {

using storage::ApplyRequest;
using storage::GetRequest;
using storage::ScanRequest;
using storage::SealRequest;

// A change of control state (tables kBucket and kIdentity). Completes with success when it is
// durable *and* every core has seen it through its ControlListener (read-your-writes).
// Preconditions as in ApplyRequest.
struct ControlRequest : Completion {
  std::span<const storage::Precondition> preconditions;
  Bytes mutations;  // a finished fb::MutationBatch of kBucket / kIdentity mutations in space 0

  Result<storage::Applied> result;
  uint32_t failed_index = 0;

  ControlRequest(std::span<const storage::Precondition> p, Bytes m)
      : preconditions(p), mutations(m) {}
};

// Keeps a core's own copy of the control state. Called on the core's thread, in commit order; at
// start once for each row.
class ControlListener {
 public:
  virtual ~ControlListener() = default;
  // meta: nullopt = the row was erased. `seq` of the row.
  virtual void on_change(storage::Table table, std::string_view name, std::optional<Bytes> meta,
                         uint64_t seq) = 0;
};

class Client {
 public:
  virtual ~Client() = default;

  virtual unsigned core() const = 0;
  virtual unsigned core_count() const = 0;
  virtual unsigned shard_count() const = 0;
  virtual unsigned shard_of(uint64_t space, std::string_view object_key) const = 0;

  // Starts the call; the request stays in place until its completion ran.
  virtual void start(unsigned shard, ApplyRequest& request) = 0;
  virtual void start(unsigned shard, GetRequest& request) = 0;
  virtual void start(unsigned shard, ScanRequest& request) = 0;
  virtual void start(unsigned shard, SealRequest& request) = 0;
  virtual void start(ControlRequest& request) = 0;
  // A page over all shards of a core, as if they were one.
  virtual void start_on_core(unsigned core, ScanRequest& request) = 0;

  // A look-up on this core's own shard needs no queue: the answer at once; nullopt if the shard
  // lives elsewhere.
  virtual std::optional<Result<storage::Record>> get_now(unsigned shard,
                                                         const storage::KeyView& key) = 0;

  virtual storage::BlobStore& blobs() = 0;  // this core's
  virtual BufferPool& buffers() = 0;        // this core's

  // --- The same for coroutines: auto call = client.get(shard, key); CO_TRY(record, call);
  Call<GetRequest> get(unsigned shard, const storage::KeyView& key) {
    return Call<GetRequest>([&](GetRequest& request) { start(shard, request); }, key);
  }
  Call<ApplyRequest> apply(unsigned shard, std::span<const storage::Precondition> preconditions,
                           Bytes mutations, Bytes body = {}, bool reclaiming = false) {
    return Call<ApplyRequest>([&](ApplyRequest& request) { start(shard, request); }, preconditions,
                              mutations, body, reclaiming);
  }
  Call<ScanRequest> scan(unsigned shard, const storage::ScanOptions& options) {
    return Call<ScanRequest>([&](ScanRequest& request) { start(shard, request); }, options);
  }
  Call<SealRequest> seal(unsigned shard, SealRequest::Action action, uint64_t space) {
    return Call<SealRequest>([&](SealRequest& request) { start(shard, request); }, action, space);
  }
  Call<ControlRequest> change(std::span<const storage::Precondition> preconditions,
                              Bytes mutations) {
    return Call<ControlRequest>([&](ControlRequest& request) { start(request); }, preconditions,
                                mutations);
  }
};

// One page over all shards, merged in byte order, roll-ups of the same prefix folded. With several
// cores each is asked for its part of the page (the mean and two standard deviations), and again
// when it runs dry. Memory: about `limit` entries, whatever the bucket holds. The views in the page
// live as long as the page.
Task<Result<storage::ScanPage>> scan_all(Client& client, storage::ScanOptions options);

// Blob calls for coroutines.
inline Call<storage::ReadBlob> read_blob(storage::BlobStore& store, const storage::BlobRef& blob,
                                         uint64_t offset, uint32_t length) {
  return Call<storage::ReadBlob>([&](storage::ReadBlob& request) { store.read(request); }, blob,
                                 offset, length);
}
inline Call<storage::WriterReady> wait_room(storage::BlobWriter& writer) {
  return Call<storage::WriterReady>([&](storage::WriterReady& ready) { writer.wait(ready); });
}
inline Call<storage::SealBlob> seal_blob(storage::BlobWriter& writer) {
  return Call<storage::SealBlob>([&](storage::SealBlob& seal) { writer.seal(seal); });
}

}  // namespace basalt::shards
