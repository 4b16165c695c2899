// Overlay: the records of a shard that are durable in the log but not yet in the index. Values are
// the bytes that the checkpoint will put into the index; an empty value is a tombstone.
//
// A hash table for look-ups and an ordered set for scans and checkpoints, both over the same
// entries. Thread: the shard's core while active. Once frozen nobody changes it, and the core and
// the checkpointer both read it.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string_view>
#include <unordered_set>

#include "base/bytes.h"
#include "storage/record_codec.h"
#include "storage/types.h"

namespace basalt::storage {

class Overlay {
 public:
  class Entry {
   public:
    std::string_view full_key() const {
      return {reinterpret_cast<const char*>(this + 1), key_bytes_};
    }
    KeyView key() const { return parse_full_key(full_key()); }
    bool tombstone() const { return value_.size == 0; }
    Bytes value() const { return value_.view(); }

   private:
    friend class Overlay;
    ValueBuffer value_;
    size_t hash_ = 0;
    uint32_t key_bytes_ = 0;
  };

  // The table is made for so many entries at once: growing it would stop the core for milliseconds.
  explicit Overlay(size_t entries_expected = 0) { hashed_.reserve(entries_expected); }
  ~Overlay();
  Overlay(const Overlay&) = delete;
  Overlay& operator=(const Overlay&) = delete;

  // Replaces what was there. An empty value is a tombstone.
  void put(const KeyView& key, ValueBuffer value);
  const Entry* find(std::string_view full_key) const;

  size_t entries() const { return ordered_.size(); }
  size_t bytes() const { return bytes_; }  // estimate, with the nodes
  bool empty() const { return ordered_.empty(); }

 private:
  struct Less {
    using is_transparent = void;
    bool operator()(const Entry* a, const Entry* b) const { return a->full_key() < b->full_key(); }
    bool operator()(const Entry* a, std::string_view b) const { return a->full_key() < b; }
    bool operator()(std::string_view a, const Entry* b) const { return a < b->full_key(); }
  };
  struct Hash {
    using is_transparent = void;
    size_t operator()(const Entry* entry) const { return entry->hash_; }
    size_t operator()(std::string_view key) const { return std::hash<std::string_view>()(key); }
  };
  struct Equal {
    using is_transparent = void;
    bool operator()(const Entry* a, const Entry* b) const { return a == b; }
    bool operator()(const Entry* a, std::string_view b) const { return a->full_key() == b; }
    bool operator()(std::string_view a, const Entry* b) const { return a == b->full_key(); }
  };
  using Ordered = std::set<Entry*, Less>;

 public:
  // In byte order of the full keys, which is the order of the index.
  using Iterator = Ordered::const_iterator;
  Iterator begin() const { return ordered_.begin(); }
  Iterator end() const { return ordered_.end(); }
  Iterator lower_bound(std::string_view full_key) const { return ordered_.lower_bound(full_key); }

 private:
  // Node headers, hash and set nodes and what malloc adds, measured at about 200 bytes an entry.
  static constexpr size_t kEntryOverheadBytes = 200;

  Ordered ordered_;
  std::unordered_set<Entry*, Hash, Equal> hashed_;
  size_t bytes_ = 0;
};

}  // namespace basalt::storage
