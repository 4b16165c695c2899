// XML out: an escaping writer into one string. XML in: pugixml documents with limits (no DTD, no
// entities beyond the five, depth 16, kXmlBodyBytesMax).
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <pugixml.hpp>
#include <string>
#include <string_view>

#include "protocol/s3/error.h"

namespace basalt::s3 {

constexpr std::string_view kS3Namespace = "http://s3.amazonaws.com/doc/2006-03-01/";

class XmlWriter {
 public:
  // Starts with the XML declaration and <root xmlns="...">; no xmlns attribute if `xmlns` is empty.
  // `root` outlives the writer.
  explicit XmlWriter(std::string_view root, std::string_view xmlns = kS3Namespace);
  void open(std::string_view element);
  void close(std::string_view element);
  void text(std::string_view element,
            std::string_view value);  // escaped; control characters as &#xN;
  void number(std::string_view element, uint64_t value);
  void boolean(std::string_view element, bool value);
  void time(std::string_view element, int64_t wall_ms);        // 2026-11-21T02:21:00.000Z
  void etag(std::string_view element, std::string_view etag);  // with the quotes, as &quot;
  void owner(std::string_view element, std::string_view id, std::string_view display_name);
  // Closes the root; the writer is spent.
  std::string finish();
  std::string& raw() { return out_; }

 private:
  std::string out_;
  std::string_view root_;
};

// MalformedXML if it is not well-formed UTF-8 XML, has a DTD, is too deep, too large, or its root
// is not `root`. Namespaces do not count: prefixes are cut off element names, so handlers ask for
// child("Key") in any document.
S3Result<pugi::xml_node> parse_xml(pugi::xml_document& document, std::string_view text,
                                   std::string_view root);
constexpr int kXmlDepthMax = 16;
constexpr size_t kXmlMarkupMax =
    250'000;  // tags and other markup of one document: bounds the memory of the tree

// All character data directly inside the element, comments left out ("" for a null node).
std::string xml_text(const pugi::xml_node& node);
// Text of the element without surrounding white space: for numbers, booleans and enums.
std::string_view xml_trimmed(std::string_view text);
// Appends `text` with the five special characters as entities and control characters as references;
// bytes that are no UTF-8 become U+FFFD.
void append_xml_escaped(std::string_view text, std::string& out);
// No byte of `text` is to be escaped, and all are ASCII: it can be copied as it is.
bool is_plain_xml(std::string_view text);
// "2026-11-21T02:21:00.000Z". S3 shows whole seconds in XML, as in Last-Modified, so that the two
// compare equal.
void append_iso8601(int64_t wall_ms, std::string& out);
// The same for many times, of which neighbours are often of one day, or one second.
class Iso8601 {
 public:
  std::string_view text(int64_t wall_ms);  // kBytes bytes; valid until the next call
  // Whether text() would be what the last call gave.
  bool same(int64_t wall_ms) const { return std::max<int64_t>(wall_ms, 0) / 1000 == second_; }
  static constexpr size_t kBytes = 24;

 private:
  static constexpr int64_t kSecondsPerDay = 86'400;
  int64_t second_ = -1;
  int64_t day_ = -1;
  char text_[kBytes + 1] = "0000-00-00T00:00:00.000Z";
};
// RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
bool valid_utf8(std::string_view text);

// Percent-encoding of a key in a listing with encoding-type=url.
std::string url_encode(std::string_view text, bool keep_slash);
// Strict percent-decoding; nullopt on a bad escape. plus_is_space for query strings.
std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space);

}  // namespace basalt::s3
