// ResponseHead's bytes, and that no value can split a response.
#include "protocol/http/response.h"

#include <gtest/gtest.h>

#include <ctime>
#include <string>

namespace basalt::http {
namespace {

using Kind = ResponseHead::Framing::Kind;
constexpr int64_t kWall = 784111777'000;  // the RFC's own example date

std::string written(const ResponseHead& head, const ResponseHead::Framing& framing) {
  std::string out;
  head.write(framing, kWall, out);
  return out;
}

TEST(Response, Bytes) {
  ResponseHead head;
  head.add("ETag", "\"abc\"");
  head.add("x-amz-size", uint64_t{18446744073709551615u});
  EXPECT_EQ(written(head, {Kind::kLength, 12}),
            "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: Basalt\r\nETag: "
            "\"abc\"\r\n"
            "x-amz-size: 18446744073709551615\r\nContent-Length: 12\r\n\r\n");
}

TEST(Response, Framing) {
  ResponseHead head;
  head.status = 404;
  EXPECT_TRUE(written(head, {Kind::kChunked})
                  .ends_with("Server: Basalt\r\nTransfer-Encoding: chunked\r\n\r\n"));
  EXPECT_TRUE(written(head, {Kind::kNone}).ends_with("Server: Basalt\r\n\r\n"));
  EXPECT_TRUE(written(head, {Kind::kLength, 0, false, false})
                  .ends_with("Content-Length: 0\r\nConnection: close\r\n\r\n"));
  EXPECT_TRUE(written(head, {Kind::kLength, 0, true, true})
                  .ends_with("Content-Length: 0\r\nConnection: keep-alive\r\n\r\n"));
  EXPECT_TRUE(
      written(head, {Kind::kLength, 0, true, false}).ends_with("Content-Length: 0\r\n\r\n"));
  for (const int status : {204, 304}) {
    head.status = status;
    EXPECT_EQ(written(head, {Kind::kLength, 5}).find("Content-Length"), std::string::npos);
    EXPECT_EQ(written(head, {Kind::kChunked}).find("Transfer"), std::string::npos);
  }
}

TEST(Response, NoSplitting) {
  ResponseHead head;
  head.add("X", std::string_view("a\r\nEvil: 1"));
  head.add("X", std::string_view("a\nEvil: 1"));
  head.add("X", std::string_view("a\rEvil: 1"));
  head.add("X", std::string_view("a\0b", 3));
  head.add("X\r\nEvil", "1");
  head.add("X: y", "1");
  head.add("", "1");
  head.add("content-length", uint64_t{1});
  head.add("Transfer-Encoding", "chunked");
  head.add("Connection", "close");
  EXPECT_EQ(head.dropped(), 10u);
  EXPECT_EQ(written(head, {Kind::kNone}), written(ResponseHead(), {Kind::kNone}));
  head.clear();
  EXPECT_EQ(head.dropped(), 0u);
}

TEST(Response, Has) {
  ResponseHead head;
  head.add("Content-Type", "text/plain");
  head.add("ETag", "x: y");
  EXPECT_TRUE(head.has("content-type"));
  EXPECT_TRUE(head.has("etag"));
  EXPECT_FALSE(head.has("x"));
  EXPECT_FALSE(head.has("content"));
  head.clear();
  EXPECT_FALSE(head.has("content-type"));
}

TEST(Response, DatesLikeTheLibrarys) {
  for (int64_t seconds = -62'000'000'000; seconds < 250'000'000'000;
       seconds += 86'400 * 211 + 12'347) {
    const time_t time = seconds;
    tm parts;
    gmtime_r(&time, &parts);
    char expected[64];
    strftime(expected, sizeof expected, "%a, %d %b %Y %H:%M:%S GMT", &parts);
    std::string text;
    append_http_date(seconds * 1000 + 999, text);
    if (parts.tm_year + 1900 < 1000) continue;  // strftime does not pad
    ASSERT_EQ(text, expected) << seconds;
  }
}

TEST(Response, DateFollowsTheClock) {
  ResponseHead head;
  std::string a;
  std::string b;
  head.write({}, 1'000, a);
  head.write({}, 2'000, b);
  EXPECT_NE(a, b);
}

}  // namespace
}  // namespace basalt::http
