// HTTP/1.1 request heads: strict parser (RFC 9112, RFC 9110), pure function over bytes.
//
// What is ambiguous is refused: bare LF or CR, obs-fold, white space before the colon, NUL, a
// second or malformed Content-Length, Content-Length with Transfer-Encoding, any Transfer-Encoding
// but "chunked", control characters in the target or a field value, a missing or double Host on
// HTTP/1.1.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/bytes.h"

namespace basalt::http {

constexpr size_t kHeadBytesMax = 32 * 1024;    // request line and fields together
constexpr size_t kTargetBytesMax = 16 * 1024;  // request target
constexpr size_t kFieldCountMax = 200;

enum class Method : uint8_t { kGet, kHead, kPut, kPost, kDelete, kOptions, kPatch, kOther };

struct Field {
  std::string_view name;   // as sent; compare with field_name_equals (ASCII case-insensitive)
  std::string_view value;  // without leading and trailing white space
};

bool field_name_equals(std::string_view a, std::string_view b);

// Views point into the buffer that was parsed.
struct RequestHead {
  Method method = Method::kOther;
  std::string_view method_name;
  std::string_view target;  // as sent
  std::string_view
      path;  // target's path part, still percent-encoded, starts with '/'; "*" for OPTIONS *
  std::string_view query;  // after '?', without it; empty if none
  bool http10 = false;
  std::vector<Field> fields;  // in order; capacity is kept when the head is reused

  std::optional<uint64_t> content_length;
  bool chunked = false;
  bool keep_alive = true;
  bool expect_continue = false;
  std::string_view
      host;  // Host field (or the authority of an absolute-form target); may be empty on HTTP/1.0

  // First field of that name, or nullptr.
  const Field* find(std::string_view name) const;
  std::string_view value(std::string_view name) const;  // "" if absent
  void clear();
};

enum class HeadStatus : uint8_t {
  kComplete,
  kNeedMore,
  kBad,
  kTooLarge,
  kTargetTooLong,
  kBadVersion,
  kBadExpect
};

struct HeadResult {
  HeadStatus status;
  size_t consumed = 0;      // with kComplete: bytes of the head, including the empty line
  const char* reason = "";  // with an error: what was wrong, for the log and the 400's message
};

// `scanned`: bytes of `data` an earlier call has already seen without finding the end (0 at first):
// no quadratic re-scan.
HeadResult parse_request_head(Bytes data, size_t scanned, RequestHead& head);

}  // namespace basalt::http
