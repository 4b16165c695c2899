#include "auth/canonical.h"

#include <algorithm>
#include <array>
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

bool append_recoded(std::string_view raw, Part part, std::string& out) {
  for (size_t i = 0; i < raw.size(); ++i) {
    // Most text is runs of bytes that stay as they are.
    const size_t begin = i;
    while (i < raw.size() &&
           (kUnreserved[static_cast<uint8_t>(raw[i])] || (raw[i] == '/' && part == Part::kPath)))
      ++i;
    out.append(raw, begin, i - begin);
    if (i == raw.size()) break;
    auto byte = static_cast<uint8_t>(raw[i]);
    if (byte == '%') {
      if (raw.size() - i < 3) return false;
      const int high = hex_value(raw[i + 1]), low = hex_value(raw[i + 2]);
      if (high < 0 || low < 0) return false;
      byte = static_cast<uint8_t>(high << 4 | low);
      i += 2;
      if (kUnreserved[byte] || (byte == '/' && part == Part::kPath)) {
        out.push_back(static_cast<char>(byte));
        continue;
      }
    } else if (byte == '+' && part == Part::kQuery) {
      byte = ' ';
    }
    const char escape[3] = {'%', kUpperHex[byte >> 4], kUpperHex[byte & 15]};
    out.append(escape, sizeof escape);
  }
  return true;
}

// Of text that append_recoded made: every escape is whole.
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

char to_lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }

bool is_space(char c) { return c == ' ' || c == '\t'; }

// False if the value holds a line end, which would let one header look like two.
bool append_header_value(std::string_view value, std::string& out) {
  const size_t start = out.size();
  size_t i = 0;
  while (true) {
    while (i < value.size() && is_space(value[i])) ++i;
    if (i == value.size()) return true;
    if (out.size() != start) out.push_back(' ');
    const size_t begin = i;
    while (i < value.size() && !is_space(value[i])) {
      if (value[i] == '\n' || value[i] == '\r') return false;
      ++i;
    }
    out.append(value, begin, i - begin);
  }
}

}  // namespace

bool append_canonical_path(std::string_view raw, std::string& out) {
  if (raw.empty()) {
    out.push_back('/');
    return true;
  }
  return append_recoded(raw, Part::kPath, out);
}

bool CanonicalQuery::parse(std::string_view raw) {
  encoded_.clear();
  pairs_.clear();
  while (!raw.empty()) {
    const size_t end = std::min(raw.find('&'), raw.size());
    const std::string_view pair = raw.substr(0, end);
    raw.remove_prefix(std::min(end + 1, raw.size()));
    if (pair.empty()) continue;
    const size_t equals = std::min(pair.find('='), pair.size());
    Pair entry;
    entry.name_begin = static_cast<uint32_t>(encoded_.size());
    if (!append_recoded(pair.substr(0, equals), Part::kQuery, encoded_)) return false;
    entry.value_begin = static_cast<uint32_t>(encoded_.size());
    entry.name_size = entry.value_begin - entry.name_begin;
    if (equals < pair.size() && !append_recoded(pair.substr(equals + 1), Part::kQuery, encoded_))
      return false;
    entry.value_size = static_cast<uint32_t>(encoded_.size()) - entry.value_begin;
    pairs_.push_back(entry);
  }
  std::ranges::sort(pairs_, [this](const Pair& a, const Pair& b) {
    return std::tuple(name_of(a), value_of(a)) < std::tuple(name_of(b), value_of(b));
  });
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

void CanonicalQuery::append_to(std::string& out, std::string_view left_out) const {
  bool first = true;
  for (const Pair& pair : pairs_) {
    if (!left_out.empty() && name_of(pair) == left_out) continue;
    if (!first) out.push_back('&');
    first = false;
    out.append(name_of(pair)).append("=").append(value_of(pair));
  }
}

const char* SignedHeaders::parse(std::string_view list) {
  count_ = 0;
  bool host = false;
  while (true) {
    const size_t end = std::min(list.find(';'), list.size());
    const std::string_view name = list.substr(0, end);
    if (name.empty()) return "SignedHeaders is empty or holds an empty name";
    if (!std::ranges::all_of(name, [](char c) { return kLowerToken[static_cast<uint8_t>(c)]; })) {
      return "SignedHeaders holds a name that is not a lower-case header name";
    }
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

std::string_view append_canonical_headers(std::span<const HeaderView> headers,
                                          std::span<const std::string_view> names,
                                          std::string& out) {
  for (std::string_view name : names) {
    out.append(name).push_back(':');
    bool found = false;
    for (const HeaderView& header : headers) {
      if (!equals_ignoring_case(header.name, name)) continue;
      if (found) out.push_back(',');
      found = true;
      if (!append_header_value(header.value, out)) return name;
    }
    if (!found) return name;
    out.push_back('\n');
  }
  return {};
}

bool equals_ignoring_case(std::string_view text, std::string_view lower) {
  if (text.size() != lower.size()) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (to_lower(text[i]) != lower[i]) return false;
  }
  return true;
}

bool starts_with_ignoring_case(std::string_view text, std::string_view lower) {
  return text.size() >= lower.size() && equals_ignoring_case(text.substr(0, lower.size()), lower);
}

}  // namespace basalt::auth
