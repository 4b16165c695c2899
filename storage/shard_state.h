// ShardState: the durable state of one shard: index, and over it the frozen and the active overlay.
//
// What it holds is durable in the log, so every reader may see it. Used by recovery (main thread),
// then by the shard's core; the checkpointer reads the frozen overlay and writes the index
// meanwhile.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_set>
#include <vector>

#include "base/result.h"
#include "storage/files.h"
#include "storage/index.h"
#include "storage/meta_shard.h"
#include "storage/overlay.h"
#include "storage/record_codec.h"

namespace basalt::storage {

class ShardState {
 public:
  ShardState(Index& index, Files& files);

  // --- Reading. Durable state only.
  Result<Record> get(const KeyView& key);
  // Like get() without a copy where there is none to make: nothing, or a view that is valid until
  // the next call.
  Result<std::optional<RecordView>> peek(const KeyView& key);
  Result<ScanPage> scan(const ScanOptions& options);  // storage/scan.h

  // --- A batch that became durable as `seq`. In order of seq.
  // Accounts the blobs that it brought (files.add_live) and remembers those that no record names
  // any more. A row of the index that is this record or a later one stays, and is accounted
  // already: the replay meets such rows where a crash fell between two parts of a checkpoint.
  void insert(const fb::MutationBatch& batch, uint64_t seq, Bytes body, const BlobRef& body_ref);

  // --- Checkpoint. freeze() needs that there is no frozen overlay; after the commit thaw() gives
  // the overlay back for destruction (by a thread that may take its time) and dropped() what may be
  // released now.
  void freeze();
  const Overlay* frozen() const { return frozen_.get(); }
  std::unique_ptr<Overlay> thaw(std::vector<BlobRef>& dropped);
  // Undoes a freeze() whose checkpoint failed; nothing was inserted since.
  void unfreeze();

  size_t entries() const;
  size_t bytes() const;
  size_t active_entries() const { return active_->entries(); }
  bool has_dropped() const { return !dropped_.empty(); }
  // How many mutations the index had already.
  uint64_t met_in_index() const { return met_in_index_; }
  Index& index() { return index_; }

 private:
  friend class ShardScanner;
  bool in_overlay(const KeyView& key) const;

  Index& index_;
  Files& files_;
  IndexReader reader_;
  RecordEncoder encoder_;
  std::unique_ptr<Overlay> active_, frozen_;
  // Blobs dropped by batches in the active and in the frozen overlay: free once these are in the
  // index.
  std::vector<BlobRef> dropped_, dropped_frozen_;
  uint64_t met_in_index_ = 0;
  std::vector<uint64_t> scratch_;
  // Used by insert() only; kept for their memory.
  std::unordered_set<BlobRef, BlobRefHash> new_blobs_, moved_;
  std::vector<BlobRef> not_put_;
};

}  // namespace basalt::storage
