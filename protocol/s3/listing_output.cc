#include "protocol/s3/listing_output.h"

#include <charconv>
#include <cstring>

#include "auth/digest.h"
#include "base/check.h"
#include "base/crc32c.h"
#include "protocol/s3/body.h"
#include "protocol/s3/failure.h"
#include "protocol/s3/object_meta.h"

namespace basalt::s3 {
namespace {

// Of ListingWriter's run between key and tag, with the time.
constexpr size_t kBeforeTagBytes = 20 + Iso8601::kBytes + 27;
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

void ListingWriter::Run::add(std::string_view part) {
  BASALT_CHECK(part.size() <= kBytesMax - size);
  std::memcpy(text + size, part.data(), part.size());
  size += part.size();
}

void ListingWriter::set_times(int64_t modified_ms) {
  before_tag_.size = 0;
  before_tag_.add("</Key><LastModified>");
  before_tag_.add(times_.text(modified_ms));
  before_tag_.add("</LastModified><ETag>&quot;");
  BASALT_CHECK(before_tag_.size == kBeforeTagBytes);
}

void ListingWriter::set_checksum(const ListedObject& object) {
  checksum_ = object.checksum;
  checksum_full_object_ = object.checksum_full_object;
  after_tag_.size = 0;
  after_tag_.add("&quot;</ETag>");
  if (checksum_) {
    after_tag_.add("<ChecksumAlgorithm>");
    after_tag_.add(checksum_name(*checksum_));
    after_tag_.add(checksum_full_object_
                       ? "</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType>"
                       : "</ChecksumAlgorithm><ChecksumType>COMPOSITE</ChecksumType>");
  }
  after_tag_.add("<Size>");
}

Status ListingWriter::contents(const storage::ScanPage::Entry& entry, bool with_owner) {
  BASALT_TRY(object, ListedObject::selected(entry.record.meta));
  if (before_tag_.size == 0 || !times_.same(object.modified_ms)) set_times(object.modified_ms);
  if (after_tag_.size == 0 || object.checksum != checksum_ ||
      object.checksum_full_object != checksum_full_object_) {
    set_checksum(object);
  }
  const std::string_view name = entry.name, tag = entry.record.tag;
  if (!url_encoded_ && is_plain_xml(name) && is_plain_xml(tag)) [[likely]] {
    write_contents(name, tag, entry.record.size, object, with_owner);
    return {};
  }
  std::string escaped_name, escaped_tag;
  append_xml_escaped(url_encoded_ ? url_encode(name, true) : name, escaped_name);
  append_xml_escaped(tag, escaped_tag);
  write_contents(escaped_name, escaped_tag, entry.record.size, object, with_owner);
  return {};
}

// Elements run together, into room that is there: this is written a thousand times a page, and a
// call for each tag was a third of the cost of a listing.
void ListingWriter::write_contents(std::string_view name, std::string_view tag, uint64_t size,
                                   const ListedObject& object, bool with_owner) {
  std::string& out = xml_.raw();
  const bool plain_end = !with_owner && object.storage_class.empty();
  constexpr std::string_view kStandard = "<StorageClass>STANDARD</StorageClass></Contents>";
  // The runs (as wide as they may be), the other constants and a number.
  constexpr size_t kRestBytesMax = 2 * Run::kBytesMax + 160;
  const size_t before = out.size();
  out.resize_and_overwrite(before + kRestBytesMax + name.size() + tag.size(),
                           [&](char* begin, size_t) {
                             char* at = begin + before;
                             const auto put = [&at](std::string_view text) {
                               std::memcpy(at, text.data(), text.size());
                               at += text.size();
                             };
                             put("<Contents><Key>");
                             put(name);
                             // A copy of constant length is no call.
                             std::memcpy(at, before_tag_.text, kBeforeTagBytes);
                             at += kBeforeTagBytes;
                             put(tag);
                             // What is too much is written over.
                             std::memcpy(at, after_tag_.text, Run::kBytesMax);
                             at += after_tag_.size;
                             at = std::to_chars(at, at + 20, size).ptr;
                             put("</Size>");
                             if (plain_end) put(kStandard);
                             return static_cast<size_t>(at - begin);
                           });
  if (plain_end) return;
  if (with_owner) owner("Owner", object.owner);
  if (object.storage_class.empty()) {
    out += kStandard;
  } else {
    xml_.text("StorageClass", object.storage_class);
    out += "</Contents>";
  }
}

void ListingWriter::reserve(const storage::ScanPage& page) {
  // What an ordinary entry takes beside its name, and the room that contents() asks for at the
  // last one; one reallocation less copies a page less.
  constexpr size_t kEntryBytes = 400;
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
  bool prefixes = false;
  for (const storage::ScanPage::Entry& entry : page.entries) {
    if (entry.common_prefix) {
      prefixes = true;
    } else {
      BASALT_CHECK_OK(writer.contents(entry, with_owner));
    }
  }
  if (!prefixes) return {};
  for (const storage::ScanPage::Entry& entry : page.entries) {
    if (entry.common_prefix) writer.common_prefix(entry.name);
  }
  return {};
}

}  // namespace basalt::s3
