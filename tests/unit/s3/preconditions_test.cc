// Conditional reads by RFC 9110's order, conditional writes, version ids.
#include "protocol/s3/preconditions.h"

#include <gtest/gtest.h>

#include <vector>

namespace basalt::s3 {
namespace {

constexpr std::string_view kTag = "5d41402abc4b2a76b9719d911017c592";
constexpr int64_t kModifiedMs = 1'000'000'500;  // 1,000,000 s and a half
constexpr int64_t kModified = 1'000'000;

class PreconditionsTest : public ::testing::Test {
 protected:
  const S3Request& with(std::vector<http::Field> fields) {
    head_.fields = std::move(fields);
    request_.head = &head_;
    return request_;
  }
  http::RequestHead head_;
  S3Request request_;
};

ReadVerdict verdict(const ReadConditions& conditions) {
  return evaluate(conditions, kTag, kModifiedMs).verdict;
}

TEST_F(PreconditionsTest, EtagLists) {
  EXPECT_TRUE(etag_matches("\"5d41402abc4b2a76b9719d911017c592\"", kTag));
  EXPECT_TRUE(etag_matches(kTag, kTag));
  EXPECT_TRUE(etag_matches("W/\"5d41402abc4b2a76b9719d911017c592\"", kTag));
  EXPECT_TRUE(etag_matches("\"a\", \"5d41402abc4b2a76b9719d911017c592\"", kTag));
  EXPECT_TRUE(etag_matches("a,5d41402abc4b2a76b9719d911017c592 ,b", kTag));
  EXPECT_TRUE(etag_matches(" * ", kTag));
  EXPECT_FALSE(etag_matches("", kTag));
  EXPECT_FALSE(etag_matches(",,\"", kTag));
  EXPECT_FALSE(etag_matches("\"\"", ""));
  EXPECT_FALSE(etag_matches("\"5d41402abc4b2a76b9719d911017c59\"", kTag));
  EXPECT_FALSE(etag_matches("\"5d41402abc4b2a76b9719d911017c592-1\"", kTag));
}

TEST_F(PreconditionsTest, ReadOrder) {
  EXPECT_EQ(verdict({}), ReadVerdict::kProceed);
  EXPECT_EQ(verdict({.if_match = kTag}), ReadVerdict::kProceed);
  EXPECT_EQ(verdict({.if_match = "other"}), ReadVerdict::kFailed);
  EXPECT_EQ(verdict({.if_none_match = kTag}), ReadVerdict::kNotModified);
  EXPECT_EQ(verdict({.if_none_match = "other"}), ReadVerdict::kProceed);
  // The second in which it was modified counts as not modified since.
  EXPECT_EQ(verdict({.if_modified_since = kModified}), ReadVerdict::kNotModified);
  EXPECT_EQ(verdict({.if_modified_since = kModified - 1}), ReadVerdict::kProceed);
  EXPECT_EQ(verdict({.if_unmodified_since = kModified}), ReadVerdict::kProceed);
  EXPECT_EQ(verdict({.if_unmodified_since = kModified - 1}), ReadVerdict::kFailed);
  // A tag decides, the date beside it does not.
  EXPECT_EQ(verdict({.if_match = kTag, .if_unmodified_since = kModified - 1}),
            ReadVerdict::kProceed);
  EXPECT_EQ(verdict({.if_match = "other", .if_unmodified_since = kModified}), ReadVerdict::kFailed);
  EXPECT_EQ(verdict({.if_none_match = "other", .if_modified_since = kModified}),
            ReadVerdict::kProceed);
  EXPECT_EQ(verdict({.if_none_match = kTag, .if_modified_since = kModified - 1}),
            ReadVerdict::kNotModified);
  EXPECT_EQ(verdict({.if_match = kTag, .if_none_match = kTag}), ReadVerdict::kNotModified);
}

TEST_F(PreconditionsTest, HeadersOfBothSets) {
  const auto conditions = read_conditions(
      with({{"if-match", "a"}, {"If-Modified-Since", "Mon, 12 Jan 1970 13:46:40 GMT"}}),
      ConditionSet::kObject);
  EXPECT_EQ(conditions.if_match, "a");
  EXPECT_EQ(conditions.if_modified_since, kModified);
  EXPECT_FALSE(conditions.if_unmodified_since.has_value());
  const auto copy = read_conditions(with({{"x-amz-copy-source-if-none-match", "b"},
                                          {"if-none-match", "c"},
                                          {"x-amz-copy-source-if-unmodified-since", "rubbish"}}),
                                    ConditionSet::kCopySource);
  EXPECT_EQ(copy.if_none_match, "b");
  EXPECT_FALSE(copy.if_unmodified_since.has_value());
}

TEST_F(PreconditionsTest, WriteConditions) {
  EXPECT_FALSE(bool(*write_condition(with({}))));
  EXPECT_EQ(write_condition(with({{"If-None-Match", "*"}}))->kind, WriteCondition::Kind::kAbsent);
  EXPECT_EQ(write_condition(with({{"If-Match", "*"}}))->kind, WriteCondition::Kind::kExists);
  const auto tagged = write_condition(with({{"If-Match", "\"abc\""}}));
  EXPECT_EQ(tagged->kind, WriteCondition::Kind::kTag);
  EXPECT_EQ(tagged->tag, "abc");
  EXPECT_EQ(write_condition(with({{"If-Match", "abc"}}))->tag, "abc");
  EXPECT_EQ(write_condition(with({{"If-None-Match", "\"abc\""}})).error().code,
            S3Code::kNotImplemented);
  EXPECT_EQ(write_condition(with({{"If-Match", "\"a\", \"b\""}})).error().code,
            S3Code::kNotImplemented);
  EXPECT_EQ(write_condition(with({{"If-Match", "a"}, {"If-None-Match", "*"}})).error().code,
            S3Code::kNotImplemented);
  EXPECT_EQ(delete_condition(with({{"If-None-Match", "*"}}))->kind, WriteCondition::Kind::kNone);
}

TEST_F(PreconditionsTest, WriteChecks) {
  const std::string_view present = "abc";
  const WriteCondition absent{WriteCondition::Kind::kAbsent, {}},
      exists{WriteCondition::Kind::kExists, {}}, tag{WriteCondition::Kind::kTag, "abc"},
      other{WriteCondition::Kind::kTag, "def"};
  EXPECT_TRUE(absent.check(nullptr, "k").has_value());
  EXPECT_EQ(absent.check(&present, "k").error().code, S3Code::kPreconditionFailed);
  EXPECT_TRUE(exists.check(&present, "k").has_value());
  EXPECT_EQ(exists.check(nullptr, "k").error().code, S3Code::kNoSuchKey);
  EXPECT_TRUE(tag.check(&present, "k").has_value());
  EXPECT_EQ(other.check(&present, "k").error().code, S3Code::kPreconditionFailed);
  EXPECT_EQ(tag.check(nullptr, "k").error().code, S3Code::kNoSuchKey);
  EXPECT_EQ(tag.precondition({}).kind, storage::Precondition::Kind::kTagEquals);
  EXPECT_EQ(tag.precondition({}).tag, "abc");
  EXPECT_EQ(absent.failed(Error{Code::kPreconditionFailed, ""}, "k").code,
            S3Code::kPreconditionFailed);
  EXPECT_EQ(tag.failed(Error{Code::kNotFound, ""}, "k").code, S3Code::kNoSuchKey);
}

TEST_F(PreconditionsTest, VersionIds) {
  const std::string null = "null", empty, possible(32, 'x'), impossible = "1";
  EXPECT_TRUE(check_version_id(nullptr, "k").has_value());
  EXPECT_TRUE(check_version_id(&null, "k").has_value());
  EXPECT_EQ(check_version_id(&empty, "k").error().code, S3Code::kInvalidArgument);
  EXPECT_EQ(check_version_id(&possible, "k").error().code, S3Code::kNoSuchVersion);
  EXPECT_EQ(check_version_id(&impossible, "k").error().code, S3Code::kInvalidArgument);
}

}  // namespace
}  // namespace basalt::s3
