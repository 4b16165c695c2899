// MutationBuilder: writes a fb::MutationBatch. One per request; the builder's memory is reused by
// clear().
#pragma once

#include <flatbuffers/flatbuffers.h>

#include <array>
#include <span>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "storage/types.h"

namespace basalt::storage {

struct NewRecord {
  uint64_t size = 0;
  std::string_view tag;
  Bytes meta;
  std::span<const BlobRef> blobs;
};

class MutationBuilder {
 public:
  MutationBuilder();
  void put(const KeyView& key, const NewRecord& record, bool has_body = false,
           bool keep_blobs = false);
  void erase(const KeyView& key, bool keep_blobs = false);
  size_t count() const;
  // The finished batch, 8-byte aligned; valid until clear() or the builder's end. Once per clear().
  Bytes finish();
  void clear();

 private:
  void add(flatbuffers::Offset<void> mutation);

  flatbuffers::FlatBufferBuilder builder_;
  // Most batches have one or two.
  std::array<flatbuffers::Offset<void>, 4> few_;
  std::vector<flatbuffers::Offset<void>> many_;  // all of them, once there are more
  size_t count_ = 0;
  bool finished_ = false;
};

}  // namespace basalt::storage
