// FlatView: a FlatBuffers table read field by field, each field checked when it is read.
//
// For records that are read by the thousand and of which a few fields are wanted: the generated
// verifier walks every field of every table first. Here a damaged offset or length is found when
// it is followed: nothing outside the bytes is ever read, whatever they hold. Alignment does not
// matter. The first damage found makes the view bad, and from then on every field is absent; so
// fields are read first, and good() is asked once at the end. Fields are named by the generated
// VT_ constants. Format: https://flatbuffers.dev/internals/
#pragma once

#include <cstdint>
#include <cstring>

#include "base/bytes.h"

// Inlined whatever the compiler thinks of it: a field is a few instructions, and half of them fall
// away where the fields of one table are read one after the other.
#define BASALT_FLAT_INLINE [[gnu::always_inline]]

namespace basalt {

class FlatView {
 public:
  // The root table of a finished buffer. The bytes outlive the view.
  BASALT_FLAT_INLINE explicit FlatView(Bytes buffer) : data_(buffer.data()), size_(buffer.size()) {
    if (size_ < sizeof(uint32_t)) {
      good_ = false;
      return;
    }
    enter(load<uint32_t>(0));
  }

  bool good() const { return good_; }

  template <class T>
  BASALT_FLAT_INLINE T scalar(uint16_t field, T absent = {}) {
    const uint64_t at = place(field);
    if (at == 0) return absent;
    if (at + sizeof(T) > size_) return damaged<T>(absent);
    return load<T>(at);
  }
  // The bytes of a string, or of a vector of elements of `element_bytes`; empty if it is absent.
  BASALT_FLAT_INLINE Bytes bytes(uint16_t field, size_t element_bytes = 1) {
    const uint64_t at = follow(field);
    if (at == 0) return {};
    const uint64_t count = load<uint32_t>(at);
    const uint64_t begin = at + sizeof(uint32_t);
    if (count * element_bytes > size_ - begin) return damaged<Bytes>({});
    return {data_ + begin, count * element_bytes};
  }
  // A table within this one; !exists() if it is absent. Its own damage is its own: ask its good().
  BASALT_FLAT_INLINE FlatView table(uint16_t field) {
    const uint64_t at = follow(field);
    FlatView inner(data_, size_);
    if (at != 0) inner.enter(at);
    return inner;
  }
  bool exists() const { return table_ != 0; }

 private:
  FlatView(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  template <class T>
  T load(uint64_t at) const {
    T value;
    std::memcpy(&value, data_ + at, sizeof value);
    return value;
  }
  template <class T>
  T damaged(T value) {
    good_ = false;
    field_bytes_ = 0;
    return value;
  }
  BASALT_FLAT_INLINE void enter(uint64_t at) {
    // Places are below 2^33 (an offset of 32 bits from within a buffer that is smaller than
    // 2^31), so no sum overflows.
    if (at + sizeof(int32_t) > size_) return (void)damaged(0);
    const int64_t fields = static_cast<int64_t>(at) - load<int32_t>(at);
    if (fields < 0 || static_cast<uint64_t>(fields) + kFieldsHead > size_) return (void)damaged(0);
    const uint64_t field_bytes = load<uint16_t>(static_cast<uint64_t>(fields));
    if (static_cast<uint64_t>(fields) + field_bytes > size_) return (void)damaged(0);
    table_ = at;
    fields_ = static_cast<uint64_t>(fields);
    field_bytes_ = field_bytes;
  }
  // Where the field is; 0: absent.
  BASALT_FLAT_INLINE uint64_t place(uint16_t field) const {
    if (field + sizeof(uint16_t) > field_bytes_) return 0;
    const uint16_t offset = load<uint16_t>(fields_ + field);
    return offset == 0 ? 0 : table_ + offset;
  }
  // Where what the field refers to begins, with room for a length there; 0: absent, or damaged.
  BASALT_FLAT_INLINE uint64_t follow(uint16_t field) {
    uint64_t at = place(field);
    if (at == 0) return 0;
    if (at + sizeof(uint32_t) > size_) return damaged<uint64_t>(0);
    at += load<uint32_t>(at);
    if (at + sizeof(uint32_t) > size_) return damaged<uint64_t>(0);
    return at;
  }

  static constexpr uint64_t kFieldsHead = 4;  // of a vtable: its size, the table's size

  const uint8_t* data_;
  size_t size_;
  uint64_t table_ = 0;
  uint64_t fields_ = 0;
  uint64_t field_bytes_ = 0;
  bool good_ = true;
};

}  // namespace basalt

#undef BASALT_FLAT_INLINE
