// The smuggling corpus of tests/golden/http_smuggling: each case's bytes are fed whole, byte by
// byte and in random pieces, as a connection would see them; the verdict must be the expected one
// every time. What the RFCs leave open is refused.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "protocol/http/chunked.h"
#include "protocol/http/head.h"

namespace basalt::http {
namespace {

struct Case {
  std::string where;
  std::string verdict;
  std::string bytes;
};

int hex(char c) { return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10; }

std::string unescape(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\') {
      out += text[i];
      continue;
    }
    switch (text[++i]) {
      case 'r':
        out += '\r';
        break;
      case 'n':
        out += '\n';
        break;
      case 't':
        out += '\t';
        break;
      case '\\':
        out += '\\';
        break;
      case 'x':
        out += static_cast<char>(hex(text[i + 1]) * 16 + hex(text[i + 2]));
        i += 2;
        break;
      case '{': {
        const size_t end = text.find('}', i);
        out.append(std::stoul(text.substr(i + 4, end - i - 4)),
                   static_cast<char>(hex(text[i + 1]) * 16 + hex(text[i + 2])));
        i = end;
        break;
      }
      default:
        ADD_FAILURE() << "bad escape in " << text;
    }
  }
  return out;
}

std::vector<Case> corpus() {
  const auto folder = std::filesystem::path(BASALT_SOURCE_ROOT) / "tests/golden/http_smuggling";
  std::vector<Case> cases;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".txt") continue;
    std::ifstream file(entry.path());
    std::string line;
    for (int number = 1; std::getline(file, line); ++number) {
      if (line.empty() || line.starts_with("# ")) continue;
      const size_t tab = line.find('\t');
      cases.push_back({entry.path().filename().string() + ":" + std::to_string(number),
                       line.substr(0, tab), unescape(line.substr(tab + 1))});
    }
  }
  return cases;
}

const char* verdict_of(HeadStatus status) {
  switch (status) {
    case HeadStatus::kComplete:
      return "ok";
    case HeadStatus::kNeedMore:
      return "more";
    case HeadStatus::kBad:
      return "bad";
    case HeadStatus::kTooLarge:
      return "large";
    case HeadStatus::kTargetTooLong:
      return "long-target";
    case HeadStatus::kBadVersion:
      return "version";
    case HeadStatus::kBadExpect:
      return "expect";
  }
  return "?";
}

// Reads requests as a session does: only `window` bytes more are known at each step.
std::string read_all(const std::string& bytes, const std::vector<size_t>& steps, bool flags) {
  std::string ok;
  std::string error;
  RequestHead head;
  size_t begin = 0;
  size_t scanned = 0;
  size_t known = 0;
  bool in_body = false;
  uint64_t body = 0;
  uint64_t remaining = 0;
  ChunkedDecoder decoder;
  for (size_t step = 0; error.empty(); ++step) {
    if (step < steps.size())
      known = std::min(bytes.size(), known + steps[step]);
    else
      known = bytes.size();
    bool progress = true;
    while (progress && error.empty()) {
      progress = false;
      const Bytes view = as_bytes(std::string_view(bytes).substr(begin, known - begin));
      if (!in_body) {
        if (view.size() <= scanned) break;
        const HeadResult result = parse_request_head(view, scanned, head);
        scanned = view.size();
        if (result.status == HeadStatus::kNeedMore) break;
        if (result.status != HeadStatus::kComplete) {
          EXPECT_STRNE(result.reason, "");
          error = verdict_of(result.status);
          break;
        }
        EXPECT_TRUE(!head.path.empty() && (head.path.front() == '/' || head.path == "*"));
        begin += result.consumed;
        scanned = 0;
        in_body = true;
        body = 0;
        remaining = head.content_length.value_or(0);
        decoder = {};
        progress = true;
      } else if (head.chunked) {
        const auto result = decoder.decode(view);
        if (!result) {
          error = "bad-body";
          break;
        }
        body += result->data.size();
        begin += result->consumed;
        progress = result->consumed != 0;
        if (decoder.done()) in_body = false;
      } else {
        const uint64_t size = std::min<uint64_t>(remaining, view.size());
        begin += size;
        body += size;
        remaining -= size;
        progress = size != 0 || remaining == 0;
        if (remaining == 0) in_body = false;
      }
      if (!in_body && progress) {
        ok += (ok.empty() ? "ok " : ",") + std::to_string(body);
        if (flags) ok += head.expect_continue ? " expect" : head.keep_alive ? " keep" : " close";
      }
    }
    if (known == bytes.size()) break;
  }
  if (error.empty() && (in_body || begin != known || ok.empty())) error = "more";
  if (error.empty()) return ok;
  return ok.empty() ? error : ok + "," + error;
}

TEST(Smuggling, Corpus) {
  const std::vector<Case> cases = corpus();
  ASSERT_GE(cases.size(), 300u);
  std::mt19937 random(7);
  for (const Case& test : cases) {
    const bool flags = test.verdict.ends_with("keep") || test.verdict.ends_with("close") ||
                       test.verdict.ends_with(" expect");
    EXPECT_EQ(read_all(test.bytes, {}, flags), test.verdict) << test.where << " whole";
    EXPECT_EQ(read_all(test.bytes, std::vector<size_t>(test.bytes.size(), 1), flags), test.verdict)
        << test.where << " byte by byte";
    for (int round = 0; round < 4; ++round) {
      std::vector<size_t> steps;
      for (size_t sum = 0; sum < test.bytes.size();) {
        steps.push_back(1 + random() % (test.bytes.size() > 1000 ? 5000 : 40));
        sum += steps.back();
      }
      EXPECT_EQ(read_all(test.bytes, steps, flags), test.verdict) << test.where << " in pieces";
    }
  }
}

}  // namespace
}  // namespace basalt::http
