// Encoding and reading of object metadata, at every alignment, and of bytes that are none.
#include "protocol/s3/object_meta.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "storage/meta_shard.h"

namespace basalt::s3 {
namespace {

ObjectFields sample() {
  ObjectFields fields;
  fields.modified_ms = 1'795'226'460'123;
  fields.owner = "owner-id";
  fields.storage_class = "STANDARD_IA";
  fields.headers = {{"content-type", "text/plain"}, {"expires", "whenever"}};
  fields.user = {{"colour", "b\xC3\xA9ige"}, {"empty", ""}};
  fields.checksum =
      StoredChecksum{auth::Algorithm::kCrc32c, false, auth::digest(auth::Algorithm::kCrc32c, {})};
  fields.parts = {{1, 5'242'880, auth::digest(auth::Algorithm::kCrc32c, {})}, {7, 0, {}}};
  fields.website_redirect = "/elsewhere";
  fields.tags = {{"key", "value"}};
  return fields;
}

TEST(ObjectMetaTest, RoundTripAtEveryAlignment) {
  const EncodedMeta encoded = encode_object(sample());
  const Bytes meta = encoded.bytes();
  for (size_t shift = 0; shift < 16; ++shift) {
    std::vector<uint8_t> memory(meta.size() + 16);
    std::memcpy(memory.data() + shift, meta.data(), meta.size());
    auto opened = ObjectView::open({memory.data() + shift, meta.size()});
    ASSERT_TRUE(opened.has_value());
    const ObjectView view = std::move(*opened);
    EXPECT_EQ(text_of(view->owner()), sample().owner);
    EXPECT_EQ(view->modified_ms(), sample().modified_ms);
    ASSERT_EQ(count_of(view->parts()), 2u);
    EXPECT_EQ(view->parts()->Get(1)->number(), 7);
    EXPECT_EQ(digest_of(view->parts()->Get(1)->checksum()).size, 0);
    const auto checksum = checksum_of(*view);
    ASSERT_TRUE(checksum.has_value());
    EXPECT_EQ(checksum->algorithm, auth::Algorithm::kCrc32c);
    EXPECT_FALSE(checksum->full_object);
    const ObjectFields carried = carried_fields(*view);
    EXPECT_EQ(carried.storage_class, "STANDARD_IA");
    EXPECT_EQ(carried.user.at(0).value, "b\xC3\xA9ige");
    EXPECT_EQ(carried.headers.at(1).name, "expires");
    EXPECT_EQ(carried.tags.size(), 1u);
    EXPECT_EQ(carried.website_redirect, "/elsewhere");
  }
}

TEST(ObjectMetaTest, ListingsReadTheFieldsTheyShow) {
  const EncodedMeta encoded = encode_object(sample());
  const Bytes meta = encoded.bytes();
  for (size_t shift = 0; shift < 9; ++shift) {
    std::vector<uint8_t> memory(meta.size() + shift);
    std::memcpy(memory.data() + shift, meta.data(), meta.size());
    const auto listed = ListedObject::open(Bytes(memory).subspan(shift));
    ASSERT_TRUE(listed.has_value());
    EXPECT_EQ(listed->modified_ms, sample().modified_ms);
    EXPECT_EQ(listed->owner, sample().owner);
    EXPECT_EQ(listed->storage_class, sample().storage_class);
    EXPECT_EQ(listed->checksum, auth::Algorithm::kCrc32c);
    EXPECT_FALSE(listed->checksum_full_object);
  }
  const EncodedMeta plain = encode_object({.modified_ms = 5});
  const auto listed = ListedObject::open(plain.bytes());
  ASSERT_TRUE(listed.has_value());
  EXPECT_EQ(listed->modified_ms, 5);
  EXPECT_TRUE(listed->owner.empty());
  EXPECT_TRUE(listed->storage_class.empty());
  EXPECT_FALSE(listed->checksum);
  EXPECT_FALSE(ListedObject::open({}).has_value());
  for (size_t size = 0; size < 8; ++size)
    EXPECT_FALSE(ListedObject::open(meta.first(size)).has_value());
}

TEST(ObjectMetaTest, ListingsSelectTheFieldsTheyShow) {
  ObjectFields full_object = sample();
  full_object.checksum->full_object = true;
  uint8_t kept[storage::kSelectedBytesMax];
  for (const ObjectFields& fields : {sample(), full_object, ObjectFields{.modified_ms = 5}}) {
    const EncodedMeta encoded = encode_object(fields);
    const size_t size = ListedObject::select(encoded.bytes(), kept);
    const auto listed = ListedObject::selected(Bytes(kept, size));
    ASSERT_TRUE(listed.has_value());
    EXPECT_EQ(listed->modified_ms, fields.modified_ms);
    EXPECT_EQ(listed->owner, fields.owner);
    EXPECT_EQ(listed->storage_class, fields.storage_class);
    EXPECT_EQ(listed->checksum.has_value(), fields.checksum.has_value());
    if (fields.checksum) {
      EXPECT_EQ(listed->checksum, fields.checksum->algorithm);
      EXPECT_EQ(listed->checksum_full_object, fields.checksum->full_object);
    }
  }
  EXPECT_EQ(ListedObject::select({}, kept), 0u);
  EXPECT_FALSE(ListedObject::selected({}).has_value());
  const EncodedMeta too_long =
      encode_object({.owner = std::string(storage::kSelectedBytesMax, 'o')});
  EXPECT_EQ(ListedObject::select(too_long.bytes(), kept), 0u);
}

TEST(ObjectMetaTest, LargeMetadataIsNotBorrowedUnaligned) {
  ObjectFields fields = sample();
  for (uint16_t i = 1; i <= 10'000; ++i) fields.parts.push_back({i, i, {}});
  const EncodedMeta encoded = encode_object(fields);
  std::vector<uint8_t> memory(encoded.bytes().size() + 1);
  std::memcpy(memory.data() + 1, encoded.bytes().data(), encoded.bytes().size());
  auto opened = ObjectView::open({memory.data() + 1, encoded.bytes().size()});
  ASSERT_TRUE(opened.has_value());
  memory.assign(memory.size(), 0xEE);
  EXPECT_EQ(count_of((*opened)->parts()), 10'002u);
}

TEST(ObjectMetaTest, MinimalObject) {
  const EncodedMeta encoded = encode_object({});
  const auto view = ObjectView::open(encoded.bytes());
  ASSERT_TRUE(view.has_value());
  EXPECT_EQ(text_of((*view)->owner()), "");
  EXPECT_EQ(count_of((*view)->user()), 0u);
  EXPECT_FALSE(checksum_of(**view).has_value());
  EXPECT_TRUE(carried_fields(**view).headers.empty());
}

TEST(ObjectMetaTest, UploadAndPart) {
  UploadFields upload;
  upload.object = sample();
  upload.initiator = "who";
  upload.initiated_ms = 42;
  const EncodedMeta none = encode_upload(upload);
  EXPECT_EQ((*UploadView::open(none.bytes()))->checksum_algorithm(), 255);
  upload.checksum_algorithm = auth::Algorithm::kSha256;
  const EncodedMeta some = encode_upload(upload);
  const auto view = UploadView::open(some.bytes());
  ASSERT_TRUE(view.has_value());
  EXPECT_EQ((*view)->checksum_algorithm(), static_cast<uint8_t>(auth::Algorithm::kSha256));
  EXPECT_EQ(text_of((*view)->initiator()), "who");
  EXPECT_EQ(text_of((*view)->object()->storage_class()), "STANDARD_IA");

  const EncodedMeta part = encode_part(7, auth::digest(auth::Algorithm::kSha1, {}));
  const auto part_view = PartView::open(part.bytes());
  ASSERT_TRUE(part_view.has_value());
  EXPECT_EQ(digest_of((*part_view)->checksum()), auth::digest(auth::Algorithm::kSha1, {}));
}

TEST(ObjectMetaTest, DamagedBytesAreCorruptNotUndefined) {
  const EncodedMeta encoded = encode_object(sample());
  const Bytes meta = encoded.bytes();
  EXPECT_EQ(ObjectView::open({}).error().code, Code::kCorrupt);
  for (size_t size = 0; size < meta.size(); ++size) {
    const auto cut = ObjectView::open(meta.first(size));
    if (cut) (void)carried_fields(**cut);
  }
  std::vector<uint8_t> damaged(meta.begin(), meta.end());
  for (size_t i = 0; i < damaged.size(); ++i) {
    const uint8_t good = damaged[i];
    damaged[i] = static_cast<uint8_t>(good ^ 0xFF);
    const auto view = ObjectView::open(damaged);
    if (view) {
      (void)carried_fields(**view);
      (void)checksum_of(**view);
    }
    damaged[i] = good;
  }
}

}  // namespace
}  // namespace basalt::s3
