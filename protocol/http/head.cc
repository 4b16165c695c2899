#include "protocol/http/head.h"

#include <array>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace basalt::http {
namespace {

constexpr std::array<bool, 256> make_token_table() {
  std::array<bool, 256> table{};
  for (int c = '0'; c <= '9'; ++c) table[c] = true;
  for (int c = 'a'; c <= 'z'; ++c) table[c] = table[c - 32] = true;
  for (const char c :
       {'!', '#', '$', '%', '&', '\'', '*', '+', '-', '.', '^', '_', '`', '|', '~'}) {
    table[static_cast<uint8_t>(c)] = true;
  }
  return table;
}
constexpr auto kToken = make_token_table();  // RFC 9110 section 5.6.2, tchar

// RFC 3986 reg-name without the comma (two Host fields joined by a proxy would read as one name).
constexpr std::array<bool, 256> make_host_table() {
  std::array<bool, 256> table{};
  for (int c = '0'; c <= '9'; ++c) table[c] = true;
  for (int c = 'a'; c <= 'z'; ++c) table[c] = table[c - 32] = true;
  for (const char c :
       {'-', '.', '_', '~', '%', '!', '$', '&', '\'', '(', ')', '*', '+', ';', '='}) {
    table[static_cast<uint8_t>(c)] = true;
  }
  return table;
}
constexpr auto kHostByte = make_host_table();

constexpr size_t kMethodBytesMax = 32;
constexpr size_t kRequestLineMax =
    kMethodBytesMax + 1 + kTargetBytesMax + 11;  // method SP target SP version CR LF

constexpr char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }
constexpr bool digit(char c) { return c >= '0' && c <= '9'; }

// First byte of [from, end) that may not stand in a request target (0x00-0x20, 0x7f), or end.
const char* end_of_target(const char* from, const char* end) {
#if defined(__SSE2__)
  const __m128i low = _mm_set1_epi8(0x20);
  const __m128i del = _mm_set1_epi8(0x7f);
  while (end - from >= 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    // min(b, 0x20) == b: unsigned b <= 0x20.
    const __m128i bad =
        _mm_or_si128(_mm_cmpeq_epi8(_mm_min_epu8(bytes, low), bytes), _mm_cmpeq_epi8(bytes, del));
    const int mask = _mm_movemask_epi8(bad);
    if (mask != 0) return from + __builtin_ctz(static_cast<unsigned>(mask));
    from += 16;
  }
#endif
  while (from < end && static_cast<uint8_t>(*from) > 0x20 && *from != 0x7f) ++from;
  return from;
}

// First control byte of [from, end) other than HTAB (0x00-0x08, 0x0a-0x1f, 0x7f), or end: a good
// value ends at its CR.
const char* end_of_value(const char* from, const char* end) {
#if defined(__SSE2__)
  const __m128i low = _mm_set1_epi8(0x1f);
  const __m128i del = _mm_set1_epi8(0x7f);
  const __m128i tab = _mm_set1_epi8('\t');
  while (end - from >= 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    const __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, low), bytes);
    const __m128i bad = _mm_or_si128(_mm_andnot_si128(_mm_cmpeq_epi8(bytes, tab), control),
                                     _mm_cmpeq_epi8(bytes, del));
    const int mask = _mm_movemask_epi8(bad);
    if (mask != 0) return from + __builtin_ctz(static_cast<unsigned>(mask));
    from += 16;
  }
#endif
  while (from < end && ((static_cast<uint8_t>(*from) >= 0x20 && *from != 0x7f) || *from == '\t'))
    ++from;
  return from;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

Method method_of(std::string_view name) {
  switch (name.size()) {
    case 3:
      if (name == "GET") return Method::kGet;
      if (name == "PUT") return Method::kPut;
      break;
    case 4:
      if (name == "HEAD") return Method::kHead;
      if (name == "POST") return Method::kPost;
      break;
    case 5:
      if (name == "PATCH") return Method::kPatch;
      break;
    case 6:
      if (name == "DELETE") return Method::kDelete;
      break;
    case 7:
      if (name == "OPTIONS") return Method::kOptions;
      break;
    default:
      break;
  }
  return Method::kOther;
}

// uri-host [":" port], RFC 9110 section 7.2. User information never belongs here.
bool valid_authority(std::string_view text) {
  if (text.empty()) return false;
  size_t at = 0;
  if (text.front() == '[') {
    at = text.find(']');
    if (at == std::string_view::npos || at < 3) return false;
    for (size_t i = 1; i < at; ++i) {
      const char c = lower(text[i]);
      if (!digit(c) && !(c >= 'a' && c <= 'f') && c != ':' && c != '.') return false;
    }
    ++at;
  } else {
    while (at < text.size() && kHostByte[static_cast<uint8_t>(text[at])]) ++at;
    if (at == 0) return false;
  }
  if (at == text.size()) return true;
  if (text[at] != ':') return false;
  for (++at; at < text.size(); ++at) {
    if (!digit(text[at])) return false;
  }
  return true;
}

// What has been seen of the fields that frame the message.
struct Seen {
  bool host = false;
  bool length = false;
  bool encoding = false;
  bool close = false;
  bool keep_alive = false;
  bool bad_expect = false;
};

const char* parse_length(std::string_view value, uint64_t& length) {
  if (value.empty()) return "empty Content-Length";
  // 18 digits hold any object; more are refused rather than checked for overflow.
  if (value.size() > 18) return "Content-Length too long";
  length = 0;
  for (const char c : value) {
    if (!digit(c)) return "malformed Content-Length";
    length = length * 10 + static_cast<uint64_t>(c - '0');
  }
  return nullptr;
}

const char* parse_connection(std::string_view value, Seen& seen) {
  while (!value.empty()) {
    const size_t comma = value.find(',');
    const std::string_view option = trim(value.substr(0, comma));
    if (field_name_equals(option, "close")) seen.close = true;
    if (field_name_equals(option, "keep-alive")) seen.keep_alive = true;
    // Fields of ours named here would have to be dropped by an intermediary; nobody honest does it.
    if (field_name_equals(option, "content-length") ||
        field_name_equals(option, "transfer-encoding") || field_name_equals(option, "host")) {
      return "Connection names a framing field";
    }
    if (comma == std::string_view::npos) break;
    value.remove_prefix(comma + 1);
  }
  return nullptr;
}

// Fields with a meaning for the framing. Returns what is wrong, or nullptr.
const char* note_field(const Field& field, RequestHead& head, Seen& seen) {
  switch (field.name.size()) {
    case 4:
      if (!field_name_equals(field.name, "host")) return nullptr;
      if (seen.host) return "two Host fields";
      seen.host = true;
      if (!field.value.empty() && !valid_authority(field.value)) return "malformed Host";
      if (head.host.empty())
        head.host = field.value;  // the authority of an absolute target goes first
      return nullptr;
    case 6:
      if (!field_name_equals(field.name, "expect")) return nullptr;
      if (field_name_equals(field.value, "100-continue"))
        head.expect_continue = true;
      else
        seen.bad_expect = true;
      return nullptr;
    case 10:
      if (!field_name_equals(field.name, "connection")) return nullptr;
      return parse_connection(field.value, seen);
    case 14: {
      if (!field_name_equals(field.name, "content-length")) return nullptr;
      if (seen.length) return "two Content-Length fields";
      seen.length = true;
      uint64_t length = 0;
      if (const char* wrong = parse_length(field.value, length)) return wrong;
      head.content_length = length;
      return nullptr;
    }
    case 17:
      if (!field_name_equals(field.name, "transfer-encoding")) return nullptr;
      if (seen.encoding) return "two Transfer-Encoding fields";
      seen.encoding = true;
      if (!field_name_equals(field.value, "chunked")) return "unknown Transfer-Encoding";
      head.chunked = true;
      return nullptr;
    default:
      return nullptr;
  }
}

struct Wrong {
  HeadStatus status = HeadStatus::kComplete;
  const char* reason = "";
};

Wrong parse_target(RequestHead& head) {
  std::string_view rest = head.target;
  if (rest.contains('#')) return {HeadStatus::kBad, "fragment in the target"};
  if (rest == "*") {
    if (head.method != Method::kOptions) return {HeadStatus::kBad, "target * without OPTIONS"};
    head.path = rest;
    return {};
  }
  if (rest.front() != '/') {
    // absolute-form: an authority that goes before the Host field (RFC 9112 section 3.2.2)
    size_t skip = 0;
    if (rest.size() > 7 && field_name_equals(rest.substr(0, 7), "http://"))
      skip = 7;
    else if (rest.size() > 8 && field_name_equals(rest.substr(0, 8), "https://"))
      skip = 8;
    else
      return {HeadStatus::kBad, "target is not a path"};
    rest.remove_prefix(skip);
    const size_t end = std::min(rest.find_first_of("/?"), rest.size());
    head.host = rest.substr(0, end);
    if (!valid_authority(head.host)) return {HeadStatus::kBad, "malformed authority in the target"};
    rest.remove_prefix(end);
    if (rest.empty() || rest.front() == '?') {
      head.path = "/";
      if (!rest.empty()) head.query = rest.substr(1);
      return {};
    }
  }
  const auto* mark = static_cast<const char*>(std::memchr(rest.data(), '?', rest.size()));
  if (mark == nullptr) {
    head.path = rest;
  } else {
    head.path = {rest.data(), mark};
    head.query = {mark + 1, rest.data() + rest.size()};
  }
  return {};
}

// `at` moves behind the request line.
Wrong parse_request_line(const char*& at, const char* end, RequestHead& head) {
  const char* start = at;
  while (at < end && kToken[static_cast<uint8_t>(*at)]) ++at;
  const auto method_size = static_cast<size_t>(at - start);
  if (method_size == 0 || method_size > kMethodBytesMax || at == end || *at != ' ') {
    return {HeadStatus::kBad, "malformed method"};
  }
  head.method_name = {start, method_size};
  head.method = method_of(head.method_name);
  start = ++at;
  at = end_of_target(at, end);
  head.target = {start, static_cast<size_t>(at - start)};
  if (head.target.size() > kTargetBytesMax) return {HeadStatus::kTargetTooLong, "target too long"};
  if (head.target.empty() || at == end || *at != ' ')
    return {HeadStatus::kBad, "malformed request target"};
  ++at;
  if (end - at < 10 || std::memcmp(at, "HTTP/", 5) != 0 || !digit(at[5]) || at[6] != '.' ||
      !digit(at[7]) || at[8] != '\r' || at[9] != '\n') {
    return {HeadStatus::kBad, "malformed HTTP version"};
  }
  if (at[5] != '1' || at[7] > '1') return {HeadStatus::kBadVersion, "HTTP version not supported"};
  head.http10 = at[7] == '0';
  at += 10;
  return parse_target(head);
}

Wrong parse_fields(const char* at, const char* end, RequestHead& head, Seen& seen) {
  while (*at != '\r') {
    if (head.fields.size() == kFieldCountMax) return {HeadStatus::kTooLarge, "too many fields"};
    const char* start = at;
    while (at < end && kToken[static_cast<uint8_t>(*at)]) ++at;
    if (at == start) {
      return {HeadStatus::kBad,
              *at == ' ' || *at == '\t' ? "folded field line" : "malformed field name"};
    }
    if (at == end || *at != ':') return {HeadStatus::kBad, "malformed field name"};
    Field field;
    field.name = {start, static_cast<size_t>(at - start)};
    start = ++at;
    at = end_of_value(at, end);
    // In a complete head the end is behind a CR LF, so at[1] is there.
    if (at == end || *at != '\r' || at[1] != '\n')
      return {HeadStatus::kBad, "control character in a field value"};
    field.value = trim({start, static_cast<size_t>(at - start)});
    at += 2;
    if (const char* wrong = note_field(field, head, seen)) return {HeadStatus::kBad, wrong};
    head.fields.push_back(field);
  }
  // The CR that ended the loop must be the empty line's, which is the head's end.
  if (at + 2 != end) return {HeadStatus::kBad, "bare CR"};
  return {};
}

Wrong check_framing(RequestHead& head, const Seen& seen) {
  if (head.chunked) {
    if (seen.length) return {HeadStatus::kBad, "Content-Length with Transfer-Encoding"};
    // A 1.0 peer on the way would not know chunks (RFC 9112 section 6.1).
    if (head.http10) return {HeadStatus::kBad, "Transfer-Encoding in HTTP/1.0"};
  }
  if (!head.http10 && (!seen.host || head.host.empty())) return {HeadStatus::kBad, "no Host"};
  head.keep_alive = !seen.close && (!head.http10 || seen.keep_alive);
  if (head.http10) {
    head.expect_continue = false;  // RFC 9110 section 10.1.1: ignored
  } else if (seen.bad_expect) {
    return {HeadStatus::kBadExpect, "unknown expectation"};
  }
  return {};
}

// Where the head ends (behind its empty line), 0 if that has not come, or a Wrong: a bare LF cannot
// become right.
Wrong find_end(const char* data, size_t size, size_t scanned, size_t& head_size) {
  head_size = 0;
  // Each LF is looked at once; the one before it tells whether its line is empty.
  size_t from = scanned;
  while (from < size) {
    const auto* lf = static_cast<const char*>(std::memchr(data + from, '\n', size - from));
    if (lf == nullptr) return {};
    const auto at = static_cast<size_t>(lf - data);
    if (at == 0 || data[at - 1] != '\r') return {HeadStatus::kBad, "bare LF"};
    if (at >= 3 && data[at - 2] == '\n') {
      head_size = at + 1;
      return {};
    }
    from = at + 1;
  }
  return {};
}

}  // namespace

bool field_name_equals(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] != b[i] && lower(a[i]) != lower(b[i])) return false;
  }
  return true;
}

const Field* RequestHead::find(std::string_view name) const {
  for (const Field& field : fields) {
    if (field_name_equals(field.name, name)) return &field;
  }
  return nullptr;
}

std::string_view RequestHead::value(std::string_view name) const {
  const Field* field = find(name);
  return field != nullptr ? field->value : std::string_view();
}

void RequestHead::clear() {
  method = Method::kOther;
  method_name = target = path = query = host = {};
  http10 = false;
  fields.clear();
  content_length.reset();
  chunked = false;
  keep_alive = true;
  expect_continue = false;
}

HeadResult parse_request_head(Bytes data, size_t scanned, RequestHead& head) {
  head.clear();
  const auto* text = reinterpret_cast<const char*>(data.data());
  size_t size = data.size();
  if (size == 0) return {HeadStatus::kNeedMore};
  // One empty line before the request line is skipped (RFC 9112 section 2.2): old clients send it
  // after a POST's body.
  size_t skipped = 0;
  if (text[0] == '\r') {
    if (size == 1) return {HeadStatus::kNeedMore};
    if (text[1] != '\n') return {HeadStatus::kBad, 0, "bare CR"};
    skipped = 2;
    text += 2;
    size -= 2;
    if (size == 0) return {HeadStatus::kNeedMore};
  }
  // Whatever does not begin like a method (a TLS hello on the plain port) is refused before it
  // fills the buffer.
  if (!kToken[static_cast<uint8_t>(text[0])]) return {HeadStatus::kBad, 0, "malformed method"};

  size_t head_size = 0;
  Wrong wrong = find_end(text, size, scanned > skipped ? scanned - skipped : 0, head_size);
  if (wrong.status != HeadStatus::kComplete) return {wrong.status, 0, wrong.reason};
  if (head_size == 0 || head_size > kHeadBytesMax) {
    if (size < kRequestLineMax && head_size == 0) return {HeadStatus::kNeedMore};
    // Long already: is it the target that does not end?
    if (std::memchr(text, '\n', std::min(size, kRequestLineMax)) == nullptr) {
      return {HeadStatus::kTargetTooLong, 0, "target too long"};
    }
    if (head_size == 0 && size < kHeadBytesMax) return {HeadStatus::kNeedMore};
    return {HeadStatus::kTooLarge, 0, "request head too large"};
  }

  const char* at = text;
  const char* end = text + head_size;
  Seen seen;
  wrong = parse_request_line(at, end, head);
  if (wrong.status == HeadStatus::kComplete) wrong = parse_fields(at, end, head, seen);
  if (wrong.status == HeadStatus::kComplete) wrong = check_framing(head, seen);
  if (wrong.status == HeadStatus::kComplete)
    return {HeadStatus::kComplete, skipped + head_size, ""};
  head.clear();
  return {wrong.status, 0, wrong.reason};
}

}  // namespace basalt::http
