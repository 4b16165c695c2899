#include "protocol/http/response.h"

#include <charconv>
#include <cstring>

#include "protocol/http/head.h"

namespace basalt::http {
namespace {

// Civil date of a day count since 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date
// algorithms").
struct Civil {
  int64_t year;
  unsigned month, day;
};
Civil civil_of_days(int64_t days) {
  days += 719468;
  const int64_t era = (days >= 0 ? days : days - 146096) / 146097;
  const auto day_of_era = static_cast<unsigned>(days - era * 146097);
  const unsigned year_of_era =
      (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
  const unsigned day_of_year =
      day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const unsigned shifted = (5 * day_of_year + 2) / 153;
  const unsigned month = shifted < 10 ? shifted + 3 : shifted - 9;
  return {static_cast<int64_t>(year_of_era) + era * 400 + (month <= 2), month,
          day_of_year - (153 * shifted + 2) / 5 + 1};
}

void put2(char* at, unsigned value) {
  at[0] = static_cast<char>('0' + value / 10 % 10);
  at[1] = static_cast<char>('0' + value % 10);
}

void append_number(uint64_t value, std::string& out) {
  char digits[20];
  const auto result = std::to_chars(digits, digits + sizeof digits, value);
  out.append(digits, result.ptr);
}

// "Date: ...\r\nServer: Basalt\r\n" of the second it was last asked for, per thread.
std::string_view date_and_server(int64_t wall_ms) {
  thread_local int64_t second = -1;
  thread_local std::string text;
  const int64_t wanted = wall_ms / 1000;
  if (wanted != second || text.empty()) {
    text = "Date: ";
    append_http_date(wall_ms, text);
    text += "\r\nServer: Basalt\r\n";
    second = wanted;
  }
  return text;
}

bool ours(std::string_view name) {
  switch (name.size()) {
    case 4:
      return field_name_equals(name, "date");
    case 6:
      return field_name_equals(name, "server");
    case 10:
      return field_name_equals(name, "connection");
    case 14:
      return field_name_equals(name, "content-length");
    case 17:
      return field_name_equals(name, "transfer-encoding");
    default:
      return false;
  }
}

bool token(std::string_view name) {
  if (name.empty()) return false;
  for (const char c : name) {
    const bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      (c != 0 && std::strchr("!#$%&'*+-.^_`|~", c) != nullptr);
    if (!good) return false;
  }
  return true;
}

}  // namespace

std::string_view reason_phrase(int status) {
  switch (status) {
    case 100:
      return "Continue";
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 202:
      return "Accepted";
    case 204:
      return "No Content";
    case 206:
      return "Partial Content";
    case 301:
      return "Moved Permanently";
    case 302:
      return "Found";
    case 303:
      return "See Other";
    case 304:
      return "Not Modified";
    case 307:
      return "Temporary Redirect";
    case 308:
      return "Permanent Redirect";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 406:
      return "Not Acceptable";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 410:
      return "Gone";
    case 411:
      return "Length Required";
    case 412:
      return "Precondition Failed";
    case 413:
      return "Content Too Large";
    case 414:
      return "URI Too Long";
    case 415:
      return "Unsupported Media Type";
    case 416:
      return "Range Not Satisfiable";
    case 417:
      return "Expectation Failed";
    case 422:
      return "Unprocessable Content";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    case 507:
      return "Insufficient Storage";
    default:
      return "Unknown";
  }
}

bool ResponseHead::begin_field(std::string_view name) {
  if (!token(name) || ours(name)) {
    ++dropped_;
    return false;
  }
  fields_ += name;
  fields_ += ": ";
  return true;
}

void ResponseHead::add(std::string_view name, std::string_view value) {
  for (const char c : value) {
    if (c == '\r' || c == '\n' || c == '\0') {
      ++dropped_;
      return;
    }
  }
  if (!begin_field(name)) return;
  fields_ += value;
  fields_ += "\r\n";
}

void ResponseHead::add(std::string_view name, uint64_t value) {
  if (!begin_field(name)) return;
  append_number(value, fields_);
  fields_ += "\r\n";
}

bool ResponseHead::has(std::string_view name) const {
  std::string_view rest = fields_;
  while (!rest.empty()) {
    if (rest.size() > name.size() && rest[name.size()] == ':' &&
        field_name_equals(rest.substr(0, name.size()), name)) {
      return true;
    }
    rest.remove_prefix(rest.find('\n') + 1);
  }
  return false;
}

void ResponseHead::clear() {
  status = 200;
  fields_.clear();
  dropped_ = 0;
}

void ResponseHead::write(const Framing& framing, int64_t wall_ms, std::string& out) const {
  // Our own version whatever the request's was (RFC 9110 section 2.5); what an HTTP/1.0 client
  // cannot read is not sent.
  if (status == 200) {
    out += "HTTP/1.1 200 OK\r\n";
  } else {
    out += "HTTP/1.1 ";
    append_number(static_cast<uint64_t>(status), out);
    out += ' ';
    out += reason_phrase(status);
    out += "\r\n";
  }
  out += date_and_server(wall_ms);
  out += fields_;
  const bool bodiless = status == 204 || status == 304 || status < 200;
  if (!bodiless && framing.kind == Framing::Kind::kLength) {
    out += "Content-Length: ";
    append_number(framing.length, out);
    out += "\r\n";
  } else if (!bodiless && framing.kind == Framing::Kind::kChunked) {
    out += "Transfer-Encoding: chunked\r\n";
  }
  if (framing.keep_alive == framing.http10) {
    out += framing.keep_alive ? "Connection: keep-alive\r\n" : "Connection: close\r\n";
  }
  out += "\r\n";
}

void append_http_date(int64_t wall_ms, std::string& out) {
  static constexpr char kDays[] = "ThuFriSatSunMonTueWed";  // 1970-01-01 was a Thursday
  static constexpr char kMonths[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
  const int64_t seconds = wall_ms >= 0 ? wall_ms / 1000 : (wall_ms - 999) / 1000;
  const int64_t days = seconds >= 0 ? seconds / 86400 : (seconds - 86399) / 86400;
  const auto second_of_day = static_cast<unsigned>(seconds - days * 86400);
  const Civil date = civil_of_days(days);
  const auto weekday = static_cast<size_t>(((days % 7) + 7) % 7);
  char text[30] = "Www, dd Mmm yyyy hh:mm:ss GMT";
  std::memcpy(text, kDays + weekday * 3, 3);
  put2(text + 5, date.day);
  std::memcpy(text + 8, kMonths + (date.month - 1) * 3, 3);
  const auto year = static_cast<unsigned>(date.year);
  put2(text + 12, year / 100);
  put2(text + 14, year);
  put2(text + 17, second_of_day / 3600);
  put2(text + 20, second_of_day / 60 % 60);
  put2(text + 23, second_of_day % 60);
  out.append(text, 29);
}

}  // namespace basalt::http
