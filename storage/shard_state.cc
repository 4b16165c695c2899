#include "storage/shard_state.h"

#include <cstring>

#include "base/check.h"
#include "base/log.h"
#include "storage/generated/record_generated.h"
#include "storage/scan.h"

namespace basalt::storage {

ShardState::ShardState(Index& index, Files& files)
    : index_(index), files_(files), reader_(index), active_(std::make_unique<Overlay>()) {}

size_t ShardState::entries() const {
  return active_->entries() + (frozen_ ? frozen_->entries() : 0);
}
size_t ShardState::bytes() const { return active_->bytes() + (frozen_ ? frozen_->bytes() : 0); }

Result<Record> ShardState::get(const KeyView& key) {
  if (key.name.empty() || key.name.size() > kNameBytesMax || key.space >> 63 != 0 ||
      static_cast<size_t>(key.table) >= kTableCount) {
    return fail(Code::kNotFound);
  }
  const FullKey full_key(key);
  const auto from = [&](Bytes value) -> Result<Record> {
    // The copy of the value is the memory of the record.
    BlockBytes bytes(value.size());
    std::memcpy(bytes.data(), value.data(), value.size());
    auto view = decode_record(key, {bytes.data(), value.size()});
    if (!view) {
      log_error(
          "a record fails its check",
          {{"shard", index_.shard()}, {"key", printable(key)}, {"error", view.error().detail}});
      return std::unexpected(view.error());
    }
    return Record(std::move(bytes), *view);
  };
  for (const Overlay* overlay : {active_.get(), frozen_.get()}) {
    if (overlay == nullptr) continue;
    if (const Overlay::Entry* entry = overlay->find(full_key.view())) {
      if (entry->tombstone()) return fail(Code::kNotFound);
      return from(entry->value());
    }
  }
  BASALT_TRY(snapshot, reader_.begin());
  BASALT_TRY(value, snapshot.get(key));
  return from(value);
}

Result<std::optional<RecordView>> ShardState::peek(const KeyView& key) {
  const FullKey full_key(key);
  for (const Overlay* overlay : {active_.get(), frozen_.get()}) {
    if (overlay == nullptr) continue;
    if (const Overlay::Entry* entry = overlay->find(full_key.view())) {
      if (entry->tombstone()) return std::nullopt;
      BASALT_TRY(view, decode_record(key, entry->value()));
      return view;
    }
  }
  BASALT_TRY(snapshot, reader_.begin());
  auto value = snapshot.get(key);
  if (!value) {
    if (value.error().code == Code::kNotFound) return std::nullopt;
    return std::unexpected(value.error());
  }
  scratch_.resize((value->size() + 7) / 8);
  std::memcpy(scratch_.data(), value->data(), value->size());
  BASALT_TRY(
      view, decode_record(key, {reinterpret_cast<const uint8_t*>(scratch_.data()), value->size()}));
  return view;
}

void ShardState::insert(const fb::MutationBatch& batch, uint64_t seq, Bytes body,
                        const BlobRef& body_ref) {
  const auto& mutations = *batch.mutations();
  const auto put_body = [&](const fb::Mutation& mutation, Bytes& inline_body) -> BlobRef {
    if (!mutation.has_body()) return {};
    if (body.size() > kIndexBodyBytesMax) return body_ref;
    inline_body = body;
    BlobRef ref;
    ref.kind = static_cast<uint8_t>(BlobKind::kIndex);
    ref.length = body.size();
    return ref;
  };
  // 1. What the batch brings: blobs named by a new record of the batch are alive whatever old
  // record named them.
  new_blobs_.clear();
  moved_.clear();
  not_put_.clear();
  for (const fb::Mutation* mutation : mutations) {
    if (mutation->action() != fb::Action::Put) continue;
    for (size_t i = 0; i < blob_count(*mutation->record()); ++i) {
      if (const BlobRef blob = blob_at(*mutation->record(), i); in_file(blob))
        new_blobs_.insert(blob);
    }
  }
  // 2. Each mutation over the state before it.
  for (const fb::Mutation* mutation : mutations) {
    const KeyView key = key_of(*mutation);
    if (const auto old = peek(key); !old) {
      log_error(
          "a damaged record is replaced; its space stays in use",
          {{"shard", index_.shard()}, {"key", printable(key)}, {"error", old.error().detail}});
    } else if (*old) {
      if ((*old)->seq >= seq && !in_overlay(key)) {
        ++met_in_index_;
        if (mutation->action() == fb::Action::Put) {
          for (size_t i = 0; i < blob_count(*mutation->record()); ++i) {
            if (const BlobRef blob = blob_at(*mutation->record(), i); in_file(blob))
              not_put_.push_back(blob);
          }
        }
        continue;
      }
      for_each_file_blob(**old, [&](const BlobRef& blob) {
        if (new_blobs_.contains(blob)) {
          moved_.insert(blob);
        } else if (!mutation->keep_blobs()) {
          dropped_.push_back(blob);
        }
      });
    }
    ValueBuffer value;
    if (mutation->action() == fb::Action::Put) {
      Bytes inline_body;
      const BlobRef ref = put_body(*mutation, inline_body);
      if (in_file(ref)) files_.add_live(ref);
      value = encoder_.encode(key, seq, *mutation->record(), ref, inline_body);
    }
    active_->put(key, std::move(value));
  }
  // The row that names it was there, and counted, beside the one that it was moved from.
  for (const BlobRef& blob : not_put_) {
    if (new_blobs_.erase(blob) != 0 && moved_.contains(blob)) dropped_.push_back(blob);
  }
  for (const BlobRef& blob : new_blobs_) {
    if (!moved_.contains(blob)) files_.add_live(blob);
  }
  // clear() walks all buckets: a manifest of 10,000 parts must not tax every small record after it.
  constexpr size_t kBucketsKept = 256;
  if (new_blobs_.bucket_count() > kBucketsKept) new_blobs_ = {};
  if (moved_.bucket_count() > kBucketsKept) moved_ = {};
}

bool ShardState::in_overlay(const KeyView& key) const {
  const FullKey full_key(key);
  return active_->find(full_key.view()) != nullptr ||
         (frozen_ != nullptr && frozen_->find(full_key.view()) != nullptr);
}

void ShardState::freeze() {
  BASALT_CHECK(frozen_ == nullptr && dropped_frozen_.empty());
  frozen_ = std::exchange(active_, std::make_unique<Overlay>(active_->entries()));
  dropped_frozen_.swap(dropped_);
}

std::unique_ptr<Overlay> ShardState::thaw(std::vector<BlobRef>& dropped) {
  dropped.insert(dropped.end(), dropped_frozen_.begin(), dropped_frozen_.end());
  dropped_frozen_.clear();
  return std::move(frozen_);
}

void ShardState::unfreeze() {
  BASALT_CHECK(active_->empty() && dropped_.empty());
  active_ = std::move(frozen_);
  dropped_.swap(dropped_frozen_);
}

Result<ScanPage> ShardState::scan(const ScanOptions& options) {
  ShardState* const one = this;
  return scan_shards({&one, 1}, options);
}

}  // namespace basalt::storage
