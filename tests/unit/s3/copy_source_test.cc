// x-amz-copy-source: what names an object, what does not, and that keys stay opaque (no "..", no
// slash is special).
#include "protocol/s3/copy_source.h"

#include <gtest/gtest.h>

namespace basalt::s3 {
namespace {

void expect_source(std::string_view header, std::string_view bucket, std::string_view key) {
  const auto source = parse_copy_source(header);
  ASSERT_TRUE(source.has_value()) << header;
  EXPECT_EQ(source->bucket, bucket) << header;
  EXPECT_EQ(source->key, key) << header;
}

TEST(CopySourceTest, Forms) {
  expect_source("bucket/key", "bucket", "key");
  expect_source("/bucket/key", "bucket", "key");
  expect_source("bucket/a/b/c", "bucket", "a/b/c");
  expect_source("/bucket%2Fkey%20with%20space", "bucket", "key with space");
  expect_source("bucket/a+b", "bucket", "a+b");
  expect_source("bucket/%E2%82%AC", "bucket", "\xE2\x82\xAC");
  expect_source("bucket/a%3FversionId=x", "bucket", "a?versionId=x");
}

TEST(CopySourceTest, KeysAreOpaque) {
  expect_source("bucket/../other/key", "bucket", "../other/key");
  expect_source("bucket//key", "bucket", "/key");
  expect_source("bucket/%2e%2e/key", "bucket", "../key");
  expect_source("bucket/dir/", "bucket", "dir/");
}

TEST(CopySourceTest, VersionId) {
  const auto source = parse_copy_source("bucket/key?versionId=null");
  ASSERT_TRUE(source.has_value());
  EXPECT_EQ(source->key, "key");
  EXPECT_EQ(source->version_id, "null");
  EXPECT_EQ(parse_copy_source("bucket/key?versionId=")->version_id, "");
}

TEST(CopySourceTest, Refused) {
  for (const std::string_view header :
       {"", "/", "bucket", "/bucket", "bucket/", "/bucket/", "//key", "bucket/%zz", "bucket/%4",
        "bucket/a%00b", "bucket/%ff", "bucket/key?versionId=%zz"}) {
    const auto refused = parse_copy_source(header);
    ASSERT_FALSE(refused.has_value()) << header;
    EXPECT_EQ(refused.error().code, S3Code::kInvalidArgument) << header;
  }
  EXPECT_TRUE(parse_copy_source("bucket/" + std::string(1024, 'k')).has_value());
  EXPECT_EQ(parse_copy_source("bucket/" + std::string(1025, 'k')).error().code,
            S3Code::kKeyTooLongError);
}

}  // namespace
}  // namespace basalt::s3
