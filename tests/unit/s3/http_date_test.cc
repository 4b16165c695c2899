// The three date forms of RFC 9110 section 5.6.7, and what must not pass as one.
#include "protocol/s3/http_date.h"

#include <gtest/gtest.h>

#include "protocol/http/response.h"

namespace basalt::s3 {
namespace {

TEST(HttpDateTest, ThreeFormsOfTheRfc) {
  EXPECT_EQ(parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), 784111777);
  EXPECT_EQ(parse_http_date("Sunday, 06-Nov-94 08:49:37 GMT"), 784111777);
  EXPECT_EQ(parse_http_date("Sun Nov  6 08:49:37 1994"), 784111777);
}

TEST(HttpDateTest, Edges) {
  EXPECT_EQ(parse_http_date("Thu, 01 Jan 1970 00:00:00 GMT"), 0);
  EXPECT_EQ(parse_http_date("Thu, 29 Feb 2024 23:59:59 GMT"), 1709251199);
  EXPECT_EQ(parse_http_date("Saturday, 01-Jan-00 00:00:00 GMT"), 946684800);
  EXPECT_EQ(parse_http_date("Wed Nov 16 08:49:37 1994"), 784975777);
}

TEST(HttpDateTest, RefusesWhatIsNoDate) {
  for (const std::string_view text :
       {"", "0", "now", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 6 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 8:49:37 GMT",
        "Sun, 31 Feb 1994 08:49:37 GMT", "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:00 GMT", "Sun, 06 Nov 1994 08:49:37 GMT ",
        "Sun, 06 Nov 94 08:49:37 GMT", "Xyz, 06 Nov 1994 08:49:37 GMT", "Sun Nov 6 08:49:37 1994",
        "1994-11-06T08:49:37Z", "Sunday, "}) {
    EXPECT_EQ(parse_http_date(text), std::nullopt) << text;
  }
}

TEST(HttpDateTest, ReadsWhatWeWrite) {
  for (const int64_t seconds :
       {int64_t{0}, int64_t{951782400}, int64_t{1795226460}, int64_t{4102444799}}) {
    std::string text;
    http::append_http_date(seconds * 1000, text);
    EXPECT_EQ(parse_http_date(text), seconds) << text;
  }
}

}  // namespace
}  // namespace basalt::s3
