// Layered key slices: names of up to kNameBytesMax bytes over an ordered store whose keys end at
// 511 bytes (LMDB).
//
// A key of the store is layer (8, big-endian) + at most kSliceBytes of the name. The first layer of
// a name is its space (top bit clear). If more than kSliceBytes of the name remain, the entry at
// layer + slice + 0xFF is a link: its value holds the id of the layer (top bit set) in which the
// rest continues. A link is the only entry with a key of kLinkKeyBytes, so it cannot be confused
// with a name, and it sorts after the name that ends with the slice and before every name with a
// greater slice: a nested walk gives exact byte order for arbitrary bytes. (The idea is Masstree's,
// over a B+tree. Names up to 480 bytes, nearly all, pay nothing.)
#pragma once

#include <cstdint>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"
#include "storage/types.h"

namespace basalt::storage {

constexpr size_t kSliceBytes = 480;
constexpr size_t kLayerBytes = 8;
constexpr size_t kLinkKeyBytes = kLayerBytes + kSliceBytes + 1;
constexpr uint64_t kLayerBit = uint64_t{1} << 63;
// Layer id and its checksum.
constexpr size_t kLinkValueBytes = 12;
// Layers below the space's own: (1041 - 1) / 480.
constexpr size_t kLinksMax = (kNameBytesMax - 1) / kSliceBytes;

// A cursor over one table of an ordered store. Errors are the store's (kIo, kCorrupt).
class SliceSource {
 public:
  virtual ~SliceSource() = default;
  // First key >= `key`; false if there is none. key() and value() are valid after true, until the
  // next call or write.
  virtual Result<bool> seek(Bytes key) = 0;
  virtual Result<bool> next() = 0;
  // As next(), where that is but a step: else false, and nothing has moved.
  virtual bool step() { return false; }
  virtual Bytes key() const = 0;
  virtual Bytes value() const = 0;
  // Whether the row that it stands on, or the one before it, is what was written under its key: for
  // who passes over a row unread. A damaged key may have moved a row out of the range that is read.
  virtual Status check_row() { return {}; }
  virtual Status check_row_before() { return {}; }
};

// One table of an ordered store.
class SliceStore : public SliceSource {
 public:
  virtual Result<Bytes> get(Bytes key) = 0;  // kNotFound
  virtual Status put(Bytes key, Bytes value) = 0;
  virtual Status erase(Bytes key) = 0;       // kNotFound
  virtual Result<uint64_t> new_layer() = 0;  // an id never used before in this table, top bit set
};

// `name` is 1 to kNameBytesMax bytes, `space` has its top bit clear.
Result<Bytes> slices_get(SliceStore& store, uint64_t space, std::string_view name);  // kNotFound
Status slices_put(SliceStore& store, uint64_t space, std::string_view name, Bytes value);
// Removes the record, and layers and links that hold nothing any more. kNotFound.
Status slices_erase(SliceStore& store, uint64_t space, std::string_view name);

// Walks the names of one space in byte order.
class SliceCursor {
 public:
  SliceCursor(SliceSource& source, uint64_t space) : source_(source), space_(space) {}

  // First name >= `target` (any length, also empty). Afterwards valid() says whether there is one.
  Status seek(std::string_view target);
  Status next();
  bool valid() const { return valid_; }
  std::string_view name() const { return name_view_; }  // until the next call
  Bytes value() const { return source_.value(); }
  // After seek(): no name was lost between the target and where it stands, as far as rows show it.
  Status check_gap() { return source_.check_row_before(); }
  // When valid(): the row was written under this name.
  Status check_row() { return source_.check_row(); }

 private:
  Status settle(Result<bool> found);
  Status enter(Bytes link_value);

  SliceSource& source_;
  uint64_t space_;
  bool valid_ = false;
  size_t depth_ = 0;  // links followed; name_[0, depth_ * kSliceBytes) is what they spelt
  uint64_t layers_[kLinksMax + 1] = {};
  std::string_view
      name_view_;  // in the source's key as long as no link was followed, else of name_
  char name_[(kLinksMax + 1) * kSliceBytes];
};

// Link values: checked, because a wrong layer id would show another name's records.
void encode_link(Bytes link_key, uint64_t layer, uint8_t (&out)[kLinkValueBytes]);
Result<uint64_t> decode_link(Bytes link_key, Bytes value);

}  // namespace basalt::storage
