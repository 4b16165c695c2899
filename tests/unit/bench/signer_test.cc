// Every form of signing against the server's own gate and chunk verifier, which other clients'
// tests hold to account.
#include "bench/signer.h"

#include <gtest/gtest.h>

#include "auth/aws_chunked.h"
#include "protocol/http/head.h"
#include "tests/unit/auth/support.h"

namespace basalt::bench {
namespace {

constexpr int64_t kNowSeconds = 1795227660;

struct Signed {
  auth::Authenticated authenticated;
  http::RequestHead head;
};

class SignerTest : public ::testing::Test {
 protected:
  SignerTest() {
    options_.access_key = auth::testing::kAccessKey;
    options_.secret_key = auth::testing::kSecretKey;
    options_.endpoint.host_header = "s3.example.net:9000";
  }
  void sign_body(Signing signing, uint64_t size, std::string_view query) {
    options_.signing = signing;
    bodies_->prepare({size}, signing);
    Signer signer(options_, *bodies_);
    signer.set_time(kNowSeconds);
    body_ = Bodies::body(size, 3);
    signer.write_body({"PUT", "/bucket/a%20key", query}, body_, head_, frames_, pieces_);
  }
  // What goes over the wire behind the head.
  std::string wire() const {
    std::string out;
    for (const Piece& piece : pieces_) {
      for (uint64_t done = 0; done < piece.size;) {
        const uint64_t step = std::min(piece.size - done, Bodies::kPatternBytes);
        if (piece.text != nullptr)
          out.append(piece.text + done, step);
        else
          out.append(as_text(Bytes(bodies_->at(piece.position + done), step)));
        done += step;
      }
    }
    return out;
  }
  std::string content() const {
    std::string out;
    for (uint64_t i = 0; i < body_.size; ++i)
      out.push_back(static_cast<char>(*bodies_->at(body_.begin + i)));
    return out;
  }
  auth::Authenticated authenticate() {
    EXPECT_EQ(http::parse_request_head(as_bytes(head_), 0, parsed_).status,
              http::HeadStatus::kComplete)
        << head_;
    std::vector<auth::HeaderView> headers;
    for (const http::Field& field : parsed_.fields) headers.push_back({field.name, field.value});
    const auth::Gate gate(identities_.table, {});
    auto result = gate.authenticate({parsed_.method_name, parsed_.path, parsed_.query, headers},
                                    kNowSeconds * 1000);
    EXPECT_TRUE(result) << (result ? "" : result.error().canonical_request);
    EXPECT_FALSE(result->identity.anonymous());
    return *result;
  }

  auth::testing::Identities identities_;
  RunOptions options_;
  std::unique_ptr<Bodies> bodies_ = std::move(*Bodies::create());
  Body body_;
  std::string head_, frames_;
  std::vector<Piece> pieces_;
  http::RequestHead parsed_;
};

TEST_F(SignerTest, RequestsWithoutBody) {
  for (const Signing signing :
       {Signing::kHeader, Signing::kUnsignedPayload, Signing::kPresigned, Signing::kChunked}) {
    options_.signing = signing;
    Signer signer(options_, *bodies_);
    signer.set_time(kNowSeconds - 86400);  // another day's key
    signer.set_time(kNowSeconds);
    signer.write_plain({"GET", "/bucket", "list-type=2&max-keys=10&prefix=a%2F"}, {}, head_);
    EXPECT_EQ(authenticate().presigned, signing == Signing::kPresigned);
    EXPECT_FALSE(parsed_.content_length);
    signer.write_plain({"POST", "/bucket/key", "uploadId=abc"}, "<xml/>", head_);
    authenticate();
    EXPECT_EQ(parsed_.content_length, 6u);
    signer.write_plain({"PUT", "/bucket", {}}, {}, head_);
    authenticate();
    EXPECT_EQ(parsed_.content_length, 0u);
  }
}

TEST_F(SignerTest, WholeBodies) {
  for (const uint64_t size : {uint64_t{0}, uint64_t{5000}, Bodies::kPatternBytes + 77}) {
    for (const Signing signing :
         {Signing::kHeader, Signing::kUnsignedPayload, Signing::kPresigned, Signing::kNone}) {
      sign_body(signing, size, {});
      EXPECT_EQ(wire(), content());
      if (signing == Signing::kNone) continue;
      const auto authenticated = authenticate();
      EXPECT_EQ(parsed_.content_length, size);
      if (signing != Signing::kHeader) continue;
      EXPECT_EQ(authenticated.payload, auth::PayloadKind::kSha256);
      const auth::Digest digest = auth::digest(auth::Algorithm::kSha256, as_bytes(content()));
      EXPECT_EQ(as_text(digest.view()), as_text(authenticated.payload_sha256));
    }
  }
}

TEST_F(SignerTest, ChunkedBodies) {
  for (const uint64_t size : {uint64_t{0}, uint64_t{1}, uint64_t{65536}, uint64_t{65537},
                              uint64_t{1} << 20, uint64_t{1'234'567}}) {
    for (const Signing signing : {Signing::kChunked, Signing::kTrailer, Signing::kSignedTrailer}) {
      sign_body(signing, size, "partNumber=1&uploadId=x");
      const auto authenticated = authenticate();
      const std::string sent = wire();
      EXPECT_EQ(parsed_.content_length, sent.size());
      auth::AwsChunkedDecoder decoder(
          {.kind = authenticated.payload,
           .signing = authenticated.chunk_signing,
           .decoded_length = size,
           .announced = signing == Signing::kChunked
                            ? std::vector<std::string>{}
                            : std::vector<std::string>{"x-amz-checksum-crc32"}});
      std::string decoded;
      Bytes rest = as_bytes(sent);
      bool done = false;
      while (!done) {
        const auto step = decoder.decode(rest);
        ASSERT_TRUE(step) << signing_name(signing) << " " << size << " "
                          << static_cast<int>(step.error());
        ASSERT_TRUE(step->consumed != 0 || step->done);
        decoded.append(as_text(step->data));
        rest = rest.subspan(step->consumed);
        done = step->done;
      }
      EXPECT_TRUE(rest.empty());
      EXPECT_TRUE(decoded == content());
      if (signing == Signing::kChunked) continue;
      ASSERT_EQ(decoder.trailers().size(), 1u);
      EXPECT_EQ(decoder.trailers()[0].second,
                auth::to_base64(auth::digest(auth::Algorithm::kCrc32, as_bytes(content())).view()));
    }
  }
}

}  // namespace
}  // namespace basalt::bench
