// Canonical requests of Signature Version 4 ("Signature calculations for the Authorization header",
// S3 API reference): the one text that both the client and we hash. Inside auth/ only.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "auth/sigv4.h"

namespace basalt::auth {

constexpr size_t kRequestHeadersMax = 256;  // the HTTP room stops at 200
constexpr size_t kSignedHeadersMax = 200;

// Appends `raw` after one decoding of its %XX and one encoding of each byte but A-Z a-z 0-9 - . _ ~
// and '/'. False if an escape is not two hex digits.
bool append_canonical_path(std::string_view raw, std::string& out);

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
  void append_to(std::string& out, std::string_view left_out) const;
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

// Appends "name:value\n" for each name: values without outer white space, inner runs of it as one
// space, several fields of one name joined by ','. Returns the first name of which the request has
// no field (or one with a line end in it), or "" if all is well.
std::string_view append_canonical_headers(std::span<const HeaderView> headers,
                                          std::span<const std::string_view> names,
                                          std::string& out);

bool equals_ignoring_case(std::string_view text, std::string_view lower);
bool starts_with_ignoring_case(std::string_view text, std::string_view lower);

}  // namespace basalt::auth
