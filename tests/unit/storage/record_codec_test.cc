// Index values: what is encoded is decoded, and no changed byte, other key or hostile structure
// gets through.
#include "storage/record_codec.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "base/crc32c.h"
#include "storage/generated/record_generated.h"
#include "storage/mutation_builder.h"
#include "tests/unit/storage/fakes.h"

namespace basalt::storage {
namespace {

using test::bulk_blob;

const KeyView kKey{Table::kCurrent, 77, "photos/cat.jpg"};

ValueBuffer encode_put(const KeyView& key, const NewRecord& record, const BlobRef& body = {},
                       Bytes inline_body = {}) {
  MutationBuilder builder;
  builder.put(key, record);
  const auto batch = verify_batch(builder.finish(), 0);
  EXPECT_TRUE(batch.has_value());
  RecordEncoder encoder;
  return encoder.encode(key, 42, *(*batch)->mutations()->Get(0)->record(), body, inline_body);
}

TEST(RecordCodec, RoundTrip) {
  const std::vector<BlobRef> blobs = {bulk_blob(3, 4096, 1000), bulk_blob(4, 0, 2000)};
  const std::string inline_body = "tiny";
  BlobRef body;
  body.kind = static_cast<uint8_t>(BlobKind::kIndex);
  body.length = inline_body.size();
  const ValueBuffer value =
      encode_put(kKey, {.size = 3004, .tag = "etag", .meta = as_bytes("meta data"), .blobs = blobs},
                 body, as_bytes(inline_body));
  const auto view = decode_record(kKey, value.view());
  ASSERT_TRUE(view.has_value()) << view.error().detail;
  EXPECT_EQ(view->seq, 42u);
  EXPECT_EQ(view->size, 3004u);
  EXPECT_EQ(view->tag, "etag");
  EXPECT_EQ(as_text(view->meta), "meta data");
  ASSERT_EQ(view->blobs.size(), 2u);
  EXPECT_EQ(view->blobs[1], blobs[1]);
  EXPECT_EQ(as_text(view->inline_body), "tiny");

  const Record copy(*view);
  EXPECT_EQ(copy->tag, "etag");
  EXPECT_EQ(copy->blobs[0], blobs[0]);
  EXPECT_EQ(as_text(copy->inline_body), "tiny");
}

TEST(RecordCodec, EmptyRecord) {
  const ValueBuffer value = encode_put(kKey, {});
  const auto view = decode_record(kKey, value.view());
  ASSERT_TRUE(view.has_value());
  EXPECT_TRUE(view->tag.empty());
  EXPECT_TRUE(view->blobs.empty());
  EXPECT_EQ(view->body.kind, static_cast<uint8_t>(BlobKind::kNone));
}

TEST(RecordCodec, EveryFlippedByteIsNoticed) {
  const std::vector<BlobRef> blobs = {bulk_blob(3, 4096, 1000)};
  const ValueBuffer value =
      encode_put(kKey, {.size = 1, .tag = "t", .meta = as_bytes("m"), .blobs = blobs});
  for (size_t i = 0; i < value.size; ++i) {
    value.bytes[i] ^= 0x10;
    EXPECT_FALSE(decode_record(kKey, value.view()).has_value()) << i;
    value.bytes[i] ^= 0x10;
  }
  for (size_t size = 0; size < value.size; ++size) {
    EXPECT_FALSE(decode_record(kKey, value.view().first(size)).has_value()) << size;
  }
}

// A value that was written wrong: its checksum is right. Refused, or all that it shows is inside.
TEST(RecordCodec, DamageBehindARightChecksumStaysInside) {
  const std::vector<BlobRef> blobs = {bulk_blob(3, 4096, 1000)};
  const ValueBuffer value =
      encode_put(kKey, {.size = 1, .tag = "t", .meta = as_bytes("m"), .blobs = blobs});
  std::vector<uint64_t> aligned((value.size + 7) / 8);
  auto* copy = reinterpret_cast<uint8_t*>(aligned.data());
  const auto inside = [&](const void* data, size_t size) {
    const auto* at = static_cast<const uint8_t*>(data);
    return size == 0 || (at >= copy && at + size <= copy + value.size);
  };
  size_t refused = 0;
  for (size_t i = kIndexHeaderBytes; i + 4 <= value.size - kIndexTrailerBytes; ++i) {
    for (const uint32_t bits : {1u, 0x80u, 0xffffu, 0x7fffffffu, 0xffffffffu}) {
      std::memcpy(copy, value.bytes.get(), value.size);
      store_le32(copy + i, load_le32(copy + i) ^ bits);
      const size_t checked = value.size - kIndexTrailerBytes;
      store_le32(copy + checked, crc32c({copy, checked}, key_crc(kKey)));
      const auto view = decode_record(kKey, {copy, value.size});
      refused += !view;
      if (!view) continue;
      EXPECT_TRUE(inside(view->tag.data(), view->tag.size()));
      EXPECT_TRUE(inside(view->meta.data(), view->meta.size()));
      EXPECT_TRUE(inside(view->blobs.data(), view->blobs.size_bytes()));
    }
  }
  EXPECT_GT(refused, 100u);
}

TEST(RecordCodec, ValueUnderAnotherKeyIsCorrupt) {
  const ValueBuffer value = encode_put(kKey, {.size = 1});
  EXPECT_FALSE(decode_record({Table::kVersion, 77, "photos/cat.jpg"}, value.view()).has_value());
  EXPECT_FALSE(decode_record({Table::kCurrent, 78, "photos/cat.jpg"}, value.view()).has_value());
  EXPECT_FALSE(decode_record({Table::kCurrent, 77, "photos/cat.jpf"}, value.view()).has_value());
}

TEST(RecordCodec, BatchLimits) {
  const auto verify = [](auto&& fill, size_t body = 0) {
    MutationBuilder builder;
    fill(builder);
    return verify_batch(builder.finish(), body).has_value();
  };
  EXPECT_FALSE(verify([](MutationBuilder&) {}));
  EXPECT_TRUE(verify(
      [](MutationBuilder& b) { b.erase({Table::kCurrent, 1, std::string(kNameBytesMax, 'x')}); }));
  EXPECT_FALSE(verify([](MutationBuilder& b) {
    b.erase({Table::kCurrent, 1, std::string(kNameBytesMax + 1, 'x')});
  }));
  EXPECT_FALSE(verify([](MutationBuilder& b) { b.erase({Table::kCurrent, 1, ""}); }));
  EXPECT_FALSE(verify([](MutationBuilder& b) { b.erase({static_cast<Table>(7), 1, "x"}); }));
  EXPECT_FALSE(
      verify([](MutationBuilder& b) { b.erase({Table::kCurrent, uint64_t{1} << 63, "x"}); }));
  EXPECT_FALSE(verify([](MutationBuilder& b) { b.put(kKey, {.tag = std::string(65, 't')}); }));
  EXPECT_TRUE(verify([](MutationBuilder& b) { b.put(kKey, {}, true); }, 100));
  EXPECT_FALSE(verify([](MutationBuilder& b) { b.put(kKey, {}); }, 100));
  EXPECT_FALSE(verify([](MutationBuilder& b) { b.put(kKey, {}, true); }, kInlineBodyBytesMax + 1));
  EXPECT_FALSE(verify(
      [](MutationBuilder& b) {
        b.put(kKey, {}, true);
        b.put({Table::kCurrent, 1, "y"}, {}, true);
      },
      1));
  const auto many = [](size_t count) {
    return [count](MutationBuilder& b) {
      for (size_t i = 0; i < count; ++i) b.erase({Table::kPart, 1, "x"});
    };
  };
  EXPECT_TRUE(verify(many(kMutationsPerBatchMax)));
  EXPECT_FALSE(verify(many(kMutationsPerBatchMax + 1)));
}

TEST(RecordCodec, DamagedBatchIsRefusedNotFollowed) {
  MutationBuilder builder;
  const std::vector<BlobRef> blobs = {bulk_blob(3, 4096, 1000)};
  builder.put(kKey, {.size = 1, .tag = "t", .meta = as_bytes("m"), .blobs = blobs});
  builder.erase({Table::kPart, 1, "x"});
  const Bytes bytes = builder.finish();
  std::vector<uint64_t> aligned((bytes.size() + 7) / 8);
  auto* copy = reinterpret_cast<uint8_t*>(aligned.data());
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (const int flip : {0x01, 0x80, 0xFF}) {
      std::memcpy(copy, bytes.data(), bytes.size());
      copy[i] ^= static_cast<uint8_t>(flip);
      if (const auto batch = verify_batch({copy, bytes.size()}, 0)) {
        for (const fb::Mutation* mutation : *(*batch)->mutations()) {
          EXPECT_LE(key_of(*mutation).name.size(), kNameBytesMax);
          if (mutation->record() == nullptr) continue;
          for (size_t b = 0; b < blob_count(*mutation->record()); ++b)
            (void)blob_at(*mutation->record(), b);
        }
      }
    }
  }
}

TEST(RecordCodec, FullKeyOrderIsTableSpaceName) {
  const FullKey a({Table::kCurrent, 1, "\xff"}), b({Table::kCurrent, 2, "a"}),
      c({Table::kVersion, 0, "a"});
  EXPECT_LT(a.view(), b.view());
  EXPECT_LT(b.view(), c.view());
  const KeyView key = parse_full_key(b.view());
  EXPECT_EQ(key.space, 2u);
  EXPECT_EQ(key.name, "a");
}

TEST(RecordCodec, PrintableKeysHaveNoControlCharacters) {
  EXPECT_EQ(printable({Table::kCurrent, 5, std::string_view("a\n\0\xff\\", 5)}),
            "0/5/a\\x0a\\x00\\xff\\x5c");
}

}  // namespace
}  // namespace basalt::storage
