#include "protocol/s3/xml.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstring>

namespace basalt::s3 {
namespace {

constexpr std::string_view kDeclaration = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

bool is_xml_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// The reference at text[at] == '&': its length, or 0 if it is none of the five names or a character
// reference to a code point other than NUL.
size_t reference_length(std::string_view text, size_t at) {
  const size_t end = text.substr(at, 12).find(';');
  if (end == std::string_view::npos) return 0;
  const std::string_view name = text.substr(at + 1, end - 1);
  if (name == "amp" || name == "lt" || name == "gt" || name == "quot" || name == "apos")
    return end + 1;
  if (name.size() < 2 || name[0] != '#') return 0;
  const bool hex = name[1] == 'x';
  uint32_t value = 0;
  size_t digits = 0;
  for (const char c : name.substr(hex ? 2 : 1)) {
    const int digit = hex ? hex_value(c) : (c >= '0' && c <= '9' ? c - '0' : -1);
    if (digit < 0) return 0;
    value = value * (hex ? 16 : 10) + static_cast<uint32_t>(digit);
    if (value > 0x10FFFF) return 0;
    ++digits;
  }
  const bool surrogate = value >= 0xD800 && value <= 0xDFFF;
  return digits == 0 || value == 0 || surrogate ? 0 : end + 1;
}

// What pugixml lets pass and we do not: DTDs, unknown entities, NUL. Also bounds the markup before
// a tree is built.
bool acceptable(std::string_view text) {
  size_t markup = 0;
  for (size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (c == '\0') return false;
    if (c == '&') {
      const size_t length = reference_length(text, i);
      if (length == 0) return false;
      i += length;
      continue;
    }
    if (c != '<') {
      ++i;
      continue;
    }
    if (++markup > kXmlMarkupMax) return false;
    const std::string_view rest = text.substr(i);
    std::string_view terminator;
    if (rest.starts_with("<!--")) {
      terminator = "-->";
    } else if (rest.starts_with("<![CDATA[")) {
      terminator = "]]>";
    } else if (rest.starts_with("<?")) {
      terminator = "?>";
    } else if (rest.starts_with("<!")) {
      return false;
    } else {
      ++i;
      continue;
    }
    const size_t end = rest.find(terminator, 2);
    if (end == std::string_view::npos || rest.substr(0, end).find('\0') != std::string_view::npos)
      return false;
    i += end + terminator.size();
  }
  return true;
}

// Cuts namespace prefixes off and checks the depth; iterative, the tree is a client's.
bool normalise(pugi::xml_node root) {
  int depth = 1;
  pugi::xml_node node = root;
  while (true) {
    if (node.type() == pugi::node_element) {
      const char* colon = std::strchr(node.name(), ':');
      if (colon != nullptr) {
        const std::string local(colon + 1);
        if (!node.set_name(local.c_str())) return false;
      }
    }
    if (node.first_child()) {
      if (++depth > kXmlDepthMax + 1) return false;  // text inside the deepest element is one more
      node = node.first_child();
      continue;
    }
    while (node != root && !node.next_sibling()) {
      node = node.parent();
      --depth;
    }
    if (node == root) return true;
    node = node.next_sibling();
  }
}

constexpr std::array<bool, 256> unreserved_table() {
  std::array<bool, 256> table{};
  for (int c = 'a'; c <= 'z'; ++c) table[c] = true;
  for (int c = 'A'; c <= 'Z'; ++c) table[c] = true;
  for (int c = '0'; c <= '9'; ++c) table[c] = true;
  for (const char c : {'-', '_', '.', '~'}) table[static_cast<uint8_t>(c)] = true;
  return table;
}
constexpr auto kUnreserved = unreserved_table();

}  // namespace

namespace {

// A document must stay readable whatever a client sent us to repeat: one U+FFFD for each byte that
// is part of no UTF-8 sequence.
std::string with_replacements(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    size_t length = 1;
    while (length < 4 && length < text.size() && !valid_utf8(text.substr(0, length))) ++length;
    if (valid_utf8(text.substr(0, length))) {
      out += text.substr(0, length);
    } else {
      out += "\xEF\xBF\xBD";
      length = 1;
    }
    text.remove_prefix(length);
  }
  return out;
}

bool needs_escape(uint8_t c) {
  return c < 0x20 || c == 0x7F || c == '&' || c == '<' || c == '>' || c == '"' || c == '\'';
}

void put_two_digits(unsigned value, char* out) {
  out[0] = static_cast<char>('0' + value / 10);
  out[1] = static_cast<char>('0' + value % 10);
}

}  // namespace

// Sixteen bytes at a time, because every name and tag of a listing is asked.
bool is_plain_xml(std::string_view text) {
  using Block = uint8_t __attribute__((vector_size(16)));
  using SignedBlock = int8_t __attribute__((vector_size(16)));
  // Two comparisons find four of the five: & and ' differ in one bit, and so do < and >. One with
  // sign finds control characters and what is not ASCII.
  static_assert(('&' | 1) == '\'' && ('<' | 2) == '>');
  Block odd{};
  const auto look = [&odd](const char* at) {
    Block c;
    std::memcpy(&c, at, sizeof c);
    odd |= Block(SignedBlock(c) < 0x20) | Block(c == 0x7F) | Block(c == '"') |
           Block((c | 1) == '\'') | Block((c | 2) == '>');
  };
  const char* at = text.data();
  if (text.size() < sizeof(Block)) {
    char few[sizeof(Block)];
    std::memset(few, 'a', sizeof few);
    if (!text.empty()) std::memcpy(few, at, text.size());
    look(few);
  } else {
    const char* const last = at + text.size() - sizeof(Block);
    for (; at < last; at += sizeof(Block)) look(at);
    look(last);
  }
  uint64_t halves[2];
  std::memcpy(halves, &odd, sizeof halves);
  return (halves[0] | halves[1]) == 0;
}

void append_xml_escaped(std::string_view text, std::string& out) {
  if (is_plain_xml(text)) [[likely]] {
    out.append(text);
    return;
  }
  if (!valid_utf8(text)) return append_xml_escaped(with_replacements(text), out);
  size_t from = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<uint8_t>(text[i]);
    if (!needs_escape(c)) continue;
    out.append(text, from, i - from);
    from = i + 1;
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&apos;";
        break;
      default: {
        // XML 1.0 has no way to write most of these; S3 writes the reference all the same, and so
        // do we: clients that meet such keys ask for encoding-type=url.
        constexpr char kHex[] = "0123456789ABCDEF";
        out += "&#x";
        if (c >= 16) out += kHex[c >> 4];
        out += kHex[c & 15];
        out += ';';
      }
    }
  }
  out.append(text, from, text.size() - from);
}

std::string_view Iso8601::text(int64_t wall_ms) {
  // Not strftime: a listing writes a thousand of these, and it took a tenth of the page's time.
  const int64_t second = std::max<int64_t>(wall_ms, 0) / 1000;
  if (second == second_) return {text_, sizeof text_ - 1};
  second_ = second;
  const int64_t day = second / kSecondsPerDay;
  if (day != day_) {
    day_ = day;
    const std::chrono::year_month_day date{std::chrono::sys_days(std::chrono::days(day))};
    const auto year = static_cast<unsigned>(std::clamp(static_cast<int>(date.year()), 0, 9999));
    put_two_digits(year / 100, text_);
    put_two_digits(year % 100, text_ + 2);
    put_two_digits(static_cast<unsigned>(date.month()), text_ + 5);
    put_two_digits(static_cast<unsigned>(date.day()), text_ + 8);
  }
  const auto of_day = static_cast<unsigned>(second - day * kSecondsPerDay);
  put_two_digits(of_day / 3600, text_ + 11);
  put_two_digits(of_day / 60 % 60, text_ + 14);
  put_two_digits(of_day % 60, text_ + 17);
  return {text_, sizeof text_ - 1};
}

void append_iso8601(int64_t wall_ms, std::string& out) { out += Iso8601().text(wall_ms); }

XmlWriter::XmlWriter(std::string_view root, std::string_view xmlns) : root_(root) {
  out_.reserve(512);
  out_ += kDeclaration;
  out_ += '<';
  out_ += root;
  if (!xmlns.empty()) {
    out_ += " xmlns=\"";
    out_ += xmlns;
    out_ += '"';
  }
  out_ += '>';
}

void XmlWriter::open(std::string_view element) {
  out_ += '<';
  out_ += element;
  out_ += '>';
}

void XmlWriter::close(std::string_view element) {
  out_ += "</";
  out_ += element;
  out_ += '>';
}

void XmlWriter::text(std::string_view element, std::string_view value) {
  open(element);
  append_xml_escaped(value, out_);
  close(element);
}

void XmlWriter::number(std::string_view element, uint64_t value) {
  open(element);
  char digits[20];
  out_.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
  close(element);
}

void XmlWriter::boolean(std::string_view element, bool value) {
  open(element);
  out_ += value ? "true" : "false";
  close(element);
}

void XmlWriter::time(std::string_view element, int64_t wall_ms) {
  open(element);
  append_iso8601(wall_ms, out_);
  close(element);
}

void XmlWriter::etag(std::string_view element, std::string_view etag) {
  open(element);
  out_ += "&quot;";
  append_xml_escaped(etag, out_);
  out_ += "&quot;";
  close(element);
}

void XmlWriter::owner(std::string_view element, std::string_view id,
                      std::string_view display_name) {
  open(element);
  text("ID", id);
  text("DisplayName", display_name);
  close(element);
}

std::string XmlWriter::finish() {
  close(root_);
  return std::move(out_);
}

S3Result<pugi::xml_node> parse_xml(pugi::xml_document& document, std::string_view text,
                                   std::string_view root) {
  if (!acceptable(text) || !valid_utf8(text)) return s3_fail(S3Code::kMalformedXML);
  // Fragment: so that text beside the root element is seen, and refused, rather than skipped. White
  // space that is all of an element's content is kept: " " is a legal key.
  constexpr unsigned kFlags =
      pugi::parse_default | pugi::parse_fragment | pugi::parse_ws_pcdata_single;
  const pugi::xml_parse_result parsed =
      document.load_buffer(text.data(), text.size(), kFlags, pugi::encoding_utf8);
  if (!parsed) return s3_fail(S3Code::kMalformedXML);
  pugi::xml_node found;
  for (const pugi::xml_node child : document.children()) {
    if (child.type() == pugi::node_element) {
      if (found) return s3_fail(S3Code::kMalformedXML);
      found = child;
    } else if (child.type() == pugi::node_pcdata || child.type() == pugi::node_cdata) {
      if (!xml_trimmed(child.value()).empty()) return s3_fail(S3Code::kMalformedXML);
    }
  }
  if (!found || !normalise(found) || found.name() != root) return s3_fail(S3Code::kMalformedXML);
  return found;
}

std::string xml_text(const pugi::xml_node& node) {
  std::string text;
  for (const pugi::xml_node child : node.children()) {
    if (child.type() == pugi::node_pcdata || child.type() == pugi::node_cdata)
      text += child.value();
  }
  return text;
}

std::string_view xml_trimmed(std::string_view text) {
  while (!text.empty() && is_xml_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_xml_space(text.back())) text.remove_suffix(1);
  return text;
}

bool valid_utf8(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const auto c = static_cast<uint8_t>(text[i]);
    if (c < 0x80) {
      ++i;
      continue;
    }
    size_t more = 0;
    uint32_t value = 0;
    uint32_t least = 0;
    if (c >= 0xC2 && c <= 0xDF) {
      more = 1, value = c & 0x1F, least = 0x80;
    } else if (c >= 0xE0 && c <= 0xEF) {
      more = 2, value = c & 0x0F, least = 0x800;
    } else if (c >= 0xF0 && c <= 0xF4) {
      more = 3, value = c & 0x07, least = 0x10000;
    } else {
      return false;
    }
    if (text.size() - i <= more) return false;
    for (size_t k = 1; k <= more; ++k) {
      const auto next = static_cast<uint8_t>(text[i + k]);
      if ((next & 0xC0) != 0x80) return false;
      value = value << 6 | (next & 0x3F);
    }
    if (value < least || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) return false;
    i += more + 1;
  }
  return true;
}

std::string url_encode(std::string_view text, bool keep_slash) {
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  out.reserve(text.size());
  for (const char character : text) {
    const auto c = static_cast<uint8_t>(character);
    if (kUnreserved[c] || (c == '/' && keep_slash)) {
      out += character;
    } else {
      out += '%';
      out += kHex[c >> 4];
      out += kHex[c & 15];
    }
  }
  return out;
}

std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '%') {
      if (text.size() - i < 3) return std::nullopt;
      const int high = hex_value(text[i + 1]);
      const int low = hex_value(text[i + 2]);
      if (high < 0 || low < 0) return std::nullopt;
      out += static_cast<char>(high << 4 | low);
      i += 2;
    } else if (c == '+' && plus_is_space) {
      out += ' ';
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace basalt::s3
