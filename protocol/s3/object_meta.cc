#include "protocol/s3/object_meta.h"

#include <algorithm>
#include <array>

#include "base/flat_view.h"
#include "storage/meta_shard.h"
#include "storage/pool_allocator.h"

namespace basalt::s3 {
namespace {

using Builder = flatbuffers::FlatBufferBuilder;
using PairsOffset = flatbuffers::Offset<flatbuffers::Vector<flatbuffers::Offset<fb::Pair>>>;

constexpr size_t kInitialBytes = 1024;
constexpr uint8_t kNoAlgorithm = 255;

// What a page of a scan keeps of an object: this, the owner, the storage class. Never stored.
struct Selected {
  int64_t modified_ms = 0;
  uint8_t checksum = kNoAlgorithm;
  bool full_object = false;
  uint16_t owner_bytes = 0;
  uint16_t class_bytes = 0;
};

flatbuffers::Offset<flatbuffers::String> optional_text(Builder& builder, std::string_view text) {
  return text.empty() ? 0 : builder.CreateString(text.data(), text.size());
}

PairsOffset encode_pairs(Builder& builder, const std::vector<NameValue>& pairs) {
  if (pairs.empty()) return 0;
  std::array<flatbuffers::Offset<fb::Pair>, 8> few;
  std::vector<flatbuffers::Offset<fb::Pair>> many(pairs.size() <= few.size() ? 0 : pairs.size());
  flatbuffers::Offset<fb::Pair>* const offsets = many.empty() ? few.data() : many.data();
  for (size_t i = 0; i < pairs.size(); ++i) {
    const auto name = builder.CreateString(pairs[i].name);
    const auto value = builder.CreateString(pairs[i].value);
    offsets[i] = fb::CreatePair(builder, name, value);
  }
  return builder.CreateVector(offsets, pairs.size());
}

flatbuffers::Offset<flatbuffers::Vector<uint8_t>> encode_digest(Builder& builder,
                                                                const auth::Digest& digest) {
  return digest.size == 0 ? 0 : builder.CreateVector(digest.bytes.data(), digest.size);
}

flatbuffers::Offset<fb::Object> build_object(Builder& builder, const ObjectFields& object) {
  const auto owner = optional_text(builder, object.owner);
  const auto storage_class = optional_text(builder, object.storage_class);
  const auto headers = encode_pairs(builder, object.headers);
  const auto user = encode_pairs(builder, object.user);
  flatbuffers::Offset<fb::Checksum> checksum;
  if (object.checksum) {
    const auto value = encode_digest(builder, object.checksum->value);
    checksum = fb::CreateChecksum(builder, static_cast<uint8_t>(object.checksum->algorithm),
                                  object.checksum->full_object, value);
  }
  flatbuffers::Offset<flatbuffers::Vector<flatbuffers::Offset<fb::Part>>> parts;
  if (!object.parts.empty()) {
    std::vector<flatbuffers::Offset<fb::Part>> offsets;
    offsets.reserve(object.parts.size());
    for (const StoredPart& part : object.parts) {
      const auto value = encode_digest(builder, part.checksum);
      offsets.push_back(fb::CreatePart(builder, part.number, part.size, 0, value));
    }
    parts = builder.CreateVector(offsets);
  }
  const auto redirect = optional_text(builder, object.website_redirect);
  const auto tags = encode_pairs(builder, object.tags);
  return fb::CreateObject(builder, object.modified_ms, owner, storage_class, headers, user,
                          checksum, parts, redirect, tags);
}

std::vector<NameValue> carried_pairs(
    const flatbuffers::Vector<flatbuffers::Offset<fb::Pair>>* pairs) {
  std::vector<NameValue> out;
  out.reserve(count_of(pairs));
  for (size_t i = 0; i < count_of(pairs); ++i) {
    const fb::Pair* pair = pairs->Get(static_cast<flatbuffers::uoffset_t>(i));
    out.push_back({std::string(text_of(pair->name())), std::string(text_of(pair->value()))});
  }
  return out;
}

}  // namespace

namespace {

// False: the fields are damaged.
[[gnu::always_inline]] inline bool read_listed(Bytes meta, ListedObject& listed) {
  FlatView object(meta);
  listed.modified_ms = object.scalar<int64_t>(fb::Object::VT_MODIFIED_MS);
  listed.owner = as_text(object.bytes(fb::Object::VT_OWNER));
  listed.storage_class = as_text(object.bytes(fb::Object::VT_STORAGE_CLASS));
  FlatView checksum = object.table(fb::Object::VT_CHECKSUM);
  if (checksum.exists()) {
    const auto algorithm = checksum.scalar<uint8_t>(fb::Checksum::VT_ALGORITHM);
    if (algorithm < auth::kAlgorithmCount)
      listed.checksum = static_cast<auth::Algorithm>(algorithm);
    listed.checksum_full_object = checksum.scalar<uint8_t>(fb::Checksum::VT_FULL_OBJECT) != 0;
  }
  return object.good() && checksum.good();
}

}  // namespace

Result<ListedObject> ListedObject::open(Bytes meta) {
  ListedObject listed;
  if (!read_listed(meta, listed)) return fail(Code::kCorrupt, "object metadata is malformed");
  return listed;
}

size_t ListedObject::select(Bytes meta, uint8_t* out) {
  ListedObject listed;
  if (!read_listed(meta, listed)) return 0;
  // Both are short: an account's id, and the name of a class.
  if (sizeof(Selected) + listed.owner.size() + listed.storage_class.size() >
      storage::kSelectedBytesMax) {
    return 0;
  }
  Selected head;
  head.modified_ms = listed.modified_ms;
  if (listed.checksum) head.checksum = static_cast<uint8_t>(*listed.checksum);
  head.full_object = listed.checksum_full_object;
  head.owner_bytes = static_cast<uint16_t>(listed.owner.size());
  head.class_bytes = static_cast<uint16_t>(listed.storage_class.size());
  std::memcpy(out, &head, sizeof head);
  uint8_t* at = out + sizeof head;
  for (const std::string_view text : {listed.owner, listed.storage_class}) {
    if (!text.empty()) std::memcpy(at, text.data(), text.size());
    at += text.size();
  }
  return static_cast<size_t>(at - out);
}

Result<ListedObject> ListedObject::selected(Bytes kept) {
  Selected head;
  if (kept.size() < sizeof head) return fail(Code::kCorrupt, "object metadata is malformed");
  std::memcpy(&head, kept.data(), sizeof head);
  const std::string_view texts = as_text(kept.subspan(sizeof head));
  ListedObject listed;
  listed.modified_ms = head.modified_ms;
  if (head.checksum != kNoAlgorithm) listed.checksum = static_cast<auth::Algorithm>(head.checksum);
  listed.checksum_full_object = head.full_object;
  listed.owner = texts.substr(0, head.owner_bytes);
  listed.storage_class = texts.substr(head.owner_bytes, head.class_bytes);
  return listed;
}

EncodedMeta encode_object(const ObjectFields& object) {
  Builder builder(kInitialBytes, storage::PoolAllocator::shared());
  builder.Finish(build_object(builder, object));
  return EncodedMeta(builder.Release());
}

EncodedMeta encode_upload(const UploadFields& upload) {
  Builder builder(kInitialBytes, storage::PoolAllocator::shared());
  const auto object = build_object(builder, upload.object);
  const auto initiator = optional_text(builder, upload.initiator);
  const uint8_t algorithm =
      upload.checksum_algorithm ? static_cast<uint8_t>(*upload.checksum_algorithm) : kNoAlgorithm;
  builder.Finish(fb::CreateUpload(builder, object, initiator, upload.initiated_ms, algorithm,
                                  upload.checksum_full_object));
  return EncodedMeta(builder.Release());
}

EncodedMeta encode_part(int64_t modified_ms, const std::optional<auth::Digest>& checksum) {
  Builder builder(256, storage::PoolAllocator::shared());
  flatbuffers::Offset<flatbuffers::Vector<uint8_t>> value;
  if (checksum) value = encode_digest(builder, *checksum);
  builder.Finish(fb::CreateUploadedPart(builder, modified_ms, value));
  return EncodedMeta(builder.Release());
}

ObjectFields carried_fields(const fb::Object& object) {
  ObjectFields fields;
  fields.owner = text_of(object.owner());
  fields.storage_class = text_of(object.storage_class());
  fields.headers = carried_pairs(object.headers());
  fields.user = carried_pairs(object.user());
  fields.website_redirect = text_of(object.website_redirect());
  fields.tags = carried_pairs(object.tags());
  return fields;
}

ObjectFields all_fields(const fb::Object& object) {
  ObjectFields fields = carried_fields(object);
  fields.modified_ms = object.modified_ms();
  fields.checksum = checksum_of(object);
  fields.parts.reserve(count_of(object.parts()));
  for (size_t i = 0; i < count_of(object.parts()); ++i) {
    const fb::Part* part = object.parts()->Get(static_cast<flatbuffers::uoffset_t>(i));
    fields.parts.push_back({part->number(), part->size(), digest_of(part->checksum())});
  }
  return fields;
}

auth::Digest digest_of(const flatbuffers::Vector<uint8_t>* bytes) {
  auth::Digest digest;
  if (bytes == nullptr) return digest;
  const size_t size = std::min<size_t>(bytes->size(), digest.bytes.size());
  std::copy_n(bytes->data(), size, digest.bytes.begin());
  digest.size = static_cast<uint8_t>(size);
  return digest;
}

std::optional<StoredChecksum> checksum_of(const fb::Object& object) {
  const fb::Checksum* checksum = object.checksum();
  if (checksum == nullptr || checksum->algorithm() >= auth::kAlgorithmCount) return std::nullopt;
  StoredChecksum stored;
  stored.algorithm = static_cast<auth::Algorithm>(checksum->algorithm());
  stored.full_object = checksum->full_object();
  stored.value = digest_of(checksum->value());
  if (stored.value.size != auth::digest_bytes(stored.algorithm)) return std::nullopt;
  return stored;
}

}  // namespace basalt::s3
