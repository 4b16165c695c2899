// PutObject, GetObject, HeadObject, DeleteObject, CopyObject and GetObjectAttributes against the
// whole layer.
#include <gtest/gtest.h>

#include "protocol/s3/object_reader.h"
#include "tests/unit/s3/s3_world.h"

namespace basalt::s3 {
namespace {

using auth::Algorithm;
using testing::anonymous;
using testing::Answer;
using testing::as_bob;
using testing::Ask;
using testing::base64_digest;
using testing::World;
using Headers = std::vector<std::pair<std::string, std::string>>;

constexpr std::string_view kHelloTag = "\"5d41402abc4b2a76b9719d911017c592\"";

std::string pattern(size_t size) {
  std::string text(size, '\0');
  uint32_t state = 12345;
  for (char& c : text) {
    state = state * 1664525 + 1013904223;
    c = static_cast<char>(state >> 24);
  }
  return text;
}

std::string etag_of(std::string_view text) {
  return "\"" + auth::to_hex(auth::digest(Algorithm::kMd5, as_bytes(text)).view()) + "\"";
}

class ObjectsTest : public ::testing::Test {
 protected:
  ObjectsTest() { EXPECT_EQ(world.ask("PUT", "/bucket").status, 200); }
  Answer put(const std::string& key, std::string body, Headers headers = {}) {
    return world.ask({.method = "PUT",
                      .target = "/bucket/" + key,
                      .headers = std::move(headers),
                      .body = std::move(body),
                      .piece = 40'000});
  }
  Answer get(const std::string& key, Headers headers = {}) {
    return world.ask({.method = "GET", .target = "/bucket/" + key, .headers = std::move(headers)});
  }
  Answer head(const std::string& key, Headers headers = {}) {
    return world.ask({.method = "HEAD", .target = "/bucket/" + key, .headers = std::move(headers)});
  }
  Answer copy(const std::string& source, const std::string& key, Headers headers = {}) {
    headers.emplace_back("x-amz-copy-source", source);
    return put(key, "", std::move(headers));
  }
  World world{4};
};

// A blob is sealed while the last digests are computed: what does not verify leaves nothing.
TEST_F(ObjectsTest, ALargeBodyThatDoesNotVerifyIsNotStored) {
  const std::string body = pattern(3'000'000);
  ASSERT_EQ(put("k", body).status, 200);
  const std::string other = pattern(2'999'999);
  const Answer bad =
      put("k", other, {{"content-md5", base64_digest(Algorithm::kMd5, "something else")}});
  EXPECT_EQ(bad.code(), "BadDigest");
  const Answer cut = world.ask({.method = "PUT",
                                .target = "/bucket/k",
                                .headers = {{"content-length", "4000000"}},
                                .body = body,
                                .piece = 40'000,
                                .cut = true});
  EXPECT_EQ(cut.code(), "IncompleteBody");
  EXPECT_EQ(get("k").body, body);
}

TEST_F(ObjectsTest, PutAndGetOfEverySize) {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{511}, size_t{512}, size_t{513},
                            size_t{131072}, size_t{131073}, size_t{1'000'000}, size_t{5'000'001}}) {
    const std::string body = pattern(size);
    const Answer stored = put("key", body);
    ASSERT_EQ(stored.status, 200) << size << stored.body;
    EXPECT_EQ(stored.header("ETag"), etag_of(body));
    EXPECT_EQ(stored.header("x-amz-checksum-crc64nvme"),
              base64_digest(Algorithm::kCrc64Nvme, body));
    EXPECT_EQ(stored.header("x-amz-checksum-type"), "FULL_OBJECT");
    const Answer read = get("key");
    EXPECT_EQ(read.status, 200);
    EXPECT_TRUE(read.complete);
    EXPECT_TRUE(read.body == body) << size;
    EXPECT_EQ(read.header("Content-Length"), std::to_string(size));
    EXPECT_EQ(read.header("ETag"), etag_of(body));
    EXPECT_EQ(read.header("Last-Modified"), "Sat, 21 Nov 2026 02:01:00 GMT");
    EXPECT_EQ(read.header("Accept-Ranges"), "bytes");
    EXPECT_EQ(read.header("Content-Type"), "binary/octet-stream");
    const Answer headed = head("key");
    EXPECT_EQ(headed.status, 200);
    EXPECT_EQ(headed.header("Content-Length"), std::to_string(size));
    EXPECT_EQ(headed.body, "");
  }
}

// Of the windows that are read ahead those that find no memory are read when their turn comes.
TEST_F(ObjectsTest, LargeReadsWithLittleMemory) {
  const std::string body = pattern(2'500'000);
  ASSERT_EQ(put("key", body).status, 200);
  std::vector<Buffer> held;
  for (Buffer one = world.buffers().take(kReadWindowBytes); one;
       one = world.buffers().take(kReadWindowBytes)) {
    held.push_back(std::move(one));
  }
  EXPECT_EQ(get("key").status, 503);
  for (int windows = 1; windows <= 8; ++windows) {
    held.pop_back();
    EXPECT_EQ(get("key").body, body) << windows;
    EXPECT_EQ(get("key", {{"Range", "bytes=70000-1900000"}}).body, body.substr(70000, 1830001));
  }
  held.clear();
  EXPECT_EQ(get("key").body, body);
  EXPECT_EQ(world.buffers().bytes_in_use(), 0u);
}

TEST_F(ObjectsTest, KeysAreOpaque) {
  const std::vector<std::string> keys = {"..",    "../x", "a//b", "/lead", "a/",
                                         "a",     "a/b",  "%20",  "+",     "%E2%82%AC",
                                         "a%3Fb", "%01",  ".",    "a/./b", std::string(1024, 'k')};
  for (const std::string& key : keys) EXPECT_EQ(put(key, "body of " + key).status, 200) << key;
  for (const std::string& key : keys) EXPECT_EQ(get(key).body, "body of " + key) << key;
  EXPECT_EQ(put(std::string(1025, 'k'), "x").code(), "KeyTooLongError");
}

TEST_F(ObjectsTest, MetadataComesBack) {
  EXPECT_EQ(put("key", "hello",
                {{"Content-Type", "text/plain; charset=utf-8"},
                 {"Cache-Control", "no-cache"},
                 {"Content-Disposition", "attachment; filename=\"x\""},
                 {"Content-Encoding", "gzip"},
                 {"Content-Language", "en"},
                 {"Expires", "Thu, 01 Dec 2033 16:00:00 GMT"},
                 {"X-Amz-Meta-Colour", "red"},
                 {"x-amz-meta-utf8", "\xC3\xA9"},
                 {"x-amz-storage-class", "STANDARD_IA"},
                 {"x-amz-website-redirect-location", "/other"},
                 {"x-amz-tagging", "a=b&c=d%20e"}})
                .status,
            200);
  for (const Answer& answer : {get("key"), head("key")}) {
    EXPECT_EQ(answer.header("Content-Type"), "text/plain; charset=utf-8");
    EXPECT_EQ(answer.header("Cache-Control"), "no-cache");
    EXPECT_EQ(answer.header("Content-Disposition"), "attachment; filename=\"x\"");
    EXPECT_EQ(answer.header("Content-Encoding"), "gzip");
    EXPECT_EQ(answer.header("Content-Language"), "en");
    EXPECT_EQ(answer.header("Expires"), "Thu, 01 Dec 2033 16:00:00 GMT");
    EXPECT_EQ(answer.header("x-amz-meta-colour"), "red");
    EXPECT_EQ(answer.header("x-amz-meta-utf8"), "\xC3\xA9");
    EXPECT_EQ(answer.header("x-amz-storage-class"), "STANDARD_IA");
    EXPECT_EQ(answer.header("x-amz-website-redirect-location"), "/other");
    EXPECT_EQ(answer.header("x-amz-tagging-count"), "2");
  }
  // An overwrite replaces all of it.
  put("key", "hello", {{"x-amz-storage-class", "STANDARD"}});
  const Answer plain = get("key");
  EXPECT_FALSE(plain.has("x-amz-meta-colour"));
  EXPECT_FALSE(plain.has("x-amz-storage-class"));
  EXPECT_FALSE(plain.has("Cache-Control"));
  EXPECT_FALSE(plain.has("x-amz-tagging-count"));
}

TEST_F(ObjectsTest, MetadataLimits) {
  EXPECT_EQ(put("key", "x", {{"x-amz-meta-a", std::string(2047, 'v')}}).status, 200);
  EXPECT_EQ(put("key", "x", {{"x-amz-meta-a", std::string(2048, 'v')}}).code(), "MetadataTooLarge");
  EXPECT_EQ(put("key", "x", {{"x-amz-storage-class", "COLD"}}).code(), "InvalidStorageClass");
  EXPECT_EQ(put("key", "x", {{"x-amz-website-redirect-location", "other"}}).code(),
            "InvalidArgument");
  std::string tags;
  for (int i = 0; i < 11; ++i) tags += "k" + std::to_string(i) + "=v&";
  EXPECT_EQ(put("key", "x", {{"x-amz-tagging", tags}}).code(), "InvalidTag");
  EXPECT_EQ(put("key", "x", {{"x-amz-tagging", std::string(129, 'k') + "=v"}}).code(),
            "InvalidTag");
  EXPECT_EQ(put("key", "x", {{"x-amz-tagging", "k=" + std::string(257, 'v')}}).code(),
            "InvalidTag");
  EXPECT_EQ(put("key", "x", {{"x-amz-tagging", "a=b&a=c"}}).code(), "InvalidArgument");
  EXPECT_EQ(put("key", "x", {{"x-amz-tagging", "foo=bar&bar"}}).status, 200);
}

TEST_F(ObjectsTest, WhatWeDoNotDoIsRefused) {
  EXPECT_EQ(put("key", "x", {{"x-amz-server-side-encryption", "AES256"}}).code(), "NotImplemented");
  EXPECT_EQ(put("key", "x", {{"x-amz-server-side-encryption-customer-algorithm", "AES256"}}).code(),
            "NotImplemented");
  EXPECT_EQ(put("key", "x", {{"x-amz-object-lock-mode", "COMPLIANCE"}}).code(), "InvalidRequest");
  EXPECT_EQ(put("key", "x", {{"x-amz-acl", "public-read"}}).code(),
            "AccessControlListNotSupported");
  EXPECT_EQ(put("key", "x", {{"x-amz-acl", "everyone"}}).code(), "InvalidArgument");
  EXPECT_EQ(put("key", "x", {{"x-amz-grant-read", "id=1"}}).code(),
            "AccessControlListNotSupported");
  EXPECT_EQ(put("key", "x", {{"x-amz-acl", "bucket-owner-full-control"}}).status, 200);
  EXPECT_EQ(get("key", {{"x-amz-server-side-encryption-customer-algorithm", "AES256"}}).code(),
            "InvalidRequest");
}

TEST_F(ObjectsTest, MissingThings) {
  const Answer missing = get("nothing");
  EXPECT_EQ(missing.status, 404);
  EXPECT_EQ(missing.code(), "NoSuchKey");
  EXPECT_EQ(missing.element("Key"), "nothing");
  EXPECT_EQ(head("nothing").status, 404);
  EXPECT_EQ(world.ask("GET", "/nobucket/key").code(), "NoSuchBucket");
  EXPECT_EQ(world.ask(as_bob({.target = "/bucket/nothing"})).code(), "AccessDenied");
  EXPECT_EQ(world.ask(anonymous({.target = "/bucket/nothing"})).code(), "AccessDenied");
}

TEST_F(ObjectsTest, FailedUploadsLeaveNothing) {
  for (const size_t size : {size_t{100}, size_t{400'000}}) {
    const std::string body = pattern(size);
    EXPECT_EQ(put("key", body, {{"Content-MD5", "AAAAAAAAAAAAAAAAAAAAAA=="}}).code(), "BadDigest");
    EXPECT_EQ(get("key").status, 404);
    Ask cut{.method = "PUT", .target = "/bucket/key", .body = body, .cut = true};
    cut.headers.emplace_back("content-length", std::to_string(size + 1));
    world.ask(cut);
    EXPECT_EQ(get("key").status, 404);
  }
}

TEST_F(ObjectsTest, Checksums) {
  for (const auto& [header, algorithm] : std::vector<std::pair<std::string, Algorithm>>{
           {"x-amz-checksum-crc32", Algorithm::kCrc32},
           {"x-amz-checksum-crc32c", Algorithm::kCrc32c},
           {"x-amz-checksum-crc64nvme", Algorithm::kCrc64Nvme},
           {"x-amz-checksum-sha1", Algorithm::kSha1},
           {"x-amz-checksum-sha256", Algorithm::kSha256}}) {
    const std::string value = base64_digest(algorithm, "hello");
    const Answer stored = put("key", "hello", {{header, value}});
    EXPECT_EQ(stored.header(header), value);
    EXPECT_FALSE(get("key").has(header));
    const Answer read = get("key", {{"x-amz-checksum-mode", "ENABLED"}});
    EXPECT_EQ(read.header(header), value);
    EXPECT_EQ(read.header("x-amz-checksum-type"), "FULL_OBJECT");
    EXPECT_EQ(head("key", {{"x-amz-checksum-mode", "ENABLED"}}).header(header), value);
    EXPECT_FALSE(
        get("key", {{"x-amz-checksum-mode", "ENABLED"}, {"Range", "bytes=0-1"}}).has(header));
    EXPECT_EQ(put("key", "hellO", {{header, value}}).code(), "BadDigest");
  }
}

TEST_F(ObjectsTest, Ranges) {
  const std::string body = pattern(2'500'000);
  ASSERT_EQ(put("key", body).status, 200);
  for (const auto& [range, first, length] : std::vector<std::tuple<std::string, size_t, size_t>>{
           {"bytes=0-0", 0, 1},
           {"bytes=65535-65536", 65535, 2},
           {"bytes=100000-1200000", 100000, 1100001},
           {"bytes=-10", 2499990, 10},
           {"bytes=2400000-", 2400000, 100000},
           {"bytes=0-99999999", 0, 2500000}}) {
    const Answer part = get("key", {{"Range", range}});
    EXPECT_EQ(part.status, 206) << range;
    EXPECT_TRUE(part.body == body.substr(first, length)) << range;
    EXPECT_EQ(part.header("Content-Range"),
              fmt::format("bytes {}-{}/2500000", first, first + length - 1));
  }
  const Answer none = get("key", {{"Range", "bytes=2500000-"}});
  EXPECT_EQ(none.status, 416);
  EXPECT_EQ(none.code(), "InvalidRange");
  EXPECT_EQ(none.header("Content-Range"), "bytes */2500000");
  EXPECT_EQ(none.element("ActualObjectSize"), "2500000");
  EXPECT_EQ(none.element("RangeRequested"), "bytes=2500000-");
  EXPECT_FALSE(none.has("ETag"));
  EXPECT_EQ(head("key", {{"Range", "bytes=2500000-"}}).status, 416);
  for (const std::string range : {"bytes=0-1,3-4", "bytes=5-2", "lines=1-2"}) {
    EXPECT_EQ(get("key", {{"Range", range}}).status, 200) << range;
  }
  EXPECT_EQ(get("key", {{"Range", "bytes=0-1"}, {"If-Range", etag_of(body)}}).status, 206);
  EXPECT_EQ(get("key", {{"Range", "bytes=0-1"}, {"If-Range", "\"other\""}}).status, 200);
  EXPECT_EQ(
      get("key", {{"Range", "bytes=0-1"}, {"If-Range", "Sat, 21 Nov 2026 02:01:00 GMT"}}).status,
      206);
  EXPECT_EQ(
      get("key", {{"Range", "bytes=0-1"}, {"If-Range", "Sat, 21 Nov 2026 02:01:01 GMT"}}).status,
      200);
}

TEST_F(ObjectsTest, PartNumberOfAPlainObject) {
  put("key", "hello");
  const Answer one = get("key?partNumber=1");
  EXPECT_EQ(one.status, 206);
  EXPECT_EQ(one.body, "hello");
  EXPECT_FALSE(one.has("x-amz-mp-parts-count"));
  EXPECT_EQ(get("key?partNumber=2").code(), "InvalidPartNumber");
  EXPECT_EQ(get("key?partNumber=2").status, 416);
  EXPECT_EQ(get("key?partNumber=0").code(), "InvalidArgument");
  EXPECT_EQ(get("key?partNumber=1", {{"Range", "bytes=0-1"}}).code(), "InvalidRequest");
}

TEST_F(ObjectsTest, ConditionalReads) {
  put("key", "hello");
  const std::string tag(kHelloTag), before = "Sat, 21 Nov 2026 02:00:59 GMT",
                                    at = "Sat, 21 Nov 2026 02:01:00 GMT";
  EXPECT_EQ(get("key", {{"If-Match", tag}}).status, 200);
  const Answer failed = get("key", {{"If-Match", "\"other\""}});
  EXPECT_EQ(failed.status, 412);
  EXPECT_EQ(failed.code(), "PreconditionFailed");
  EXPECT_EQ(failed.element("Condition"), "If-Match");
  const Answer same = get("key", {{"If-None-Match", tag}});
  EXPECT_EQ(same.status, 304);
  EXPECT_EQ(same.body, "");
  EXPECT_EQ(same.header("ETag"), tag);
  EXPECT_TRUE(same.has("Last-Modified"));
  EXPECT_FALSE(same.has("Content-Length"));
  EXPECT_EQ(get("key", {{"If-Modified-Since", at}}).status, 304);
  EXPECT_EQ(get("key", {{"If-Modified-Since", before}}).status, 200);
  EXPECT_EQ(get("key", {{"If-Unmodified-Since", before}}).status, 412);
  EXPECT_EQ(get("key", {{"If-Match", tag}, {"If-Unmodified-Since", before}}).status, 200);
  EXPECT_EQ(get("key", {{"If-None-Match", "\"other\""}, {"If-Modified-Since", at}}).status, 200);
  EXPECT_EQ(head("key", {{"If-Match", "\"other\""}}).status, 412);
  EXPECT_EQ(head("key", {{"If-None-Match", tag}}).status, 304);
}

TEST_F(ObjectsTest, ResponseOverrides) {
  put("key", "hello", {{"Content-Type", "text/plain"}});
  const Answer answer =
      get("key?response-cache-control=no-store&response-content-type=text%2Fhtml");
  EXPECT_EQ(answer.header("Content-Type"), "text/html");
  EXPECT_EQ(answer.header("Cache-Control"), "no-store");
  EXPECT_EQ(get("key?response-content-type=a%0D%0Ax-evil%3A1").code(), "InvalidArgument");
}

TEST_F(ObjectsTest, ConditionalWrites) {
  EXPECT_EQ(put("key", "hello", {{"If-Match", "\"x\""}}).code(), "NoSuchKey");
  EXPECT_EQ(put("key", "hello", {{"If-None-Match", "*"}}).status, 200);
  EXPECT_EQ(put("key", "again", {{"If-None-Match", "*"}}).code(), "PreconditionFailed");
  EXPECT_EQ(put("key", "again", {{"If-Match", "\"x\""}}).code(), "PreconditionFailed");
  EXPECT_EQ(get("key").body, "hello");
  EXPECT_EQ(put("key", "again", {{"If-Match", std::string(kHelloTag)}}).status, 200);
  EXPECT_EQ(put("key", "third", {{"If-Match", "*"}}).status, 200);
  EXPECT_EQ(put("key", "x", {{"If-None-Match", "\"x\""}}).code(), "NotImplemented");
  EXPECT_EQ(get("key").body, "third");
}

TEST_F(ObjectsTest, Delete) {
  put("key", "hello");
  EXPECT_EQ(world.ask("DELETE", "/bucket/key").status, 204);
  EXPECT_EQ(get("key").status, 404);
  EXPECT_EQ(world.ask("DELETE", "/bucket/key").status, 204);
  put("key", "hello");
  const auto remove = [&](std::string tag) {
    return world.ask(
        {.method = "DELETE", .target = "/bucket/key", .headers = {{"If-Match", std::move(tag)}}});
  };
  EXPECT_EQ(remove("\"x\"").code(), "PreconditionFailed");
  EXPECT_EQ(remove(std::string(kHelloTag)).status, 204);
  EXPECT_EQ(remove("*").code(), "NoSuchKey");
  EXPECT_EQ(world.ask("DELETE", "/bucket/key?versionId=null").status, 204);
  EXPECT_EQ(world.ask("DELETE", "/bucket/key?versionId=1").code(), "InvalidArgument");
}

TEST_F(ObjectsTest, VersionIds) {
  put("key", "hello");
  EXPECT_EQ(get("key?versionId=null").body, "hello");
  EXPECT_EQ(get("key?versionId=" + std::string(32, 'v')).code(), "NoSuchVersion");
  EXPECT_EQ(get("key?versionId=1").code(), "InvalidArgument");
}

TEST_F(ObjectsTest, CopyCarriesEverything) {
  for (const size_t size : {size_t{0}, size_t{5}, size_t{300'000}, size_t{3'000'000}}) {
    const std::string body = pattern(size);
    put("source", body,
        {{"x-amz-meta-colour", "red"},
         {"Content-Type", "text/plain"},
         {"x-amz-tagging", "a=b"},
         {"x-amz-checksum-sha1", base64_digest(Algorithm::kSha1, body)},
         {"x-amz-storage-class", "GLACIER_IR"}});
    const Answer copied = copy("/bucket/source", "copy");
    ASSERT_EQ(copied.status, 200) << copied.body;
    EXPECT_EQ(copied.element("LastModified"), "2026-11-21T02:01:00.000Z");
    EXPECT_EQ(copied.element("ChecksumSHA1"), base64_digest(Algorithm::kSha1, body));
    const Answer read = get("copy");
    EXPECT_TRUE(read.body == body);
    EXPECT_EQ(read.header("ETag"), etag_of(body));
    EXPECT_EQ(read.header("x-amz-meta-colour"), "red");
    EXPECT_EQ(read.header("Content-Type"), "text/plain");
    EXPECT_EQ(read.header("x-amz-tagging-count"), "1");
    EXPECT_FALSE(read.has("x-amz-storage-class"));
  }
  const Answer computed = copy("bucket/source", "copy", {{"x-amz-checksum-algorithm", "CRC32"}});
  EXPECT_EQ(computed.element("ChecksumCRC32"),
            base64_digest(Algorithm::kCrc32, pattern(3'000'000)));
}

TEST_F(ObjectsTest, CopyReplaces) {
  put("source", "hello", {{"x-amz-meta-colour", "red"}, {"x-amz-tagging", "a=b"}});
  EXPECT_EQ(copy("bucket/source", "copy",
                 {{"x-amz-metadata-directive", "REPLACE"},
                  {"x-amz-meta-size", "big"},
                  {"Content-Type", "a/b"}})
                .status,
            200);
  const Answer read = get("copy");
  EXPECT_FALSE(read.has("x-amz-meta-colour"));
  EXPECT_EQ(read.header("x-amz-meta-size"), "big");
  EXPECT_EQ(read.header("Content-Type"), "a/b");
  EXPECT_EQ(read.header("x-amz-tagging-count"), "1");
  EXPECT_EQ(copy("bucket/source", "copy", {{"x-amz-tagging-directive", "REPLACE"}}).status, 200);
  EXPECT_FALSE(get("copy").has("x-amz-tagging-count"));
  EXPECT_EQ(copy("bucket/source", "copy", {{"x-amz-metadata-directive", "MOVE"}}).code(),
            "InvalidArgument");
}

TEST_F(ObjectsTest, CopyOntoItself) {
  const std::string body = pattern(700'000);
  put("key", body);
  EXPECT_EQ(copy("bucket/key", "key").code(), "InvalidRequest");
  EXPECT_EQ(
      copy("bucket/key", "key", {{"x-amz-metadata-directive", "REPLACE"}, {"x-amz-meta-a", "b"}})
          .status,
      200);
  EXPECT_EQ(copy("bucket/key", "key", {{"x-amz-storage-class", "STANDARD_IA"}}).status, 200);
  const Answer read = get("key");
  EXPECT_TRUE(read.body == body);
  EXPECT_EQ(read.header("x-amz-meta-a"), "b");
  EXPECT_EQ(read.header("x-amz-storage-class"), "STANDARD_IA");
}

TEST_F(ObjectsTest, CopySources) {
  put("key", "hello");
  EXPECT_EQ(copy("nobucket/key", "copy").code(), "NoSuchBucket");
  EXPECT_EQ(copy("bucket/nokey", "copy").code(), "NoSuchKey");
  EXPECT_EQ(copy("bucket", "copy").code(), "InvalidArgument");
  EXPECT_EQ(copy("bucket/key?versionId=null", "copy").status, 200);
  EXPECT_EQ(copy("bucket/key?versionId=1", "copy").code(), "InvalidArgument");
  // Another account's bucket: the same answer whether the key is there or not.
  EXPECT_EQ(world.ask(as_bob({.method = "PUT", .target = "/bobs"})).status, 200);
  for (const std::string source : {"bucket/key", "bucket/nokey"}) {
    EXPECT_EQ(
        world
            .ask(as_bob(
                {.method = "PUT", .target = "/bobs/x", .headers = {{"x-amz-copy-source", source}}}))
            .code(),
        "AccessDenied");
  }
  EXPECT_EQ(copy("bucket/key", "copy", {{"x-amz-copy-source-if-match", "\"x\""}}).code(),
            "PreconditionFailed");
  EXPECT_EQ(
      copy("bucket/key", "copy", {{"x-amz-copy-source-if-none-match", std::string(kHelloTag)}})
          .status,
      412);
  EXPECT_EQ(
      copy("bucket/key", "copy", {{"x-amz-copy-source-if-match", std::string(kHelloTag)}}).status,
      200);
  EXPECT_EQ(copy("bucket/key", "copy", {{"If-None-Match", "*"}}).code(), "PreconditionFailed");
  EXPECT_EQ(copy("bucket/key", "new", {{"If-None-Match", "*"}}).status, 200);
}

TEST_F(ObjectsTest, Attributes) {
  put("key", "hello", {{"x-amz-checksum-crc32", base64_digest(Algorithm::kCrc32, "hello")}});
  const Answer all =
      get("key?attributes",
          {{"x-amz-object-attributes", "ETag,Checksum,ObjectParts,StorageClass,ObjectSize"}});
  EXPECT_EQ(all.body,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<GetObjectAttributesResponse "
            "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/"
            "\"><ETag>5d41402abc4b2a76b9719d911017c592</ETag>"
            "<Checksum><ChecksumCRC32>NhCmhg==</ChecksumCRC32><ChecksumType>FULL_OBJECT</"
            "ChecksumType></Checksum>"
            "<StorageClass>STANDARD</StorageClass><ObjectSize>5</ObjectSize></"
            "GetObjectAttributesResponse>");
  EXPECT_TRUE(all.has("Last-Modified"));
  const Answer size = get("key?attributes", {{"x-amz-object-attributes", "ObjectSize"}});
  EXPECT_EQ(size.element("ObjectSize"), "5");
  EXPECT_EQ(size.element("ETag"), "");
  EXPECT_EQ(get("key?attributes").code(), "InvalidArgument");
  EXPECT_EQ(get("key?attributes", {{"x-amz-object-attributes", "Colour"}}).code(),
            "InvalidArgument");
  EXPECT_EQ(get("none?attributes", {{"x-amz-object-attributes", "ETag"}}).code(), "NoSuchKey");
}

}  // namespace
}  // namespace basalt::s3
