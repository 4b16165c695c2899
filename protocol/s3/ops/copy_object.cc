// CopyObject: https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
#include <optional>
#include <vector>

#include "protocol/s3/checksum_model.h"
#include "protocol/s3/copy_request.h"
#include "protocol/s3/failure.h"
#include "protocol/s3/object_headers.h"
#include "protocol/s3/object_meta.h"
#include "protocol/s3/object_writer.h"
#include "protocol/s3/ops/handlers.h"
#include "protocol/s3/preconditions.h"
#include "protocol/s3/xml.h"
#include "storage/mutation_builder.h"

namespace basalt::s3 {
namespace {

// True for REPLACE; absent is COPY.
S3Result<bool> replaces(const S3Request& request, std::string_view header, std::string_view what) {
  const std::string_view value = request.header(header);
  if (value.empty() || value == "COPY") return false;
  if (value == "REPLACE") return true;
  return invalid_argument(header, value, "Unknown " + std::string(what) + " directive.");
}

// A plain ETag is the MD5 of the content; one of a multipart upload ("...-N") is not.
bool is_content_md5(std::string_view etag) {
  return etag.size() == 32 && etag.find('-') == std::string_view::npos;
}

// What the copy changes besides its metadata, for a copy onto itself.
bool changes_something(const ObjectFields& fields, const fb::Object& source,
                       const std::optional<auth::Algorithm>& algorithm, const S3Request& request) {
  if (request.find_header("x-amz-storage-class") != nullptr &&
      fields.storage_class != text_of(source.storage_class())) {
    return true;
  }
  if (fields.website_redirect != text_of(source.website_redirect())) return true;
  if (!algorithm) return false;
  const auto stored = checksum_of(source);
  return !stored || stored->algorithm != *algorithm;
}

}  // namespace

Task<S3Result<Reply>> copy_object(Op& op) {
  S3_TRY(replaces_metadata, replaces(op.request, "x-amz-metadata-directive", "metadata"));
  S3_TRY(replaces_tags, replaces(op.request, "x-amz-tagging-directive", "tagging"));
  S3_TRY(fields, object_headers(op));
  S3_TRY(algorithm, checksum_algorithm_header(op.request));
  S3_TRY(condition, write_condition(op.request));
  CO_TRY(source, find_copy_source(op));
  S3_TRY(object, ObjectView::open(source.record->meta));

  const bool onto_itself =
      source.bucket->space == op.bucket->space && source.name.key == op.request.key;
  if (onto_itself && !replaces_metadata &&
      !changes_something(fields, *object, algorithm, op.request)) {
    co_return s3_fail(S3Code::kInvalidRequest,
                      "This copy request is illegal because it is trying to copy an object to "
                      "itself without changing "
                      "the object's metadata, storage class, website redirect location or "
                      "encryption attributes.");
  }
  const uint64_t size = source.record->size;
  if (size > kPutBytesMax) {
    co_return s3_fail(
        S3Code::kInvalidRequest,
        "The specified copy source is larger than the maximum allowable size for a copy source: " +
            std::to_string(kPutBytesMax));
  }
  ObjectFields carried = carried_fields(*object);
  if (!replaces_metadata) {
    fields.headers = std::move(carried.headers);
    fields.user = std::move(carried.user);
  }
  if (!replaces_tags) fields.tags = std::move(carried.tags);
  if (condition) {
    auto found = co_await op.shards().get(op.shard(), op.object_key());
    if (!found && found.error().code != Code::kNotFound)
      co_return std::unexpected(std::move(found).error());
    S3_CHECK(condition.check(found ? &(*found)->tag : nullptr, op.request.key));
  }

  // Digests that the source already has are of the same bytes: reads are verified.
  const std::string_view source_etag = source.record->tag;
  const auto source_checksum = checksum_of(*object);
  const auth::Algorithm wanted = algorithm         ? *algorithm
                                 : source_checksum ? source_checksum->algorithm
                                                   : kDefaultChecksum;
  const bool carries_checksum =
      source_checksum && source_checksum->full_object && source_checksum->algorithm == wanted;
  const bool carries_etag = is_content_md5(source_etag);
  std::vector<auth::Hasher> hashers;
  if (!carries_etag) hashers.emplace_back(auth::Algorithm::kMd5);
  if (!carries_checksum) hashers.emplace_back(wanted);
  CO_TRY(content,
         store_copy(op, source.record.view(), 0, size, Placement::kInlineIfSmall, hashers));

  const std::string etag =
      carries_etag ? std::string(source_etag) : auth::to_hex(hashers.front().finish().view());
  fields.checksum =
      carries_checksum ? *source_checksum : StoredChecksum{wanted, true, hashers.back().finish()};
  fields.modified_ms = op.services.clock.wall_ms();
  const EncodedMeta meta = encode_object(fields);
  const storage::KeyView key = op.object_key();
  storage::MutationBuilder mutations;
  mutations.put(key, {.size = size, .tag = etag, .meta = meta.bytes(), .blobs = content.blobs()},
                !content.body().empty());
  storage::Precondition precondition{};
  if (condition) precondition = condition.precondition(key);
  auto applied =
      co_await op.shards().apply(op.shard(), {&precondition, condition ? size_t{1} : size_t{0}},
                                 mutations.finish(), content.body());
  if (!applied) {
    const Code code = applied.error().code;
    if (condition && (code == Code::kPreconditionFailed || code == Code::kNotFound)) {
      co_return std::unexpected(condition.failed(applied.error(), op.request.key));
    }
    co_return std::unexpected(std::move(applied).error());
  }
  content.recorded();

  XmlWriter xml("CopyObjectResult");
  xml.time("LastModified", fields.modified_ms);
  xml.etag("ETag", etag);
  add_checksum_xml(xml, *fields.checksum, 0);
  co_return Reply::xml(xml.finish());
}

}  // namespace basalt::s3
