#include "protocol/s3/listing_output.h"

#include <charconv>
#include <cstring>

#include "auth/digest.h"
#include "base/crc32c.h"
#include "protocol/s3/body.h"
#include "protocol/s3/failure.h"
#include "protocol/s3/object_meta.h"

namespace basalt::s3 {
namespace {

constexpr size_t kTokenHeadBytes = 5;  // kind, CRC-32C of kind and text

uint32_t token_checksum(TokenKind kind, std::string_view text) {
  const auto kind_byte = static_cast<uint8_t>(kind);
  return crc32c(as_bytes(text), crc32c(Bytes(&kind_byte, 1)));
}

}  // namespace

std::string_view parameter_or_empty(const S3Request& request, std::string_view name) {
  const std::string* value = request.parameter(name);
  return value == nullptr ? std::string_view() : std::string_view(*value);
}

S3Result<uint32_t> parse_count(const S3Request& request, std::string_view parameter,
                               const CountLimits& limits) {
  const std::string_view text = parameter_or_empty(request, parameter);
  if (text.empty()) return limits.absent;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return invalid_argument(
        parameter, text,
        "Provided " + std::string(parameter) + " not an integer or within integer range");
  }
  if (value < limits.least || value > INT32_MAX) {
    return invalid_argument(parameter, text,
                            "Argument " + std::string(parameter) + " must be an integer between " +
                                std::to_string(limits.least) + " and " + std::to_string(INT32_MAX));
  }
  return static_cast<uint32_t>(std::min<int64_t>(value, limits.most));
}

S3Result<bool> parse_encoding_type(const S3Request& request) {
  const std::string* value = request.parameter("encoding-type");
  if (value == nullptr) return false;
  if (*value == "url") return true;
  return invalid_argument("encoding-type", *value, "Invalid Encoding Method specified in Request");
}

std::string encode_token(TokenKind kind, std::string_view text) {
  const uint32_t checksum = token_checksum(kind, text);
  std::string plain;
  plain.reserve(kTokenHeadBytes + text.size());
  plain += static_cast<char>(kind);
  for (int shift = 24; shift >= 0; shift -= 8) plain += static_cast<char>(checksum >> shift);
  plain += text;
  return auth::to_base64(as_bytes(plain));
}

std::optional<std::string> decode_token(TokenKind kind, std::string_view token) {
  // Longest: a 1,024-byte key and the head in base64.
  if (token.size() > 4 * (kKeyBytesMax + kTokenHeadBytes + 2) / 3 + 4) return std::nullopt;
  auto plain = auth::from_base64(token);
  if (!plain || plain->size() <= kTokenHeadBytes || (*plain)[0] != static_cast<char>(kind))
    return std::nullopt;
  uint32_t checksum = 0;
  for (size_t i = 1; i < kTokenHeadBytes; ++i)
    checksum = checksum << 8 | static_cast<uint8_t>((*plain)[i]);
  plain->erase(0, kTokenHeadBytes);
  if (checksum != token_checksum(kind, *plain)) return std::nullopt;
  return plain;
}

void ListingWriter::name(std::string_view element, std::string_view value) {
  if (url_encoded_) {
    xml_.text(element, url_encode(value, true));
  } else {
    xml_.text(element, value);
  }
}

void ListingWriter::owner(std::string_view element, std::string_view account_id) {
  if (account_id.empty()) account_id = op_.bucket->owner_id;
  if (account_id != owner_id_ || owner_id_.empty()) {
    owner_id_ = account_id;
    owner_name_ = op_.display_name(account_id);
  }
  xml_.owner(element, owner_id_, owner_name_);
}

// Elements run together, into room that is there: this is written a thousand times a page, and a
// call for each tag was a third of the cost of a listing.
Status ListingWriter::contents(const storage::ScanPage::Entry& entry, bool with_owner) {
  BASALT_TRY(object, ListedObject::open(entry.record.meta));
  std::string& out = xml_.raw();
  std::string_view name = entry.name;
  std::string encoded;
  if (url_encoded_) {
    encoded = url_encode(name, true);
    name = encoded;
  }
  std::string_view tag = entry.record.tag;
  std::string escaped_name, escaped_tag;
  if (!is_plain_xml(name)) [[unlikely]] {
    append_xml_escaped(name, escaped_name);
    name = escaped_name;
  }
  if (!is_plain_xml(tag)) [[unlikely]] {
    append_xml_escaped(tag, escaped_tag);
    tag = escaped_tag;
  }
  // All text that is constant, a time, an algorithm's name and a number.
  constexpr size_t kRestBytesMax = 512;
  const size_t before = out.size();
  out.resize_and_overwrite(
      before + kRestBytesMax + name.size() + tag.size(), [&](char* begin, size_t) {
        char* at = begin + before;
        const auto put = [&at](std::string_view text) {
          std::memcpy(at, text.data(), text.size());
          at += text.size();
        };
        put("<Contents><Key>");
        put(name);
        put("</Key><LastModified>");
        std::memcpy(at, times_.text(object.modified_ms).data(), Iso8601::kBytes);
        at += Iso8601::kBytes;
        put("</LastModified><ETag>&quot;");
        put(tag);
        put("&quot;</ETag>");
        if (object.checksum) {
          put("<ChecksumAlgorithm>");
          put(checksum_name(*object.checksum));
          put(object.checksum_full_object
                  ? "</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType>"
                  : "</ChecksumAlgorithm><ChecksumType>COMPOSITE</ChecksumType>");
        }
        put("<Size>");
        at = std::to_chars(at, at + 20, entry.record.size).ptr;
        put("</Size>");
        return static_cast<size_t>(at - begin);
      });
  if (with_owner) owner("Owner", object.owner);
  if (object.storage_class.empty()) {
    out += "<StorageClass>STANDARD</StorageClass></Contents>";
  } else {
    xml_.text("StorageClass", object.storage_class);
    out += "</Contents>";
  }
  return {};
}

void ListingWriter::reserve(const storage::ScanPage& page) {
  // What an ordinary entry takes beside its name, and the room that contents() asks for at the
  // last one; one reallocation less copies a page less.
  constexpr size_t kEntryBytes = 360;
  size_t bytes = 1024;
  for (const auto& entry : page.entries) bytes += kEntryBytes + entry.name.size();
  xml_.raw().reserve(xml_.raw().size() + bytes);
}

void ListingWriter::common_prefix(std::string_view prefix) {
  xml_.open("CommonPrefixes");
  name("Prefix", prefix);
  xml_.close("CommonPrefixes");
}

Status write_entries(ListingWriter& writer, const storage::ScanPage& page, bool with_owner) {
  writer.reserve(page);
  // The entries lie in the memory of as many shards, which the processor does not guess.
  constexpr size_t kAhead = 4;
  for (size_t i = 0; i < page.entries.size(); ++i) {
    if (i + kAhead < page.entries.size()) {
      const storage::ScanPage::Entry& later = page.entries[i + kAhead];
      __builtin_prefetch(later.name.data());
      __builtin_prefetch(later.record.tag.data());
      __builtin_prefetch(later.record.meta.data());
      __builtin_prefetch(later.record.meta.data() + 64);
    }
    const storage::ScanPage::Entry& entry = page.entries[i];
    if (!entry.common_prefix) BASALT_CHECK_OK(writer.contents(entry, with_owner));
  }
  for (const auto& entry : page.entries) {
    if (entry.common_prefix) writer.common_prefix(entry.name);
  }
  return {};
}

}  // namespace basalt::s3
