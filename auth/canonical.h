// Canonical requests of Signature Version 4 ("Signature calculations for the Authorization header",
// S3 API reference): the one text that both the client and we hash. Inside auth/ only.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "auth/sigv4.h"

namespace basalt::auth {

constexpr size_t kRequestHeadersMax = 256;  // the HTTP room stops at 200
constexpr size_t kSignedHeadersMax = 200;

// What is canonical is written to memory of the caller's that is sure to hold it; the functions
// return the end of what they wrote. Strings that look for room at each of thirty short pieces cost
// more than the hash of the text.

// `raw` after one decoding of its %XX and one encoding of each byte but A-Z a-z 0-9 - . _ ~ and
// '/'. At most kRecodedMax times as long as `raw`, "/" if that is empty. nullptr if an escape is
// not two hex digits.
constexpr size_t kRecodedMax = 3;
char* write_canonical_path(std::string_view raw, char* out);

// The query, taken apart once. Pairs without a name and a value ("a&&b") are skipped; '+' is a
// space, as the S3 layer reads it (and as S3 does); "acl" and "acl=" are the same.
class CanonicalQuery {
 public:
  // False if an escape is not two hex digits.
  bool parse(std::string_view raw);

  // How many parameters have this (decoded) name. `name` must consist of unreserved characters.
  size_t count(std::string_view name) const;
  // Decoded value of the first one; nullopt if there is none.
  std::optional<std::string> value(std::string_view name) const;
  // Sorted by name, then value; without the parameters of the name `left_out`, if that is not
  // empty.
  char* write_to(char* out, std::string_view left_out) const;
  size_t written_bytes_max() const { return encoded_.size() + 2 * pairs_.size(); }
  bool empty() const { return pairs_.empty(); }

 private:
  struct Pair {
    uint32_t name_begin, name_size, value_begin, value_size;
  };
  std::string_view name_of(const Pair& pair) const {
    return {encoded_.data() + pair.name_begin, pair.name_size};
  }
  std::string_view value_of(const Pair& pair) const {
    return {encoded_.data() + pair.value_begin, pair.value_size};
  }

  std::string encoded_;
  std::vector<Pair> pairs_;  // sorted
};

// SignedHeaders, split. Names must be lower-case tokens, each once, at most kSignedHeadersMax,
// "host" among them.
class SignedHeaders {
 public:
  // nullptr if fine, else what is wrong.
  const char* parse(std::string_view list);
  bool contains(std::string_view name) const;
  std::span<const std::string_view> names() const { return {names_.data(), count_}; }

 private:
  std::array<std::string_view, kSignedHeadersMax> names_;
  size_t count_ = 0;
};

// "name:value\n" for each name: values without outer white space, inner runs of it as one space,
// several fields of one name joined by ','. Names are distinct, so all values together are written
// once at most. nullptr: `missing` is the first name of which the request has no field (or one with
// a line end in it).
char* write_canonical_headers(std::span<const HeaderView> headers,
                              std::span<const std::string_view> names, char* out,
                              std::string_view& missing);

// Copies short text in place: most pieces are shorter than a call to memcpy is long. The end.
inline char* write_text(std::string_view text, char* out) {
  const char* from = text.data();
  size_t size = text.size();
  if (size >= 16) {
    for (; size > 16; from += 16, out += 16, size -= 16) std::memcpy(out, from, 16);
    // The last 16 may overlap those before.
    std::memcpy(out + size - 16, from + size - 16, 16);
    return out + size;
  }
  if (size >= 8) {
    std::memcpy(out, from, 8);
    std::memcpy(out + size - 8, from + size - 8, 8);
  } else if (size >= 4) {
    std::memcpy(out, from, 4);
    std::memcpy(out + size - 4, from + size - 4, 4);
  } else {
    for (size_t i = 0; i < size; ++i) out[i] = from[i];
  }
  return out + size;
}

// `size` bytes each.
bool equals_ignoring_case(const char* text, const char* lower, size_t size);
inline bool equals_ignoring_case(std::string_view text, std::string_view lower) {
  return text.size() == lower.size() &&
         equals_ignoring_case(text.data(), lower.data(), text.size());
}
bool starts_with_ignoring_case(std::string_view text, std::string_view lower);

}  // namespace basalt::auth
