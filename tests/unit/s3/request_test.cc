// request: targets and hosts taken apart.
#include "protocol/s3/request.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace basalt::s3 {
namespace {

struct Parsed {
  std::string text;
  http::RequestHead head;
  S3Request request;
  S3Options options;
  std::string code;

  explicit Parsed(std::string target, std::string host = "localhost:9000") {
    options.base_domains = {"s3.example.com", "other.test"};
    text = fmt::format("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", target, host);
    const auto result = http::parse_request_head(as_bytes(text), 0, head);
    EXPECT_EQ(result.status, http::HeadStatus::kComplete) << target;
    const auto parsed = parse_request(head, options, request);
    code = parsed ? "" : std::string(s3_code_name(parsed.error().code));
  }
};

TEST(Request, PathStyle) {
  EXPECT_EQ(target_of(Parsed("/").request), Target::kService);
  for (const char* target : {"/bucket", "/bucket/"}) {
    const Parsed parsed(target);
    EXPECT_EQ(parsed.request.bucket, "bucket");
    EXPECT_EQ(target_of(parsed.request), Target::kBucket);
  }
  const Parsed parsed("/bucket/a%2Fb//../%20c+d?x=1+2&y&z=%3D&&");
  EXPECT_EQ(parsed.request.key, "a/b//../ c+d");
  EXPECT_EQ(target_of(parsed.request), Target::kObject);
  ASSERT_EQ(parsed.request.query.size(), 3u);
  EXPECT_EQ(*parsed.request.parameter("x"), "1 2");
  EXPECT_EQ(*parsed.request.parameter("y"), "");
  EXPECT_EQ(*parsed.request.parameter("z"), "=");
  EXPECT_FALSE(parsed.request.query[1].has_equals);
  EXPECT_EQ(parsed.request.parameter("Y"), nullptr);
  EXPECT_EQ(Parsed("/bucket//leading").request.key, "/leading");
}

TEST(Request, VirtualHosted) {
  const Parsed parsed("/a/b", "Bucket.S3.Example.com:9000");
  EXPECT_TRUE(parsed.request.virtual_hosted);
  EXPECT_EQ(parsed.request.bucket, "bucket");
  EXPECT_EQ(parsed.request.key, "a/b");
  EXPECT_EQ(Parsed("/", "my.bucket.other.test").request.bucket, "my.bucket");
  EXPECT_EQ(target_of(Parsed("/", "b.other.test").request), Target::kBucket);
  EXPECT_EQ(Parsed("//x", "b.other.test").request.key, "/x");
  EXPECT_EQ(Parsed("/b/k", "s3.example.com").request.bucket, "b");
  EXPECT_EQ(Parsed("/b/k", "evil-s3.example.com").request.bucket, "b");
  EXPECT_EQ(Parsed("/b/k", "[::1]:9000").request.bucket, "b");
}

TEST(Request, Refusals) {
  EXPECT_EQ(Parsed("/b/%zz").code, "InvalidURI");
  EXPECT_EQ(Parsed("/b/%").code, "InvalidURI");
  EXPECT_EQ(Parsed("/b/a%00b").code, "InvalidURI");
  EXPECT_EQ(Parsed("/b/%ff").code, "InvalidURI");
  EXPECT_EQ(Parsed("/b/%c0%af").code, "InvalidURI");
  EXPECT_EQ(Parsed("/b?x=%").code, "InvalidURI");
  EXPECT_EQ(Parsed("/b?prefix=%00").code, "InvalidArgument");
  EXPECT_EQ(Parsed("//key").code, "InvalidBucketName");
  EXPECT_EQ(Parsed("/b/" + std::string(1024, 'k')).code, "");
  EXPECT_EQ(Parsed("/b/" + std::string(1025, 'k')).code, "KeyTooLongError");
  std::string many = "/b?";
  for (size_t i = 0; i <= kQueryParametersMax; ++i) many += "a&";
  EXPECT_EQ(Parsed(many).code, "InvalidURI");
}

TEST(Request, ReusedMemoryForgetsTheOldRequest) {
  Parsed first("/bucket/key?uploadId=1&b=2");
  const Parsed second("/");
  ASSERT_TRUE(parse_request(second.head, first.options, first.request).has_value());
  EXPECT_EQ(first.request.bucket, "");
  EXPECT_EQ(first.request.key, "");
  EXPECT_TRUE(first.request.query.empty());
}

}  // namespace
}  // namespace basalt::s3
