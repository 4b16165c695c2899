// What the listings share: their parameters, continuation tokens and the elements of their XML.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "protocol/s3/error.h"
#include "protocol/s3/object_meta.h"
#include "protocol/s3/op.h"
#include "protocol/s3/xml.h"
#include "storage/meta_shard.h"

namespace basalt::s3 {

// max-keys, max-uploads, max-buckets: a number within `least` and 2^31-1, cut down to `most`;
// `absent` if the parameter is not there or empty. InvalidArgument otherwise.
struct CountLimits {
  uint32_t least = 0;
  uint32_t most = kListKeysMax;
  uint32_t absent = kListKeysMax;
};
S3Result<uint32_t> parse_count(const S3Request& request, std::string_view parameter,
                               const CountLimits& limits);

// encoding-type: absent (false) or "url" (true), else InvalidArgument.
S3Result<bool> parse_encoding_type(const S3Request& request);

// The parameter's value, "" if absent.
std::string_view parameter_or_empty(const S3Request& request, std::string_view name);

// Continuation tokens: opaque to clients, checked when they come back (a checksum and the listing's
// kind). The text is a position in the listing and no secret: it decides where a listing of what
// the caller may list goes on.
enum class TokenKind : uint8_t { kObjects = 1, kBuckets = 2 };
std::string encode_token(TokenKind kind, std::string_view text);
std::optional<std::string> decode_token(TokenKind kind, std::string_view token);

// Writes the entries of one listing.
class ListingWriter {
 public:
  ListingWriter(const Op& op, XmlWriter& xml, bool url_encoded)
      : op_(op), xml_(xml), url_encoded_(url_encoded) {}

  // A key, prefix, marker or delimiter, percent-encoded if the client asked for it.
  void name(std::string_view element, std::string_view value);
  // <Contents> of one object, of a scan with ListedObject::select. kCorrupt if its metadata cannot
  // be read.
  Status contents(const storage::ScanPage::Entry& entry, bool with_owner);
  // An empty id means the owner of the bucket.
  void owner(std::string_view element, std::string_view account_id);
  void common_prefix(std::string_view prefix);
  // Room for all entries of a page.
  void reserve(const storage::ScanPage& page);

 private:
  const Op& op_;
  XmlWriter& xml_;
  const bool url_encoded_;
  // Runs of an entry that are nearly always those of the entry before: between key and tag, and
  // between tag and size.
  struct Run {
    static constexpr size_t kBytesMax = 192;
    char text[kBytesMax] = {};
    size_t size = 0;
    void add(std::string_view part);
  };
  void set_times(int64_t modified_ms);
  void set_checksum(const ListedObject& object);
  // Name and tag as they go into the text.
  void write_contents(std::string_view name, std::string_view tag, uint64_t size,
                      const ListedObject& object, bool with_owner);

  Iso8601 times_;
  Run before_tag_, after_tag_;
  std::optional<auth::Algorithm> checksum_;
  bool checksum_full_object_ = false;
  std::string owner_id_;  // of owner_name_: nearly always the same for a whole page
  std::string owner_name_;
};

// Contents and CommonPrefixes of a page in S3's order: all objects, then all prefixes.
Status write_entries(ListingWriter& writer, const storage::ScanPage& page, bool with_owner);

}  // namespace basalt::s3
