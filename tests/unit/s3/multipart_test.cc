// The seven multipart operations against the whole layer.
#include <gtest/gtest.h>

#include "tests/unit/s3/s3_world.h"

namespace basalt::s3 {
namespace {

using auth::Algorithm;
using testing::Answer;
using testing::as_bob;
using testing::Ask;
using testing::base64_digest;
using testing::World;
using Headers = std::vector<std::pair<std::string, std::string>>;

constexpr size_t kMinPart = 5u << 20;

std::string pattern(size_t size, uint32_t seed) {
  std::string text(size, '\0');
  uint32_t state = seed;
  for (char& c : text) {
    state = state * 1664525 + 1013904223;
    c = static_cast<char>(state >> 24);
  }
  return text;
}

std::string digest_text(Algorithm algorithm, std::string_view text) {
  return std::string(as_text(auth::digest(algorithm, as_bytes(text)).view()));
}
std::string etag_of(std::string_view text) {
  return "\"" + auth::to_hex(as_bytes(digest_text(Algorithm::kMd5, text))) + "\"";
}

class MultipartTest : public ::testing::Test {
 protected:
  MultipartTest() { EXPECT_EQ(world.ask("PUT", "/bucket").status, 200); }

  std::string create(Headers headers = {}) {
    const Answer answer = world.ask(
        {.method = "POST", .target = "/bucket/key?uploads", .headers = std::move(headers)});
    EXPECT_EQ(answer.status, 200) << answer.body;
    EXPECT_EQ(answer.element("Bucket"), "bucket");
    EXPECT_EQ(answer.element("Key"), "key");
    return answer.element("UploadId");
  }
  Answer part(const std::string& id, const std::string& number, std::string body,
              Headers headers = {}) {
    return world.ask({.method = "PUT",
                      .target = "/bucket/key?partNumber=" + number + "&uploadId=" + id,
                      .headers = std::move(headers),
                      .body = std::move(body),
                      .piece = 60'000});
  }
  Answer part_copy(const std::string& id, const std::string& number, const std::string& source,
                   Headers headers = {}) {
    headers.emplace_back("x-amz-copy-source", source);
    return part(id, number, "", std::move(headers));
  }
  Answer complete(const std::string& id, const std::vector<std::pair<int, std::string>>& parts,
                  Headers headers = {}, const std::string& extra = "") {
    std::string xml = "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">";
    for (const auto& [number, etag] : parts) {
      xml += fmt::format("<Part><PartNumber>{}</PartNumber><ETag>{}</ETag>{}</Part>", number, etag,
                         extra);
    }
    xml += "</CompleteMultipartUpload>";
    return complete_text(id, xml, std::move(headers));
  }
  Answer complete_text(const std::string& id, const std::string& xml, Headers headers = {}) {
    return world.ask({.method = "POST",
                      .target = "/bucket/key?uploadId=" + id,
                      .headers = std::move(headers),
                      .body = xml});
  }
  Answer list(const std::string& id, const std::string& query = "") {
    return world.ask("GET", "/bucket/key?uploadId=" + id + query);
  }
  Answer abort(const std::string& id) { return world.ask("DELETE", "/bucket/key?uploadId=" + id); }
  Answer get(Headers headers = {}, const std::string& query = "") {
    return world.ask({.target = "/bucket/key" + query, .headers = std::move(headers)});
  }

  World world{4};
  const std::string a = pattern(kMinPart, 1), b = pattern(kMinPart + 1, 2), c = pattern(3, 3);
};

TEST_F(MultipartTest, ThreeParts) {
  const std::string id = create({{"x-amz-meta-colour", "red"}, {"Content-Type", "text/plain"}});
  EXPECT_EQ(id.size(), 32u);
  const Answer first = part(id, "1", a);
  EXPECT_EQ(first.status, 200) << first.body;
  EXPECT_EQ(first.header("ETag"), etag_of(a));
  EXPECT_EQ(part(id, "7", b).status, 200);
  EXPECT_EQ(part(id, "9", c).status, 200);
  EXPECT_EQ(get().status, 404);
  const Answer done = complete(id, {{1, etag_of(a)}, {7, etag_of(b)}, {9, etag_of(c)}});
  ASSERT_EQ(done.status, 200) << done.body;
  const std::string tag =
      auth::to_hex(auth::digest(Algorithm::kMd5, as_bytes(digest_text(Algorithm::kMd5, a) +
                                                          digest_text(Algorithm::kMd5, b) +
                                                          digest_text(Algorithm::kMd5, c)))
                       .view()) +
      "-3";
  EXPECT_EQ(done.element("ETag"), "&quot;" + tag + "&quot;");
  EXPECT_EQ(done.element("Location"), "http://s3.example.com:9000/bucket/key");
  EXPECT_EQ(done.element("ChecksumCRC64NVME"), base64_digest(Algorithm::kCrc64Nvme, a + b + c));
  EXPECT_EQ(done.element("ChecksumType"), "FULL_OBJECT");
  const Answer read = get({{"x-amz-checksum-mode", "ENABLED"}});
  EXPECT_TRUE(read.body == a + b + c);
  EXPECT_EQ(read.header("x-amz-meta-colour"), "red");
  EXPECT_EQ(read.header("Content-Type"), "text/plain");
  EXPECT_EQ(read.header("ETag"), "\"" + tag + "\"");
  EXPECT_EQ(read.header("x-amz-checksum-crc64nvme"),
            base64_digest(Algorithm::kCrc64Nvme, a + b + c));

  const Answer seventh = get({}, "?partNumber=7");
  EXPECT_EQ(seventh.status, 206);
  EXPECT_TRUE(seventh.body == b);
  EXPECT_EQ(seventh.header("x-amz-mp-parts-count"), "3");
  EXPECT_EQ(get({}, "?partNumber=2").code(), "InvalidPartNumber");
  const Answer across =
      get({{"Range", fmt::format("bytes={}-{}", kMinPart - 5, kMinPart * 2 + 2)}});
  EXPECT_TRUE(across.body == (a + b + c).substr(kMinPart - 5, kMinPart + 8));

  EXPECT_EQ(list(id).code(), "NoSuchUpload");
  EXPECT_EQ(complete(id, {{1, etag_of(a)}}).code(), "NoSuchUpload");
  EXPECT_EQ(world.ask("GET", "/bucket?uploads").element("Upload"), "");

  // A copy of it is a plain object.
  const Answer copied = world.ask({.method = "PUT",
                                   .target = "/bucket/copy",
                                   .headers = {{"x-amz-copy-source", "bucket/key"}}});
  EXPECT_EQ(copied.element("ETag"), "&quot;" + etag_of(a + b + c).substr(1, 32) + "&quot;");
  EXPECT_TRUE(world.ask("GET", "/bucket/copy").body == a + b + c);
}

TEST_F(MultipartTest, ReplacedAndUnusedParts) {
  const std::string id = create();
  part(id, "1", b);
  part(id, "1", a);
  part(id, "2", b);
  part(id, "3", c);
  EXPECT_EQ(complete(id, {{1, etag_of(b)}}).code(), "InvalidPart");
  EXPECT_EQ(complete(id, {{1, etag_of(a)}, {3, etag_of(c)}}).status, 200);
  EXPECT_TRUE(get().body == a + c);
}

TEST_F(MultipartTest, SmallAndEmptyParts) {
  const std::string id = create();
  part(id, "1", c);
  part(id, "2", "");
  const Answer small = complete(id, {{1, etag_of(c)}, {2, etag_of("")}});
  EXPECT_EQ(small.code(), "EntityTooSmall");
  EXPECT_EQ(small.element("MinSizeAllowed"), "5242880");
  EXPECT_EQ(small.element("ProposedSize"), "3");
  EXPECT_EQ(small.element("PartNumber"), "1");
  EXPECT_EQ(complete(id, {{2, etag_of("")}}).status, 200);
  EXPECT_EQ(get().body, "");
  EXPECT_EQ(get().header("ETag").ends_with("-1\""), true);
}

TEST_F(MultipartTest, CompletionRefused) {
  const std::string id = create();
  part(id, "1", a);
  part(id, "2", c);
  EXPECT_EQ(complete(id, {}).code(), "MalformedXML");
  EXPECT_EQ(complete_text(id, "").code(), "MalformedXML");
  EXPECT_EQ(
      complete_text(
          id, "<CompleteMultipartUpload><Part><ETag>x</ETag></Part></CompleteMultipartUpload>")
          .code(),
      "MalformedXML");
  EXPECT_EQ(complete(id, {{2, etag_of(c)}, {1, etag_of(a)}}).code(), "InvalidPartOrder");
  EXPECT_EQ(complete(id, {{1, etag_of(a)}, {1, etag_of(a)}}).code(), "InvalidPartOrder");
  EXPECT_EQ(complete(id, {{1, etag_of(a)}, {5, etag_of(c)}}).code(), "InvalidPart");
  EXPECT_EQ(complete(id, {{1, "\"x\""}}).code(), "InvalidPart");
  EXPECT_EQ(complete(id, {{0, etag_of(a)}}).code(), "InvalidArgument");
  EXPECT_EQ(complete(std::string(32, '0'), {{1, etag_of(a)}}).code(), "NoSuchUpload");
  EXPECT_EQ(complete("x", {{1, etag_of(a)}}).code(), "NoSuchUpload");
  EXPECT_EQ(complete(id, {{1, etag_of(a)}}, {{"x-amz-mp-object-size", "1"}}).code(),
            "InvalidRequest");
  EXPECT_EQ(get().status, 404);
  EXPECT_EQ(
      complete(id, {{1, etag_of(a)}}, {{"x-amz-mp-object-size", std::to_string(a.size())}}).status,
      200);
}

TEST_F(MultipartTest, ConditionalCompletion) {
  std::string id = create();
  part(id, "1", c);
  EXPECT_EQ(complete(id, {{1, etag_of(c)}}, {{"If-Match", "\"x\""}}).code(), "NoSuchKey");
  EXPECT_EQ(complete(id, {{1, etag_of(c)}}, {{"If-None-Match", "*"}}).status, 200);
  id = create();
  part(id, "1", a);
  EXPECT_EQ(complete(id, {{1, etag_of(a)}}, {{"If-None-Match", "*"}}).code(), "PreconditionFailed");
  EXPECT_EQ(complete(id, {{1, etag_of(a)}}, {{"If-Match", "\"x\""}}).code(), "PreconditionFailed");
  EXPECT_EQ(get().body, c);
  EXPECT_EQ(complete(id, {{1, etag_of(a)}}, {{"If-Match", get().header("ETag")}}).status, 200);
  EXPECT_TRUE(get().body == a);
}

TEST_F(MultipartTest, CompositeChecksum) {
  const std::string id = create({{"x-amz-checksum-algorithm", "SHA256"}});
  const std::string a_sum = base64_digest(Algorithm::kSha256, a),
                    c_sum = base64_digest(Algorithm::kSha256, c);
  EXPECT_EQ(part(id, "1", a).code(), "InvalidRequest");
  EXPECT_EQ(
      part(id, "1", a, {{"x-amz-checksum-crc32", base64_digest(Algorithm::kCrc32, a)}}).code(),
      "InvalidRequest");
  EXPECT_EQ(part(id, "1", a, {{"x-amz-checksum-sha256", c_sum}}).code(), "BadDigest");
  EXPECT_EQ(part(id, "1", a, {{"x-amz-checksum-sha256", a_sum}}).header("x-amz-checksum-sha256"),
            a_sum);
  EXPECT_EQ(part(id, "2", c, {{"x-amz-checksum-sha256", c_sum}}).status, 200);
  const Answer listed = list(id);
  EXPECT_EQ(listed.element("ChecksumAlgorithm"), "SHA256");
  EXPECT_EQ(listed.element("ChecksumType"), "COMPOSITE");
  EXPECT_EQ(listed.elements("ChecksumSHA256"), (std::vector<std::string>{a_sum, c_sum}));
  EXPECT_EQ(complete(id, {{1, etag_of(a)}, {2, etag_of(c)}}).code(), "InvalidRequest");
  const std::string xml = fmt::format(
      "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{}</ETag><ChecksumSHA256>{}</"
      "ChecksumSHA256></Part>"
      "<Part><ChecksumSHA256>{}</ChecksumSHA256><ETag>{}</ETag><PartNumber>2</PartNumber></Part></"
      "CompleteMultipartUpload>",
      etag_of(a), a_sum, c_sum, etag_of(c));
  const std::string composite = base64_digest(
      Algorithm::kSha256, digest_text(Algorithm::kSha256, a) + digest_text(Algorithm::kSha256, c));
  EXPECT_EQ(complete_text(id, xml, {{"x-amz-checksum-sha256", a_sum}}).code(), "BadDigest");
  EXPECT_EQ(complete_text(id, xml, {{"x-amz-checksum-type", "FULL_OBJECT"}}).code(),
            "InvalidRequest");
  const Answer done = complete_text(id, xml, {{"x-amz-checksum-sha256", composite + "-2"}});
  EXPECT_EQ(done.element("ChecksumSHA256"), composite + "-2");
  EXPECT_EQ(done.element("ChecksumType"), "COMPOSITE");
  const Answer read = get({{"x-amz-checksum-mode", "ENABLED"}});
  EXPECT_EQ(read.header("x-amz-checksum-sha256"), composite + "-2");
  EXPECT_EQ(read.header("x-amz-checksum-type"), "COMPOSITE");

  const Answer attributes =
      get({{"x-amz-object-attributes", "Checksum,ObjectParts"}}, "?attributes");
  EXPECT_EQ(attributes.element("PartsCount"), "2");
  EXPECT_EQ(attributes.elements("ChecksumSHA256"),
            (std::vector<std::string>{composite, a_sum, c_sum}));
  EXPECT_EQ(attributes.elements("PartNumber"), (std::vector<std::string>{"1", "2"}));
  const Answer page =
      get({{"x-amz-object-attributes", "ObjectParts"}, {"x-amz-max-parts", "1"}}, "?attributes");
  EXPECT_EQ(page.elements("PartNumber"), (std::vector<std::string>{"1"}));
  EXPECT_EQ(page.element("IsTruncated"), "true");
  EXPECT_EQ(page.element("NextPartNumberMarker"), "1");
}

TEST_F(MultipartTest, FullObjectChecksum) {
  const std::string id =
      create({{"x-amz-checksum-algorithm", "CRC32"}, {"x-amz-checksum-type", "FULL_OBJECT"}});
  EXPECT_EQ(part(id, "1", a).header("x-amz-checksum-crc32"), base64_digest(Algorithm::kCrc32, a));
  part(id, "2", c, {{"x-amz-checksum-crc32", base64_digest(Algorithm::kCrc32, c)}});
  EXPECT_EQ(complete(id, {{1, etag_of(a)}, {2, etag_of(c)}}, {{"x-amz-checksum-crc32", "AAAAAA=="}})
                .code(),
            "BadDigest");
  const std::string whole = base64_digest(Algorithm::kCrc32, a + c);
  const Answer done =
      complete(id, {{1, etag_of(a)}, {2, etag_of(c)}},
               {{"x-amz-checksum-crc32", whole}, {"x-amz-checksum-type", "FULL_OBJECT"}});
  EXPECT_EQ(done.element("ChecksumCRC32"), whole);
  const Answer attributes =
      get({{"x-amz-object-attributes", "Checksum,ObjectParts"}}, "?attributes");
  EXPECT_EQ(attributes.element("PartsCount"), "2");
  EXPECT_EQ(attributes.element("Part"), "");
}

TEST_F(MultipartTest, ChecksumsOfTheTransferAlone) {
  // SDKs send CRC32 with parts of uploads that named no algorithm: verified, and the object gets
  // the default.
  const std::string id = create();
  const Answer sent =
      part(id, "1", a, {{"x-amz-checksum-crc32", base64_digest(Algorithm::kCrc32, a)}});
  EXPECT_EQ(sent.status, 200);
  EXPECT_EQ(part(id, "1", a, {{"x-amz-checksum-crc32", "AAAAAA=="}}).code(), "BadDigest");
  const Answer done = complete(
      id, {{1, etag_of(a)}}, {},
      fmt::format("<ChecksumCRC32>{}</ChecksumCRC32>", base64_digest(Algorithm::kCrc32, a)));
  EXPECT_EQ(done.element("ChecksumCRC64NVME"), base64_digest(Algorithm::kCrc64Nvme, a));
}

TEST_F(MultipartTest, ListParts) {
  const std::string id = create({{"x-amz-storage-class", "STANDARD_IA"}});
  EXPECT_EQ(list(id).element("IsTruncated"), "false");
  for (const int number : {1, 2, 256, 300, 10000})
    EXPECT_EQ(part(id, std::to_string(number), c).status, 200);
  const Answer all = list(id);
  EXPECT_EQ(all.elements("PartNumber"),
            (std::vector<std::string>{"1", "2", "256", "300", "10000"}));
  EXPECT_EQ(all.element("StorageClass"), "STANDARD_IA");
  EXPECT_EQ(all.element("MaxParts"), "1000");
  EXPECT_EQ(all.element("NextPartNumberMarker"), "10000");
  EXPECT_EQ(all.element("Initiator"), "<ID>alice-id</ID><DisplayName>Alice</DisplayName>");
  EXPECT_EQ(all.element("Owner"), "<ID>alice-id</ID><DisplayName>Alice</DisplayName>");
  EXPECT_EQ(all.elements("Size").at(0), "3");
  const Answer page = list(id, "&max-parts=2&part-number-marker=1");
  EXPECT_EQ(page.elements("PartNumber"), (std::vector<std::string>{"2", "256"}));
  EXPECT_EQ(page.element("IsTruncated"), "true");
  EXPECT_EQ(page.element("NextPartNumberMarker"), "256");
  EXPECT_EQ(page.element("PartNumberMarker"), "1");
  EXPECT_EQ(list(id, "&part-number-marker=10000").elements("PartNumber").size(), 0u);
  EXPECT_EQ(list(id, "&max-parts=0").elements("PartNumber").size(), 0u);
  EXPECT_EQ(list(id, "&max-parts=x").code(), "InvalidArgument");
  EXPECT_EQ(list(id, "&max-parts=-1").code(), "InvalidArgument");
  EXPECT_EQ(list(id, "&max-parts=5000").element("MaxParts"), "1000");
  EXPECT_EQ(list(std::string(32, 'a')).code(), "NoSuchUpload");
}

TEST_F(MultipartTest, Abort) {
  const std::string id = create();
  part(id, "1", a);
  EXPECT_EQ(world.ask(as_bob({.method = "DELETE", .target = "/bucket/key?uploadId=" + id})).code(),
            "AccessDenied");
  EXPECT_EQ(abort(id).status, 204);
  EXPECT_EQ(abort(id).code(), "NoSuchUpload");
  EXPECT_EQ(part(id, "1", a).code(), "NoSuchUpload");
  EXPECT_EQ(list(id).code(), "NoSuchUpload");
  EXPECT_EQ(abort("nonsense").code(), "NoSuchUpload");
  EXPECT_EQ(world.ask("DELETE", "/bucket").status, 204);
}

TEST_F(MultipartTest, PartNumbersAndUploadIds) {
  const std::string id = create();
  for (const std::string number : {"0", "10001", "-1", "x", "", "1.5", "99999999999"}) {
    EXPECT_EQ(part(id, number, c).code(), "InvalidArgument") << number;
  }
  EXPECT_EQ(part(std::string(32, '0'), "1", c).code(), "NoSuchUpload");
  std::string upper = id;
  for (char& character : upper)
    character = static_cast<char>(std::toupper(static_cast<unsigned char>(character)));
  if (upper != id) {
    EXPECT_EQ(part(upper, "1", c).code(), "NoSuchUpload");
  }
  // An id belongs to its key.
  EXPECT_EQ(world.ask("PUT", "/bucket/other?partNumber=1&uploadId=" + id, "x").code(),
            "NoSuchUpload");
  EXPECT_EQ(part(id, "1", c, {{"Content-MD5", "AAAAAAAAAAAAAAAAAAAAAA=="}}).code(), "BadDigest");
  EXPECT_EQ(list(id).elements("PartNumber").size(), 0u);
}

TEST_F(MultipartTest, PartCopies) {
  EXPECT_EQ(
      world.ask({.method = "PUT", .target = "/bucket/source", .body = b, .piece = 100'000}).status,
      200);
  const std::string id = create();
  const Answer whole = part_copy(id, "1", "/bucket/source");
  EXPECT_EQ(whole.status, 200) << whole.body;
  EXPECT_EQ(whole.element("ETag"), "&quot;" + etag_of(b).substr(1, 32) + "&quot;");
  EXPECT_EQ(whole.element("LastModified"), "2026-11-21T02:01:00.000Z");
  const Answer range =
      part_copy(id, "2", "bucket/source", {{"x-amz-copy-source-range", "bytes=10-99"}});
  EXPECT_EQ(range.element("ETag"), "&quot;" + etag_of(b.substr(10, 90)).substr(1, 32) + "&quot;");
  for (const std::string refused :
       {"bytes=0-", "bytes=-5", "0-5", "bytes=5-2", "bytes=0-99999999"}) {
    EXPECT_EQ(part_copy(id, "3", "bucket/source", {{"x-amz-copy-source-range", refused}}).code(),
              "InvalidArgument");
  }
  EXPECT_EQ(part_copy(id, "3", "bucket/none").code(), "NoSuchKey");
  EXPECT_EQ(part_copy(id, "3", "none/source").code(), "NoSuchBucket");
  EXPECT_EQ(part_copy(id, "0", "bucket/source").code(), "InvalidArgument");
  EXPECT_EQ(part_copy(std::string(32, '0'), "1", "bucket/source").code(), "NoSuchUpload");
  EXPECT_EQ(part_copy(id, "3", "bucket/source", {{"x-amz-copy-source-if-match", "\"x\""}}).status,
            412);
  EXPECT_EQ(complete(id, {{1, etag_of(b)}, {2, etag_of(b.substr(10, 90))}}).status, 200);
  EXPECT_TRUE(get().body == b + b.substr(10, 90));
}

}  // namespace
}  // namespace basalt::s3
