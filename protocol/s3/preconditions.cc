#include "protocol/s3/preconditions.h"

#include <algorithm>

#include "base/check.h"
#include "protocol/s3/failure.h"
#include "protocol/s3/http_date.h"

namespace basalt::s3 {
namespace {

bool is_space(char c) { return c == ' ' || c == '\t'; }

std::string_view trim(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

// The next tag of a list, without quotes and W/; the list shrinks.
std::string_view next_tag(std::string_view& list) {
  while (!list.empty() && (is_space(list.front()) || list.front() == ',')) list.remove_prefix(1);
  if (list.starts_with("W/")) list.remove_prefix(2);
  if (list.starts_with('"')) {
    list.remove_prefix(1);
    const size_t end = std::min(list.find('"'), list.size());
    const std::string_view tag = list.substr(0, end);
    list.remove_prefix(std::min(end + 1, list.size()));
    return tag;
  }
  const size_t end = std::min(list.find(','), list.size());
  const std::string_view tag = trim(list.substr(0, end));
  list.remove_prefix(end);
  return tag;
}

std::optional<int64_t> date_header(const S3Request& request, std::string_view name) {
  const std::string_view value = request.header(name);
  return value.empty() ? std::nullopt : parse_http_date(value);
}

S3Result<WriteCondition> match_condition(std::string_view value) {
  WriteCondition condition;
  if (value == "*") {
    condition.kind = WriteCondition::Kind::kExists;
    return condition;
  }
  std::string_view rest = value;
  condition.kind = WriteCondition::Kind::kTag;
  condition.tag = next_tag(rest);
  // A list would need a set comparison inside the shard; S3's documentation knows one value only.
  if (!trim(rest).empty()) return header_not_implemented("If-Match");
  return condition;
}

}  // namespace

bool etag_matches(std::string_view list, std::string_view etag) {
  if (trim(list) == "*") return true;
  while (!list.empty()) {
    const std::string_view tag = next_tag(list);
    if (!tag.empty() && tag == etag) return true;
  }
  return false;
}

ReadConditions read_conditions(const S3Request& request, ConditionSet set) {
  if (set == ConditionSet::kObject) {
    return {request.header("If-Match"), request.header("If-None-Match"),
            date_header(request, "If-Modified-Since"), date_header(request, "If-Unmodified-Since")};
  }
  return {request.header("x-amz-copy-source-if-match"),
          request.header("x-amz-copy-source-if-none-match"),
          date_header(request, "x-amz-copy-source-if-modified-since"),
          date_header(request, "x-amz-copy-source-if-unmodified-since")};
}

ReadAnswer evaluate(const ReadConditions& conditions, std::string_view etag, int64_t modified_ms) {
  const int64_t modified = modified_ms / 1000;
  if (!conditions.if_match.empty()) {
    if (!etag_matches(conditions.if_match, etag)) return {ReadVerdict::kFailed, "If-Match"};
  } else if (conditions.if_unmodified_since && modified > *conditions.if_unmodified_since) {
    return {ReadVerdict::kFailed, "If-Unmodified-Since"};
  }
  if (!conditions.if_none_match.empty()) {
    if (etag_matches(conditions.if_none_match, etag))
      return {ReadVerdict::kNotModified, "If-None-Match"};
  } else if (conditions.if_modified_since && modified <= *conditions.if_modified_since) {
    return {ReadVerdict::kNotModified, "If-Modified-Since"};
  }
  return {};
}

S3Error precondition_failed(std::string_view condition) {
  S3Error error(S3Code::kPreconditionFailed);
  error.details = {{"Condition", std::string(condition)}};
  return error;
}

storage::Precondition WriteCondition::precondition(const storage::KeyView& key) const {
  BASALT_CHECK(kind != Kind::kNone);
  using StorageKind = storage::Precondition::Kind;
  if (kind == Kind::kAbsent) return {.kind = StorageKind::kAbsent, .key = key};
  if (kind == Kind::kExists) return {.kind = StorageKind::kExists, .key = key};
  return {.kind = StorageKind::kTagEquals, .key = key, .tag = tag};
}

S3Result<> WriteCondition::check(const std::string_view* current_tag, std::string_view key) const {
  switch (kind) {
    case Kind::kNone:
      return {};
    case Kind::kAbsent:
      if (current_tag != nullptr) return std::unexpected(precondition_failed(header()));
      return {};
    case Kind::kExists:
    case Kind::kTag:
      if (current_tag == nullptr) return std::unexpected(no_such_key(key));
      if (kind == Kind::kTag && *current_tag != tag)
        return std::unexpected(precondition_failed(header()));
      return {};
  }
  return {};
}

S3Error WriteCondition::failed(const Error& inner, std::string_view key) const {
  return inner.code == Code::kNotFound ? no_such_key(key) : precondition_failed(header());
}

S3Result<WriteCondition> write_condition(const S3Request& request) {
  const std::string_view match = trim(request.header("If-Match"));
  const std::string_view none_match = trim(request.header("If-None-Match"));
  if (match.empty() && none_match.empty()) return WriteCondition{};
  if (!match.empty() && !none_match.empty()) return header_not_implemented("If-None-Match");
  if (!match.empty()) return match_condition(match);
  if (none_match != "*") return header_not_implemented("If-None-Match");
  return WriteCondition{WriteCondition::Kind::kAbsent, {}};
}

S3Result<WriteCondition> delete_condition(const S3Request& request) {
  const std::string_view match = trim(request.header("If-Match"));
  return match.empty() ? WriteCondition{} : match_condition(match);
}

S3Result<> check_version_id(const std::string* version_id, std::string_view key) {
  if (version_id == nullptr || *version_id == "null") return {};
  if (version_id->empty()) {
    return invalid_argument("versionId", *version_id, "Version id cannot be the empty string");
  }
  // The ids S3 gives out have 32 characters of this alphabet; anything else cannot name a version.
  const bool possible =
      version_id->size() == 32 && std::all_of(version_id->begin(), version_id->end(), [](char c) {
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
               c == '.' || c == '_' || c == '-';
      });
  if (!possible) return invalid_argument("versionId", *version_id, "Invalid version id specified");
  S3Error error(S3Code::kNoSuchVersion);
  error.details = {{"Key", std::string(key)}, {"VersionId", *version_id}};
  return std::unexpected(std::move(error));
}

S3Error no_such_key(std::string_view key) {
  S3Error error(S3Code::kNoSuchKey);
  error.details = {{"Key", std::string(key)}};
  return error;
}

}  // namespace basalt::s3
