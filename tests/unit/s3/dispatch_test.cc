// dispatch: what every answer carries, the gate in front of everything, errors in S3's form.
#include "protocol/s3/dispatch.h"

#include <set>

#include "tests/unit/s3/s3_world.h"

namespace basalt::s3 {
namespace {

using testing::anonymous;
using testing::Answer;
using testing::as_bob;
using testing::as_root;
using testing::Ask;
using testing::World;

class DispatchTest : public ::testing::Test {
 protected:
  DispatchTest() { EXPECT_EQ(world.ask("PUT", "/alices").status, 200); }
  World world;
};

TEST_F(DispatchTest, EveryAnswerCarriesItsIds) {
  std::set<std::string> ids;
  for (const char* target : {"/", "/alices", "/none", "/alices?policy"}) {
    const Answer answer = world.ask("GET", target);
    const std::string id = answer.header("x-amz-request-id");
    EXPECT_EQ(id.size(), 16u);
    EXPECT_EQ(id.find_first_not_of("0123456789ABCDEF"), std::string::npos);
    EXPECT_FALSE(answer.header("x-amz-id-2").empty());
    EXPECT_TRUE(ids.insert(id).second);
    if (answer.status >= 400) {
      EXPECT_EQ(answer.element("RequestId"), id);
    }
    EXPECT_EQ(world.records.back().request_id, id);
  }
}

TEST_F(DispatchTest, ErrorDocument) {
  const Answer answer = world.ask("GET", "/nobodys-bucket/some%20key");
  EXPECT_EQ(answer.status, 404);
  EXPECT_EQ(answer.header("Content-Type"), "application/xml");
  EXPECT_EQ(
      answer.body,
      fmt::format("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>NoSuchBucket</Code>"
                  "<Message>The specified bucket does not "
                  "exist</Message><BucketName>nobodys-bucket</BucketName>"
                  "<Resource>/nobodys-bucket/some "
                  "key</Resource><RequestId>{}</RequestId><HostId>{}</HostId></Error>",
                  answer.header("x-amz-request-id"), answer.header("x-amz-id-2")));
}

TEST_F(DispatchTest, HeadErrorsHaveNoBody) {
  const Answer answer = world.ask("HEAD", "/nobodys-bucket");
  EXPECT_EQ(answer.status, 404);
  EXPECT_EQ(answer.body, "");
  EXPECT_EQ(answer.header("Content-Length"), "0");
}

TEST_F(DispatchTest, AnonymousLearnsOfBucketsButNothingInThem) {
  for (const char* target :
       {"/", "/alices", "/alices/key", "/nothing-here", "/nothing-here/key", "/alices?acl"}) {
    for (const char* method : {"GET", "HEAD", "DELETE"}) {
      if (std::string_view(target) == "/" && std::string_view(method) != "GET") continue;
      const Answer answer = world.ask(anonymous({.method = method, .target = target}));
      if (answer.status == 405) continue;  // HEAD of a sub-resource is nobody's
      const bool missing = std::string_view(target).starts_with("/nothing-here");
      EXPECT_EQ(answer.status, missing ? 404 : 403) << method << " " << target;
      if (std::string_view(method) != "HEAD") {
        EXPECT_EQ(answer.code(), missing ? "NoSuchBucket" : "AccessDenied");
      }
    }
  }
  EXPECT_EQ(world.ask(anonymous({.method = "PUT", .target = "/new-bucket"})).status, 403);
  EXPECT_EQ(world.ask(anonymous({.method = "PUT", .target = "/alices/k", .body = "x"})).status,
            403);
}

TEST_F(DispatchTest, OwnersAndRoot) {
  EXPECT_EQ(world.ask({.target = "/alices"}).status, 200);
  EXPECT_EQ(world.ask(as_bob({.target = "/alices"})).code(), "AccessDenied");
  EXPECT_EQ(world.ask(as_bob({.method = "DELETE", .target = "/alices"})).status, 403);
  EXPECT_EQ(world.ask(as_bob({.target = "/alices?policy"})).status, 403);
  EXPECT_EQ(world.ask(as_root({.target = "/alices"})).status, 200);
}

TEST_F(DispatchTest, SignatureFailures) {
  Answer answer = world.ask({.secret_key = "wrong-secret"});
  EXPECT_EQ(answer.status, 403);
  EXPECT_EQ(answer.code(), "SignatureDoesNotMatch");
  EXPECT_EQ(answer.element("AWSAccessKeyId"), "ALICEKEY");
  EXPECT_EQ(answer.element("SignatureProvided").size(), 64u);
  EXPECT_TRUE(answer.element("StringToSign").starts_with("AWS4-HMAC-SHA256"));
  EXPECT_TRUE(answer.element("CanonicalRequest").starts_with("GET"));
  EXPECT_TRUE(answer.element("StringToSignBytes").starts_with("41 57 53 34"));
  EXPECT_EQ(answer.body.find("wrong-secret"), std::string::npos);
  EXPECT_EQ(answer.body.find("alice-secret"), std::string::npos);
  answer = world.ask({.access_key = "NOSUCHKEY"});
  EXPECT_EQ(answer.status, 403);
  EXPECT_EQ(answer.code(), "InvalidAccessKeyId");
  EXPECT_EQ(answer.element("AWSAccessKeyId"), "NOSUCHKEY");
  answer = world.ask({.region = "mars-1"});
  EXPECT_EQ(answer.status, 400);
  EXPECT_EQ(answer.code(), "AuthorizationHeaderMalformed");
  EXPECT_EQ(answer.element("Region"), "us-east-1");
  EXPECT_EQ(world.records.back().access_key, "");
}

TEST_F(DispatchTest, PayloadHashIsCheckedOnEveryRow) {
  const std::string other(64, 'a');
  EXPECT_EQ(world.ask({.target = "/alices", .payload_hash = other}).code(),
            "XAmzContentSHA256Mismatch");
  EXPECT_EQ(world.ask({.target = "/alices", .body = "unasked", .payload_hash = other}).code(),
            "XAmzContentSHA256Mismatch");
  EXPECT_EQ(world.ask({.target = "/alices", .body = "unasked"}).status, 200);
  EXPECT_EQ(world.ask({.target = "/alices", .body = "unasked", .payload_hash = "UNSIGNED-PAYLOAD"})
                .status,
            200);
  EXPECT_EQ(world.ask({.method = "PUT", .target = "/bucket-two", .payload_hash = other}).code(),
            "XAmzContentSHA256Mismatch");
  EXPECT_EQ(world.ask("HEAD", "/bucket-two").status, 404);
}

TEST_F(DispatchTest, XmlBodyLimit) {
  const Answer answer =
      world.ask({.method = "POST",
                 .target = "/alices?delete",
                 .headers = {{"content-length", std::to_string(kXmlBodyBytesMax + 1)}},
                 .body = "x",
                 .payload_hash = "UNSIGNED-PAYLOAD"});
  EXPECT_EQ(answer.code(), "MaxMessageLengthExceeded");
}

TEST_F(DispatchTest, RowsWeLackSayTheirName) {
  Answer answer = world.ask("GET", "/alices?policy");
  EXPECT_EQ(answer.status, 501);
  EXPECT_EQ(answer.code(), "NotImplemented");
  EXPECT_EQ(world.records.back().operation, "GetBucketPolicy");
  answer = world.ask("PUT", "/alices/key?legal-hold", "<LegalHold/>");
  EXPECT_EQ(answer.status, 501);
  EXPECT_EQ(world.ask("GET", "/none-such?policy").code(), "NoSuchBucket");
  EXPECT_EQ(world
                .ask({.method = "POST",
                      .target = "/WriteGetObjectResponse",
                      .headers = {{"x-amz-request-route", "x"}}})
                .status,
            501);
}

TEST_F(DispatchTest, MethodsAndTargetsWithoutARow) {
  EXPECT_EQ(world.ask("PUT", "/").code(), "MethodNotAllowed");
  EXPECT_EQ(world.ask("PATCH", "/alices").code(), "MethodNotAllowed");
  EXPECT_EQ(world.ask("BREW", "/alices/k").status, 405);
  EXPECT_EQ(world.ask("GET", "/Not*Valid").code(), "InvalidBucketName");
  EXPECT_EQ(world.ask("GET", "/alices/%zz").code(), "InvalidURI");
  EXPECT_EQ(world.ask("GET", "/alices/" + std::string(1025, 'k')).code(), "KeyTooLongError");
}

TEST_F(DispatchTest, CorsPreflight) {
  Answer answer = world.ask(anonymous({.method = "OPTIONS", .target = "/alices/k"}));
  EXPECT_EQ(answer.status, 400);
  answer = world.ask(anonymous(
      {.method = "OPTIONS",
       .target = "/alices/k",
       .headers = {{"origin", "https://a.test"}, {"access-control-request-method", "PUT"}}}));
  EXPECT_EQ(answer.status, 403);
  EXPECT_EQ(answer.code(), "AccessForbidden");
  EXPECT_EQ(answer.element("ResourceType"), "OBJECT");
  EXPECT_EQ(world.records.back().operation, "CorsPreflight");
}

TEST_F(DispatchTest, ExpectedBucketOwner) {
  const auto with_owner = [](std::string owner) {
    return Ask{.target = "/alices", .headers = {{"x-amz-expected-bucket-owner", std::move(owner)}}};
  };
  EXPECT_EQ(world.ask(with_owner("alice-id")).status, 200);
  EXPECT_EQ(world.ask(with_owner("bob-id")).code(), "AccessDenied");
}

TEST_F(DispatchTest, VirtualHosted) {
  World hosted(4, {.base_domains = {"s3.example.com"}});
  EXPECT_EQ(hosted.ask("PUT", "/alices").status, 200);
  EXPECT_EQ(
      hosted.ask({.method = "HEAD", .target = "/", .host = "alices.s3.example.com:9000"}).status,
      200);
  EXPECT_EQ(hosted.ask({.method = "PUT", .target = "/", .host = "other.s3.example.com"}).status,
            200);
  EXPECT_EQ(hosted.ask("HEAD", "/other").status, 200);
}

TEST_F(DispatchTest, Records) {
  world.ask("GET", "/alices?prefix=x");
  const World::Record& record = world.records.back();
  EXPECT_EQ(record.operation, "ListObjects");
  EXPECT_EQ(record.status, 200);
  EXPECT_EQ(record.bucket, "alices");
  EXPECT_EQ(record.access_key, "ALICEKEY");
  EXPECT_EQ(record.account_id, "alice-id");
  EXPECT_GT(record.bytes_out, 100u);
}

TEST_F(DispatchTest, BadHeads) {
  const Answer answer = world.bad_head(431, "head too large");
  EXPECT_EQ(answer.status, 431);
  EXPECT_EQ(answer.code(), "RequestHeaderSectionTooLarge");
  EXPECT_TRUE(answer.closed);
  EXPECT_EQ(world.bad_head(400, "no").code(), "BadRequest");
  EXPECT_EQ(world.records.back().operation, "BadHead");
}

}  // namespace
}  // namespace basalt::s3
