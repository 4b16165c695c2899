// ListObjects, ListObjectsV2, ListMultipartUploads and DeleteObjects against the whole layer.
#include "protocol/s3/listing_output.h"
#include "tests/unit/s3/s3_world.h"

namespace basalt::s3 {
namespace {

using testing::Answer;
using testing::Ask;
using testing::World;
using Names = std::vector<std::string>;

std::string encoded(std::string_view text) { return url_encode(text, false); }

class ListingTest : public ::testing::Test {
 protected:
  ListingTest() { EXPECT_EQ(world.ask("PUT", "/bucket").status, 200); }
  void put(std::string_view key, std::string body = "x") {
    EXPECT_EQ(world.ask("PUT", "/bucket/" + encoded(key), std::move(body)).status, 200) << key;
  }
  void put_all(std::initializer_list<std::string_view> keys) {
    for (const auto key : keys) put(key);
  }
  Answer list(std::string_view query = "") {
    return world.ask("GET", fmt::format("/bucket?{}", query));
  }
  Answer list2(std::string_view query = "") {
    return world.ask("GET", fmt::format("/bucket?list-type=2&{}", query));
  }
  static Names prefixes(const Answer& answer) {
    Names names;
    for (const std::string& element : answer.elements("CommonPrefixes")) {
      names.push_back(element.substr(8, element.size() - 17));
    }
    return names;
  }
  World world{4};
};

TEST_F(ListingTest, EmptyBucket) {
  EXPECT_EQ(list().body,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
            "<ListBucketResult "
            "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>bucket</Name><Prefix></Prefix>"
            "<Marker></Marker><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated></"
            "ListBucketResult>");
  EXPECT_EQ(list2().body,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
            "<ListBucketResult "
            "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>bucket</Name><Prefix></Prefix>"
            "<KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated></"
            "ListBucketResult>");
}

TEST_F(ListingTest, Contents) {
  put("key", "hello");
  const Answer v1 = list();
  EXPECT_EQ(v1.elements("Key"), Names{"key"});
  EXPECT_EQ(v1.element("ETag"), "&quot;5d41402abc4b2a76b9719d911017c592&quot;");
  EXPECT_EQ(v1.element("Size"), "5");
  EXPECT_EQ(v1.element("LastModified"), "2026-11-21T02:01:00.000Z");
  EXPECT_EQ(v1.element("StorageClass"), "STANDARD");
  EXPECT_NE(v1.body.find("<Owner><ID>alice-id</ID><DisplayName>Alice</DisplayName></Owner>"),
            std::string::npos);
  EXPECT_EQ(list2().body.find("<Owner>"), std::string::npos);
  EXPECT_NE(list2("fetch-owner=true").body.find("<Owner>"), std::string::npos);
  EXPECT_EQ(v1.header("x-amz-bucket-region"), "us-east-1");
}

TEST_F(ListingTest, PrefixAndDelimiter) {
  put_all({"a", "a/b", "a/c/d", "b/x", "c", "photos/2026/a", "photos/2026/b", "photos/x"});
  Answer answer = list("delimiter=/");
  EXPECT_EQ(answer.elements("Key"), (Names{"a", "c"}));
  EXPECT_EQ(prefixes(answer), (Names{"a/", "b/", "photos/"}));
  EXPECT_EQ(answer.element("Delimiter"), "/");
  answer = list2("delimiter=/&prefix=photos/");
  EXPECT_EQ(answer.elements("Key"), Names{"photos/x"});
  EXPECT_EQ(prefixes(answer), Names{"photos/2026/"});
  EXPECT_EQ(answer.element("KeyCount"), "2");
  EXPECT_EQ(list("prefix=zzz").elements("Key"), Names{});
  EXPECT_EQ(list("delimiter=").elements("Key").size(), 8u);
  EXPECT_EQ(list("delimiter=").body.find("Delimiter"), std::string::npos);
  EXPECT_EQ(prefixes(list("delimiter=2026/a&prefix=ph")), Names{"photos/2026/a"});
}

TEST_F(ListingTest, MarkersAndPages) {
  put_all({"a", "b", "c/1", "c/2", "d", "e/1"});
  Answer page = list("max-keys=2");
  EXPECT_EQ(page.element("IsTruncated"), "true");
  EXPECT_FALSE(page.body.find("NextMarker") != std::string::npos);
  EXPECT_EQ(list("marker=b").elements("Key"), (Names{"c/1", "c/2", "d", "e/1"}));
  EXPECT_EQ(list("marker=bb").elements("Key")[0], "c/1");
  page = list("max-keys=3&delimiter=/");
  EXPECT_EQ(page.element("NextMarker"), "c/");
  page = list("max-keys=3&delimiter=/&marker=c/");
  EXPECT_EQ(page.elements("Key"), Names{"d"});
  EXPECT_EQ(prefixes(page), Names{"e/"});
  EXPECT_EQ(page.element("IsTruncated"), "false");
  EXPECT_EQ(list("max-keys=0").element("IsTruncated"), "false");
  EXPECT_EQ(list("max-keys=0").elements("Key"), Names{});
  EXPECT_EQ(list("max-keys=5000").element("MaxKeys"), "1000");
  for (const char* bad : {"max-keys=-1", "max-keys=x", "max-keys=1x", "max-keys=2147483648",
                          "encoding-type=base64"}) {
    EXPECT_EQ(list(bad).code(), "InvalidArgument") << bad;
    EXPECT_EQ(list2(bad).code(), "InvalidArgument") << bad;
  }
}

TEST_F(ListingTest, ContinuationTokens) {
  put_all({"a", "b", "c/1", "c/2", "d", "e/1", "f"});
  for (const char* delimiter : {"", "&delimiter=/"}) {
    Names seen;
    std::string token;
    for (int i = 0; i < 10; ++i) {
      const Answer page =
          list2(fmt::format("max-keys=2{}{}{}", delimiter,
                            token.empty() ? "" : "&continuation-token=", encoded(token)));
      if (!token.empty()) {
        EXPECT_EQ(page.element("ContinuationToken"), token);
      }
      for (const auto& key : page.elements("Key")) seen.push_back(key);
      for (const auto& prefix : prefixes(page)) seen.push_back(prefix);
      token = page.element("NextContinuationToken");
      EXPECT_EQ(token.empty(), page.element("IsTruncated") == "false");
      if (token.empty()) break;
    }
    std::sort(seen.begin(), seen.end());
    EXPECT_EQ(seen, *delimiter ? (Names{"a", "b", "c/", "d", "e/", "f"})
                               : (Names{"a", "b", "c/1", "c/2", "d", "e/1", "f"}));
  }
  for (const char* bad :
       {"continuation-token=", "continuation-token=abc", "continuation-token=AAAAAAAA"}) {
    EXPECT_EQ(list2(bad).code(), "InvalidArgument") << bad;
  }
  const Answer started = list2("start-after=c/1");
  EXPECT_EQ(started.elements("Key")[0], "c/2");
  EXPECT_EQ(started.element("StartAfter"), "c/1");
}

TEST(ListingTokens, RoundTripAndTampering) {
  const std::string token = encode_token(TokenKind::kObjects, "some/key");
  EXPECT_EQ(decode_token(TokenKind::kObjects, token), "some/key");
  EXPECT_EQ(decode_token(TokenKind::kBuckets, token), std::nullopt);
  for (size_t i = 0; i < token.size(); ++i) {
    std::string changed = token;
    changed[i] = changed[i] == 'A' ? 'B' : 'A';
    const auto decoded = decode_token(TokenKind::kObjects, changed);
    EXPECT_FALSE(decoded && *decoded == "some/key" && changed != token) << i;
  }
  EXPECT_EQ(decode_token(TokenKind::kObjects, std::string(5000, 'A')), std::nullopt);
  EXPECT_EQ(
      decode_token(TokenKind::kObjects, encode_token(TokenKind::kObjects, std::string(1024, 'k'))),
      std::string(1024, 'k'));
}

TEST_F(ListingTest, OddKeys) {
  put_all({"a b+c", "x&<y>", "\x01", "..", "/lead", "é"});
  Answer plain = list();
  EXPECT_EQ(plain.elements("Key"),
            (Names{"&#x1;", "..", "/lead", "a b+c", "x&amp;&lt;y&gt;", "é"}));
  Answer url = list("encoding-type=url&prefix=a%20b&delimiter=%2B");
  EXPECT_EQ(url.element("EncodingType"), "url");
  EXPECT_EQ(url.element("Delimiter"), "%2B");
  EXPECT_EQ(prefixes(url), Names{"a%20b%2B"});
  EXPECT_EQ(list("encoding-type=url").elements("Key"),
            (Names{"%01", "..", "/lead", "a%20b%2Bc", "x%26%3Cy%3E", "%C3%A9"}));
}

TEST_F(ListingTest, MoreThanAPage) {
  for (int i = 0; i < 1100; ++i) put(fmt::format("k{:05}", i));
  const Answer first = list2();
  EXPECT_EQ(first.elements("Key").size(), 1000u);
  EXPECT_EQ(first.element("KeyCount"), "1000");
  EXPECT_EQ(first.element("IsTruncated"), "true");
  const Answer rest =
      list2("continuation-token=" + encoded(first.element("NextContinuationToken")));
  EXPECT_EQ(rest.elements("Key").size(), 100u);
  EXPECT_EQ(rest.elements("Key").back(), "k01099");
}

// --- DeleteObjects

std::string delete_xml(std::string_view objects, bool quiet = false) {
  return fmt::format("<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{}{}</Delete>",
                     quiet ? "<Quiet>true</Quiet>" : "", objects);
}

class DeleteObjectsTest : public ListingTest {
 protected:
  Answer remove(std::string body, bool with_md5 = true) {
    Ask ask{.method = "POST", .target = "/bucket?delete", .body = std::move(body)};
    if (with_md5)
      ask.headers.emplace_back("content-md5",
                               testing::base64_digest(auth::Algorithm::kMd5, ask.body));
    return world.ask(std::move(ask));
  }
};

TEST_F(DeleteObjectsTest, InRequestOrder) {
  put_all({"a", "b", "c"});
  const Answer answer =
      remove(delete_xml("<Object><Key>c</Key></Object><Object><Key>missing</Key></"
                        "Object><Object><Key>a</Key></Object>"
                        "<Object><Key>a</Key></Object>"));
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.elements("Key"), (Names{"c", "missing", "a", "a"}));
  EXPECT_EQ(answer.elements("Deleted").size(), 4u);
  EXPECT_EQ(list().elements("Key"), Names{"b"});
}

TEST_F(DeleteObjectsTest, QuietAndErrors) {
  put("a");
  const std::string long_key(1025, 'k');
  const Answer answer =
      remove(delete_xml(fmt::format("<Object><Key>a</Key></Object><Object><Key>{}</Key></Object>"
                                    "<Object><Key>b</Key><VersionId>null</VersionId></Object>",
                                    long_key),
                        true));
  EXPECT_EQ(answer.elements("Deleted").size(), 0u);
  EXPECT_EQ(answer.elements("Error").size(), 1u);
  EXPECT_EQ(answer.element("Code"), "KeyTooLongError");
  EXPECT_EQ(list().elements("Key").size(), 0u);
}

TEST_F(DeleteObjectsTest, Conditions) {
  put("a", "hello");
  put("b", "hello");
  put("c", "hello");
  const Answer answer = remove(
      delete_xml("<Object><Key>a</Key><ETag>\"5d41402abc4b2a76b9719d911017c592\"</ETag></Object>"
                 "<Object><Key>b</Key><ETag>\"00000000000000000000000000000000\"</ETag></Object>"
                 "<Object><Key>c</Key><Size>6</Size></Object>"
                 "<Object><Key>gone</Key><ETag>*</ETag></Object>"));
  EXPECT_EQ(answer.elements("Deleted").size(), 2u);
  EXPECT_EQ(answer.elements("Code"), (Names{"PreconditionFailed", "PreconditionFailed"}));
  EXPECT_EQ(list().elements("Key"), (Names{"b", "c"}));
  EXPECT_EQ(remove(delete_xml("<Object><Key>c</Key><Size>5</Size>"
                              "<LastModifiedTime>2026-11-21T02:01:00Z</LastModifiedTime></Object>"))
                .elements("Deleted")
                .size(),
            1u);
}

TEST_F(DeleteObjectsTest, Refusals) {
  const std::string good = delete_xml("<Object><Key>a</Key></Object>");
  EXPECT_EQ(remove(good, false).code(), "InvalidRequest");
  EXPECT_EQ(remove(delete_xml("")).code(), "MalformedXML");
  EXPECT_EQ(remove("").code(), "MalformedXML");
  EXPECT_EQ(remove("<Delete>").code(), "MalformedXML");
  EXPECT_EQ(remove(delete_xml("<Object></Object>")).code(), "MalformedXML");
  EXPECT_EQ(remove(delete_xml("<Object><Key></Key></Object>")).code(), "MalformedXML");
  EXPECT_EQ(remove(delete_xml("<Bogus/>")).code(), "MalformedXML");
  std::string many;
  for (int i = 0; i < 1001; ++i) many += fmt::format("<Object><Key>k{}</Key></Object>", i);
  EXPECT_EQ(remove(delete_xml(many)).code(), "MalformedXML");
  Ask checksum{.method = "POST", .target = "/bucket?delete", .body = good};
  checksum.headers.emplace_back("x-amz-checksum-crc32",
                                testing::base64_digest(auth::Algorithm::kCrc32, good));
  EXPECT_EQ(world.ask(checksum).status, 200);
  checksum.headers.back().second = testing::base64_digest(auth::Algorithm::kCrc32, "other");
  EXPECT_EQ(world.ask(checksum).code(), "BadDigest");
}

TEST_F(DeleteObjectsTest, AThousand) {
  std::string body;
  for (int i = 0; i < 1000; ++i) {
    put(fmt::format("k{}", i));
    body += fmt::format("<Object><Key>k{}</Key></Object>", i);
  }
  EXPECT_EQ(remove(delete_xml(body)).elements("Deleted").size(), 1000u);
  EXPECT_EQ(list().elements("Key").size(), 0u);
}

// --- ListMultipartUploads

class UploadsTest : public ListingTest {
 protected:
  std::string begin(std::string_view key) {
    world.clock.set_wall_ms(world.clock.wall_ms() + 1000);
    const Answer answer = world.ask("POST", "/bucket/" + encoded(key) + "?uploads");
    EXPECT_EQ(answer.status, 200) << answer.body;
    return answer.element("UploadId");
  }
  Answer uploads(std::string_view query = "") {
    return world.ask("GET", fmt::format("/bucket?uploads&{}", query));
  }
};

TEST_F(UploadsTest, Empty) {
  EXPECT_EQ(uploads().body,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
            "<ListMultipartUploadsResult "
            "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Bucket>bucket</Bucket>"
            "<KeyMarker></KeyMarker><UploadIdMarker></UploadIdMarker><Prefix></"
            "Prefix><MaxUploads>1000</MaxUploads>"
            "<IsTruncated>false</IsTruncated></ListMultipartUploadsResult>");
}

TEST_F(UploadsTest, ByKeyAndThenByTime) {
  Names expected_ids;
  std::vector<std::string> of_b;
  for (int i = 0; i < 6; ++i) of_b.push_back(begin("b"));
  const std::string of_a = begin("a");
  const std::string of_ab = begin("ab");
  expected_ids = {of_a, of_ab};
  expected_ids.insert(expected_ids.end(), of_b.begin(), of_b.end());
  const Answer all = uploads();
  EXPECT_EQ(all.elements("Key"), (Names{"a", "ab", "b", "b", "b", "b", "b", "b"}));
  EXPECT_EQ(all.elements("UploadId"), expected_ids);
  EXPECT_NE(all.body.find("<Initiator><ID>alice-id</ID><DisplayName>Alice</DisplayName></"
                          "Initiator><Owner><ID>alice-id"),
            std::string::npos);
  EXPECT_EQ(all.element("StorageClass"), "STANDARD");
  Names seen;
  std::string markers;
  for (int i = 0; i < 10; ++i) {
    const Answer page = uploads("max-uploads=3" + markers);
    for (const auto& id : page.elements("UploadId")) seen.push_back(id);
    if (page.element("IsTruncated") == "false") break;
    markers = "&key-marker=" + page.element("NextKeyMarker") +
              "&upload-id-marker=" + page.element("NextUploadIdMarker");
  }
  EXPECT_EQ(seen, expected_ids);
  EXPECT_EQ(uploads("key-marker=a").elements("Key").size(), 7u);
  EXPECT_EQ(uploads("prefix=a").elements("Key"), (Names{"a", "ab"}));
  EXPECT_EQ(uploads("upload-id-marker=" + of_b[0]).elements("Key").size(),
            8u);  // means nothing without a key
  EXPECT_EQ(uploads("key-marker=a&upload-id-marker=zz").code(), "InvalidArgument");
  EXPECT_EQ(uploads("max-uploads=x").code(), "InvalidArgument");
}

TEST_F(UploadsTest, CommonPrefixes) {
  for (const char* key : {"a", "d/1", "d/2", "d/2", "e/1", "f"}) begin(key);
  Answer answer = uploads("delimiter=/");
  EXPECT_EQ(answer.elements("Key"), (Names{"a", "f"}));
  EXPECT_EQ(prefixes(answer), (Names{"d/", "e/"}));
  answer = uploads("delimiter=/&max-uploads=2");
  EXPECT_EQ(answer.element("NextKeyMarker"), "d/");
  EXPECT_EQ(answer.element("NextUploadIdMarker"), "");
  answer = uploads("delimiter=/&max-uploads=2&key-marker=d/");
  EXPECT_EQ(prefixes(answer), Names{"e/"});
  EXPECT_EQ(answer.elements("Key"), Names{"f"});
  EXPECT_EQ(answer.element("IsTruncated"), "false");
  // 256 uploads: some ids surely hold the delimiter's byte.
  for (int i = 0; i < 256; ++i) begin("g");
  EXPECT_EQ(uploads("delimiter=/&key-marker=f").elements("Key").size(), 256u);
  EXPECT_EQ(prefixes(uploads("delimiter=/&key-marker=f")).size(), 0u);
}

TEST_F(UploadsTest, DoNotKeepABucket) {
  begin("a");
  EXPECT_EQ(world.ask("DELETE", "/bucket").status, 204);
}

}  // namespace
}  // namespace basalt::s3
