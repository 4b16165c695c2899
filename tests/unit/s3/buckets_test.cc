// The bucket operations: create, head, location, list, delete.
#include "protocol/s3/xml.h"
#include "tests/unit/s3/s3_world.h"

namespace basalt::s3 {
namespace {

using testing::Answer;
using testing::as_bob;
using testing::as_root;
using testing::Ask;
using testing::World;

std::string location(std::string_view region) {
  return fmt::format(
      "<CreateBucketConfiguration "
      "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><LocationConstraint>{}"
      "</LocationConstraint></CreateBucketConfiguration>",
      region);
}

TEST(Buckets, CreateHeadDelete) {
  World world;
  const Answer created = world.ask("PUT", "/first");
  EXPECT_EQ(created.status, 200);
  EXPECT_EQ(created.header("Location"), "/first");
  EXPECT_EQ(created.body, "");
  const Answer head = world.ask("HEAD", "/first");
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.header("x-amz-bucket-region"), "us-east-1");
  EXPECT_EQ(world.ask("DELETE", "/first").status, 204);
  EXPECT_EQ(world.ask("HEAD", "/first").status, 404);
  EXPECT_EQ(world.ask("DELETE", "/first").code(), "NoSuchBucket");
}

TEST(Buckets, CreateAgain) {
  World world;
  EXPECT_EQ(world.ask("PUT", "/first").status, 200);
  EXPECT_EQ(world.ask("PUT", "/first").status, 200);
  EXPECT_EQ(world.ask(as_bob({.method = "PUT", .target = "/first"})).code(), "BucketAlreadyExists");
  World elsewhere(4, {.region = "eu-west-1"});
  const Ask create{.method = "PUT", .target = "/first", .region = "eu-west-1"};
  EXPECT_EQ(elsewhere.ask(create).status, 200);
  const Answer again = elsewhere.ask(create);
  EXPECT_EQ(again.status, 409);
  EXPECT_EQ(again.code(), "BucketAlreadyOwnedByYou");
}

TEST(Buckets, Names) {
  World world;
  for (const char* name : {"ab", "UPPER", "a_b_c", "192.168.0.1", "xn--abc", "a..b", "-abc"}) {
    const Answer answer = world.ask("PUT", fmt::format("/{}", name));
    EXPECT_EQ(answer.status, 400) << name;
    EXPECT_EQ(answer.code(), "InvalidBucketName") << name;
  }
}

TEST(Buckets, LocationConstraint) {
  World world;
  EXPECT_EQ(world.ask("PUT", "/one-bucket", location("us-east-1")).status, 200);
  EXPECT_EQ(world.ask("PUT", "/two-bucket", "<CreateBucketConfiguration/>").status, 200);
  EXPECT_EQ(world.ask("PUT", "/three-bucket", location("eu-west-1")).code(),
            "IllegalLocationConstraintException");
  EXPECT_EQ(world.ask("PUT", "/three-bucket", location("nowhere")).code(),
            "InvalidLocationConstraint");
  EXPECT_EQ(world.ask("PUT", "/three-bucket", "<oops").code(), "MalformedXML");
  EXPECT_EQ(world.ask("PUT", "/three-bucket", "<Other/>").code(), "MalformedXML");
  EXPECT_EQ(world.ask("HEAD", "/three-bucket").status, 404);
  EXPECT_EQ(world.ask("GET", "/one-bucket?location").body,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
            "<LocationConstraint "
            "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"></LocationConstraint>");
  World elsewhere(4, {.region = "eu-west-1"});
  elsewhere.ask({.method = "PUT",
                 .target = "/one-bucket",
                 .body = location("eu-west-1"),
                 .region = "eu-west-1"});
  const Answer there = elsewhere.ask({.target = "/one-bucket?location", .region = "eu-west-1"});
  EXPECT_NE(there.body.find(">eu-west-1</LocationConstraint>"), std::string::npos) << there.body;
}

TEST(Buckets, CreationHeaders) {
  World world;
  const auto create = [&](std::string name, std::string header, std::string value) {
    return world.ask({.method = "PUT",
                      .target = "/" + name,
                      .headers = {{std::move(header), std::move(value)}}});
  };
  EXPECT_EQ(create("acl-private", "x-amz-acl", "private").status, 200);
  EXPECT_EQ(create("acl-public", "x-amz-acl", "public-read").code(),
            "InvalidBucketAclWithObjectOwnership");
  EXPECT_EQ(create("acl-bad", "x-amz-acl", "bogus").code(), "InvalidArgument");
  EXPECT_EQ(create("acl-grant", "x-amz-grant-read", "id=1").status, 400);
  EXPECT_EQ(create("lock-on", "x-amz-bucket-object-lock-enabled", "true").status, 200);
  EXPECT_EQ(create("lock-bad", "x-amz-bucket-object-lock-enabled", "maybe").code(),
            "InvalidArgument");
  EXPECT_EQ(create("own-preferred", "x-amz-object-ownership", "BucketOwnerPreferred").status, 200);
  EXPECT_EQ(create("own-bad", "x-amz-object-ownership", "Mine").code(), "InvalidArgument");
  EXPECT_TRUE(world.buckets.find("lock-on")->object_lock);
  EXPECT_EQ(world.buckets.find("own-preferred")->ownership, "BucketOwnerPreferred");
  EXPECT_NE(world.buckets.find("lock-on")->space, world.buckets.find("own-preferred")->space);
}

TEST(Buckets, ListFollowsTheAccount) {
  World world;
  for (const char* name : {"zebra", "apple", "apple.two"})
    EXPECT_EQ(world.ask("PUT", fmt::format("/{}", name)).status, 200);
  EXPECT_EQ(world.ask(as_bob({.method = "PUT", .target = "/bobs"})).status, 200);
  const Answer answer = world.ask("GET", "/");
  EXPECT_EQ(answer.elements("Name"), (std::vector<std::string>{"apple", "apple.two", "zebra"}));
  EXPECT_NE(answer.body.find(
                "<ListAllMyBucketsResult "
                "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Owner><ID>alice-id"
                "</ID><DisplayName>Alice</DisplayName></Owner><Buckets><Bucket><Name>apple</Name>"
                "<CreationDate>2026-11-21T02:01:00.000Z</CreationDate></Bucket>"),
            std::string::npos)
      << answer.body;
  EXPECT_TRUE(world.ask(as_root({.target = "/"})).elements("Name").empty());
  EXPECT_EQ(world.ask(as_bob({.target = "/"})).elements("Name"), std::vector<std::string>{"bobs"});
}

TEST(Buckets, ListInPages) {
  World world;
  std::vector<std::string> names;
  for (int i = 0; i < 7; ++i) {
    names.push_back(fmt::format("page-{}", i));
    world.ask("PUT", "/" + names.back());
  }
  world.ask("PUT", "/other");
  std::vector<std::string> seen;
  std::string token;
  for (int page = 0; page < 10; ++page) {
    const Answer answer = world.ask(
        "GET", "/?prefix=page-&max-buckets=3" +
                   (token.empty() ? "" : "&continuation-token=" + url_encode(token, false)));
    ASSERT_EQ(answer.status, 200) << answer.body;
    for (const auto& name : answer.elements("Name")) seen.push_back(name);
    EXPECT_EQ(answer.element("Prefix"), "page-");
    token = answer.element("ContinuationToken");
    if (token.empty()) break;
  }
  EXPECT_EQ(seen, names);
  EXPECT_EQ(world.ask("GET", "/?bucket-region=us-east-1").elements("BucketRegion").size(), 8u);
  EXPECT_EQ(world.ask("GET", "/?bucket-region=eu-west-1").elements("Name").size(), 0u);
  for (const char* bad : {"/?max-buckets=0", "/?max-buckets=x", "/?continuation-token=xx"}) {
    EXPECT_EQ(world.ask("GET", bad).code(), "InvalidArgument") << bad;
  }
  EXPECT_EQ(world.ask("GET", "/?max-buckets=10001").status, 200);
}

TEST(Buckets, DeleteOnlyWhenEmpty) {
  World world(8);
  world.ask("PUT", "/bucket");
  ASSERT_EQ(world.ask("PUT", "/bucket/key", "x").status, 200);
  const Answer refused = world.ask("DELETE", "/bucket");
  EXPECT_EQ(refused.status, 409);
  EXPECT_EQ(refused.code(), "BucketNotEmpty");
  EXPECT_EQ(world.ask("PUT", "/bucket/key2", "x").status, 200);  // not left sealed
  world.ask("DELETE", "/bucket/key");
  world.ask("DELETE", "/bucket/key2");
  EXPECT_EQ(world.ask("DELETE", "/bucket").status, 204);
  // The same name again is another, empty bucket.
  EXPECT_EQ(world.ask("PUT", "/bucket").status, 200);
  EXPECT_EQ(world.ask("GET", "/bucket").elements("Key").size(), 0u);
  EXPECT_EQ(world.ask("PUT", "/bucket/key", "x").status, 200);
}

TEST(Buckets, RowsSurviveEncoding) {
  Bucket bucket{.name = "b",
                .space = 77,
                .owner_id = "o",
                .created_ms = 5,
                .region = "r",
                .object_lock = true,
                .ownership = "ObjectWriter"};
  const std::string meta = encode_bucket(bucket);
  auto decoded = decode_bucket("b", as_bytes(meta), 9);
  ASSERT_TRUE(decoded.has_value());
  EXPECT_EQ(decoded->space, 77u);
  EXPECT_EQ(decoded->owner_id, "o");
  EXPECT_EQ(decoded->region, "r");
  EXPECT_TRUE(decoded->object_lock);
  EXPECT_EQ(decoded->seq, 9u);
  EXPECT_FALSE(decode_bucket("b", as_bytes(std::string_view("junk")), 1).has_value());
  EXPECT_FALSE(decode_bucket("b", {}, 1).has_value());
  bucket.space = 0;
  const std::string zero = encode_bucket(bucket);
  EXPECT_FALSE(decode_bucket("b", as_bytes(zero), 1).has_value());
}

}  // namespace
}  // namespace basalt::s3
