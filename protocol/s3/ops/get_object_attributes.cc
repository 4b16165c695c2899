// GetObjectAttributes: https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObjectAttributes.html
#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "protocol/s3/checksum_model.h"
#include "protocol/s3/failure.h"
#include "protocol/s3/object_headers.h"
#include "protocol/s3/object_lookup.h"
#include "protocol/s3/object_meta.h"
#include "protocol/s3/ops/handlers.h"
#include "protocol/s3/preconditions.h"
#include "protocol/s3/response_headers.h"
#include "protocol/s3/xml.h"

namespace basalt::s3 {
namespace {

constexpr std::string_view kHeader = "x-amz-object-attributes";

struct Wanted {
  bool etag = false, checksum = false, parts = false, storage_class = false, size = false;
};

S3Result<Wanted> wanted_attributes(const S3Request& request) {
  Wanted wanted;
  bool any = false;
  for (const http::Field& field : request.head->fields) {
    if (!http::field_name_equals(field.name, kHeader)) continue;
    std::string_view rest = field.value;
    while (!rest.empty()) {
      const size_t comma = std::min(rest.find(','), rest.size());
      const std::string_view name = xml_trimmed(rest.substr(0, comma));
      rest.remove_prefix(std::min(comma + 1, rest.size()));
      if (name == "ETag") {
        wanted.etag = true;
      } else if (name == "Checksum") {
        wanted.checksum = true;
      } else if (name == "ObjectParts") {
        wanted.parts = true;
      } else if (name == "StorageClass") {
        wanted.storage_class = true;
      } else if (name == "ObjectSize") {
        wanted.size = true;
      } else {
        return invalid_argument(kHeader, name, "Invalid attribute name specified.");
      }
      any = true;
    }
  }
  if (!any) {
    return invalid_argument(
        kHeader, "",
        "The x-amz-object-attributes header specifying the attributes to be retrieved is either "
        "missing or empty");
  }
  return wanted;
}

S3Result<unsigned> number_header(const S3Request& request, std::string_view name,
                                 unsigned otherwise) {
  const std::string_view text = request.header(name);
  if (text.empty()) return otherwise;
  uint64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9' || text.size() > 9) {
      return invalid_argument(
          name, text, "Provided " + std::string(name) + " not an integer or within integer range");
    }
    value = value * 10 + static_cast<uint64_t>(c - '0');
  }
  return static_cast<unsigned>(value);
}

// The parts one by one only where their checksums are those of a composite; else their number, as
// S3 does.
void write_parts(XmlWriter& xml, const fb::Object& object, unsigned marker, unsigned limit) {
  const size_t count = count_of(object.parts());
  xml.open("ObjectParts");
  xml.number("PartsCount", count);
  const auto checksum = checksum_of(object);
  if (checksum && !checksum->full_object) {
    size_t begin = 0;
    while (begin < count &&
           object.parts()->Get(static_cast<flatbuffers::uoffset_t>(begin))->number() <= marker) {
      ++begin;
    }
    const size_t end = std::min(count, begin + limit);
    const unsigned next =
        end > begin ? object.parts()->Get(static_cast<flatbuffers::uoffset_t>(end - 1))->number()
                    : 0;
    xml.number("PartNumberMarker", marker);
    xml.number("NextPartNumberMarker", next);
    xml.number("MaxParts", limit);
    xml.boolean("IsTruncated", end < count);
    for (size_t i = begin; i < end; ++i) {
      const fb::Part* part = object.parts()->Get(static_cast<flatbuffers::uoffset_t>(i));
      xml.open("Part");
      xml.number("PartNumber", part->number());
      xml.number("Size", part->size());
      const auth::Digest value = digest_of(part->checksum());
      if (value.size != 0)
        xml.text(checksum_element(checksum->algorithm), auth::to_base64(value.view()));
      xml.close("Part");
    }
  }
  xml.close("ObjectParts");
}

}  // namespace

Task<S3Result<Reply>> get_object_attributes(Op& op) {
  S3_CHECK(check_version_id(op.request.parameter("versionId"), op.request.key));
  S3_CHECK(check_read_headers(op.request));
  S3_TRY(wanted, wanted_attributes(op.request));
  S3_TRY(limit, number_header(op.request, "x-amz-max-parts", kListKeysMax));
  S3_TRY(marker, number_header(op.request, "x-amz-part-number-marker", 0));
  CO_TRY(record, find_object(op, *op.bucket, op.request.key));
  S3_TRY(object, ObjectView::open(record->meta));

  add_last_modified(op.head(), object->modified_ms());
  XmlWriter xml("GetObjectAttributesResponse");
  // Here S3 shows the tag without quotes, and a composite checksum without the number of parts.
  if (wanted.etag) xml.text("ETag", record->tag);
  if (const auto checksum = checksum_of(*object); wanted.checksum && checksum) {
    xml.open("Checksum");
    xml.text(checksum_element(checksum->algorithm), auth::to_base64(checksum->value.view()));
    xml.text("ChecksumType", checksum_type_name(checksum->full_object));
    xml.close("Checksum");
  }
  if (wanted.parts && count_of(object->parts()) != 0) {
    write_parts(xml, *object, marker, std::min(limit, kListKeysMax));
  }
  if (wanted.storage_class) {
    const std::string_view storage_class = text_of(object->storage_class());
    xml.text("StorageClass", storage_class.empty() ? "STANDARD" : storage_class);
  }
  if (wanted.size) xml.number("ObjectSize", record->size);
  co_return Reply::xml(xml.finish());
}

}  // namespace basalt::s3
