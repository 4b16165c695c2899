// DeleteObjects: POST /bucket?delete. API reference: "DeleteObjects".
//
// Keys without conditions go to their shards as one batch a shard; keys with conditions (ETag,
// Size, LastModifiedTime) are looked up first and erased one by one, each only if its record is
// still the one that was looked at.

#include <algorithm>
#include <charconv>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/log.h"
#include "protocol/s3/body.h"
#include "protocol/s3/failure.h"
#include "protocol/s3/http_date.h"
#include "protocol/s3/object_meta.h"
#include "protocol/s3/ops/handlers.h"
#include "protocol/s3/preconditions.h"
#include "protocol/s3/xml.h"
#include "storage/mutation_builder.h"

namespace basalt::s3 {
namespace {

// Conditional erases under way at once.
constexpr size_t kConditionalWindow = 64;

struct Item {
  std::string key;
  std::optional<std::string> version_id;
  std::optional<std::string> etag;
  std::optional<uint64_t> size;
  std::optional<int64_t> modified_seconds;
  std::optional<S3Error> error;

  bool conditional() const { return etag || size || modified_seconds; }
};

struct Wish {
  bool quiet = false;
  std::vector<Item> items;
};

// "2026-11-21T02:21:00Z", with or without a fraction; or an HTTP date.
std::optional<int64_t> parse_time(std::string_view text) {
  if (const auto http = parse_http_date(text)) return http;
  if (text.size() < 20 || text.back() != 'Z') return std::nullopt;
  struct tm parts{};
  const std::string head(text.substr(0, 19));
  const char* end = strptime(head.c_str(), "%Y-%m-%dT%H:%M:%S", &parts);
  if (end == nullptr || *end != '\0') return std::nullopt;
  return timegm(&parts);
}

S3Result<Item> parse_item(const pugi::xml_node& node) {
  Item item;
  bool has_key = false;
  for (const pugi::xml_node child : node.children()) {
    if (child.type() != pugi::node_element) continue;
    const std::string_view name = child.name();
    std::string text = xml_text(child);
    if (name == "Key") {
      if (has_key) return s3_fail(S3Code::kMalformedXML);
      has_key = true;
      item.key = std::move(text);
    } else if (name == "VersionId") {
      item.version_id = std::move(text);
    } else if (name == "ETag") {
      item.etag = std::string(xml_trimmed(text));
    } else if (name == "Size") {
      const std::string_view digits = xml_trimmed(text);
      uint64_t value = 0;
      const auto [end, error] =
          std::from_chars(digits.data(), digits.data() + digits.size(), value);
      if (error != std::errc() || end != digits.data() + digits.size())
        return s3_fail(S3Code::kMalformedXML);
      item.size = value;
    } else if (name == "LastModifiedTime") {
      item.modified_seconds = parse_time(xml_trimmed(text));
      if (!item.modified_seconds) return s3_fail(S3Code::kMalformedXML);
    } else {
      return s3_fail(S3Code::kMalformedXML);
    }
  }
  if (!has_key || item.key.empty()) return s3_fail(S3Code::kMalformedXML);
  return item;
}

S3Result<Wish> parse_wish(std::string_view body) {
  pugi::xml_document document;
  auto root = parse_xml(document, body, "Delete");
  if (!root) return std::unexpected(std::move(root.error()));
  Wish wish;
  for (const pugi::xml_node child : root->children()) {
    if (child.type() != pugi::node_element) continue;
    const std::string_view name = child.name();
    if (name == "Quiet") {
      const std::string text = xml_text(child);
      const std::string_view value = xml_trimmed(text);
      wish.quiet = http::field_name_equals(value, "true") || value == "1";
    } else if (name == "Object") {
      if (wish.items.size() == kDeleteKeysMax) return s3_fail(S3Code::kMalformedXML);
      auto item = parse_item(child);
      if (!item) return std::unexpected(std::move(item.error()));
      wish.items.push_back(std::move(*item));
    } else {
      return s3_fail(S3Code::kMalformedXML);
    }
  }
  if (wish.items.empty()) return s3_fail(S3Code::kMalformedXML);
  return wish;
}

// A body this destructive must prove that it arrived as it was sent.
S3Result<> check_digest_present(const S3Request& request) {
  if (request.find_header("content-md5") != nullptr ||
      request.find_header("x-amz-trailer") != nullptr)
    return {};
  for (const auth::Algorithm algorithm :
       {auth::Algorithm::kCrc32, auth::Algorithm::kCrc32c, auth::Algorithm::kCrc64Nvme,
        auth::Algorithm::kSha1, auth::Algorithm::kSha256}) {
    if (request.find_header(checksum_header(algorithm)) != nullptr) return {};
  }
  return s3_fail(S3Code::kInvalidRequest, "Missing required header for this request: Content-MD5");
}

void check_item(Item& item) {
  if (item.key.size() > kKeyBytesMax) {
    item.error.emplace(S3Code::kKeyTooLongError);
    return;
  }
  const std::string* version_id =
      item.version_id && !item.version_id->empty() ? &*item.version_id : nullptr;
  if (auto checked = check_version_id(version_id, item.key); !checked)
    item.error.emplace(std::move(checked.error()));
}

storage::KeyView key_of(const Op& op, const Item& item) {
  return {storage::Table::kCurrent, op.bucket->space, item.key};
}

// The erases of one shard, as one atomic batch.
struct ShardBatch {
  unsigned shard = 0;
  storage::MutationBuilder mutations;
  std::vector<Item*> items;
  std::unique_ptr<Call<storage::ApplyRequest>> call;
};

Task<void> erase_plain(Op& op, std::vector<Item>& items) {
  std::unordered_map<unsigned, std::unique_ptr<ShardBatch>> batches;
  std::unordered_map<std::string_view, bool> seen;
  for (Item& item : items) {
    if (item.error || item.conditional()) continue;
    auto& batch = batches[op.shards().shard_of(op.bucket->space, item.key)];
    if (batch == nullptr) batch = std::make_unique<ShardBatch>();
    batch->shard = op.shards().shard_of(op.bucket->space, item.key);
    batch->items.push_back(&item);
    if (seen.emplace(item.key, true).second) batch->mutations.erase(key_of(op, item));
  }
  for (auto& [shard, batch] : batches) {
    batch->call.reset(new Call<storage::ApplyRequest>(
        op.shards().apply(shard, {}, batch->mutations.finish(), {}, /*reclaiming=*/true)));
  }
  for (auto& [shard, batch] : batches) {
    auto applied = co_await *batch->call;
    if (applied) continue;
    log_warn("batch of deletes failed",
             {{"request_id", op.request_id}, {"shard", shard}, {"detail", applied.error().detail}});
    for (Item* item : batch->items) item->error.emplace(Error(applied.error()));
  }
}

// nullopt: the condition holds, erase. kNone of S3's codes is given for an object that is not
// there: that is what was wanted.
std::optional<S3Error> check_conditions(const Item& item, const storage::Record& record) {
  if (item.etag && !etag_matches(*item.etag, record->tag))
    return S3Error(S3Code::kPreconditionFailed);
  if (item.size && *item.size != record->size) return S3Error(S3Code::kPreconditionFailed);
  if (item.modified_seconds) {
    auto object = ObjectView::open(record->meta);
    if (!object) return S3Error(std::move(object.error()));
    if ((*object)->modified_ms() / 1000 != *item.modified_seconds)
      return S3Error(S3Code::kPreconditionFailed);
  }
  return std::nullopt;
}

struct ConditionalErase {
  Item* item = nullptr;
  unsigned shard = 0;
  std::unique_ptr<Call<storage::GetRequest>> look;
  storage::Precondition same{.kind = storage::Precondition::Kind::kSeqEquals, .key = {}};
  storage::MutationBuilder mutations;
  std::unique_ptr<Call<storage::ApplyRequest>> erase;
};

Task<void> erase_conditional_window(Op& op, std::span<Item* const> window) {
  std::vector<std::unique_ptr<ConditionalErase>> erases;
  for (Item* item : window) {
    auto erase = std::make_unique<ConditionalErase>();
    erase->item = item;
    erase->shard = op.shards().shard_of(op.bucket->space, item->key);
    erase->look.reset(
        new Call<storage::GetRequest>(op.shards().get(erase->shard, key_of(op, *item))));
    erases.push_back(std::move(erase));
  }
  for (auto& erase : erases) {
    auto record = co_await *erase->look;
    Item& item = *erase->item;
    if (!record) {
      if (record.error().code != Code::kNotFound) item.error.emplace(std::move(record.error()));
      continue;
    }
    item.error = check_conditions(item, *record);
    if (item.error) continue;
    erase->same.key = key_of(op, item);
    erase->same.seq = record->view().seq;
    erase->mutations.erase(erase->same.key);
    erase->erase.reset(new Call<storage::ApplyRequest>(op.shards().apply(
        erase->shard, {&erase->same, 1}, erase->mutations.finish(), {}, /*reclaiming=*/true)));
  }
  for (auto& erase : erases) {
    if (erase->erase == nullptr) continue;
    auto applied = co_await *erase->erase;
    if (applied || applied.error().code == Code::kNotFound) continue;
    if (applied.error().code == Code::kPreconditionFailed) {
      erase->item->error.emplace(S3Code::kPreconditionFailed);
    } else {
      erase->item->error.emplace(std::move(applied.error()));
    }
  }
}

std::string write_result(const Wish& wish) {
  XmlWriter xml("DeleteResult");
  for (const Item& item : wish.items) {
    if (!item.error) {
      if (wish.quiet) continue;
      xml.open("Deleted");
      xml.text("Key", item.key);
      if (item.version_id && !item.version_id->empty()) xml.text("VersionId", *item.version_id);
      xml.close("Deleted");
      continue;
    }
    xml.open("Error");
    xml.text("Key", item.key);
    if (item.version_id && !item.version_id->empty()) xml.text("VersionId", *item.version_id);
    xml.text("Code", s3_code_name(item.error->code));
    xml.text("Message", item.error->message.empty() ? s3_code_message(item.error->code)
                                                    : std::string_view(item.error->message));
    xml.close("Error");
  }
  return xml.finish();
}

}  // namespace

Task<S3Result<Reply>> delete_objects(Op& op) {
  S3_CHECK(check_digest_present(op.request));
  S3_TRY(wish, parse_wish(op.xml_body));
  std::vector<Item*> conditional;
  for (Item& item : wish.items) {
    check_item(item);
    if (!item.error && item.conditional()) conditional.push_back(&item);
  }
  co_await erase_plain(op, wish.items);
  for (size_t at = 0; at < conditional.size(); at += kConditionalWindow) {
    const size_t count = std::min(kConditionalWindow, conditional.size() - at);
    co_await erase_conditional_window(op, std::span<Item* const>(conditional).subspan(at, count));
  }
  co_return Reply::xml(write_result(wish));
}

}  // namespace basalt::s3
