#include "storage/scan.h"

#include <algorithm>
#include <compare>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/log.h"
#include "base/name_merge.h"

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
  PageMemory(ScanPage& page, size_t bytes_expected)
      : page_(page), next_chunk_(std::clamp(bytes_expected, kChunkBytesMin, kChunkBytesMax)) {}

  // Room for so many bytes; taken are those that keep() says, of the last room that was given.
  uint8_t* room(size_t bytes) {
    if (bytes > left_) {
      const size_t chunk = std::max(bytes, next_chunk_);
      next_chunk_ = std::min(next_chunk_ * 4, kChunkBytesMax);
      page_.memory.push_back(std::make_unique_for_overwrite<uint8_t[]>(chunk));
      at_ = page_.memory.back().get();
      left_ = chunk;
    }
    return at_;
  }
  void keep(size_t bytes) {
    const size_t taken = std::min<size_t>(round_up(bytes, 8), left_);
    at_ += taken;
    left_ -= taken;
    total_ += taken;
  }
  size_t total() const { return total_; }

 private:
  static constexpr size_t kChunkBytesMin = 4096;
  static constexpr size_t kChunkBytesMax = 256 * 1024;
  ScanPage& page_;
  uint8_t* at_ = nullptr;
  size_t left_ = 0;
  size_t next_chunk_;
  size_t total_ = 0;
};

// Of an ordinary object: its whole record and name, or what is selected.
constexpr size_t kEntryBytesUsual = 384;
constexpr size_t kSelectedEntryBytesUsual = 112;

uint8_t* put_text(uint8_t* at, std::string_view text, std::string_view& out) {
  if (!text.empty()) std::memcpy(at, text.data(), text.size());
  out = {reinterpret_cast<const char*>(at), text.size()};
  return at + text.size();
}

// One overlay, restricted to a space of a table.
class OverlayCursor {
 public:
  OverlayCursor(const Overlay* overlay, Table table, uint64_t space)
      : overlay_(overlay), table_(table), space_(space) {
    const FullKey prefix({table, space, {}});
    std::memcpy(prefix_, prefix.view().data(), sizeof prefix_);
  }
  void seek(std::string_view target) {
    if (overlay_ == nullptr || overlay_->empty()) return;
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

// The records of one shard: three sources in byte order of the name, of which the newest that has a
// name decides. A read transaction is open as long as it lives.
class ShardScanner {
 public:
  static Result<IndexReader::Snapshot> snapshot(ShardState& state) { return state.reader_.begin(); }
  ShardScanner(ShardState& state, IndexReader::Snapshot snapshot, const ScanOptions& options)
      : snapshot_(std::move(snapshot)),
        active_(state.active_.get(), options.table, options.space),
        frozen_(state.frozen_.get(), options.table, options.space),
        index_(snapshot_.source(options.table), options.space),
        shard_(state.index_.shard()) {}

  bool valid() const { return valid_; }
  std::string_view name() const { return name_; }  // these until the next move
  Bytes value() const { return value_; }
  unsigned shard() const { return shard_; }

  Status seek(std::string_view target) {
    active_.seek(target);
    frozen_.seek(target);
    BASALT_CHECK_OK(index_.seek(target));
    BASALT_CHECK_OK(index_.check_gap());
    return settle();
  }
  // Leaves the current name (which the sources that have it still stand on).
  Status next() {
    if (active_.valid() || frozen_.valid()) {
      BASALT_CHECK_OK(pass());
      return settle();
    }
    // Only the index has names left.
    BASALT_CHECK_OK(index_.next());
    valid_ = index_.valid();
    if (valid_) {
      name_ = index_.name();
      value_ = index_.value();
    }
    return {};
  }
  // The row of the index where it stands is what was written. Asked of a row behind the end of a
  // range: one that is not may have been in the range.
  Status check_row() {
    if (!index_.valid()) return {};
    return index_.check_row();
  }

 private:
  Status pass() {
    if (in_active_) active_.next();
    if (in_frozen_) frozen_.next();
    if (in_index_) BASALT_CHECK_OK(index_.next());
    return {};
  }
  Status settle() {
    for (;;) {
      // One comparison a source tells the smallest name and who stands on it.
      in_active_ = in_frozen_ = in_index_ = false;
      const Overlay::Entry* entry = nullptr;
      if (active_.valid()) {
        in_active_ = true;
        name_ = active_.name();
        entry = &active_.entry();
      }
      if (frozen_.valid()) {
        const auto order = in_active_ ? frozen_.name() <=> name_ : std::strong_ordering::less;
        in_frozen_ = order <= 0;
        if (order < 0) {
          in_active_ = false;
          name_ = frozen_.name();
          entry = &frozen_.entry();
        }
      }
      if (index_.valid()) {
        const auto order =
            in_active_ || in_frozen_ ? index_.name() <=> name_ : std::strong_ordering::less;
        in_index_ = order <= 0;
        if (order < 0) {
          in_active_ = in_frozen_ = false;
          valid_ = true;
          name_ = index_.name();
          value_ = index_.value();
          return {};
        }
      }
      valid_ = in_active_ || in_frozen_;
      if (!valid_) return {};
      if (!entry->tombstone()) {
        value_ = entry->value();
        return {};
      }
      BASALT_CHECK_OK(pass());
    }
  }

  IndexReader::Snapshot snapshot_;
  OverlayCursor active_, frozen_;
  SliceCursor index_;
  unsigned shard_;
  std::string_view name_;
  Bytes value_;
  bool valid_ = false;
  bool in_active_ = false, in_frozen_ = false, in_index_ = false;  // who stands on `name_`
};

namespace {

// Copies records into a page, checking each.
class Collector {
 public:
  Collector(ScanPage& page, const ScanOptions& options)
      : options_(options),
        page_(page),
        memory_(page,
                size_t{options.limit} *
                    (options.select == nullptr ? kEntryBytesUsual : kSelectedEntryBytesUsual)),
        checksum_(options.table, options.space) {
    page.entries.reserve(std::min<uint32_t>(options.limit, kEntriesReservedMax));
  }

  bool full() const {
    return page_.entries.size() == options_.limit || memory_.total() > kScanPageBytesMax;
  }

  // The name in the page's memory.
  std::string_view add_prefix(std::string_view name) {
    ScanPage::Entry& entry = page_.entries.emplace_back();
    put_text(memory_.room(name.size()), name, entry.name);
    memory_.keep(name.size());
    entry.common_prefix = true;
    return entry.name;
  }

  void add(const ShardScanner& scanner) {
    ScanPage::Entry& entry = page_.entries.emplace_back();
    const Status added = options_.select == nullptr
                             ? add_whole(entry, scanner.name(), scanner.value())
                             : add_selected(entry, scanner.name(), scanner.value());
    if (added) [[likely]]
      return;
    // One damaged record must not hide the names around it; whoever reads it gets kCorrupt.
    const KeyView key{options_.table, options_.space, entry.name};
    log_error(
        "a record fails its check",
        {{"shard", scanner.shard()}, {"key", printable(key)}, {"error", added.error().detail}});
  }

 private:
  Status add_whole(ScanPage::Entry& entry, std::string_view name, Bytes value) {
    uint8_t* at = memory_.room(value.size() + name.size());
    if (!value.empty()) std::memcpy(at, value.data(), value.size());
    put_text(at + value.size(), name, entry.name);
    memory_.keep(value.size() + name.size());
    BASALT_TRY(record, decode_value(checksum_.of(entry.name), {at, value.size()}));
    entry.record = record;
    return {};
  }

  Status add_selected(ScanPage::Entry& entry, std::string_view name, Bytes value) {
    // Checked and read in a copy that the processor's first cache holds: what was checked is what
    // is read.
    if (scratch_.size() * sizeof(uint64_t) < value.size()) scratch_.resize(value.size() / 8 + 64);
    auto* copy = reinterpret_cast<uint8_t*>(scratch_.data());
    if (!value.empty()) std::memcpy(copy, value.data(), value.size());
    uint8_t* const begin = memory_.room(name.size() + kTagBytesMax + kSelectedBytesMax);
    uint8_t* at = put_text(begin, name, entry.name);
    const auto record = decode_value(checksum_.of(name), {copy, value.size()});
    if (!record) [[unlikely]] {
      memory_.keep(name.size());
      return std::unexpected(record.error());
    }
    entry.record.seq = record->seq;
    entry.record.size = record->size;
    at = put_text(at, record->tag, entry.record.tag);
    const size_t kept = options_.select(record->meta, at);
    BASALT_CHECK(kept <= kSelectedBytesMax);
    entry.record.meta = {at, kept};
    memory_.keep(static_cast<size_t>(at - begin) + kept);
    return {};
  }

  static constexpr uint32_t kEntriesReservedMax = 1000;

  const ScanOptions& options_;
  ScanPage& page_;
  PageMemory memory_;
  const SpaceCrc checksum_;
  std::vector<uint64_t> scratch_;
};

}  // namespace

Result<ScanPage> scan_shards(std::span<ShardState* const> shards, const ScanOptions& options) {
  if (options.limit == 0 || options.limit > kScanEntriesMax || options.space >> 63 != 0 ||
      static_cast<size_t>(options.table) >= kTableCount) {
    return fail(Code::kInvalid, "scan options out of range");
  }
  ScanPage page;
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

  std::vector<ShardScanner> scanners;
  scanners.reserve(shards.size());
  NameMerge<ShardScanner> merge(shards.size(), prefix.size());
  const auto in_range = [&](const ShardScanner& scanner) {
    return scanner.valid() && scanner.name().starts_with(prefix);
  };
  // The first of the merge has moved.
  const auto moved = [&]() -> Status {
    ShardScanner& scanner = merge.first();
    if (in_range(scanner)) [[likely]] {
      merge.moved();
      return {};
    }
    merge.drop();
    return scanner.check_row();
  };
  for (ShardState* state : shards) {
    BASALT_TRY(snapshot, ShardScanner::snapshot(*state));
    ShardScanner& scanner = scanners.emplace_back(*state, std::move(snapshot), options);
    BASALT_CHECK_OK(scanner.seek(start));
    if (in_range(scanner)) {
      merge.add(scanner);
    } else {
      BASALT_CHECK_OK(scanner.check_row());
    }
  }

  Collector collector(page, options);
  while (!merge.empty()) {
    if (collector.full()) {
      page.more = true;
      return page;
    }
    ShardScanner& scanner = merge.first();
    const std::string_view rolled = common_prefix_of(scanner.name());
    if (rolled.empty()) [[likely]] {
      collector.add(scanner);
      BASALT_CHECK_OK(scanner.next());
      BASALT_CHECK_OK(moved());
      continue;
    }
    // Every shard that stands within the common prefix goes behind it.
    const std::string_view shown = collector.add_prefix(rolled);
    const auto successor = successor_of_prefix(shown);
    if (!successor) {
      for (ShardScanner& last : scanners) BASALT_CHECK_OK(last.check_row());
      return page;
    }
    while (!merge.empty() && merge.first().name().starts_with(shown)) {
      BASALT_CHECK_OK(merge.first().seek(*successor));
      BASALT_CHECK_OK(moved());
    }
  }
  return page;
}

}  // namespace basalt::storage
