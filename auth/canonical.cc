#include "auth/canonical.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <tuple>

namespace basalt::auth {
namespace {

constexpr char kUpperHex[] = "0123456789ABCDEF";

constexpr std::array<bool, 256> make_unreserved() {
  std::array<bool, 256> table{};
  for (int c = 'a'; c <= 'z'; ++c) table[c] = true;
  for (int c = 'A'; c <= 'Z'; ++c) table[c] = true;
  for (int c = '0'; c <= '9'; ++c) table[c] = true;
  for (char c : {'-', '.', '_', '~'}) table[static_cast<uint8_t>(c)] = true;
  return table;
}
constexpr std::array<bool, 256> kUnreserved = make_unreserved();

constexpr std::array<bool, 256> make_lower_token() {
  std::array<bool, 256> table{};
  for (int c = 'a'; c <= 'z'; ++c) table[c] = true;
  for (int c = '0'; c <= '9'; ++c) table[c] = true;
  for (char c : {'!', '#', '$', '%', '&', '\'', '*', '+', '-', '.', '^', '_', '`', '|', '~'}) {
    table[static_cast<uint8_t>(c)] = true;
  }
  return table;
}
constexpr std::array<bool, 256> kLowerToken = make_lower_token();

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

enum class Part : uint8_t { kPath, kQuery };

char* write_recoded(std::string_view raw, Part part, char* out) {
  for (size_t i = 0; i < raw.size(); ++i) {
    auto byte = static_cast<uint8_t>(raw[i]);
    if (kUnreserved[byte] || (byte == '/' && part == Part::kPath)) {
      *out++ = raw[i];
      continue;
    }
    if (byte == '%') {
      if (raw.size() - i < 3) return nullptr;
      const int high = hex_value(raw[i + 1]), low = hex_value(raw[i + 2]);
      if (high < 0 || low < 0) return nullptr;
      byte = static_cast<uint8_t>(high << 4 | low);
      i += 2;
      if (kUnreserved[byte] || (byte == '/' && part == Part::kPath)) {
        *out++ = static_cast<char>(byte);
        continue;
      }
    } else if (byte == '+' && part == Part::kQuery) {
      byte = ' ';
    }
    *out++ = '%';
    *out++ = kUpperHex[byte >> 4];
    *out++ = kUpperHex[byte & 15];
  }
  return out;
}

// Of text that write_recoded made: every escape is whole.
std::string decode(std::string_view encoded) {
  std::string out;
  out.reserve(encoded.size());
  for (size_t i = 0; i < encoded.size(); ++i) {
    if (encoded[i] != '%') {
      out.push_back(encoded[i]);
      continue;
    }
    out.push_back(static_cast<char>(hex_value(encoded[i + 1]) << 4 | hex_value(encoded[i + 2])));
    i += 2;
  }
  return out;
}

bool is_space(char c) { return c == ' ' || c == '\t'; }

template <class Word>
Word load(const char* at) {
  Word word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

// Eight (or four) bytes at a time, A-Z to a-z and nothing else changed: whether a byte is above 'Z'
// or at least 'A' is carried into its highest bit, which no other byte's sum reaches.
template <class Word>
Word to_lower(Word word) {
  constexpr Word kOnes = static_cast<Word>(~Word{0}) / 255;
  const Word low_bits = word & (kOnes * 0x7f);
  const Word above_z = low_bits + kOnes * (0x7f - 'Z');
  const Word from_a = low_bits + kOnes * (0x80 - 'A');
  const Word upper = ~word & (from_a ^ above_z) & (kOnes * 0x80);
  return word | (upper >> 2);
}

char to_lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }

// Whether any byte is below '!': white space, a line end.
bool any_below_printable(std::string_view text) {
  constexpr uint64_t kOnes = ~uint64_t{0} / 255;
  const auto below = [](uint64_t word) { return (word - kOnes * '!') & ~word & (kOnes * 0x80); };
  size_t i = 0;
  for (; i + 8 <= text.size(); i += 8) {
    if (below(load<uint64_t>(text.data() + i))) return true;
  }
  if (text.size() >= 8) return below(load<uint64_t>(text.data() + text.size() - 8)) != 0;
  for (; i < text.size(); ++i) {
    if (static_cast<uint8_t>(text[i]) < '!') return true;
  }
  return false;
}

// nullptr if the value holds a line end, which would let one header look like two.
char* write_header_value(std::string_view value, char* out) {
  if (!any_below_printable(value)) return write_text(value, out);
  const char* const start = out;
  size_t i = 0;
  while (true) {
    while (i < value.size() && is_space(value[i])) ++i;
    if (i == value.size()) return out;
    if (out != start) *out++ = ' ';
    while (i < value.size() && !is_space(value[i])) {
      if (value[i] == '\n' || value[i] == '\r') return nullptr;
      *out++ = value[i++];
    }
  }
}

}  // namespace

char* write_canonical_path(std::string_view raw, char* out) {
  return write_recoded(raw.empty() ? std::string_view("/") : raw, Part::kPath, out);
}

bool CanonicalQuery::parse(std::string_view raw) {
  encoded_.clear();
  pairs_.clear();
  if (raw.empty()) return true;
  bool good = true;
  encoded_.resize_and_overwrite(kRecodedMax * raw.size(), [&](char* begin, size_t) -> size_t {
    char* out = begin;
    while (!raw.empty()) {
      const size_t end = std::min(raw.find('&'), raw.size());
      const std::string_view pair = raw.substr(0, end);
      raw.remove_prefix(std::min(end + 1, raw.size()));
      if (pair.empty()) continue;
      const size_t equals = std::min(pair.find('='), pair.size());
      const std::string_view value = pair.substr(std::min(equals + 1, pair.size()));
      char* const value_begin = write_recoded(pair.substr(0, equals), Part::kQuery, out);
      char* const value_end =
          value_begin == nullptr ? nullptr : write_recoded(value, Part::kQuery, value_begin);
      if (value_end == nullptr) {
        good = false;
        return 0;
      }
      pairs_.push_back({static_cast<uint32_t>(out - begin),
                        static_cast<uint32_t>(value_begin - out),
                        static_cast<uint32_t>(value_begin - begin),
                        static_cast<uint32_t>(value_end - value_begin)});
      out = value_end;
    }
    return static_cast<size_t>(out - begin);
  });
  if (!good) {
    pairs_.clear();
    return false;
  }
  if (pairs_.size() > 1) {
    std::ranges::sort(pairs_, [this](const Pair& a, const Pair& b) {
      return std::tuple(name_of(a), value_of(a)) < std::tuple(name_of(b), value_of(b));
    });
  }
  return true;
}

size_t CanonicalQuery::count(std::string_view name) const {
  return static_cast<size_t>(
      std::ranges::count_if(pairs_, [&](const Pair& pair) { return name_of(pair) == name; }));
}

std::optional<std::string> CanonicalQuery::value(std::string_view name) const {
  for (const Pair& pair : pairs_) {
    if (name_of(pair) == name) return decode(value_of(pair));
  }
  return std::nullopt;
}

char* CanonicalQuery::write_to(char* out, std::string_view left_out) const {
  const char* const begin = out;
  for (const Pair& pair : pairs_) {
    if (!left_out.empty() && name_of(pair) == left_out) continue;
    if (out != begin) *out++ = '&';
    out = write_text(name_of(pair), out);
    *out++ = '=';
    out = write_text(value_of(pair), out);
  }
  return out;
}

const char* SignedHeaders::parse(std::string_view list) {
  count_ = 0;
  bool host = false;
  while (true) {
    size_t end = 0;
    while (end < list.size() && kLowerToken[static_cast<uint8_t>(list[end])]) ++end;
    if (end < list.size() && list[end] != ';') {
      return "SignedHeaders holds a name that is not a lower-case header name";
    }
    const std::string_view name = list.substr(0, end);
    if (name.empty()) return "SignedHeaders is empty or holds an empty name";
    if (contains(name)) return "SignedHeaders holds a name twice";
    if (count_ == kSignedHeadersMax) return "SignedHeaders holds too many names";
    names_[count_++] = name;
    host = host || name == "host";
    if (end == list.size()) break;
    list.remove_prefix(end + 1);
  }
  return host ? nullptr : "the Host header must be signed";
}

bool SignedHeaders::contains(std::string_view name) const {
  return std::ranges::any_of(names(), [&](std::string_view signed_name) {
    return equals_ignoring_case(name, signed_name);
  });
}

char* write_canonical_headers(std::span<const HeaderView> headers,
                              std::span<const std::string_view> names, char* out,
                              std::string_view& missing) {
  for (std::string_view name : names) {
    out = write_text(name, out);
    *out++ = ':';
    bool found = false;
    for (const HeaderView& header : headers) {
      if (!equals_ignoring_case(header.name, name)) continue;
      if (found) *out++ = ',';
      found = true;
      out = write_header_value(header.value, out);
      if (out == nullptr) break;
    }
    if (!found || out == nullptr) {
      missing = name;
      return nullptr;
    }
    *out++ = '\n';
  }
  return out;
}

bool equals_ignoring_case(const char* a, const char* b, size_t size) {
  // The last word may overlap the one before.
  if (size >= 8) {
    for (size_t i = 0; i + 8 < size; i += 8) {
      if (to_lower(load<uint64_t>(a + i)) != load<uint64_t>(b + i)) return false;
    }
    return to_lower(load<uint64_t>(a + size - 8)) == load<uint64_t>(b + size - 8);
  }
  if (size >= 4) {
    return to_lower(load<uint32_t>(a)) == load<uint32_t>(b) &&
           to_lower(load<uint32_t>(a + size - 4)) == load<uint32_t>(b + size - 4);
  }
  for (size_t i = 0; i < size; ++i) {
    if (to_lower(a[i]) != b[i]) return false;
  }
  return true;
}

bool starts_with_ignoring_case(std::string_view text, std::string_view lower) {
  return text.size() >= lower.size() && equals_ignoring_case(text.substr(0, lower.size()), lower);
}

}  // namespace basalt::auth
