#include "storage/index_audit.h"

#include <fmt/format.h>

#include <cstring>

#include "base/crc32c.h"
#include "storage/key_slices.h"
#include "storage/record_codec.h"

namespace basalt::storage {

const std::string_view kIndexTableNames[kTableCount] = {"cur", "ver", "mpu", "part",
                                                        "bkt", "iam", "out"};

namespace {

constexpr uint32_t kIndexFormatVersion = 1;

bool row_good(Bytes key, Bytes value, size_t payload_bytes) {
  return value.size() == payload_bytes + 4 &&
         load_le32(value.data() + payload_bytes) == crc32c(value.first(payload_bytes), crc32c(key));
}

}  // namespace

void LayerNames::clear() {
  layers_.clear();
  bytes_ = 0;
}

LayerNames::Row LayerNames::take(Bytes key, Bytes value) {
  if (key.size() <= kLayerBytes || key.size() > kLinkKeyBytes) return Row::kDamaged;
  const uint64_t layer = load_be64(key.data());
  const std::string_view slice = as_text(key.subspan(kLayerBytes));
  const Place* place = nullptr;
  if ((layer & kLayerBit) != 0) {
    const auto found = layers_.find(layer);
    if (found == layers_.end()) return Row::kUnknownLayer;
    place = &found->second;
    space_ = place->space;
    name_ = place->prefix;
  } else {
    space_ = layer;
    name_.clear();
  }
  if (key.size() == kLinkKeyBytes) {
    const auto child = decode_link(key, value);
    if (!child || static_cast<uint8_t>(slice.back()) != 0xFF) return Row::kDamaged;
    highest_layer_ = std::max(highest_layer_, *child & ~kLayerBit);
    name_.append(slice.substr(0, kSliceBytes));
    if (bytes_ + name_.size() > kBytesMax) return Row::kLink;
    bytes_ += name_.size();
    layers_[*child] = {space_, name_};
    return Row::kLink;
  }
  name_.append(slice);
  return name_.size() > kNameBytesMax ? Row::kDamaged : Row::kRecord;
}

Result<IndexAudit> audit_index(IndexPages& pages, unsigned shard, const std::string& file,
                               const VisitRecord& visit, const Report& report) {
  IndexAudit audit;
  audit.transaction = pages.transaction();
  const auto tell = [&](Finding::Kind kind, uint64_t page, std::string what,
                        std::optional<OwnedKey> key = std::nullopt) {
    ++audit.damaged;
    report({kind, file, page * 4096, std::move(what), shard, std::move(key)});
  };
  const auto damaged = [&](const PageDamage& damage) {
    std::string what = damage.table.empty() || damage.table == "meta"
                           ? damage.what
                           : fmt::format("table {}: {}", damage.table, damage.what);
    if (damage.hides_keys) {
      audit.hidden.push_back({damage.table, damage.low, damage.high});
      if (damage.table == "sys" || damage.table == "seg" || damage.table == "cnt" ||
          damage.table == "main") {
        audit.rows_sound = false;
      }
      const auto shown = [](std::string_view raw) {
        if (raw.size() < kLayerBytes) return std::string("the start");
        return printable(
            {Table::kCurrent, load_be64(as_bytes(raw).data()), raw.substr(kLayerBytes)});
      };
      what += fmt::format("; names from {} to {} may be out of reach", shown(damage.low),
                          damage.high ? shown(*damage.high) : std::string("the end"));
    }
    tell(Finding::Kind::kIndex, damage.page, std::move(what));
  };

  LayerNames names;
  std::vector<uint64_t> scratch;
  const auto of_records = [&](Table table) -> IndexPages::Visit {
    return [&, table](Bytes key, Bytes value, uint64_t page) {
      switch (names.take(key, value)) {
        case LayerNames::Row::kLink:
          return true;
        case LayerNames::Row::kUnknownLayer:
          ++audit.records_unchecked;
          return true;
        case LayerNames::Row::kDamaged:
          tell(Finding::Kind::kIndex, page,
               fmt::format("table {}: a key or a link is damaged",
                           kIndexTableNames[static_cast<size_t>(table)]));
          return true;
        case LayerNames::Row::kRecord:
          break;
      }
      scratch.resize((value.size() + 7) / 8);
      std::memcpy(scratch.data(), value.data(), value.size());
      const Bytes copy{reinterpret_cast<const uint8_t*>(scratch.data()), value.size()};
      const KeyView name{table, names.space(), names.name()};
      const auto record = decode_record(name, copy);
      if (!record) {
        tell(Finding::Kind::kRecord, page, record.error().detail,
             OwnedKey{table, name.space, std::string(name.name)});
        return true;
      }
      ++audit.records;
      for_each_file_blob(*record, [&](const BlobRef& blob) {
        FileSum& sum = audit.files[blob.file];
        sum.bytes += static_cast<int64_t>(blob.length);
        ++sum.blobs;
      });
      if (table == Table::kCurrent) {
        SpaceSum& sum = audit.spaces[name.space];
        ++sum.objects;
        sum.bytes += static_cast<int64_t>(record->size);
      }
      if (visit) visit(name, *record, copy);
      return true;
    };
  };
  const auto broken_row = [&](std::string_view table, uint64_t page) {
    audit.rows_sound = false;
    tell(Finding::Kind::kIndex, page, fmt::format("a row of {} is damaged", table));
  };
  const auto of_sys = [&](Bytes key, Bytes value, uint64_t page) {
    const std::string_view name = as_text(key);
    if (name == "format" && row_good(key, value, 8)) {
      if (load_le32(value.data()) != kIndexFormatVersion || load_le32(value.data() + 4) != shard) {
        audit.rows_sound = false;
        tell(Finding::Kind::kIndex, page,
             fmt::format("the index says version {} shard {}", load_le32(value.data()),
                         load_le32(value.data() + 4)));
      }
      audit.has_format = true;
    } else if (name == "applied" && row_good(key, value, 32)) {
      audit.applied = LogPosition{load_le64(value.data()), load_le64(value.data() + 8),
                                  load_le32(value.data() + 24), load_le64(value.data() + 16)};
    } else if (name == "next_layer" && row_good(key, value, 8)) {
      audit.next_layer = load_le64(value.data());
    } else {
      broken_row("sys", page);
    }
    return true;
  };
  const auto of_sums = [&](std::string_view table, size_t key_bytes, auto&& add) {
    return IndexPages::Visit([&, table, key_bytes, add](Bytes key, Bytes value, uint64_t page) {
      if (key.size() != key_bytes || !row_good(key, value, 16)) {
        broken_row(table, page);
      } else {
        add(key.data(), static_cast<int64_t>(load_le64(value.data())),
            static_cast<int64_t>(load_le64(value.data() + 8)));
      }
      return true;
    });
  };
  const auto visit_of = [&](std::string_view table) -> IndexPages::Visit {
    for (size_t i = 0; i < kTableCount; ++i) {
      if (kIndexTableNames[i] != table) continue;
      names.clear();
      return of_records(static_cast<Table>(i));
    }
    if (table == "sys") return of_sys;
    if (table == "seg") {
      return of_sums(table, 4, [&](const uint8_t* key, int64_t bytes, int64_t blobs) {
        audit.files_said[load_be32(key)] = {bytes, blobs};
      });
    }
    if (table == "cnt") {
      return of_sums(table, 8, [&](const uint8_t* key, int64_t objects, int64_t bytes) {
        audit.spaces_said[load_be64(key)] = {objects, bytes};
      });
    }
    return [&, name = std::string(table)](Bytes, Bytes, uint64_t page) {
      tell(Finding::Kind::kIndex, page, fmt::format("unknown table {}", name));
      return false;
    };
  };
  BASALT_CHECK_OK(pages.check(visit_of, damaged));

  if (!audit.has_format) {
    audit.rows_sound = false;
    if (audit.hidden.empty()) tell(Finding::Kind::kIndex, 0, "the format row is missing");
  }
  if (names.highest_layer() >= audit.next_layer && audit.hidden.empty()) {
    tell(Finding::Kind::kIndex, 0, "the counter of layers is behind the layers in use");
  }
  // With records out of reach or damaged the sums cannot agree, and that was said already.
  if (audit.damaged != 0 || audit.records_unchecked != 0) return audit;
  const auto compare = [&](const auto& found, const auto& said, auto&& differs) {
    for (const auto& [id, sum] : found) {
      const auto at = said.find(id);
      differs(id, sum, at == said.end() ? decltype(sum){} : at->second);
    }
    for (const auto& [id, sum] : said) {
      if (!found.contains(id)) differs(id, decltype(sum){}, sum);
    }
  };
  compare(audit.files, audit.files_said, [&](uint32_t id, FileSum found, FileSum said) {
    if (found.bytes == said.bytes && found.blobs == said.blobs) return;
    tell(Finding::Kind::kTotals, 0,
         fmt::format("file {:08x} has {} live bytes in {} blobs, the index says {} in {}", id,
                     found.bytes, found.blobs, said.bytes, said.blobs));
  });
  compare(audit.spaces, audit.spaces_said, [&](uint64_t id, SpaceSum found, SpaceSum said) {
    if (found.objects == said.objects && found.bytes == said.bytes) return;
    tell(Finding::Kind::kTotals, 0,
         fmt::format("space {} has {} objects of {} bytes, the index says {} of {}", id,
                     found.objects, found.bytes, said.objects, said.bytes));
  });
  return audit;
}

}  // namespace basalt::storage
