// Which checksum algorithm goes with which type, and how parts make an object's checksum.
#include "protocol/s3/checksum_model.h"

#include <gtest/gtest.h>

#include <vector>

namespace basalt::s3 {
namespace {

using auth::Algorithm;

class ChecksumModelTest : public ::testing::Test {
 protected:
  S3Result<std::optional<UploadChecksum>> ask(std::string_view algorithm, std::string_view type) {
    head_.fields.clear();
    if (!algorithm.empty()) head_.fields.push_back({"x-amz-checksum-algorithm", algorithm});
    if (!type.empty()) head_.fields.push_back({"x-amz-checksum-type", type});
    request_.head = &head_;
    return upload_checksum(request_);
  }
  void expect(std::string_view algorithm, std::string_view type, Algorithm wanted,
              bool full_object) {
    const auto answer = ask(algorithm, type);
    ASSERT_TRUE(answer.has_value() && *answer) << algorithm << " " << type;
    EXPECT_EQ((*answer)->algorithm, wanted) << algorithm << " " << type;
    EXPECT_EQ((*answer)->full_object, full_object) << algorithm << " " << type;
  }
  http::RequestHead head_;
  S3Request request_;
};

TEST_F(ChecksumModelTest, PairsThatGoTogether) {
  EXPECT_FALSE(ask("", "")->has_value());
  expect("CRC32", "", Algorithm::kCrc32, false);
  expect("CRC32", "FULL_OBJECT", Algorithm::kCrc32, true);
  expect("CRC32C", "COMPOSITE", Algorithm::kCrc32c, false);
  expect("CRC64NVME", "", Algorithm::kCrc64Nvme, true);
  expect("CRC64NVME", "FULL_OBJECT", Algorithm::kCrc64Nvme, true);
  expect("SHA1", "", Algorithm::kSha1, false);
  expect("sha256", "COMPOSITE", Algorithm::kSha256, false);
}

TEST_F(ChecksumModelTest, PairsThatDoNot) {
  EXPECT_EQ(ask("CRC64NVME", "COMPOSITE").error().message,
            "The COMPOSITE checksum type cannot be used with the crc64nvme checksum algorithm.");
  EXPECT_EQ(ask("SHA256", "FULL_OBJECT").error().message,
            "The FULL_OBJECT checksum type cannot be used with the sha256 checksum algorithm.");
  for (const auto& [algorithm, type] :
       std::vector<std::pair<std::string_view, std::string_view>>{{"SHA1", "FULL_OBJECT"},
                                                                  {"", "COMPOSITE"},
                                                                  {"CRC32", "BOTH"},
                                                                  {"CRC31", ""},
                                                                  {"MD5", ""}}) {
    const auto refused = ask(algorithm, type);
    ASSERT_FALSE(refused.has_value()) << algorithm << " " << type;
    EXPECT_EQ(refused.error().code, S3Code::kInvalidRequest) << algorithm << " " << type;
  }
}

TEST_F(ChecksumModelTest, FullObjectIsTheChecksumOfTheBytes) {
  const std::string whole = "The quick brown fox jumps over the lazy dog";
  for (const Algorithm algorithm : {Algorithm::kCrc32, Algorithm::kCrc32c, Algorithm::kCrc64Nvme}) {
    PartsChecksum parts({algorithm, true});
    for (const auto& [from, count] :
         std::vector<std::pair<size_t, size_t>>{{0, 9}, {9, 0}, {9, 1}, {10, 100}}) {
      const std::string part = whole.substr(from, count);
      EXPECT_TRUE(parts.add(auth::digest(algorithm, as_bytes(part)), part.size()));
    }
    EXPECT_EQ(parts.finish().value, auth::digest(algorithm, as_bytes(whole)));
  }
}

TEST_F(ChecksumModelTest, CompositeIsTheDigestOfTheDigests) {
  const auth::Digest a = auth::digest(Algorithm::kSha256, as_bytes("a")),
                     b = auth::digest(Algorithm::kSha256, as_bytes("b"));
  PartsChecksum parts({Algorithm::kSha256, false});
  EXPECT_TRUE(parts.add(a, 1));
  EXPECT_TRUE(parts.add(b, 1));
  const StoredChecksum checksum = parts.finish();
  std::string both(as_text(a.view()));
  both += as_text(b.view());
  EXPECT_EQ(checksum.value, auth::digest(Algorithm::kSha256, as_bytes(both)));
  EXPECT_EQ(checksum_text(checksum, 2), auth::to_base64(checksum.value.view()) + "-2");
}

TEST_F(ChecksumModelTest, PartWithoutChecksum) {
  PartsChecksum parts({Algorithm::kCrc32, false});
  EXPECT_FALSE(parts.add({}, 5));
  EXPECT_FALSE(parts.add(auth::digest(Algorithm::kSha1, {}), 0));
}

TEST_F(ChecksumModelTest, OnlyOneAnnouncedChecksum) {
  head_.fields = {{"x-amz-checksum-crc32", "AAAAAA=="}};
  request_.head = &head_;
  const auto one = announced_checksum(request_);
  ASSERT_TRUE(one.has_value() && *one);
  EXPECT_EQ((*one)->algorithm, Algorithm::kCrc32);
  head_.fields.push_back({"X-Amz-Checksum-Sha1", "x"});
  EXPECT_EQ(announced_checksum(request_).error().code, S3Code::kInvalidRequest);
}

}  // namespace
}  // namespace basalt::s3
