// The chunked decoder against the worked examples of the S3 API reference ("Transferring Payload in
// Multiple Chunks", "Including Trailing Headers"), the shapes real clients send, every mutation of
// a valid body, and every way to cut it into reads.
#include "auth/aws_chunked.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <random>

#include "auth/sha256.h"
#include "tests/unit/auth/support.h"

namespace basalt::auth {
namespace {

using namespace testing;

struct Outcome {
  std::string payload;
  bool done = false;
  size_t left_over = 0;
  std::optional<ChunkFailure> failure;
  std::vector<std::pair<std::string, std::string>> trailers;
};

// Feeds reads of at most `step` bytes (0: all at once).
Outcome run(AwsChunkedDecoder::Options options, std::string_view body, size_t step = 0) {
  AwsChunkedDecoder decoder(std::move(options));
  Outcome outcome;
  size_t at = 0, end = 0;
  while (true) {
    const auto result = decoder.decode(as_bytes(body.substr(at, end - at)));
    if (!result) {
      outcome.failure = result.error();
      EXPECT_EQ(decoder.decode(as_bytes("0\r\n\r\n")).error(), result.error());  // for good
      return outcome;
    }
    EXPECT_LE(result->consumed, end - at);
    EXPECT_LE(result->data.size(), result->consumed);
    outcome.payload += as_text(result->data);
    at += result->consumed;
    outcome.done = result->done;
    if (result->consumed == 0 || at == end) {
      if (end == body.size() && (result->consumed == 0 || outcome.done)) break;
      if (result->consumed == 0 && end > at && outcome.done) break;
      end = step == 0 ? body.size() : std::min(body.size(), end + step);
    }
  }
  outcome.left_over = body.size() - at;
  outcome.trailers = decoder.trailers();
  EXPECT_EQ(decoder.decoded_bytes(), outcome.payload.size());
  return outcome;
}

ChunkSigning example_signing(std::string seed) {
  SigningKeyCache cache;
  return {.signing_key = cache.get(kAccessKey, kSecretKey, "20130524", "us-east-1", "s3"),
          .scope = "20130524/us-east-1/s3/aws4_request",
          .date_time = "20130524T000000Z",
          .seed_signature = std::move(seed)};
}

// An encoder of our own, as clients do it.
struct Encoder {
  ChunkSigning signing = example_signing(std::string(64, '0'));
  bool is_signed = true;
  std::string body;
  std::string previous = signing.seed_signature;

  std::string sign(const std::string& text) {
    previous = std::string(hex_digest(HmacSha256(signing.signing_key).sign(text)).view());
    return previous;
  }
  void line(std::string_view data) {
    body += fmt::format("{:x}", data.size());
    if (is_signed) {
      body += ";chunk-signature=" + sign(fmt::format("AWS4-HMAC-SHA256-PAYLOAD\n{}\n{}\n{}\n{}\n{}",
                                                     signing.date_time, signing.scope, previous,
                                                     kEmptyHash, hex_digest(sha256(data)).view()));
    }
    body += "\r\n";
  }
  Encoder& chunk(std::string_view data) {
    line(data);
    body += data;
    body += "\r\n";
    return *this;
  }
  Encoder& last() {
    line("");
    return *this;
  }
  Encoder& text(std::string_view more) {
    body += more;
    return *this;
  }
  Encoder& trailer_signature(std::string_view lines, std::string_view end = "\r\n\r\n") {
    body += "x-amz-trailer-signature:" +
            sign(fmt::format("AWS4-HMAC-SHA256-TRAILER\n{}\n{}\n{}\n{}", signing.date_time,
                             signing.scope, previous, hex_digest(sha256(lines)).view()));
    body += end;
    return *this;
  }
  AwsChunkedDecoder::Options options(PayloadKind kind, uint64_t bytes,
                                     std::vector<std::string> announced = {}) {
    AwsChunkedDecoder::Options out{.kind = kind,
                                   .signing = std::nullopt,
                                   .decoded_length = bytes,
                                   .announced = std::move(announced)};
    if (is_signed) out.signing = signing;
    return out;
  }
};

constexpr auto kSigned = PayloadKind::kStreamingSigned;
constexpr auto kSignedTrailer = PayloadKind::kStreamingSignedTrailer;
constexpr auto kUnsignedTrailer = PayloadKind::kStreamingUnsignedTrailer;

TEST(AwsChunked, ExampleOfTheReference) {
  Identities identities;
  const Gate gate(identities.table, {});
  const Request put{
      "PUT",
      "/examplebucket/chunkObject.txt",
      "",
      {{"Host", "s3.amazonaws.com"},
       {"x-amz-date", "20130524T000000Z"},
       {"x-amz-storage-class", "REDUCED_REDUNDANCY"},
       {"Authorization",
        "AWS4-HMAC-SHA256 "
        "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders="
        "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-"
        "content-length;"
        "x-amz-storage-class,Signature="
        "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"},
       {"x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"},
       {"Content-Encoding", "aws-chunked"},
       {"x-amz-decoded-content-length", "66560"},
       {"Content-Length", "66824"}}};
  const auto authenticated = authenticate(gate, put, k20130524Ms);
  ASSERT_TRUE(authenticated) << authenticated.error().detail
                             << authenticated.error().canonical_request;
  ASSERT_TRUE(authenticated->chunk_signing);
  const std::string body =
      "10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n" +
      std::string(65536, 'a') +
      "\r\n400;chunk-signature="
      "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n" +
      std::string(1024, 'a') +
      "\r\n0;chunk-signature="
      "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n";
  EXPECT_EQ(body.size(), 66824u);
  for (size_t step : {0, 1, 7, 4096}) {
    const Outcome outcome = run({kSigned, authenticated->chunk_signing, 66560, {}}, body, step);
    EXPECT_TRUE(outcome.done);
    EXPECT_EQ(outcome.payload, std::string(66560, 'a'));
    EXPECT_EQ(outcome.left_over, 0u);
  }
}

TEST(AwsChunked, TrailerExampleOfTheReference) {
  Identities identities;
  const Gate gate(identities.table, {});
  const Request put{
      "PUT",
      "/examplebucket/chunkObject.txt",
      "",
      {{"Host", "s3.amazonaws.com"},
       {"x-amz-date", "20130524T000000Z"},
       {"x-amz-storage-class", "REDUCED_REDUNDANCY"},
       {"Authorization",
        "AWS4-HMAC-SHA256 "
        "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders="
        "content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-"
        "storage-class;"
        "x-amz-trailer,Signature=106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"},
       {"x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"},
       {"Content-Encoding", "aws-chunked"},
       {"x-amz-decoded-content-length", "66560"},
       {"x-amz-trailer", "x-amz-checksum-crc32c"}}};
  const auto authenticated = authenticate(gate, put, k20130524Ms);
  ASSERT_TRUE(authenticated) << authenticated.error().detail
                             << authenticated.error().canonical_request;
  const std::string chunks =
      "10000;chunk-signature=b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2\r\n" +
      std::string(65536, 'a') +
      "\r\n400;chunk-signature="
      "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7\r\n" +
      std::string(1024, 'a') +
      "\r\n0;chunk-signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992\r\n";
  const std::string signature =
      "x-amz-trailer-signature:"
      "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n";
  // As the reference shows it, as minio-go sends it, and with an empty line after the last chunk.
  for (const std::string& trailer : {"x-amz-checksum-crc32c:sOO8/Q==\r\n" + signature,
                                     "x-amz-checksum-crc32c:sOO8/Q==\n\r\n" + signature,
                                     "\r\nx-amz-checksum-crc32c:sOO8/Q==\r\n" + signature}) {
    for (size_t step : {0, 1, 13}) {
      const Outcome outcome =
          run({kSignedTrailer, authenticated->chunk_signing, 66560, {"x-amz-checksum-crc32c"}},
              chunks + trailer, step);
      EXPECT_FALSE(outcome.failure) << trailer << static_cast<int>(*outcome.failure);
      EXPECT_TRUE(outcome.done);
      EXPECT_EQ(outcome.left_over, 0u);
      ASSERT_EQ(outcome.trailers.size(), 1u);
      EXPECT_EQ(outcome.trailers[0],
                std::pair(std::string("x-amz-checksum-crc32c"), std::string("sOO8/Q==")));
    }
  }
  // The checksum of the example is that of its payload.
  EXPECT_EQ(to_base64(digest(Algorithm::kCrc32c, as_bytes(std::string(66560, 'a'))).view()),
            "sOO8/Q==");
}

TEST(AwsChunked, UnsignedTrailerShapes) {
  Encoder encoder{.is_signed = false};
  const auto options = [&](std::vector<std::string> announced = {"x-amz-checksum-crc32"}) {
    return encoder.options(kUnsignedTrailer, 5, std::move(announced));
  };
  for (const std::string& end : {std::string("0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n"),
                                 std::string("0\r\nX-Amz-Checksum-CRC32: NhCmhg== \r\n\r\n"),
                                 std::string("0\r\nx-amz-checksum-crc32:NhCmhg==\n\r\n\r\n"),
                                 std::string("000\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n\r\n")}) {
    for (size_t step : {0, 1, 2, 3, 5}) {
      const Outcome outcome = run(options(), "5\r\nhello\r\n" + end, step);
      EXPECT_TRUE(outcome.done) << end;
      EXPECT_EQ(outcome.payload, "hello");
      EXPECT_EQ(outcome.left_over, 0u);
      ASSERT_EQ(outcome.trailers.size(), 1u);
      EXPECT_EQ(outcome.trailers[0].second, "NhCmhg==");
    }
  }
  EXPECT_TRUE(run(options({}), "5\r\nhello\r\n0\r\n\r\n").done);
  EXPECT_TRUE(run(options({}), "1\r\nh\r\n1\r\ne\r\n3\r\nllo\r\n0\r\n\r\n")
                  .done);  // small chunks are fine unsigned
  EXPECT_TRUE(run(encoder.options(kUnsignedTrailer, 0), "0\r\n\r\n").done);
  const Outcome extra = run(options({}), "5\r\nhello\r\n0\r\n\r\n\r\nGET / HTTP/1.1\r\n");
  EXPECT_TRUE(extra.done);
  EXPECT_EQ(extra.left_over, 16u);
}

TEST(AwsChunked, UnsignedTrailerFailures) {
  Encoder encoder{.is_signed = false};
  const auto failure = [&](std::string_view body, std::vector<std::string> announced = {},
                           uint64_t length = 5) {
    const Outcome outcome =
        run(encoder.options(kUnsignedTrailer, length, std::move(announced)), body);
    EXPECT_FALSE(outcome.done) << body;
    return outcome.failure;
  };
  const std::string h = "5\r\nhello\r\n";
  for (std::string_view bad : {"\r\n", ";\r\n", "5;x=y\r\nhello\r\n", "5\nhello\n", "x\r\n",
                               "-5\r\n", "+5\r\n", "0x5\r\n", " 5\r\n", "5 \r\n", "5\r\nhelloX\n",
                               "5\r\nhello\rX", "5\r\nhello\n", "10000000000000000\r\n",
                               "ffffffffffffffff\r\n", "00000000000000005\r\n", "140000001\r\n"}) {
    EXPECT_EQ(failure(bad), ChunkFailure::kMalformed) << bad;
  }
  EXPECT_EQ(failure(std::string(2000, '0')), ChunkFailure::kMalformed);
  EXPECT_EQ(failure("5;chunk-signature=" + std::string(64, 'a') + "\r\n"),
            ChunkFailure::kMalformed);
  EXPECT_EQ(failure("6\r\nhello!\r\n"), ChunkFailure::kTooLong);
  EXPECT_EQ(failure(h + "1\r\n!\r\n0\r\n\r\n"), ChunkFailure::kTooLong);
  EXPECT_EQ(failure("4\r\nhell\r\n0\r\n\r\n"), ChunkFailure::kTooLong);
  EXPECT_EQ(failure(h + "0\r\na:b\r\n\r\n"), ChunkFailure::kMalformedTrailer);  // not announced
  EXPECT_EQ(failure(h + "0\r\n\r\n", {"a"}),
            ChunkFailure::kMalformedTrailer);  // announced, missing
  EXPECT_EQ(failure(h + "0\r\na:b\r\na:b\r\n\r\n", {"a"}),
            ChunkFailure::kMalformedTrailer);  // twice
  EXPECT_EQ(failure(h + "0\r\na:b\r\n\r\n", {"a", "b"}), ChunkFailure::kMalformedTrailer);
  EXPECT_EQ(failure(h + "0\r\na b\r\n\r\n", {"a"}), ChunkFailure::kMalformedTrailer);
  EXPECT_EQ(failure(h + "0\r\n:b\r\n\r\n", {"a"}), ChunkFailure::kMalformedTrailer);
  EXPECT_EQ(failure(h + "0\r\na :b\r\n\r\n", {"a"}), ChunkFailure::kMalformedTrailer);
  EXPECT_EQ(failure(h + "0\r\na:\x01\r\n\r\n", {"a"}), ChunkFailure::kMalformedTrailer);
  EXPECT_EQ(failure(h + "0\r\na:" + std::string(1100, 'x') + "\r\n\r\n", {"a"}),
            ChunkFailure::kMalformedTrailer);
  EXPECT_EQ(failure(h + "0\r\nx-amz-trailer-signature:" + std::string(64, 'a') + "\r\n\r\n"),
            ChunkFailure::kMalformedTrailer);
  std::string many = h + "0\r\n";
  std::vector<std::string> names;
  for (int i = 0; i < 10; ++i) {
    names.push_back("t" + std::to_string(i));
    many += names.back() + ":" + std::string(500, 'x') + "\r\n";
  }
  EXPECT_EQ(failure(many + "\r\n", names), ChunkFailure::kMalformedTrailer);
  for (std::string_view open : {"", "5", "5\r\nhel", "5\r\nhello", "5\r\nhello\r\n",
                                "5\r\nhello\r\n0\r\n", "5\r\nhello\r\n0\r\n\r"}) {
    EXPECT_EQ(failure(open), std::nullopt);  // unfinished, not done
  }
}

TEST(AwsChunked, SignedFailures) {
  const std::string big(9000, 'x');
  {
    Encoder encoder;
    encoder.chunk(big).chunk("tail").last().text("\r\n");
    EXPECT_TRUE(run(encoder.options(kSigned, big.size() + 4), encoder.body).done);
    // The last chunk left out, or its signature.
    const size_t last = encoder.body.rfind("0;chunk");
    EXPECT_FALSE(run(encoder.options(kSigned, big.size() + 4), encoder.body.substr(0, last)).done);
    EXPECT_EQ(
        run(encoder.options(kSigned, big.size() + 4), encoder.body.substr(0, last) + "0\r\n\r\n")
            .failure,
        ChunkFailure::kSignature);
    // Signed chunks where the request did not say so, and the other way round.
    EXPECT_TRUE(run({kUnsignedTrailer, std::nullopt, big.size() + 4, {}}, encoder.body).failure);
    EXPECT_TRUE(run({kSigned, std::nullopt, big.size() + 4, {}}, encoder.body).failure);
    EXPECT_TRUE(
        run({PayloadKind::kUnsigned, encoder.signing, big.size() + 4, {}}, encoder.body).failure);
    // A trailer that was announced cannot come in this form.
    EXPECT_EQ(run(encoder.options(kSigned, big.size() + 4, {"a"}), encoder.body).failure,
              ChunkFailure::kMalformedTrailer);
  }
  {
    Encoder encoder;  // a small chunk that is not the last
    encoder.chunk("small").chunk(big).last().text("\r\n");
    EXPECT_EQ(run(encoder.options(kSigned, big.size() + 5), encoder.body).failure,
              ChunkFailure::kTooSmallChunk);
  }
  {
    Encoder encoder;  // order matters
    encoder.chunk(std::string(8192, 'a')).chunk(std::string(8192, 'b')).last().text("\r\n");
    const size_t chunk = encoder.body.find("2000;", 1);
    const std::string swapped = encoder.body.substr(chunk, chunk) + encoder.body.substr(0, chunk) +
                                encoder.body.substr(2 * chunk);
    EXPECT_TRUE(run(encoder.options(kSigned, 16384), encoder.body).done);
    const Outcome outcome = run(encoder.options(kSigned, 16384), swapped);
    EXPECT_EQ(outcome.failure, ChunkFailure::kSignature);
  }
  {
    Encoder encoder;  // a trailer without its signature, a wrong one, one after it
    encoder.chunk("data").last().text("a:b\r\n");
    const auto options = encoder.options(kSignedTrailer, 4, {"a"});
    const std::string unsigned_end = encoder.body + "\r\n\r\n";
    EXPECT_EQ(run(options, unsigned_end).failure, ChunkFailure::kMalformedTrailer);
    EXPECT_FALSE(run(options, encoder.body + "\r\n").done);
    EXPECT_EQ(
        run(options, encoder.body + "x-amz-trailer-signature:" + std::string(64, 'a') + "\r\n\r\n")
            .failure,
        ChunkFailure::kSignature);
    Encoder good = encoder;
    good.trailer_signature("a:b\n");
    EXPECT_TRUE(run(options, good.body).done);
    Encoder after = encoder;
    after.trailer_signature("a:b\n", "\r\nb:c\r\n\r\n");
    EXPECT_EQ(run(encoder.options(kSignedTrailer, 4, {"a", "b"}), after.body).failure,
              ChunkFailure::kMalformedTrailer);
  }
}

TEST(AwsChunked, EveryChangedByteOfASignedBodyIsRefused) {
  Encoder encoder;
  encoder.chunk(std::string(8192, 'a'))
      .chunk("tail")
      .last()
      .text("a:value\r\n")
      .trailer_signature("a:value\n");
  const auto options = encoder.options(kSignedTrailer, 8196, {"a"});
  ASSERT_TRUE(run(options, encoder.body).done);
  std::mt19937 random(1);
  for (size_t i = 0; i < encoder.body.size(); ++i) {
    if (i > 200 && i < 8100 && random() % 64 != 0) continue;  // of the long run some
    for (int mask : {0x01, 0x20, 0x80}) {
      std::string changed = encoder.body;
      changed[i] = static_cast<char>(changed[i] ^ mask);
      const Outcome outcome = run(options, changed);
      // The trailer's name is compared in lower case: 'A' signs as 'a'.
      if (outcome.done)
        EXPECT_EQ(changed[i], outcome.trailers[0].first == "a" &&
                                      (encoder.body[i] | 0x20) == (changed[i] | 0x20)
                                  ? changed[i]
                                  : 0)
            << i << " " << mask;
    }
    if (i % 3 == 0) {
      std::string shorter = encoder.body;
      shorter.erase(i, 1);
      const Outcome outcome = run(options, shorter);
      EXPECT_TRUE(!outcome.done || outcome.trailers.size() == 1) << i;
      if (outcome.done) EXPECT_EQ(encoder.body[i], '\r');  // a trailer line may end with LF alone
    }
  }
}

TEST(AwsChunked, AllCutsGiveTheSame) {
  Encoder encoder;
  encoder.chunk(std::string(8192, 'a'))
      .chunk("tail")
      .last()
      .text("a:value\r\n")
      .trailer_signature("a:value\n");
  const auto options = encoder.options(kSignedTrailer, 8196, {"a"});
  for (size_t step = 1; step < 130; ++step) {
    const Outcome outcome = run(options, encoder.body, step);
    ASSERT_TRUE(outcome.done) << step;
    ASSERT_EQ(outcome.payload, std::string(8192, 'a') + "tail");
    ASSERT_EQ(outcome.left_over, 0u);
  }
}

}  // namespace
}  // namespace basalt::auth
