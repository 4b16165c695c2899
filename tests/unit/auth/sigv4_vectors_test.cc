// The verifier against two other implementations of the signer: the worked examples of the S3 API
// reference ("Authenticating Requests: Using the Authorization Header", "... Using Query
// Parameters"), and requests that botocore signed (vectors/generate.py), also as a proxy may have
// re-encoded them on their way.
#include <gtest/gtest.h>

#include "tests/unit/auth/support.h"
#include "tests/unit/auth/vectors/botocore_vectors.h"

namespace basalt::auth {
namespace {

using namespace testing;

class Examples : public ::testing::Test {
 protected:
  Identities identities;
  Gate gate{identities.table, {}};

  Request request(std::string method, std::string path, std::string query, std::string_view hash) {
    return {std::move(method),
            std::move(path),
            std::move(query),
            {{"Host", "examplebucket.s3.amazonaws.com"},
             {"x-amz-date", "20130524T000000Z"},
             {"x-amz-content-sha256", std::string(hash)}}};
  }
  void expect_signed(Request& with, const std::string& signed_headers,
                     const std::string& signature) {
    with.headers.emplace_back(
        "Authorization",
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
        "SignedHeaders=" +
            signed_headers + ",Signature=" + signature);
    const auto result = authenticate(gate, with, k20130524Ms);
    ASSERT_TRUE(result) << result.error().detail << "\n" << result.error().canonical_request;
    EXPECT_EQ(result->identity.account().name, "alice");
    EXPECT_EQ(result->identity.access_key(), kAccessKey);
  }
};

TEST_F(Examples, GetObject) {
  Request get = request("GET", "/test.txt", "", kEmptyHash);
  get.headers.emplace_back("Range", "bytes=0-9");
  expect_signed(get, "host;range;x-amz-content-sha256;x-amz-date",
                "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

TEST_F(Examples, PutObject) {
  Request put = request("PUT", "/test$file.text", "",
                        "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072");
  put.headers.emplace_back("Date", "Fri, 24 May 2013 00:00:00 GMT");
  put.headers.emplace_back("x-amz-storage-class", "REDUCED_REDUNDANCY");
  expect_signed(put, "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
                "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}

TEST_F(Examples, GetBucketLifecycle) {
  Request get = request("GET", "/", "lifecycle", kEmptyHash);
  expect_signed(get, "host;x-amz-content-sha256;x-amz-date",
                "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
}

TEST_F(Examples, ListObjects) {
  Request get = request("GET", "/", "max-keys=2&prefix=J", kEmptyHash);
  expect_signed(get, "host;x-amz-content-sha256;x-amz-date",
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

TEST_F(Examples, PresignedUrl) {
  const Request get{"GET",
                    "/test.txt",
                    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%"
                    "2F20130524%2Fus-east-1%2Fs3%2F"
                    "aws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-"
                    "SignedHeaders=host&X-Amz-Signature="
                    "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
                    {{"Host", "examplebucket.s3.amazonaws.com"}}};
  const auto result = authenticate(gate, get, k20130524Ms);
  ASSERT_TRUE(result) << result.error().detail;
  EXPECT_TRUE(result->presigned);
  EXPECT_EQ(result->payload, PayloadKind::kUnsigned);
}

Request request_of(const vectors::Vector& vector) {
  Request request{
      std::string(vector.method), std::string(vector.path), std::string(vector.query), {}};
  for (const auto& [name, value] : vector.headers) request.headers.emplace_back(name, value);
  return request;
}

TEST(Botocore, EveryVectorVerifies) {
  Identities identities;
  const Gate gate(identities.table, {});
  for (const auto& vector : vectors::all()) {
    const auto result = authenticate(gate, request_of(vector), vectors::kNowMs);
    EXPECT_TRUE(result) << vector.what << " " << vector.path << "?" << vector.query << "\n"
                        << (result
                                ? ""
                                : result.error().detail + "\n" + result.error().canonical_request);
    if (result) EXPECT_EQ(result->presigned, vector.what.starts_with("query"));
  }
}

TEST(Botocore, NoVectorVerifiesWithAnotherSecretMethodPathOrQuery) {
  Identities identities, wrong;
  wrong.add_key({.access_key = std::string(kAccessKey),
                 .secret_key = "another-secret-key",
                 .account_id = "alice-id"});
  const Gate gate(identities.table, {}), wrong_gate(wrong.table, {});
  for (const auto& vector : vectors::all()) {
    Request request = request_of(vector);
    EXPECT_FALSE(authenticate(wrong_gate, request, vectors::kNowMs)) << vector.what;
    request.method = request.method == "GET" ? "PUT" : "GET";
    EXPECT_FALSE(authenticate(gate, request, vectors::kNowMs)) << vector.what;
    request = request_of(vector);
    request.path += "/";
    EXPECT_FALSE(authenticate(gate, request, vectors::kNowMs)) << vector.what;
    request = request_of(vector);
    request.query += request.query.empty() ? "x" : "&x";
    EXPECT_FALSE(authenticate(gate, request, vectors::kNowMs)) << vector.what;
  }
}

// Escapes in lower case, and bytes escaped that need not be, are the same path and query.
std::string recoded(std::string_view text, std::string_view keep, bool escape_all) {
  static constexpr char kLower[] = "0123456789abcdef";
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%') {
      out += '%';
      out += static_cast<char>(std::tolower(text[i + 1]));
      out += static_cast<char>(std::tolower(text[i + 2]));
      i += 2;
    } else if (escape_all && keep.find(text[i]) == std::string_view::npos) {
      out += '%';
      out += kLower[static_cast<uint8_t>(text[i]) >> 4];
      out += kLower[text[i] & 15];
    } else {
      out += text[i];
    }
  }
  return out;
}

TEST(Botocore, EquivalentEncodingsVerify) {
  Identities identities;
  const Gate gate(identities.table, {});
  for (const auto& vector : vectors::all()) {
    for (bool escape_all : {false, true}) {
      Request request = request_of(vector);
      request.path = recoded(request.path, "/", escape_all);
      request.query = recoded(request.query, "&=", escape_all);
      EXPECT_TRUE(authenticate(gate, request, vectors::kNowMs))
          << vector.what << " " << request.path << "?" << request.query;
    }
  }
}

}  // namespace
}  // namespace basalt::auth
