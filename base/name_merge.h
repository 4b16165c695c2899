// NameMerge: cursors over sorted names, with the one first whose next name is the smallest.
//
// A Cursor has name(), the name it stands on, which begins with the prefix that all names of the
// merge have. The eight bytes behind that prefix are kept beside each cursor: they decide nearly
// every comparison. Cursors are added when they stand on a name, and the first one is told of when
// it moved, or has come to its end.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace basalt {

template <class Cursor>
class NameMerge {
 public:
  NameMerge(size_t cursors, size_t prefix_bytes) : prefix_bytes_(prefix_bytes) {
    heads_.reserve(cursors);
  }

  bool empty() const { return heads_.empty(); }
  Cursor& first() const { return *heads_.front().cursor; }

  void add(Cursor& cursor) {
    const Head head(cursor, prefix_bytes_);
    heads_.insert(std::upper_bound(heads_.begin(), heads_.end(), head), head);
  }
  // The first one stands on a later name: to its new place. Nearly always that is near.
  void moved() {
    const Head head(first(), prefix_bytes_);
    auto place = heads_.begin() + 1;
    const auto near = heads_.begin() + static_cast<ptrdiff_t>(std::min(heads_.size(), kNear));
    for (; place != near && !(head < *place); ++place) *(place - 1) = *place;
    if (place == near && near != heads_.end()) {
      const auto after = std::upper_bound(near, heads_.end(), head);
      place = std::copy(near, after, near - 1) + 1;
    }
    *(place - 1) = head;
  }
  // The first one stands on no name any more.
  void drop() { heads_.erase(heads_.begin()); }
  void clear() { heads_.clear(); }

 private:
  struct Head {
    uint64_t key = 0;  // big-endian
    Cursor* cursor;

    Head(Cursor& of, size_t prefix_bytes) : cursor(&of) {
      const std::string_view name = of.name();
      const size_t rest = name.size() - prefix_bytes;
      if (rest >= sizeof key) [[likely]] {
        std::memcpy(&key, name.data() + prefix_bytes, sizeof key);
      } else if (rest != 0) {
        std::memcpy(&key, name.data() + prefix_bytes, rest);
      }
      if constexpr (std::endian::native == std::endian::little) key = std::byteswap(key);
    }
    friend bool operator<(const Head& a, const Head& b) {
      return a.key != b.key ? a.key < b.key : a.cursor->name() < b.cursor->name();
    }
  };

  static constexpr size_t kNear = 16;

  const size_t prefix_bytes_;
  std::vector<Head> heads_;  // ascending
};

}  // namespace basalt
