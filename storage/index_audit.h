// Audit of one shard's index: every page (IndexPages), every row's checksum, every record's
// structure, and the sums that the index keeps against the records that were found.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "storage/findings.h"
#include "storage/index.h"
#include "storage/index_pages.h"

namespace basalt::storage {

// Long names lie in layers (storage/key_slices.h): the rows of a table are in an order in which a
// layer's link comes before its rows, so walking them tells every name.
class LayerNames {
 public:
  // Prefixes kept; what lies in further layers is counted and not checked. Only names above 480
  // bytes need any.
  static constexpr size_t kBytesMax = 256u << 20;

  enum class Row : uint8_t { kRecord, kLink, kUnknownLayer, kDamaged };
  // Takes a row's key apart; a link is learnt. With kRecord `space` and `name` are set.
  Row take(Bytes key, Bytes value);
  uint64_t space() const { return space_; }
  std::string_view name() const { return name_; }
  uint64_t highest_layer() const { return highest_layer_; }
  void clear();

 private:
  struct Place {
    uint64_t space;
    std::string prefix;
  };
  std::unordered_map<uint64_t, Place> layers_;
  size_t bytes_ = 0;
  uint64_t space_ = 0;
  std::string name_;
  uint64_t highest_layer_ = 0;
};

// Names of the tables on disk, by Table.
extern const std::string_view kIndexTableNames[kTableCount];

struct IndexAudit {
  uint64_t transaction = 0;
  uint64_t records = 0;
  uint64_t records_unchecked = 0;  // in a layer beyond LayerNames::kBytesMax
  uint64_t damaged = 0;            // findings
  bool has_format = false;
  std::optional<LogPosition> applied;
  uint64_t next_layer = 1;
  // As found, and as the index says.
  std::map<uint32_t, FileSum> files, files_said;
  std::map<uint64_t, SpaceSum> spaces, spaces_said;
  // Ranges of keys that cannot be reached any more.
  struct Hidden {
    std::string table, low;
    std::optional<std::string> high;
  };
  std::vector<Hidden> hidden;
  bool rows_sound = true;  // sys, seg and cnt could be read
};

// Called for each record that passed its checks. `value`: its bytes in the index.
using VisitRecord = std::function<void(const KeyView&, const RecordView&, Bytes value)>;

// Looks at what `pages` selected. `file` names it in the findings. Errors: kCancelled (by the
// pace), kIo, kCorrupt (nothing could be read at all).
Result<IndexAudit> audit_index(IndexPages& pages, unsigned shard, const std::string& file,
                               const VisitRecord& visit, const Report& report);

}  // namespace basalt::storage
