#include "storage/shard_state.h"

#include <algorithm>
#include <compare>
#include <cstring>

#include "base/check.h"
#include "base/log.h"
#include "storage/generated/record_generated.h"

namespace basalt::storage {

namespace {

// Smallest string that is greater than every string with this prefix; nothing if there is none.
std::optional<std::string> successor_of_prefix(std::string_view prefix) {
  std::string out(prefix);
  while (!out.empty()) {
    auto& last = reinterpret_cast<uint8_t&>(out.back());
    if (last != 0xFF) {
      ++last;
      return out;
    }
    out.pop_back();
  }
  return std::nullopt;
}

// Memory of a page in few allocations. Every piece starts 8-byte aligned (values are decoded in
// place).
class PageMemory {
 public:
  PageMemory(ScanPage& page, uint32_t limit)
      : page_(page),
        next_chunk_(std::clamp(limit * kEntryBytesUsual, kChunkBytesMin, kChunkBytesMax)) {}

  struct Entry {
    std::string_view name;
    Bytes value;
  };
  Entry copy(std::string_view name, Bytes value) {
    const size_t taken = round_up(value.size() + name.size(), 8);
    if (taken > left_) {
      const size_t chunk = std::max(taken, next_chunk_);
      next_chunk_ = std::min(next_chunk_ * 4, kChunkBytesMax);
      page_.memory.push_back(std::make_unique_for_overwrite<uint8_t[]>(chunk));
      at_ = page_.memory.back().get();
      left_ = chunk;
    }
    uint8_t* start = at_;
    if (!value.empty()) std::memcpy(start, value.data(), value.size());
    std::memcpy(start + value.size(), name.data(), name.size());
    at_ += taken;
    left_ -= taken;
    total_ += taken;
    return {{reinterpret_cast<const char*>(start) + value.size(), name.size()},
            {start, value.size()}};
  }
  size_t total() const { return total_; }

 private:
  // A record of an ordinary object and its name.
  static constexpr size_t kEntryBytesUsual = 384;
  static constexpr size_t kChunkBytesMin = 4096;
  static constexpr size_t kChunkBytesMax = 256 * 1024;
  ScanPage& page_;
  uint8_t* at_ = nullptr;
  size_t left_ = 0;
  size_t next_chunk_;
  size_t total_ = 0;
};

// The records of an index page lie next to each other, but each next one is found through an offset
// that is read first: one wait for memory after the other. This asks for the whole page when the
// first record of it is met.
class PageAhead {
 public:
  void meet(Bytes value) {
    const uintptr_t page = reinterpret_cast<uintptr_t>(value.data()) / kPageBytes;
    if (page == page_) return;
    page_ = page;
    const auto* begin = reinterpret_cast<const uint8_t*>(page * kPageBytes);
    for (size_t at = 0; at < kPageBytes; at += kLineBytes) __builtin_prefetch(begin + at);
  }

 private:
  static constexpr size_t kPageBytes = 4096;
  static constexpr size_t kLineBytes = 64;
  uintptr_t page_ = 0;
};

// One overlay, restricted to a space of a table.
class OverlayCursor {
 public:
  OverlayCursor(const Overlay* overlay, Table table, uint64_t space)
      : overlay_(overlay), table_(table), space_(space) {
    const FullKey prefix({table, space, {}});
    std::memcpy(prefix_, prefix.view().data(), sizeof prefix_);
  }
  void seek(std::string_view target) {
    if (overlay_ == nullptr) return;
    const FullKey key({table_, space_, target});
    at_ = overlay_->lower_bound(key.view());
    settle();
  }
  void next() {
    ++at_;
    settle();
  }
  bool valid() const { return valid_; }
  std::string_view name() const { return (*at_)->full_key().substr(kFullKeyPrefixBytes); }
  const Overlay::Entry& entry() const { return **at_; }

 private:
  void settle() {
    valid_ = at_ != overlay_->end() &&
             std::memcmp((*at_)->full_key().data(), prefix_, sizeof prefix_) == 0;
  }
  const Overlay* overlay_;
  Table table_;
  uint64_t space_;
  char prefix_[kFullKeyPrefixBytes];
  Overlay::Iterator at_;
  bool valid_ = false;
};

}  // namespace

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
      met_later_record_ |= (*old)->seq >= seq;
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
  for (const BlobRef& blob : new_blobs_) {
    if (!moved_.contains(blob)) files_.add_live(blob);
  }
  // clear() walks all buckets: a manifest of 10,000 parts must not tax every small record after it.
  constexpr size_t kBucketsKept = 256;
  if (new_blobs_.bucket_count() > kBucketsKept) new_blobs_ = {};
  if (moved_.bucket_count() > kBucketsKept) moved_ = {};
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

// Three sources in byte order of the name; the newest that has a name decides.
struct ShardState::Scanner {
  OverlayCursor active, frozen;
  SliceCursor index;

  Scanner(ShardState& state, IndexReader::Snapshot& snapshot, const ScanOptions& options)
      : active(state.active_.get(), options.table, options.space),
        frozen(state.frozen_.get(), options.table, options.space),
        index(snapshot.source(options.table), options.space) {}

  std::string_view name;
  Bytes value;
  bool valid = false;

  Status seek(std::string_view target) {
    active.seek(target);
    frozen.seek(target);
    BASALT_CHECK_OK(index.seek(target));
    BASALT_CHECK_OK(index.check_gap());
    return settle();
  }
  // Leaves the current name (which the sources that have it still stand on).
  Status next() {
    BASALT_CHECK_OK(pass());
    return settle();
  }

 private:
  bool in_active_ = false, in_frozen_ = false, in_index_ = false;  // who stands on `name`
  PageAhead ahead_;

  Status pass() {
    if (in_active_) active.next();
    if (in_frozen_) frozen.next();
    if (in_index_) BASALT_CHECK_OK(index.next());
    return {};
  }
  Status settle() {
    for (;;) {
      // One comparison a source tells the smallest name and who stands on it.
      in_active_ = in_frozen_ = in_index_ = false;
      const Overlay::Entry* entry = nullptr;
      if (active.valid()) {
        in_active_ = true;
        name = active.name();
        entry = &active.entry();
      }
      if (frozen.valid()) {
        const auto order = in_active_ ? frozen.name() <=> name : std::strong_ordering::less;
        in_frozen_ = order <= 0;
        if (order < 0) {
          in_active_ = false;
          name = frozen.name();
          entry = &frozen.entry();
        }
      }
      if (index.valid()) {
        const auto order =
            in_active_ || in_frozen_ ? index.name() <=> name : std::strong_ordering::less;
        in_index_ = order <= 0;
        if (order < 0) {
          in_active_ = in_frozen_ = false;
          valid = true;
          name = index.name();
          value = index.value();
          ahead_.meet(value);
          return {};
        }
      }
      valid = in_active_ || in_frozen_;
      if (!valid) return {};
      if (!entry->tombstone()) {
        value = entry->value();
        return {};
      }
      BASALT_CHECK_OK(pass());
    }
  }
};

Result<ScanPage> ShardState::scan(const ScanOptions& options) {
  if (options.limit == 0 || options.limit > kScanEntriesMax || options.space >> 63 != 0 ||
      static_cast<size_t>(options.table) >= kTableCount) {
    return fail(Code::kInvalid, "scan options out of range");
  }
  ScanPage page;
  PageMemory memory(page, options.limit);
  const std::string_view prefix = options.prefix;
  const auto common_prefix_of = [&](std::string_view name) -> std::string_view {
    if (options.delimiter.empty()) return {};
    const size_t at = name.find(options.delimiter, prefix.size());
    if (at == std::string_view::npos) return {};
    return name.substr(0, at + options.delimiter.size());
  };

  // Where to begin: at the prefix, after `after`, or behind the common prefix that `after` is (or
  // lies in).
  std::string start(prefix);
  if (!options.after.empty() && options.after >= prefix) {
    const std::string_view rolled =
        options.after.starts_with(prefix) ? common_prefix_of(options.after) : std::string_view();
    if (!rolled.empty()) {
      auto successor = successor_of_prefix(rolled);
      if (!successor) return page;
      start = std::move(*successor);
    } else {
      start.assign(options.after);
      start.push_back('\0');
    }
  }
  // No name is longer, so what is cut off decides nothing: a longer start sorts after all names
  // that equal its head.
  if (start.size() > kNameBytesMax + 1) start.resize(kNameBytesMax + 1);

  BASALT_TRY(snapshot, reader_.begin());
  Scanner scanner(*this, snapshot, options);
  BASALT_CHECK_OK(scanner.seek(start));
  page.entries.reserve(std::min<uint32_t>(options.limit, 1000));
  const SpaceCrc checksum(options.table, options.space);
  while (scanner.valid && scanner.name.starts_with(prefix)) {
    if (page.entries.size() == options.limit || memory.total() > kScanPageBytesMax) {
      page.more = true;
      break;
    }
    ScanPage::Entry& entry = page.entries.emplace_back();
    if (const std::string_view rolled = common_prefix_of(scanner.name); !rolled.empty()) {
      entry.name = memory.copy(rolled, {}).name;
      entry.common_prefix = true;
      const auto successor = successor_of_prefix(entry.name);
      if (!successor) break;
      BASALT_CHECK_OK(scanner.seek(*successor));
      continue;
    }
    const PageMemory::Entry kept = memory.copy(scanner.name, scanner.value);
    entry.name = kept.name;
    if (auto record = decode_value(checksum.of(kept.name), kept.value)) {
      entry.record = *record;
    } else {
      // One damaged record must not hide the names around it; whoever reads it gets kCorrupt.
      const KeyView key{options.table, options.space, entry.name};
      log_error(
          "a record fails its check",
          {{"shard", index_.shard()}, {"key", printable(key)}, {"error", record.error().detail}});
    }
    BASALT_CHECK_OK(scanner.next());
  }
  // A row behind the end that is not what was written may have been one of the range.
  if (!page.more && scanner.index.valid()) BASALT_CHECK_OK(scanner.index.check_row());
  return page;
}

}  // namespace basalt::storage
