#include "storage/mutation_builder.h"

#include "base/check.h"
#include "storage/generated/record_generated.h"
#include "storage/pool_allocator.h"

namespace basalt::storage {

static_assert(sizeof(fb::BlobRef) == sizeof(BlobRef));

namespace {

// Most batches are one small record.
constexpr size_t kInitialBytes = 1024;

flatbuffers::Offset<flatbuffers::Vector<uint8_t>> add_bytes(flatbuffers::FlatBufferBuilder& builder,
                                                            Bytes bytes) {
  // CreateVector copies with memcpy, which must not see a null source.
  static constexpr uint8_t kNothing = 0;
  return builder.CreateVector(bytes.empty() ? &kNothing : bytes.data(), bytes.size());
}

}  // namespace

MutationBuilder::MutationBuilder() : builder_(kInitialBytes, PoolAllocator::shared()) {}

void MutationBuilder::add(flatbuffers::Offset<void> mutation) {
  if (count_ < few_.size()) {
    few_[count_] = mutation;
  } else {
    if (count_ == few_.size()) many_.assign(few_.begin(), few_.end());
    many_.push_back(mutation);
  }
  ++count_;
}

void MutationBuilder::put(const KeyView& key, const NewRecord& record, bool has_body,
                          bool keep_blobs) {
  flatbuffers::Offset<flatbuffers::Vector<uint8_t>> tag, meta;
  flatbuffers::Offset<flatbuffers::Vector<const fb::BlobRef*>> blobs;
  if (!record.tag.empty()) tag = add_bytes(builder_, as_bytes(record.tag));
  if (!record.meta.empty()) meta = add_bytes(builder_, record.meta);
  if (!record.blobs.empty()) {
    blobs = builder_.CreateVectorOfStructs(
        reinterpret_cast<const fb::BlobRef*>(record.blobs.data()), record.blobs.size());
  }
  const auto name = add_bytes(builder_, as_bytes(key.name));
  const auto made = fb::CreateRecord(builder_, record.size, tag, meta, blobs);
  add(fb::CreateMutation(builder_, static_cast<uint8_t>(key.table), key.space, name,
                         fb::Action::Put, keep_blobs, has_body, made)
          .Union());
}

void MutationBuilder::erase(const KeyView& key, bool keep_blobs) {
  const auto name = add_bytes(builder_, as_bytes(key.name));
  add(fb::CreateMutation(builder_, static_cast<uint8_t>(key.table), key.space, name,
                         fb::Action::Erase, keep_blobs)
          .Union());
}

size_t MutationBuilder::count() const { return count_; }

Bytes MutationBuilder::finish() {
  BASALT_CHECK(!finished_);
  finished_ = true;
  // A batch without 64-bit fields would otherwise be finished at 4-byte alignment.
  builder_.ForceVectorAlignment(8, 1, 8);
  const auto* offsets = reinterpret_cast<const flatbuffers::Offset<fb::Mutation>*>(
      count_ <= few_.size() ? few_.data() : many_.data());
  static_assert(sizeof(flatbuffers::Offset<fb::Mutation>) == sizeof(flatbuffers::Offset<void>));
  flatbuffers::Offset<flatbuffers::Vector<flatbuffers::Offset<fb::Mutation>>> list;
  if (count_ != 0) list = builder_.CreateVector(offsets, count_);
  builder_.Finish(fb::CreateMutationBatch(builder_, list));
  return {builder_.GetBufferPointer(), builder_.GetSize()};
}

void MutationBuilder::clear() {
  builder_.Clear();
  many_.clear();
  count_ = 0;
  finished_ = false;
}

}  // namespace basalt::storage
