// What parse_request_head() finds in good heads. (What it refuses: smuggling_test.cc.)
#include "protocol/http/head.h"

#include <gtest/gtest.h>

#include <string>

namespace basalt::http {
namespace {

RequestHead parse(const std::string& text, HeadStatus expected = HeadStatus::kComplete) {
  static std::string kept;  // the head's views point into it
  kept = text;
  RequestHead head;
  const HeadResult result = parse_request_head(as_bytes(kept), 0, head);
  EXPECT_EQ(result.status, expected) << text << ": " << result.reason;
  if (result.status == HeadStatus::kComplete) EXPECT_EQ(result.consumed, text.find("\r\n\r\n") + 4);
  return head;
}

TEST(Head, PartsOfARequest) {
  const RequestHead head = parse(
      "PUT /bucket/a%20key?versionId=7&x HTTP/1.1\r\nHost: s3.example.com:9000\r\ncontent-LENGTH: "
      "1234\r\n"
      "X-Amz-Date: \t 20260101T000000Z \r\nExpect: 100-continue\r\nX-Empty:\r\n\r\nbody");
  EXPECT_EQ(head.method, Method::kPut);
  EXPECT_EQ(head.method_name, "PUT");
  EXPECT_EQ(head.target, "/bucket/a%20key?versionId=7&x");
  EXPECT_EQ(head.path, "/bucket/a%20key");
  EXPECT_EQ(head.query, "versionId=7&x");
  EXPECT_EQ(head.host, "s3.example.com:9000");
  EXPECT_EQ(head.content_length, 1234u);
  EXPECT_TRUE(head.expect_continue);
  EXPECT_TRUE(head.keep_alive);
  EXPECT_FALSE(head.chunked);
  ASSERT_EQ(head.fields.size(), 5u);
  EXPECT_EQ(head.value("x-amz-date"), "20260101T000000Z");
  EXPECT_NE(head.find("X-EMPTY"), nullptr);
  EXPECT_EQ(head.value("x-empty"), "");
  EXPECT_EQ(head.find("x-none"), nullptr);
}

TEST(Head, Methods) {
  const std::pair<const char*, Method> methods[] = {
      {"GET", Method::kGet},     {"HEAD", Method::kHead},       {"PUT", Method::kPut},
      {"POST", Method::kPost},   {"DELETE", Method::kDelete},   {"PATCH", Method::kPatch},
      {"TRACE", Method::kOther}, {"OPTIONS", Method::kOptions}, {"get", Method::kOther}};
  for (const auto& [name, method] : methods) {
    EXPECT_EQ(parse(std::string(name) + " / HTTP/1.1\r\nHost: a\r\n\r\n").method, method) << name;
  }
}

TEST(Head, AbsoluteTargetBeatsHost) {
  const RequestHead head = parse("GET http://real:80/p?q HTTP/1.1\r\nHost: other\r\n\r\n");
  EXPECT_EQ(head.host, "real:80");
  EXPECT_EQ(head.path, "/p");
  EXPECT_EQ(head.query, "q");
  EXPECT_EQ(parse("GET https://real HTTP/1.1\r\nHost: other\r\n\r\n").path, "/");
  const RequestHead query_only = parse("GET http://real?x=1 HTTP/1.1\r\nHost: other\r\n\r\n");
  EXPECT_EQ(query_only.path, "/");
  EXPECT_EQ(query_only.query, "x=1");
}

TEST(Head, ErrorLeavesNothing) {
  const RequestHead head =
      parse("GET /a HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n", HeadStatus::kBad);
  EXPECT_TRUE(head.fields.empty());
  EXPECT_TRUE(head.path.empty());
}

TEST(Head, ReuseForgetsTheLast) {
  RequestHead head;
  const std::string first = "POST /a?b HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
  ASSERT_EQ(parse_request_head(as_bytes(first), 0, head).status, HeadStatus::kComplete);
  EXPECT_TRUE(head.http10);
  const std::string second = "GET /c HTTP/1.1\r\nHost: b\r\n\r\n";
  ASSERT_EQ(parse_request_head(as_bytes(second), 0, head).status, HeadStatus::kComplete);
  EXPECT_FALSE(head.http10);
  EXPECT_FALSE(head.content_length.has_value());
  EXPECT_EQ(head.host, "b");
  EXPECT_EQ(head.query, "");
  EXPECT_EQ(head.fields.size(), 1u);
}

// Each byte value at each position of a value and a target longer than a vector register.
TEST(Head, EveryByteEverywhere) {
  for (int byte = 0; byte < 256; ++byte) {
    for (size_t at = 0; at < 40; ++at) {
      std::string value(40, 'v');
      value[at] = static_cast<char>(byte);
      RequestHead head;
      const std::string with_value = "GET / HTTP/1.1\r\nHost: a\r\nX: " + value + "\r\n\r\n";
      const bool good_value = byte == '\t' || (byte >= 0x20 && byte != 0x7f);
      EXPECT_EQ(parse_request_head(as_bytes(with_value), 0, head).status == HeadStatus::kComplete,
                good_value)
          << byte;
      const std::string with_target = "GET /" + value + " HTTP/1.1\r\nHost: a\r\n\r\n";
      const bool good_target = byte > 0x20 && byte != 0x7f && byte != '#';
      EXPECT_EQ(parse_request_head(as_bytes(with_target), 0, head).status == HeadStatus::kComplete,
                good_target)
          << byte;
    }
  }
}

TEST(Head, FieldNames) {
  EXPECT_TRUE(field_name_equals("Content-Length", "content-length"));
  EXPECT_FALSE(field_name_equals("Content-Length", "content-lengt"));
  EXPECT_FALSE(field_name_equals("a\x01", "a!"));
  EXPECT_FALSE(field_name_equals("@", "`"));
}

}  // namespace
}  // namespace basalt::http
