// Range and x-amz-copy-source-range against content of 10 bytes and of none.
#include "protocol/s3/range.h"

#include <gtest/gtest.h>

namespace basalt::s3 {
namespace {

void expect_partial(std::string_view header, uint64_t first, uint64_t length) {
  const RangeAnswer answer = parse_range(header, 10);
  EXPECT_EQ(answer.verdict, RangeVerdict::kPartial) << header;
  EXPECT_EQ(answer.range.first, first) << header;
  EXPECT_EQ(answer.range.length, length) << header;
}

TEST(RangeTest, Satisfiable) {
  expect_partial("bytes=0-0", 0, 1);
  expect_partial("bytes=0-9", 0, 10);
  expect_partial("bytes=3-5", 3, 3);
  expect_partial("bytes=3-", 3, 7);
  expect_partial("bytes=9-100", 9, 1);
  expect_partial("bytes=-4", 6, 4);
  expect_partial("bytes=-400", 0, 10);
  expect_partial("Bytes=3-5", 3, 3);
  expect_partial("bytes= 3-5 ", 3, 3);
  expect_partial("bytes=5-99999999999999999999999999", 5, 5);
  expect_partial("bytes=-99999999999999999999999999", 0, 10);
}

TEST(RangeTest, Unsatisfiable) {
  for (const std::string_view header :
       {"bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99999999999999999999999999-"}) {
    EXPECT_EQ(parse_range(header, 10).verdict, RangeVerdict::kUnsatisfiable) << header;
  }
  for (const std::string_view header : {"bytes=0-", "bytes=0-0", "bytes=-1", "bytes=-0"}) {
    EXPECT_EQ(parse_range(header, 0).verdict, RangeVerdict::kUnsatisfiable) << header;
  }
}

TEST(RangeTest, MalformedAndSeveralAreIgnored) {
  for (const std::string_view header :
       {"", "bytes", "bytes=", "bytes=-", "bytes=5", "bytes=5-2", "bytes=0-1,3-4", "bytes=0-1,",
        "items=0-1", "bytes=a-b", "bytes=0x1-2", "bytes=+1-2", "bytes=1 -2", "bytes=--2",
        "bytes:0-1", "0-1"}) {
    EXPECT_EQ(parse_range(header, 10).verdict, RangeVerdict::kWhole) << header;
  }
}

TEST(CopyRangeTest, OnlyTheFullFormWithinTheSource) {
  const auto range = parse_copy_range("bytes=2-9", 10);
  ASSERT_TRUE(range.has_value());
  EXPECT_EQ(range->first, 2u);
  EXPECT_EQ(range->length, 8u);
  EXPECT_TRUE(parse_copy_range("bytes=0-0", 10).has_value());
  for (const std::string_view header :
       {"", "bytes=0-", "bytes=-5", "bytes=5-2", "bytes=0-10", "bytes=10-11", "0-5",
        "bytes=0-1,2-3", "Bytes=0-1", "bytes=0-99999999999999999999999"}) {
    const auto refused = parse_copy_range(header, 10);
    ASSERT_FALSE(refused.has_value()) << header;
    EXPECT_EQ(refused.error().code, S3Code::kInvalidArgument) << header;
  }
}

}  // namespace
}  // namespace basalt::s3
