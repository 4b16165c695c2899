// bucket_name: the rules for new names and for names that a request may carry.
#include "protocol/s3/bucket_name.h"

#include <gtest/gtest.h>

#include <string>

namespace basalt::s3 {
namespace {

TEST(BucketName, NewNames) {
  for (const char* good : {"abc", "a-b", "a.b", "0ab", "my.bucket.name", "a--b", "1.2.3",
                           "1.2.3.4.5", "1234.5.6.7", "bucket-1", "a.b-c.9"}) {
    EXPECT_TRUE(valid_new_bucket_name(good)) << good;
  }
  EXPECT_TRUE(valid_new_bucket_name(std::string(63, 'a')));
  for (const char* bad : {"",
                          "a",
                          "ab",
                          "Abc",
                          "a_b",
                          "-ab",
                          "ab-",
                          ".ab",
                          "ab.",
                          "a..b",
                          "192.168.5.4",
                          "1.2.3.4",
                          "xn--abc",
                          "sthree-abc",
                          "amzn-s3-demo-x",
                          "abc-s3alias",
                          "abc--ol-s3",
                          "abc.mrap",
                          "abc--x-s3",
                          "abc--table-s3",
                          "a b",
                          "a/b",
                          "a\xc3\xa9z",
                          "a%20b"}) {
    EXPECT_FALSE(valid_new_bucket_name(bad)) << bad;
  }
  EXPECT_FALSE(valid_new_bucket_name(std::string(64, 'a')));
}

TEST(BucketName, AddressableNames) {
  for (const char* good : {"abc", "Abc_D", "a..b", "192.168.5.4"})
    EXPECT_TRUE(addressable_bucket_name(good)) << good;
  for (const char* bad : {"ab", "a b", "a*b", "\xc3\xa9\xc3\xa9"})
    EXPECT_FALSE(addressable_bucket_name(bad)) << bad;
  EXPECT_FALSE(addressable_bucket_name(std::string(256, 'a')));
}

}  // namespace
}  // namespace basalt::s3
