// ResponseHead: assembled without printf into one small buffer; field values are checked (no CR,
// LF, NUL).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace basalt::http {

std::string_view reason_phrase(int status);

class ResponseHead {
 public:
  int status = 200;

  // Appends a field. A value with CR, LF or NUL is dropped whole (and counted): no response
  // splitting. So is a name that is no token, and the fields that write() makes itself:
  // Content-Length, Transfer-Encoding, Connection, Date, Server.
  void add(std::string_view name, std::string_view value);
  void add(std::string_view name, uint64_t value);
  bool has(std::string_view name) const;  // ASCII case-insensitive
  void clear();
  uint32_t dropped() const { return dropped_; }  // fields refused since clear()

  // The bytes on the wire: status line, Date (from `wall_ms`, cached per second), Server: Basalt,
  // the fields, exactly one of Content-Length / Transfer-Encoding / neither (204, 304, 1xx),
  // Connection when it deviates from the version's default.
  struct Framing {
    enum class Kind : uint8_t { kLength, kChunked, kNone } kind = Kind::kLength;
    uint64_t length = 0;
    bool http10 = false;
    bool keep_alive = true;
  };
  // Appends to `out`.
  void write(const Framing& framing, int64_t wall_ms, std::string& out) const;

 private:
  bool begin_field(std::string_view name);

  std::string fields_;  // "Name: value\r\n"...
  uint32_t dropped_ = 0;
};

// IMF-fixdate, RFC 9110 section 5.6.7: "Sun, 06 Nov 1994 08:49:37 GMT", 29 characters.
void append_http_date(int64_t wall_ms, std::string& out);

}  // namespace basalt::http
