// The rules of the gate one by one: every form, each thing that can be wrong with it and the
// failure it gives; clock edges; every single-byte change of a valid request is refused.
#include "auth/sigv4.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "auth/sha256.h"
#include "auth/time_text.h"
#include "tests/unit/auth/support.h"

namespace basalt::auth {
namespace {

using namespace testing;

constexpr int64_t kNowMs = k20130524Ms;
constexpr std::string_view kStreams[] = {"STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
                                         "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
                                         "STREAMING-UNSIGNED-PAYLOAD-TRAILER"};

class GateTest : public ::testing::Test {
 protected:
  Identities identities;
  Gate gate{identities.table, {}};

  Request plain(std::string_view hash = kEmptyHash) {
    return {"PUT",
            "/bucket/key",
            "partNumber=1",
            {{"host", "localhost"},
             {"x-amz-date", "20130524T000000Z"},
             {"x-amz-content-sha256", std::string(hash)}}};
  }
  Request signed_request(std::string_view hash = kEmptyHash) {
    Request request = plain(hash);
    sign(request);
    return request;
  }
  // Presigned with our own pieces; `more` are parameters in front, `headers` those beyond host that
  // are signed.
  Request presigned(std::string more = "", int64_t expires = 3600,
                    std::vector<std::pair<std::string, std::string>> headers = {},
                    std::string_view hash = "UNSIGNED-PAYLOAD",
                    std::string_view region = "us-east-1") {
    Request request{"GET", "/bucket/key", "", {{"host", "localhost"}}};
    std::string names = "host";
    for (auto& header : headers) {
      names += "%3B" + header.first;
      request.headers.push_back(header);
    }
    request.query = fmt::format(
        "{}X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={}%2F20130524%2F{}%2Fs3%2Faws4_"
        "request&X-Amz-Date="
        "20130524T000000Z&X-Amz-Expires={}&X-Amz-SignedHeaders={}",
        more.empty() ? "" : more + "&", kAccessKey, region, expires, names);
    // The header form's signer makes the same string to sign once it is told the payload hash and
    // the query.
    std::vector<std::string_view> list;
    for (const auto& [name, value] : request.headers) list.push_back(name);
    const auto views = request.views();
    const std::string header =
        sign_header({.request = {request.method, request.path, request.query, views},
                     .access_key = kAccessKey,
                     .secret_key = kSecretKey,
                     .region = region,
                     .service = "s3",
                     .date_time = "20130524T000000Z",
                     .payload_hash = hash,
                     .signed_headers = list});
    request.query += "&X-Amz-Signature=" + header.substr(header.size() - 64);
    return request;
  }

  void expect_failure(const Request& request, AuthFailure failure, std::string_view in_detail = "",
                      int64_t now = kNowMs) {
    const auto result = authenticate(gate, request, now);
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().failure, failure)
        << static_cast<int>(result.error().failure) << result.error().detail;
    EXPECT_NE(result.error().detail.find(in_detail), std::string::npos) << result.error().detail;
    EXPECT_EQ(result.error().canonical_request.find(kSecretKey), std::string::npos);
  }
  void expect_success(const Request& request, int64_t now = kNowMs) {
    const auto result = authenticate(gate, request, now);
    EXPECT_TRUE(result) << result.error().detail << "\n" << result.error().canonical_request;
  }
};

TEST_F(GateTest, AnonymousIsNobody) {
  const auto result =
      authenticate(gate, {"GET", "/bucket/key", "acl", {{"host", "localhost"}}}, kNowMs);
  ASSERT_TRUE(result);
  EXPECT_TRUE(result->identity.anonymous());
  EXPECT_FALSE(result->identity.root());
  EXPECT_EQ(result->payload, PayloadKind::kUnsigned);
}

TEST_F(GateTest, AnonymousPayloads) {
  const auto kind = [&](std::string_view hash) {
    return authenticate(gate, {"PUT", "/b/k", "", {{"X-Amz-Content-Sha256", std::string(hash)}}},
                        kNowMs);
  };
  EXPECT_EQ(kind("UNSIGNED-PAYLOAD")->payload, PayloadKind::kUnsigned);
  EXPECT_EQ(kind(kEmptyHash)->payload, PayloadKind::kSha256);
  EXPECT_EQ(kind("STREAMING-UNSIGNED-PAYLOAD-TRAILER")->payload,
            PayloadKind::kStreamingUnsignedTrailer);
  // Nobody could check these chunks.
  EXPECT_EQ(kind("STREAMING-AWS4-HMAC-SHA256-PAYLOAD").error().failure,
            AuthFailure::kInvalidContentSha256);
  EXPECT_EQ(kind("STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER").error().failure,
            AuthFailure::kInvalidContentSha256);
  EXPECT_EQ(kind("nonsense").error().failure, AuthFailure::kInvalidContentSha256);
}

TEST_F(GateTest, PayloadKinds) {
  const auto kind = [&](std::string_view hash) {
    return authenticate(gate, signed_request(hash), kNowMs);
  };
  EXPECT_EQ(kind("UNSIGNED-PAYLOAD")->payload, PayloadKind::kUnsigned);
  const auto whole = kind(kEmptyHash);
  EXPECT_EQ(whole->payload, PayloadKind::kSha256);
  EXPECT_EQ(hex_digest(whole->payload_sha256).view(), kEmptyHash);
  EXPECT_FALSE(whole->chunk_signing);
  EXPECT_EQ(whole->region, "us-east-1");
  EXPECT_EQ(whole->service, "s3");
  EXPECT_EQ(kind(kStreams[0])->payload, PayloadKind::kStreamingSigned);
  EXPECT_EQ(kind(kStreams[1])->payload, PayloadKind::kStreamingSignedTrailer);
  EXPECT_EQ(kind(kStreams[2])->payload, PayloadKind::kStreamingUnsignedTrailer);
  EXPECT_TRUE(kind(kStreams[0])->chunk_signing);
  EXPECT_TRUE(kind(kStreams[1])->chunk_signing);
  EXPECT_FALSE(kind(kStreams[2])->chunk_signing);
  EXPECT_EQ(kind(kStreams[0])->chunk_signing->scope, "20130524/us-east-1/s3/aws4_request");
  EXPECT_EQ(kind(kStreams[0])->chunk_signing->date_time, "20130524T000000Z");

  expect_failure(signed_request("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"),
                 AuthFailure::kInvalidContentSha256, "4A");
  expect_failure(signed_request("STREAMING-NEW"), AuthFailure::kInvalidContentSha256);
  expect_failure(signed_request("unsigned-payload"), AuthFailure::kInvalidContentSha256);
  expect_failure(signed_request(std::string(63, 'a')), AuthFailure::kInvalidContentSha256);
  expect_failure(signed_request(std::string(64, 'g')), AuthFailure::kInvalidContentSha256);
  expect_failure(signed_request(""), AuthFailure::kInvalidContentSha256);
  Request request = signed_request();
  request.remove("x-amz-content-sha256");
  expect_failure(request, AuthFailure::kMissingContentSha256);
  request = signed_request();
  request.headers.emplace_back("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD");
  expect_failure(request, AuthFailure::kInvalidContentSha256);
}

// Bug class A1: whatever the payload mode, a wrong credential is refused.
TEST_F(GateTest, EveryPayloadModeRefusesEveryWrongCredential) {
  for (std::string_view hash :
       {std::string_view("UNSIGNED-PAYLOAD"), kEmptyHash, kStreams[0], kStreams[1], kStreams[2]}) {
    SCOPED_TRACE(hash);
    Request request = plain(hash);
    sign(request, kAccessKey, "another-secret");
    expect_failure(request, AuthFailure::kSignatureDoesNotMatch);
    request = plain(hash);
    sign(request, "AKIAUNKNOWN", kSecretKey);
    expect_failure(request, AuthFailure::kInvalidAccessKeyId);
    request = plain(hash);
    sign(request, "AKIAUNKNOWN", "there is no such access key");
    expect_failure(request, AuthFailure::kInvalidAccessKeyId);
    request = plain(hash);
    sign(request, "?", "there is no such access key");
    expect_failure(request, AuthFailure::kInvalidAccessKeyId);
    request = plain(hash);
    sign(request, kAccessKey, kSecretKey, "eu-west-1");
    expect_failure(request, AuthFailure::kAuthorizationHeaderMalformed,
                   "the region 'eu-west-1' is wrong; expecting 'us-east-1'");
    request = plain(hash);
    sign(request, kAccessKey, kSecretKey, "us-east-1", "ec2");
    expect_failure(request, AuthFailure::kAuthorizationHeaderMalformed, "service");
    request = signed_request(hash);
    std::string& authorization = request.header("authorization");
    authorization.resize(authorization.rfind(','));
    expect_failure(request, AuthFailure::kAuthorizationHeaderMalformed, "Signature is missing");
    request = signed_request(hash);
    request.header("x-amz-date") = "20130524T000001Z";
    expect_failure(request, AuthFailure::kSignatureDoesNotMatch);
    request = signed_request(hash);
    request.remove("authorization");
    // Without credentials the request is anonymous, or refused where its chunks could not be
    // checked.
    if (const auto result = authenticate(gate, request, kNowMs))
      EXPECT_TRUE(result->identity.anonymous());
  }
}

TEST_F(GateTest, DisabledKeyAndKeyWithoutAccount) {
  identities.add_key({.access_key = std::string(kAccessKey),
                      .secret_key = std::string(kSecretKey),
                      .account_id = "alice-id",
                      .enabled = false});
  expect_failure(signed_request(), AuthFailure::kAccessKeyDisabled, "does not exist");
  identities.add_key({.access_key = std::string(kAccessKey),
                      .secret_key = std::string(kSecretKey),
                      .account_id = "gone"});
  expect_failure(signed_request(), AuthFailure::kInvalidAccessKeyId, "does not exist");
}

TEST_F(GateTest, ANewSecretIsUsedAtOnce) {
  expect_success(signed_request());
  identities.add_key({.access_key = std::string(kAccessKey),
                      .secret_key = "another-secret",
                      .account_id = "alice-id"});
  expect_failure(signed_request(), AuthFailure::kSignatureDoesNotMatch);
  Request request = plain();
  sign(request, kAccessKey, "another-secret");
  expect_success(request);
}

TEST_F(GateTest, ClockSkewOfTheHeaderForm) {
  const Request request = signed_request();
  for (int64_t sign : {-1, 1}) {
    expect_success(request, kNowMs + sign * kClockSkewMsMax);
    expect_failure(request, AuthFailure::kRequestTimeTooSkewed, "",
                   kNowMs + sign * (kClockSkewMsMax + 1));
  }
}

TEST_F(GateTest, Dates) {
  for (std::string_view bad : {"", "20130524T000000", "20130524T000000z", "2013-05-24T00:00:00Z",
                               "20130532T000000Z", "20130524T240000Z", "20130524T006000Z",
                               "20130524T000060Z", "Fri, 24 May 2013 00:00:00 GMT"}) {
    Request request = signed_request();
    request.header("x-amz-date") = bad;
    expect_failure(request, AuthFailure::kMissingDate);
  }
  Request request = signed_request();
  request.headers.emplace_back("X-Amz-Date", "20130524T000000Z");
  expect_failure(request, AuthFailure::kAuthorizationHeaderMalformed, "x-amz-date");
  request = signed_request();
  request.remove("x-amz-date");
  expect_failure(request, AuthFailure::kMissingDate);
  // The day of the credential must be the day of the request.
  request = plain();
  request.header("x-amz-date") = "20130525T000000Z";
  sign(request);
  std::string& authorization = request.header("authorization");
  authorization.replace(authorization.find("20130525"), 8, "20130524");
  expect_failure(request, AuthFailure::kAuthorizationHeaderMalformed, "date", kNowMs + 86'400'000);
}

TEST_F(GateTest, DateHeaderAlone) {
  // Signed for the same second, then sent with Date instead of x-amz-date.
  Request request{
      "GET", "/", "", {{"host", "localhost"}, {"x-amz-content-sha256", std::string(kEmptyHash)}}};
  const auto views = request.views();
  const std::vector<std::string_view> names = {"host", "x-amz-content-sha256"};
  const std::string header = sign_header({.request = {"GET", "/", "", views},
                                          .access_key = kAccessKey,
                                          .secret_key = kSecretKey,
                                          .region = "us-east-1",
                                          .service = "s3",
                                          .date_time = "20130524T000000Z",
                                          .payload_hash = kEmptyHash,
                                          .signed_headers = names});
  request.headers.emplace_back("Authorization", header);
  for (std::string_view date :
       {"Fri, 24 May 2013 00:00:00 GMT", "20130524T000000Z", "Fri, 24 May 2013 00:00:00 +0000"}) {
    request.header("Date") = date;
    expect_success(request);
  }
  request.header("Date") = "Fri, 24 May 2013 00:00:01 GMT";
  expect_failure(request, AuthFailure::kSignatureDoesNotMatch);
  request.header("Date") = "yesterday";
  expect_failure(request, AuthFailure::kMissingDate);
}

TEST_F(GateTest, MalformedAuthorization) {
  const std::string good = signed_request().header("authorization");
  const auto with = [&](std::string_view from, std::string_view to) {
    Request request = signed_request();
    std::string& text = request.header("authorization");
    text.replace(text.find(from), from.size(), to);
    return request;
  };
  constexpr auto kMalformed = AuthFailure::kAuthorizationHeaderMalformed;
  expect_failure(with(good, ""), kMalformed);
  expect_failure(with(good, "AWS4-HMAC-SHA256"), kMalformed);
  expect_failure(with(good, "AWS4-HMAC-SHA256 "), kMalformed);
  expect_failure(with(good, "AWS4-HMAC-SHA256 x"), kMalformed);
  expect_failure(with("Credential=", "credential="), kMalformed);
  expect_failure(with("Credential=", "Credential=,Credential="), kMalformed);
  expect_failure(with("SignedHeaders=", "Other="), kMalformed);
  expect_failure(with(", Signature", ", Signature=1, Signature"), kMalformed);
  expect_failure(with("/20130524/", "/2013052/"), kMalformed);
  expect_failure(with("/20130524/", "/2013052x/"), kMalformed);
  expect_failure(with("/aws4_request", "/aws4"), kMalformed);
  expect_failure(with("/aws4_request", ""), kMalformed);
  expect_failure(with(std::string(kAccessKey) + "/", "/"), kMalformed);
  expect_failure(with(std::string(kAccessKey), std::string(200, 'A')), kMalformed);
  expect_failure(with("/us-east-1/", "//"), kMalformed);
  expect_failure(with("=host;", "=Host;"), kMalformed);
  expect_failure(with("=host;", "=host;host;"), kMalformed, "twice");
  expect_failure(with("=host;", "=host;;"), kMalformed);
  expect_failure(with("=host;", "="), kMalformed, "Host");
  expect_failure(with("=host;", "=host;range;"), AuthFailure::kSignatureDoesNotMatch, "range");
  expect_failure(with("AWS4-HMAC-SHA256 ", "AWS4-ECDSA-P256-SHA256 "),
                 AuthFailure::kUnsupportedSignature);
  expect_failure(with(good, "AWS AKIA:c2ln"), AuthFailure::kUnsupportedSignature);
  expect_failure(with(good, "Basic dXNlcjpwYXNz"), AuthFailure::kUnsupportedSignature);
  expect_failure(with(good, "Bearer x"), AuthFailure::kUnsupportedSignature);
  Request twice = signed_request();
  twice.headers.emplace_back("Authorization", good);
  expect_failure(twice, kMalformed, "more than once");
  // Spaces after the commas are optional, and clients differ.
  expect_success(with(", SignedHeaders", ",SignedHeaders"));
  expect_success(with(", Signature", ",  Signature"));
}

// The gate remembers how the last header was taken apart, up to the signature.
TEST_F(GateTest, ARememberedAuthorizationIsNoWayAroundAnyCheck) {
  const Request good = signed_request();
  const auto with = [&](std::string_view from, std::string_view to) {
    Request request = good;
    std::string& text = request.header("authorization");
    text.replace(text.find(from), from.size(), to);
    return request;
  };
  const auto ending = [&](std::string_view end) {
    Request request = good;
    request.header("authorization") += end;
    return request;
  };
  constexpr auto kMalformed = AuthFailure::kAuthorizationHeaderMalformed;
  constexpr auto kMismatch = AuthFailure::kSignatureDoesNotMatch;
  for (int round = 0; round < 3; ++round) {
    expect_success(good);
    expect_success(good);
    expect_success(ending("  "));
    expect_failure(ending("0"), kMismatch);
    expect_failure(ending(",Signature=0"), kMalformed);
    expect_success(good);
    expect_failure(ending(","), kMalformed);
    expect_failure(ending(", SignedHeaders=host"), kMalformed);
    expect_success(good);
    Request cut = good;
    std::string& text = cut.header("authorization");
    text.resize(text.find("Signature=") + 10);
    expect_failure(cut, kMalformed);
    text.resize(text.size() - 1);
    expect_failure(cut, kMalformed);
    expect_success(good);
    expect_failure(with("=host;", "=host;range;"), kMismatch, "range");
    expect_failure(with("/20130524/", "/2013052x/"), kMalformed);
    expect_failure(with("/20130524/", "/2013052x/"), kMalformed);
    expect_success(good);
    Request other_path = good;
    other_path.query += "&x=1";
    expect_failure(other_path, kMismatch);
  }
}

TEST_F(GateTest, SignatureMismatchTellsWhatWasSigned) {
  Request request = signed_request();
  request.query += "&x=1";
  const auto result = authenticate(gate, request, kNowMs);
  ASSERT_FALSE(result);
  EXPECT_TRUE(result.error().canonical_request.starts_with(
      "PUT\n/bucket/key\npartNumber=1&x=1\nhost:localhost\n"));
  EXPECT_TRUE(result.error().string_to_sign.starts_with(
      "AWS4-HMAC-SHA256\n20130524T000000Z\n20130524/us-east-1/s3/"));
}

TEST_F(GateTest, UnsignedAmazonHeadersAreRefusedOthersNot) {
  Request request = signed_request();
  request.headers.emplace_back("Content-Type", "text/plain");
  request.headers.emplace_back("Content-MD5", "1B2M2Y8AsgTpgAmY7PhCfg==");
  request.headers.emplace_back("X-Amzn-Trace-Id", "Root=1");
  expect_success(request);
  request.headers.emplace_back("X-Amz-Acl", "public-read");
  expect_failure(request, AuthFailure::kUnsignedHeaders, "x-amz-acl");
  Request url = presigned();
  url.headers.emplace_back("x-amz-meta-a", "1");
  expect_failure(url, AuthFailure::kUnsignedHeaders, "x-amz-meta-a");
  url = presigned();
  url.headers.emplace_back("x-amz-content-sha256", "UNSIGNED-PAYLOAD");
  expect_success(url);
  url.headers.back().second = kEmptyHash;
  expect_failure(url, AuthFailure::kUnsignedHeaders);
}

TEST_F(GateTest, HeaderValuesAreTrimmedAndJoined) {
  Request request = plain();
  request.headers.emplace_back("x-amz-meta-a", "  a   b\t c ");
  request.headers.emplace_back("x-amz-meta-b", "1");
  request.headers.emplace_back("x-amz-meta-b", "2");
  sign(request);
  expect_success(request);
  Request same = request;
  same.header("x-amz-meta-a") = "a b c";
  expect_success(same);
  // Two fields of one name are one, joined by a comma; their order counts.
  std::erase_if(same.headers, [](const auto& header) { return header.second == "1"; });
  same.header("x-amz-meta-b") = "1,2";
  expect_success(same);
  same.header("x-amz-meta-b") = "2,1";
  expect_failure(same, AuthFailure::kSignatureDoesNotMatch);
  request.header("x-amz-meta-a") = "a\nb";
  expect_failure(request, AuthFailure::kSignatureDoesNotMatch);
}

TEST_F(GateTest, QueryCanonicalisation) {
  // Pairs of a query as signed and as sent that are, or are not, the same.
  const std::tuple<std::string_view, std::string_view, bool> cases[] = {
      {"a=1&b=2", "b=2&a=1", true},
      {"acl", "acl=", true},
      {"a=1&a=2", "a=2&a=1", true},
      {"prefix=a%20b", "prefix=a+b", true},
      {"prefix=a%2Bb", "prefix=a+b", false},
      {"prefix=a%2bb", "prefix=a%2Bb", true},
      {"prefix=a/b", "prefix=a%2Fb", true},
      {"a=~", "a=%7E", true},
      {"a&&b", "a&b", true},
      {"a=%2520", "a=%20", false},
      {"a=b=c", "a=b%3Dc", true},
      {"a%3Db=c", "a=b=c", false},
      {"a=1;b=2", "a=1&b=2", false},
      {"a=*", "a=%2A", true},
      {"A=1", "a=1", false},
      {"a-b=1&a=2", "a=2&a-b=1", true},
      {"a=%C3%BC", "a=\xc3\xbc", true},
      {"a=1&a=1", "a=1", false},
      {"a=%00", "a=", false},
  };
  for (const auto& [as_signed, as_sent, same] : cases) {
    SCOPED_TRACE(std::string(as_signed) + " " + std::string(as_sent));
    Request request = plain();
    request.query = as_signed;
    sign(request);
    request.query = as_sent;
    EXPECT_EQ(authenticate(gate, request, kNowMs).has_value(), same);
  }
}

TEST_F(GateTest, PathCanonicalisation) {
  const std::tuple<std::string_view, std::string_view, bool> cases[] = {
      {"/b/a+b", "/b/a%2Bb", true},
      {"/b/a+b", "/b/a%20b", false},
      {"/b//k", "/b/k", false},
      {"/b/./k", "/b/k", false},
      {"/b/../k", "/k", false},
      {"/b/%2e", "/b/.", true},
      {"/b/a%2Fb", "/b/a/b", true},
      {"/b/%252F", "/b/%2F", false},
      {"/b/\xc3\xbc", "/b/%C3%BC", true},
      {"/b/k", "/b/k/", false},
      {"", "/", true},
      {"/b/*'()!", "/b/%2A%27%28%29%21", true},
  };
  for (const auto& [as_signed, as_sent, same] : cases) {
    SCOPED_TRACE(std::string(as_signed) + " " + std::string(as_sent));
    Request request = plain();
    request.path = as_signed;
    sign(request);
    request.path = as_sent;
    EXPECT_EQ(authenticate(gate, request, kNowMs).has_value(), same);
  }
}

TEST_F(GateTest, InvalidEscapes) {
  for (std::string_view bad : {"%", "%2", "%zz", "%2g", "a%", "%%20"}) {
    Request request = signed_request();
    request.path = "/bucket/" + std::string(bad);
    expect_failure(request, AuthFailure::kSignatureDoesNotMatch, "percent");
    request = signed_request();
    request.query = bad;
    expect_failure(request, AuthFailure::kAuthorizationQueryParametersError, "percent");
    request.remove("authorization");
    expect_failure(request, AuthFailure::kAuthorizationQueryParametersError, "percent");
    sign(request);
    EXPECT_EQ(request.header("authorization"), "");
  }
}

TEST_F(GateTest, SeveralCredentials) {
  Request request = presigned();
  request.header("authorization") = signed_request().header("authorization");
  expect_failure(request, AuthFailure::kSeveralCredentials);
  request = signed_request();
  request.query = "X-Amz-Credential=x";
  expect_failure(request, AuthFailure::kSeveralCredentials);
  request = signed_request();
  request.query = "AWSAccessKeyId=x&Signature=y&Expires=1";
  expect_failure(request, AuthFailure::kSeveralCredentials);
  request = presigned();
  request.query += "&AWSAccessKeyId=x";
  expect_failure(request, AuthFailure::kSeveralCredentials);
  request.headers.emplace_back("Authorization", "Basic x");
  expect_failure(request, AuthFailure::kSeveralCredentials);
}

TEST_F(GateTest, Version2InTheQuery) {
  Request request{
      "GET", "/b/k", "AWSAccessKeyId=AKIA&Signature=abc&Expires=1", {{"host", "localhost"}}};
  expect_failure(request, AuthFailure::kUnsupportedSignature);
}

TEST_F(GateTest, Tokens) {
  Request request = plain();
  request.headers.emplace_back("x-amz-security-token", "");
  sign(request);
  expect_success(request);
  request.header("x-amz-security-token") = "token";
  sign(request);
  expect_failure(request, AuthFailure::kInvalidToken);
  expect_success(presigned("X-Amz-Security-Token="));
  expect_failure(presigned("X-Amz-Security-Token=token"), AuthFailure::kInvalidToken);
}

TEST_F(GateTest, PresignedTimes) {
  const Request url = presigned("", 3600);
  expect_success(url);
  expect_success(url, kNowMs + 3'600'000);
  expect_failure(url, AuthFailure::kRequestExpired, "expired", kNowMs + 3'600'001);
  expect_failure(url, AuthFailure::kRequestExpired, "expired", kNowMs + 3'601'000);
  expect_success(url, kNowMs - kClockSkewMsMax);
  expect_failure(url, AuthFailure::kAccessDenied, "not yet valid", kNowMs - kClockSkewMsMax - 1);
  expect_success(presigned("", 604'800), kNowMs + 604'800'000);
  expect_success(presigned("", 1));
  constexpr auto kQueryError = AuthFailure::kAuthorizationQueryParametersError;
  expect_failure(presigned("", 604'801), kQueryError, "week");
  expect_failure(presigned("", 0), kQueryError);
  expect_failure(presigned("", -1), kQueryError, "number");
  Request changed = presigned();
  changed.query.replace(changed.query.find("3600"), 4, "99999999999999999999999999");
  expect_failure(changed, kQueryError, "week");
  changed = presigned();
  changed.query.replace(changed.query.find("3600"), 4, "");
  expect_failure(changed, kQueryError, "number");
}

TEST_F(GateTest, PresignedParametersMustBeThereOnce) {
  const Request url = presigned();
  for (std::string_view name : {"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date",
                                "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature"}) {
    SCOPED_TRACE(name);
    Request changed = url;
    changed.query.replace(changed.query.find(name), name.size(), "X-Other");
    expect_failure(changed, AuthFailure::kAuthorizationQueryParametersError, "requires");
    changed = url;
    changed.query += "&" + std::string(name) + "=1";
    expect_failure(changed, AuthFailure::kAuthorizationQueryParametersError, "more than once");
    // The same name, written with an escape, is the same parameter.
    changed = url;
    changed.query += "&X-Amz%2D" + std::string(name.substr(6)) + "=1";
    expect_failure(changed, AuthFailure::kAuthorizationQueryParametersError, "more than once");
  }
  expect_failure(presigned("X-Amz-Security-Token=&X-Amz-Security-Token="),
                 AuthFailure::kAuthorizationQueryParametersError);
}

TEST_F(GateTest, PresignedScopeAlgorithmAndMethod) {
  const auto with = [&](std::string_view from, std::string_view to) {
    Request request = presigned();
    request.query.replace(request.query.find(from), from.size(), to);
    return request;
  };
  constexpr auto kQueryError = AuthFailure::kAuthorizationQueryParametersError;
  expect_failure(with("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"),
                 AuthFailure::kUnsupportedSignature);
  expect_failure(with("AWS4-HMAC-SHA256", "aws4"), kQueryError);
  expect_failure(with("%2Fs3%2F", "%2Fec2%2F"), kQueryError, "service");
  expect_failure(with("%2Faws4_request", "%2Faws4"), kQueryError);
  expect_failure(with("20130524T000000Z", "20130525T000000Z"), kQueryError, "date");
  expect_failure(with("20130524T000000Z", "today"), kQueryError, "X-Amz-Date");
  expect_failure(with("SignedHeaders=host", "SignedHeaders=range"), kQueryError, "Host");
  expect_failure(presigned("", 3600, {}, "UNSIGNED-PAYLOAD", "eu-west-1"), kQueryError,
                 "expecting 'us-east-1'");
  Request url = presigned();
  url.method = "PUT";
  expect_failure(url, AuthFailure::kSignatureDoesNotMatch);
  url = presigned();
  url.query += "&response-content-type=text/html";
  expect_failure(url, AuthFailure::kSignatureDoesNotMatch);
  expect_success(presigned("response-content-type=text/html"));
}

TEST_F(GateTest, PresignedPayloadHash) {
  auto result = authenticate(
      gate, presigned("", 3600, {{"x-amz-content-sha256", std::string(kEmptyHash)}}, kEmptyHash),
      kNowMs);
  ASSERT_TRUE(result) << result.error().detail;
  EXPECT_EQ(result->payload, PayloadKind::kSha256);
  result = authenticate(
      gate, presigned("X-Amz-Content-Sha256=" + std::string(kEmptyHash), 3600, {}, kEmptyHash),
      kNowMs);
  ASSERT_TRUE(result) << result.error().detail;
  EXPECT_EQ(result->payload, PayloadKind::kSha256);
  expect_success(presigned("X-Amz-Content-Sha256=UNSIGNED-PAYLOAD"));
  expect_failure(
      presigned("X-Amz-Content-Sha256=UNSIGNED-PAYLOAD&x-amz-content-sha256=UNSIGNED-PAYLOAD"),
      AuthFailure::kAuthorizationQueryParametersError);
  for (std::string_view stream : {kStreams[0], kStreams[1]}) {
    expect_failure(presigned("", 3600, {{"x-amz-content-sha256", std::string(stream)}}, stream),
                   AuthFailure::kInvalidContentSha256);
  }
}

TEST_F(GateTest, AnyRegion) {
  const Gate open(identities.table, {.region = "us-east-1", .any_region = true});
  Request request = plain();
  sign(request, kAccessKey, kSecretKey, "mars-1");
  const auto result = authenticate(open, request, kNowMs);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->region, "mars-1");
  sign(request, kAccessKey, kSecretKey, std::string(65, 'r'));
  EXPECT_FALSE(authenticate(open, request, kNowMs));
}

TEST_F(GateTest, OtherServicesAreReported) {
  for (std::string_view service : {"iam", "sts"}) {
    Request request = plain();
    sign(request, kAccessKey, kSecretKey, "us-east-1", service);
    const auto result = authenticate(gate, request, kNowMs);
    ASSERT_TRUE(result);
    EXPECT_EQ(result->service, service);
  }
}

TEST_F(GateTest, TooManyHeaders) {
  Request request = signed_request();
  for (int i = 0; i < 300; ++i) request.headers.emplace_back("a" + std::to_string(i), "");
  expect_failure(request, AuthFailure::kAuthorizationHeaderMalformed, "too many");
  request = plain();
  for (int i = 0; i < 210; ++i) request.headers.emplace_back("a" + std::to_string(i), "");
  sign(request);
  expect_failure(request, AuthFailure::kAuthorizationHeaderMalformed, "too many");
}

// Bug class A4: no byte of what was signed can change.
TEST_F(GateTest, EverySingleByteChangeOfTheHeaderFormIsRefused) {
  Request base = plain();
  base.headers.emplace_back("x-amz-meta-name", "some value");
  base.headers.emplace_back("range", "bytes=0-9");
  sign(base);
  expect_success(base);
  const auto try_all = [&](auto&& text_of) {
    const std::string original = text_of(base);
    for (size_t i = 0; i < original.size(); ++i) {
      for (int mask : {0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80}) {
        Request changed = base;
        text_of(changed)[i] = static_cast<char>(original[i] ^ mask);
        if (const auto result = authenticate(gate, changed, kNowMs)) {
          // Without its credential a request is anonymous, never somebody.
          EXPECT_TRUE(result->identity.anonymous()) << original << " at " << i << " mask " << mask;
        }
      }
    }
  };
  try_all([](Request& request) -> std::string& { return request.method; });
  try_all([](Request& request) -> std::string& { return request.path; });
  try_all([](Request& request) -> std::string& { return request.query; });
  for (size_t header = 0; header < base.headers.size(); ++header) {
    try_all([header](Request& request) -> std::string& { return request.headers[header].second; });
  }
  // Of a name every change but that of a letter's case.
  for (size_t header = 0; header < base.headers.size(); ++header) {
    for (size_t i = 0; i < base.headers[header].first.size(); ++i) {
      Request changed = base;
      changed.headers[header].first[i] ^= 0x11;
      if (const auto result = authenticate(gate, changed, kNowMs))
        EXPECT_TRUE(result->identity.anonymous());
    }
  }
}

TEST_F(GateTest, EverySingleByteChangeOfTheQueryFormIsRefused) {
  const Request base = presigned("response-content-type=text", 3600, {{"range", "bytes=0-9"}});
  expect_success(base);
  for (size_t i = 0; i < base.query.size(); ++i) {
    for (int mask : {0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80}) {
      Request changed = base;
      changed.query[i] = static_cast<char>(base.query[i] ^ mask);
      // %2F and %2f are the same.
      if (mask == 0x20 && i >= 2 && (base.query[i - 2] == '%' || base.query[i - 1] == '%'))
        continue;
      if (const auto result = authenticate(gate, changed, kNowMs)) {
        ADD_FAILURE() << changed.query << " at " << i;
      }
    }
    Request changed = base;
    changed.query.erase(i, 1);
    EXPECT_FALSE(authenticate(gate, changed, kNowMs)) << changed.query;
  }
  Request changed = base;
  changed.header("range") = "bytes=0-10";
  EXPECT_FALSE(authenticate(gate, changed, kNowMs));
  changed = base;
  changed.header("host") = "localhost:1";
  EXPECT_FALSE(authenticate(gate, changed, kNowMs));
}

TEST(SigningKeyCache, DerivesTheDocumentedKeyAndStaysBounded) {
  SigningKeyCache cache;
  // "Examples of how to derive a signing key", AWS General Reference.
  EXPECT_EQ(hex_digest(cache.get("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
                                 "20120215", "us-east-1", "iam"))
                .view(),
            "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d");
  const auto first = cache.get("key", "secret-one", "20130524", "us-east-1", "s3");
  EXPECT_EQ(cache.get("key", "secret-one", "20130524", "us-east-1", "s3"), first);
  EXPECT_NE(cache.get("key", "secret-two", "20130524", "us-east-1", "s3"), first);
  EXPECT_EQ(cache.get("key", "secret-one", "20130524", "us-east-1", "s3"), first);
  for (int i = 0; i < 3000; ++i) {
    const std::string name = "key" + std::to_string(i);
    const auto key = cache.get(name, "secret-one", "20130524", "us-east-1", "s3");
    ASSERT_EQ(key, first);  // the access key is no part of it
    ASSERT_LE(cache.size(), SigningKeyCache::kEntriesMax);
  }
  EXPECT_EQ(cache.get("key2999", "secret-two", "20130524", "us-east-1", "s3").size(), 32u);
  cache.clear();
  EXPECT_EQ(cache.size(), 0u);
  EXPECT_EQ(cache.get("key", "secret-one", "20130524", "us-east-1", "s3"), first);
}

TEST(TimeText, BothForms) {
  EXPECT_EQ(parse_basic_time("19700101T000000Z"), 0);
  EXPECT_EQ(parse_basic_time("20240229T235959Z"), 1709251199);
  EXPECT_FALSE(parse_basic_time("20230229T000000Z"));
  EXPECT_EQ(parse_http_time("Sun, 06 Nov 1994 08:49:37 GMT"), 784111777);
  EXPECT_FALSE(parse_http_time("Sunday, 06-Nov-94 08:49:37 GMT"));
  EXPECT_FALSE(parse_http_time("Sun, 06 Nov 1994 08:49:37 PST"));
  EXPECT_EQ(format_basic_time(784111777), "19941106T084937Z");
}

}  // namespace
}  // namespace basalt::auth
