// Conditional requests: reading (If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since,
// and their x-amz-copy-source-if-* forms) and writing (If-Match, If-None-Match: *).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "protocol/s3/error.h"
#include "protocol/s3/op.h"
#include "storage/types.h"

namespace basalt::s3 {

// Whether an entity tag list ("*", tags with or without quotes, W/ in front ignored) names `etag`
// (without quotes).
bool etag_matches(std::string_view list, std::string_view etag);

struct ReadConditions {
  std::string_view if_match;  // empty: absent
  std::string_view if_none_match;
  std::optional<int64_t>
      if_modified_since;  // seconds; malformed dates count as absent (RFC 9110 section 13.1.3)
  std::optional<int64_t> if_unmodified_since;
};

enum class ReadVerdict : uint8_t { kProceed, kNotModified, kFailed };

struct ReadAnswer {
  ReadVerdict verdict = ReadVerdict::kProceed;
  std::string_view condition;  // with kFailed: the header that did not hold
};

enum class ConditionSet : uint8_t { kObject, kCopySource };
ReadConditions read_conditions(const S3Request& request, ConditionSet set);

// RFC 9110 section 13.2.2, which S3 follows: If-Match that holds makes If-Unmodified-Since
// irrelevant, If-None-Match that does not match makes If-Modified-Since irrelevant. Times are
// compared in whole seconds, as Last-Modified shows them.
ReadAnswer evaluate(const ReadConditions& conditions, std::string_view etag, int64_t modified_ms);

// The 412 for a condition that did not hold.
S3Error precondition_failed(std::string_view condition);

struct WriteCondition {
  enum class Kind : uint8_t { kNone, kAbsent, kExists, kTag } kind = Kind::kNone;
  std::string_view tag;  // without quotes, a view into the request

  explicit operator bool() const { return kind != Kind::kNone; }
  std::string_view header() const { return kind == Kind::kAbsent ? "If-None-Match" : "If-Match"; }
  // What the shard checks atomically with the write. Not for kNone.
  storage::Precondition precondition(const storage::KeyView& key) const;
  // Early check against the record found (nullptr: none), before a large body is read; the shard's
  // verdict rules.
  S3Result<> check(const std::string_view* current_tag, std::string_view key) const;
  // The error for a shard that refused the write because of this condition (kPreconditionFailed or
  // kNotFound).
  S3Error failed(const Error& inner, std::string_view key) const;
};

// If-None-Match: only "*" ("Conditional writes", S3 user guide), else NotImplemented. If-Match: one
// tag or "*". Both together: NotImplemented.
S3Result<WriteCondition> write_condition(const S3Request& request);
// DeleteObject knows If-Match only; If-None-Match is ignored as S3 does.
S3Result<WriteCondition> delete_condition(const S3Request& request);

// The `versionId` of a request to a bucket that never had versions: absent or "null" is the object
// itself. Errors: NoSuchVersion (an id that could be one), InvalidArgument.
S3Result<> check_version_id(const std::string* version_id, std::string_view key);

S3Error no_such_key(std::string_view key);

}  // namespace basalt::s3
