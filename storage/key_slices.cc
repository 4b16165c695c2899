#include "storage/key_slices.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/crc32c.h"
#include "storage/record_codec.h"

namespace basalt::storage {

namespace {

class SliceKey {
 public:
  SliceKey(uint64_t layer, std::string_view rest) {
    const bool link = rest.size() > kSliceBytes;
    const size_t slice_bytes = std::min(rest.size(), kSliceBytes);
    store_be64(bytes_, layer);
    if (slice_bytes != 0) std::memcpy(bytes_ + kLayerBytes, rest.data(), slice_bytes);
    size_ = kLayerBytes + slice_bytes;
    if (link) bytes_[size_++] = 0xFF;
  }
  bool is_link() const { return size_ == kLinkKeyBytes; }
  Bytes view() const { return {bytes_, size_}; }

 private:
  uint8_t bytes_[kLinkKeyBytes];
  size_t size_;
};

bool equal(Bytes a, Bytes b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size()) == 0;
}

void check_name(uint64_t space, std::string_view name) {
  BASALT_CHECK((space & kLayerBit) == 0);
  BASALT_CHECK(!name.empty() && name.size() <= kNameBytesMax);
}

Result<bool> layer_is_empty(SliceStore& store, uint64_t layer) {
  uint8_t start[kLayerBytes];
  store_be64(start, layer);
  BASALT_TRY(found, store.seek(start));
  return !found || store.key().size() < kLayerBytes || load_be64(store.key().data()) != layer;
}

Status erase_in_layer(SliceStore& store, uint64_t layer, std::string_view rest) {
  const SliceKey key(layer, rest);
  if (!key.is_link()) return store.erase(key.view());
  BASALT_TRY(link, store.get(key.view()));
  BASALT_TRY(child, decode_link(key.view(), link));
  BASALT_CHECK_OK(erase_in_layer(store, child, rest.substr(kSliceBytes)));
  BASALT_TRY(empty, layer_is_empty(store, child));
  if (!empty) return {};
  return store.erase(key.view());
}

}  // namespace

void encode_link(Bytes link_key, uint64_t layer, uint8_t (&out)[kLinkValueBytes]) {
  store_be64(out, layer);
  store_le32(out + 8, crc32c(Bytes(out, 8), crc32c(link_key)));
}

Result<uint64_t> decode_link(Bytes link_key, Bytes value) {
  if (value.size() != kLinkValueBytes ||
      load_le32(value.data() + 8) != crc32c(value.first(8), crc32c(link_key))) {
    return fail(Code::kCorrupt, "a link between key layers fails its checksum");
  }
  const uint64_t layer = load_be64(value.data());
  if ((layer & kLayerBit) == 0)
    return fail(Code::kCorrupt, "a link between key layers names a space");
  return layer;
}

Result<Bytes> slices_get(SliceStore& store, uint64_t space, std::string_view name) {
  check_name(space, name);
  uint64_t layer = space;
  for (;;) {
    const SliceKey key(layer, name);
    if (!key.is_link()) return store.get(key.view());
    BASALT_TRY(link, store.get(key.view()));
    BASALT_TRY(child, decode_link(key.view(), link));
    layer = child;
    name.remove_prefix(kSliceBytes);
  }
}

Status slices_put(SliceStore& store, uint64_t space, std::string_view name, Bytes value) {
  check_name(space, name);
  uint64_t layer = space;
  for (;;) {
    const SliceKey key(layer, name);
    if (!key.is_link()) return store.put(key.view(), value);
    if (auto link = store.get(key.view())) {
      BASALT_TRY(child, decode_link(key.view(), *link));
      layer = child;
    } else if (link.error().code == Code::kNotFound) {
      BASALT_TRY(child, store.new_layer());
      uint8_t link_value[kLinkValueBytes];
      encode_link(key.view(), child, link_value);
      BASALT_CHECK_OK(store.put(key.view(), link_value));
      layer = child;
    } else {
      return std::unexpected(link.error());
    }
    name.remove_prefix(kSliceBytes);
  }
}

Status slices_erase(SliceStore& store, uint64_t space, std::string_view name) {
  check_name(space, name);
  return erase_in_layer(store, space, name);
}

Status SliceCursor::enter(Bytes link_value) {
  const Bytes link_key = source_.key();
  BASALT_TRY(layer, decode_link(link_key, link_value));
  if (depth_ == kLinksMax) return fail(Code::kCorrupt, "key layers are nested too deep");
  std::memcpy(name_ + depth_ * kSliceBytes, link_key.data() + kLayerBytes, kSliceBytes);
  layers_[++depth_] = layer;
  return {};
}

// The source stands on the first key >= what was wanted: go down links, up from exhausted layers,
// until it stands on a name.
Status SliceCursor::settle(Result<bool> found) {
  for (;;) {
    if (!found) return std::unexpected(found.error());
    const Bytes key = *found ? source_.key() : Bytes();
    if (key.size() < kLayerBytes || load_be64(key.data()) != layers_[depth_]) {
      if (*found) BASALT_CHECK_OK(source_.check_row());
      if (depth_ == 0) return {};
      --depth_;
      const SliceKey link(layers_[depth_], {name_ + depth_ * kSliceBytes, kSliceBytes + 1});
      found = source_.seek(link.view());
      // A reader's snapshot does not change under it, so the link is there; if not, the key found
      // is already later.
      if (found && *found && equal(source_.key(), link.view())) found = source_.next();
      continue;
    }
    if (key.size() == kLinkKeyBytes) {
      BASALT_CHECK_OK(enter(source_.value()));
      uint8_t start[kLayerBytes];
      store_be64(start, layers_[depth_]);
      found = source_.seek(start);
      continue;
    }
    const size_t slice_bytes = key.size() - kLayerBytes;
    if (slice_bytes > kSliceBytes) return fail(Code::kCorrupt, "a key of the index is too long");
    const Bytes slice = key.subspan(kLayerBytes);
    if (depth_ == 0) {
      name_view_ = as_text(slice);
    } else {
      std::memcpy(name_ + depth_ * kSliceBytes, slice.data(), slice_bytes);
      name_view_ = {name_, depth_ * kSliceBytes + slice_bytes};
    }
    valid_ = true;
    return {};
  }
}

Status SliceCursor::seek(std::string_view target) {
  valid_ = false;
  depth_ = 0;
  layers_[0] = space_;
  for (;;) {
    const SliceKey key(layers_[depth_], target);
    auto found = source_.seek(key.view());
    if (!key.is_link() || !found || !*found || !equal(source_.key(), key.view())) {
      return settle(std::move(found));
    }
    BASALT_CHECK_OK(enter(source_.value()));
    target.remove_prefix(kSliceBytes);
  }
}

Status SliceCursor::next() {
  BASALT_CHECK(valid_);
  if (!source_.step()) {
    valid_ = false;
    return settle(source_.next());
  }
  const Bytes key = source_.key();
  if (depth_ == 0 && key.size() > kLayerBytes && key.size() < kLinkKeyBytes &&
      load_be64(key.data()) == space_) [[likely]] {
    name_view_ = as_text(key.subspan(kLayerBytes));
    return {};
  }
  valid_ = false;
  return settle(true);
}

}  // namespace basalt::storage
