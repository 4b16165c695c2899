#include "storage/overlay.h"

#include <cstring>
#include <new>

namespace basalt::storage {

Overlay::~Overlay() {
  for (Entry* entry : ordered_) {
    entry->~Entry();
    ::operator delete(entry);
  }
}

void Overlay::put(const KeyView& key, ValueBuffer value) {
  const FullKey full_key(key);
  const std::string_view text = full_key.view();
  if (const auto found = hashed_.find(text); found != hashed_.end()) {
    Entry& entry = **found;
    bytes_ += value.size;
    bytes_ -= entry.value_.size;
    entry.value_ = std::move(value);
    return;
  }
  // One allocation for the entry and its key.
  auto* entry = new (::operator new(sizeof(Entry) + text.size())) Entry;
  std::memcpy(static_cast<void*>(entry + 1), text.data(), text.size());
  entry->key_bytes_ = static_cast<uint32_t>(text.size());
  entry->hash_ = Hash()(text);
  bytes_ += kEntryOverheadBytes + text.size() + value.size;
  entry->value_ = std::move(value);
  hashed_.insert(entry);
  ordered_.insert(entry);
}

const Overlay::Entry* Overlay::find(std::string_view full_key) const {
  const auto found = hashed_.find(full_key);
  return found == hashed_.end() ? nullptr : *found;
}

}  // namespace basalt::storage
