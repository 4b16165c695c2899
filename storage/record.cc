#include "storage/record.h"

#include <cstring>

namespace basalt::storage {

Record::Record(const RecordView& view) : view_(view) {
  const size_t blob_bytes = view.blobs.size_bytes();
  const size_t total = blob_bytes + view.tag.size() + view.meta.size() + view.inline_body.size();
  if (total == 0) return;
  // The blobs go first: they need the alignment that a block has.
  bytes_ = BlockBytes(total);
  uint8_t* at = bytes_.data();
  const auto copy = [&at](const void* from, size_t size) {
    uint8_t* start = at;
    if (size != 0) std::memcpy(at, from, size);
    at += size;
    return start;
  };
  const uint8_t* blobs = copy(view.blobs.data(), blob_bytes);
  view_.blobs = {reinterpret_cast<const BlobRef*>(blobs), view.blobs.size()};
  const uint8_t* tag = copy(view.tag.data(), view.tag.size());
  view_.tag = {reinterpret_cast<const char*>(tag), view.tag.size()};
  view_.meta = {copy(view.meta.data(), view.meta.size()), view.meta.size()};
  view_.inline_body = {copy(view.inline_body.data(), view.inline_body.size()),
                       view.inline_body.size()};
}

}  // namespace basalt::storage
