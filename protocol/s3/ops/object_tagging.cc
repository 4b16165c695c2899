// GetObjectTagging, PutObjectTagging, DeleteObjectTagging: the tag set of one object.
// https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObjectTagging.html and its siblings.
//
// Tags are part of the object's record; content, ETag and Last-Modified stay as they are.
#include "protocol/s3/failure.h"
#include "protocol/s3/object_lookup.h"
#include "protocol/s3/object_meta.h"
#include "protocol/s3/object_writer.h"
#include "protocol/s3/ops/handlers.h"
#include "protocol/s3/preconditions.h"
#include "protocol/s3/tagging.h"
#include "protocol/s3/xml.h"
#include "storage/mutation_builder.h"

namespace basalt::s3 {
namespace {

// Another write (or garbage collection, which moves a record) may come between the look-up and the
// change; then both are done again. More often than this in a row is contention.
constexpr int kAttemptsMax = 16;

S3Result<std::vector<NameValue>> parse_tag_set(std::string_view text) {
  pugi::xml_document document;
  auto root = parse_xml(document, text, "Tagging");
  if (!root) return std::unexpected(std::move(root.error()));
  const pugi::xml_node set = root->child("TagSet");
  if (!set) return s3_fail(S3Code::kMalformedXML);
  std::vector<NameValue> tags;
  for (const pugi::xml_node node : set.children("Tag")) {
    if (!node.child("Key") || !node.child("Value")) return s3_fail(S3Code::kMalformedXML);
    NameValue tag{xml_text(node.child("Key")), xml_text(node.child("Value"))};
    if (auto added = add_tag(tags, std::move(tag)); !added)
      return std::unexpected(std::move(added.error()));
  }
  return tags;
}

// Replaces the tags of the object and nothing else.
Task<S3Result<>> replace_tags(Op& op, std::vector<NameValue> tags) {
  const storage::KeyView key = op.object_key();
  // Small content lies in the log beside its record, so it moves with it.
  const auto guard = op.shards().blobs().guard();
  for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
    CO_TRY(record, find_object(op, *op.bucket, op.request.key));
    S3_TRY(object, ObjectView::open(record->meta));
    ObjectFields fields = all_fields(*object);
    fields.tags = tags;
    NewContent body;
    if (record->body.length != 0) {
      CO_TRY(copied,
             store_copy(op, record.view(), 0, record->body.length, Placement::kInlineIfSmall, {}));
      body = std::move(copied);
    }
    const EncodedMeta meta = encode_object(fields);
    storage::MutationBuilder mutations;
    mutations.put(
        key,
        {.size = record->size, .tag = record->tag, .meta = meta.bytes(), .blobs = record->blobs},
        !body.body().empty());
    const storage::Precondition unchanged{
        .kind = storage::Precondition::Kind::kSeqEquals, .key = key, .seq = record->seq};
    auto applied =
        co_await op.shards().apply(op.shard(), {&unchanged, 1}, mutations.finish(), body.body());
    if (applied) {
      body.recorded();
      co_return S3Result<>();
    }
    const Code code = applied.error().code;
    if (code != Code::kPreconditionFailed && code != Code::kNotFound)
      co_return std::unexpected(std::move(applied).error());
  }
  co_return s3_fail(S3Code::kOperationAborted);
}

}  // namespace

Task<S3Result<Reply>> get_object_tagging(Op& op) {
  S3_CHECK(check_version_id(op.request.parameter("versionId"), op.request.key));
  CO_TRY(record, find_object(op, *op.bucket, op.request.key));
  S3_TRY(object, ObjectView::open(record->meta));
  XmlWriter xml("Tagging");
  xml.open("TagSet");
  for (size_t i = 0; i < count_of(object->tags()); ++i) {
    const fb::Pair* tag = object->tags()->Get(static_cast<flatbuffers::uoffset_t>(i));
    xml.open("Tag");
    xml.text("Key", text_of(tag->name()));
    xml.text("Value", text_of(tag->value()));
    xml.close("Tag");
  }
  xml.close("TagSet");
  co_return Reply::xml(xml.finish());
}

Task<S3Result<Reply>> put_object_tagging(Op& op) {
  S3_CHECK(check_version_id(op.request.parameter("versionId"), op.request.key));
  S3_TRY(tags, parse_tag_set(op.xml_body));
  CO_CHECK(replace_tags(op, std::move(tags)));
  co_return Reply::empty(200);
}

Task<S3Result<Reply>> delete_object_tagging(Op& op) {
  S3_CHECK(check_version_id(op.request.parameter("versionId"), op.request.key));
  CO_CHECK(replace_tags(op, {}));
  co_return Reply::empty(204);
}

}  // namespace basalt::s3
