// ChunkedDecoder: data and framing at every cut. (What it refuses: smuggling_test.cc.)
#include "protocol/http/chunked.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace basalt::http {
namespace {

// Feeds `wire` in pieces of `step` bytes. Returns the data; `rest` is what was not consumed.
std::string decode(const std::string& wire, size_t step, std::string& rest, bool& done) {
  ChunkedDecoder decoder;
  std::string data;
  std::string pending;
  done = false;
  size_t at = 0;
  while (true) {
    while (!pending.empty() && !done) {
      const auto result = decoder.decode(as_bytes(pending));
      EXPECT_TRUE(result.has_value());
      if (!result) return data;
      data += as_text(result->data);
      done = result->done;
      EXPECT_TRUE(result->consumed > 0 || done);
      pending.erase(0, result->consumed);
    }
    if (at == wire.size()) break;
    const size_t size = std::min(step, wire.size() - at);
    pending += wire.substr(at, size);
    at += size;
  }
  rest = pending;
  return data;
}

TEST(Chunked, EveryCut) {
  const std::string wire =
      "5\r\nhello\r\nA;name=\"x\"\r\n, world 12\r\n1\r\n!\r\n0;z\r\nTrailer: "
      "x\r\nOther:\r\n\r\nGET /";
  for (size_t step = 1; step <= wire.size(); ++step) {
    std::string rest;
    bool done = false;
    EXPECT_EQ(decode(wire, step, rest, done), "hello, world 12!") << step;
    EXPECT_TRUE(done);
    EXPECT_EQ(rest, "GET /") << step;
  }
}

TEST(Chunked, RunsMayBeReadPastTheDecoder) {
  ChunkedDecoder decoder;
  ASSERT_TRUE(decoder.decode(as_bytes("1000\r\n")).has_value());
  EXPECT_EQ(decoder.run_bytes(), 0x1000u);
  decoder.skip(0xfff);
  EXPECT_EQ(decoder.run_bytes(), 1u);
  decoder.skip(1);
  EXPECT_EQ(decoder.run_bytes(), 0u);
  const auto last = decoder.decode(as_bytes("\r\n0\r\n\r\n"));
  ASSERT_TRUE(last.has_value());
  EXPECT_TRUE(last->done);
}

TEST(Chunked, Limits) {
  ChunkedDecoder decoder;
  const auto result = decoder.decode(as_bytes("1234567890123456"));
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, Code::kTooLarge);
}

TEST(Chunked, AfterTheEndNothingIsConsumed) {
  ChunkedDecoder decoder;
  ASSERT_TRUE(decoder.decode(as_bytes("0\r\n\r\n")).has_value());
  const auto after = decoder.decode(as_bytes("5\r\n"));
  ASSERT_TRUE(after.has_value());
  EXPECT_TRUE(after->done);
  EXPECT_EQ(after->consumed, 0u);
}

}  // namespace
}  // namespace basalt::http
