// ListMultipartUploads: GET /bucket?uploads. API reference: "ListMultipartUploads".
//
// The kUpload table is ordered by key and then by upload id, which is random; the listing is
// ordered by key and then by time. So the uploads of one key are gathered and sorted. The scan is
// without a delimiter, because the bytes of an upload id could be taken for it: prefixes are rolled
// up here.

#include <algorithm>
#include <memory>
#include <vector>

#include "protocol/s3/body.h"
#include "protocol/s3/failure.h"
#include "protocol/s3/listing_output.h"
#include "protocol/s3/multipart.h"
#include "protocol/s3/object_meta.h"
#include "protocol/s3/ops/handlers.h"

namespace basalt::s3 {
namespace {

// Names are key, NUL, 16 bytes of upload id.
constexpr size_t kNameTailBytes = 17;
constexpr uint32_t kScanLimit = 1000;
// More uploads of one key than this are listed in groups of this many, each in order of time.
constexpr size_t kUploadsOfKeyMax = 10'000;
// Greater than every byte that goes on with a key (UTF-8) or ends it (NUL): the names behind `x` +
// kBehind do not start with x.
constexpr char kBehind = '\xff';

struct Item {
  UploadId id;
  int64_t initiated_ms = 0;
  std::string initiator;
  std::string owner;
  std::string storage_class;
  std::optional<auth::Algorithm> algorithm;
  bool full_object = false;
};

struct Entry {
  std::string name;  // key, or common prefix
  bool common_prefix = false;
  Item upload;
};

struct Query {
  std::string_view prefix;
  std::string_view delimiter;
  std::string_view key_marker;
  std::string_view id_marker_text;
  std::optional<UploadId> id_marker;  // only with a key marker
  uint32_t max = kListKeysMax;
};

Result<Item> read_upload(std::string_view id, const storage::RecordView& record) {
  BASALT_TRY(view, UploadView::open(record.meta));
  const fb::Upload& stored = *view;
  Item upload;
  upload.id = UploadId::from_bytes(as_bytes(id));
  upload.initiated_ms = stored.initiated_ms();
  upload.initiator = text_of(stored.initiator());
  upload.owner = text_of(stored.object()->owner());
  upload.storage_class = text_of(stored.object()->storage_class());
  if (stored.checksum_algorithm() < auth::kAlgorithmCount) {
    upload.algorithm = static_cast<auth::Algorithm>(stored.checksum_algorithm());
    upload.full_object = stored.checksum_full_object();
  }
  return upload;
}

// The common prefix that rolls `key` up, or "".
std::string_view rolled_up(std::string_view key, const Query& query) {
  if (query.delimiter.empty() || !key.starts_with(query.prefix)) return {};
  const size_t at = key.find(query.delimiter, query.prefix.size());
  return at == std::string_view::npos ? std::string_view()
                                      : key.substr(0, at + query.delimiter.size());
}

// Entries in listing order, up to one more than the page holds (that one says that the page is cut
// off).
class Collector {
 public:
  explicit Collector(const Query& query) : query_(query) {}

  bool full() const { return entries_.size() > query_.max; }
  std::vector<Entry>& entries() { return entries_; }

  // Where the scan starts.
  std::string start() const {
    if (query_.key_marker.empty()) return {};
    if (const std::string_view prefix = rolled_up(query_.key_marker, query_); !prefix.empty()) {
      return std::string(prefix) + kBehind;
    }
    std::string after(query_.key_marker);
    if (!query_.id_marker) {  // no upload of that key any more
      after += '\0';
      after.append(kNameTailBytes, kBehind);
    }
    return after;
  }

  Status add(std::string_view name, const storage::RecordView& record) {
    if (name.size() <= kNameTailBytes) return fail(Code::kCorrupt, "upload row with a short name");
    const std::string_view key = name.substr(0, name.size() - kNameTailBytes);
    if (key != group_key_) flush();
    if (const std::string_view prefix = rolled_up(key, query_); !prefix.empty()) {
      if (prefix != last_prefix_) {
        last_prefix_ = prefix;
        entries_.push_back({.name = last_prefix_, .common_prefix = true});
      }
      return {};
    }
    BASALT_TRY(upload, read_upload(name.substr(key.size() + 1), record));
    group_key_ = key;
    group_.push_back(std::move(upload));
    if (group_.size() >= kUploadsOfKeyMax) flush();
    return {};
  }

  // Where to go on after a page that ended with `name`: behind a prefix that was rolled up, without
  // visiting its rest.
  std::string next(std::string_view name) const {
    const std::string_view key =
        name.substr(0, name.size() - std::min(name.size(), kNameTailBytes));
    const std::string_view prefix = rolled_up(key, query_);
    return prefix.empty() ? std::string(name) : std::string(prefix) + kBehind;
  }

  void flush() {
    std::sort(group_.begin(), group_.end(), [](const Item& a, const Item& b) {
      return a.initiated_ms != b.initiated_ms ? a.initiated_ms < b.initiated_ms
                                              : a.id.raw() < b.id.raw();
    });
    auto first = group_.begin();
    if (query_.id_marker && group_key_ == query_.key_marker) {
      // An upload that was aborted or completed since has no place in the order any more: then the
      // key is listed from its start, twice rather than not at all.
      const auto marker = std::find_if(group_.begin(), group_.end(), [&](const Item& upload) {
        return upload.id.raw() == query_.id_marker->raw();
      });
      if (marker != group_.end()) first = marker + 1;
    }
    for (; first != group_.end(); ++first)
      entries_.push_back({.name = group_key_, .upload = std::move(*first)});
    group_.clear();
    group_key_.clear();
  }

 private:
  const Query& query_;
  std::vector<Entry> entries_;
  std::string group_key_;
  std::vector<Item> group_;
  std::string last_prefix_;
};

Task<Result<bool>> collect(Op& op, const Query& query, Collector& collector) {
  std::string after = collector.start();
  while (true) {
    auto page = co_await shards::scan_all(op.shards(), {.table = storage::Table::kUpload,
                                                        .space = op.bucket->space,
                                                        .prefix = query.prefix,
                                                        .after = after,
                                                        .limit = kScanLimit});
    if (!page) co_return std::unexpected(std::move(page.error()));
    for (const auto& entry : page->entries) {
      if (auto added = collector.add(entry.name, entry.record); !added) {
        co_return std::unexpected(std::move(added.error()));
      }
      if (collector.full()) co_return true;
    }
    if (!page->more || page->entries.empty()) break;
    after = collector.next(page->entries.back().name);
  }
  collector.flush();
  co_return collector.full();
}

S3Result<Query> parse_query(const S3Request& request) {
  Query query;
  auto max = parse_count(request, "max-uploads", {});
  if (!max) return std::unexpected(std::move(max.error()));
  query.max = *max;
  query.prefix = parameter_or_empty(request, "prefix");
  query.delimiter = parameter_or_empty(request, "delimiter");
  query.key_marker = parameter_or_empty(request, "key-marker");
  query.id_marker_text = parameter_or_empty(request, "upload-id-marker");
  if (!query.key_marker.empty() && !query.id_marker_text.empty()) {
    query.id_marker = UploadId::parse(query.id_marker_text);
    if (!query.id_marker) {
      return invalid_argument("upload-id-marker", query.id_marker_text, "Invalid uploadId marker");
    }
  }
  return query;
}

void write_upload(XmlWriter& xml, ListingWriter& writer, const Entry& entry) {
  const Item& upload = entry.upload;
  xml.open("Upload");
  writer.name("Key", entry.name);
  xml.text("UploadId", upload.id.text());
  writer.owner("Initiator", upload.initiator);
  writer.owner("Owner", upload.owner);
  xml.text("StorageClass",
           upload.storage_class.empty() ? std::string_view("STANDARD") : upload.storage_class);
  xml.time("Initiated", upload.initiated_ms);
  if (upload.algorithm) {
    xml.text("ChecksumAlgorithm", checksum_name(*upload.algorithm));
    xml.text("ChecksumType", upload.full_object ? "FULL_OBJECT" : "COMPOSITE");
  }
  xml.close("Upload");
}

}  // namespace

Task<S3Result<Reply>> list_multipart_uploads(Op& op) {
  S3_TRY(url_encoded, parse_encoding_type(op.request));
  S3_TRY(query, parse_query(op.request));
  Collector collector(query);
  bool truncated = false;
  if (query.max > 0) {
    auto collected = co_await collect(op, query, collector);
    if (!collected) co_return std::unexpected(std::move(collected.error()));
    truncated = *collected;
  }
  std::vector<Entry>& entries = collector.entries();
  if (truncated) entries.resize(query.max);

  XmlWriter xml("ListMultipartUploadsResult");
  ListingWriter writer(op, xml, url_encoded);
  xml.text("Bucket", op.bucket->name);
  writer.name("KeyMarker", query.key_marker);
  xml.text("UploadIdMarker", query.id_marker ? query.id_marker_text : std::string_view());
  if (truncated) {
    const Entry& last = entries.back();
    writer.name("NextKeyMarker", last.name);
    xml.text("NextUploadIdMarker", last.common_prefix ? std::string() : last.upload.id.text());
  }
  writer.name("Prefix", query.prefix);
  if (!query.delimiter.empty()) writer.name("Delimiter", query.delimiter);
  if (url_encoded) xml.text("EncodingType", "url");
  xml.number("MaxUploads", query.max);
  xml.boolean("IsTruncated", truncated);
  for (const Entry& entry : entries) {
    if (!entry.common_prefix) write_upload(xml, writer, entry);
  }
  for (const Entry& entry : entries) {
    if (entry.common_prefix) writer.common_prefix(entry.name);
  }
  op.head().add("x-amz-bucket-region", op.services.options.region);
  co_return Reply::xml(xml.finish());
}

}  // namespace basalt::s3
