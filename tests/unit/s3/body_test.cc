// body: every promise of a client about its payload, kept and broken, in every form of framing.
#include "protocol/s3/body.h"

#include "tests/unit/s3/s3_world.h"

namespace basalt::s3 {
namespace {

using auth::Algorithm;
using testing::Ask;
using testing::FakeExchange;

struct Case {
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  auth::PayloadKind payload = auth::PayloadKind::kUnsigned;
  std::string signed_text;  // what payload_sha256 is of, with kSha256
  bool content_length = true;
  bool cut = false;
  std::optional<Algorithm> want;
  BodyKind kind = BodyKind::kStream;
  bool checksum_of_object = false;
};

struct Outcome {
  std::string code;
  std::string message;
  std::string payload;
  auth::Digest md5;
  std::optional<Checksum> checksum;
  bool close = false;
};

// Authenticated has no public constructor for its identity: an anonymous request makes one.
auth::Authenticated anonymous() {
  static auth::Sealer sealer = testing::make_sealer();
  static auth::IdentityTable table(sealer);
  static const auth::Gate gate(table, {});
  const auth::HeaderView host{"host", "x"};
  auto result = gate.authenticate({"GET", "/", "", {&host, 1}}, testing::kNowMs);
  EXPECT_TRUE(result.has_value());
  return std::move(*result);
}

Task<Outcome> consume(session::Exchange& exchange, const S3Request& request,
                      const auth::Authenticated& auth, std::optional<Algorithm> want,
                      size_t buffer_size) {
  Outcome outcome;
  auto opened = RequestBody::open(exchange, request, auth);
  if (!opened) {
    outcome.code = s3_code_name(opened.error().code);
    outcome.message = opened.error().message;
    co_return outcome;
  }
  RequestBody& body = **opened;
  if (want) body.want(*want);
  std::vector<uint8_t> buffer(buffer_size);
  while (true) {
    auto read = co_await body.read(buffer);
    if (!read) {
      outcome.code = s3_code_name(read.error().code);
      outcome.message = read.error().message;
      outcome.close = read.error().close;
      co_return outcome;
    }
    if (*read == 0) break;
    outcome.payload.append(reinterpret_cast<const char*>(buffer.data()), *read);
  }
  outcome.md5 = body.md5();
  outcome.checksum = body.checksum();
  EXPECT_EQ(body.length(), outcome.payload.size());
  co_return outcome;
}

Outcome run(const Case& given, size_t piece = 7, size_t buffer_size = 64) {
  std::string text = "PUT /b/k HTTP/1.1\r\nhost: x\r\n";
  for (const auto& [name, value] : given.headers) text += fmt::format("{}: {}\r\n", name, value);
  if (given.content_length) text += fmt::format("content-length: {}\r\n", given.body.size());
  text += "\r\n";
  http::RequestHead head;
  EXPECT_EQ(http::parse_request_head(as_bytes(text), 0, head).status, http::HeadStatus::kComplete);
  Route route{.name = "PutObject",
              .method = http::Method::kPut,
              .target = Target::kObject,
              .body = given.kind};
  route.checksum_of_object = given.checksum_of_object;
  S3Request request;
  request.head = &head;
  request.route = &route;
  auth::Authenticated auth = anonymous();
  auth.payload = given.payload;
  const auto sha256 = auth::digest(Algorithm::kSha256, as_bytes(given.signed_text));
  std::copy_n(sha256.bytes.begin(), 32, auth.payload_sha256.begin());
  FakeExchange exchange(head, given.body, piece);
  if (given.cut) exchange.cut();
  auto task = consume(exchange, request, auth, given.want, buffer_size);
  task.start();
  EXPECT_TRUE(task.done());
  return std::move(task.result());
}

// With a station the bytes stay where they were read until they are hashed, and the end is seen
// before the digests are there.
struct Behind {
  Outcome outcome;
  bool ended_before_verified = false;
  uint64_t hashed_when_read = 0;
};

Task<Behind> consume_behind(session::Exchange& exchange, const S3Request& request,
                            const auth::Authenticated& auth, auth::HashStation& station,
                            bool give_up) {
  Behind behind;
  auto opened = RequestBody::open(exchange, request, auth, &station);
  BASALT_CHECK(opened.has_value());
  RequestBody& body = **opened;
  std::vector<uint8_t> memory(body.length() + 1);
  size_t filled = 0;
  while (!body.ended()) {
    auto read = co_await body.read(MutableBytes(memory).subspan(filled));
    BASALT_CHECK(read.has_value());
    filled += *read;
    if (give_up && filled > body.length() / 2) {
      body.release();  // before `memory` goes
      co_return behind;
    }
  }
  behind.ended_before_verified = true;
  behind.hashed_when_read = body.hashed();
  co_await body.hash_to(filled / 2);
  BASALT_CHECK(body.hashed() >= filled / 2);
  body.finish_digests();  // before the read() that verifies, or not at all: it is the same
  auto last = co_await body.read(MutableBytes(memory).subspan(filled));
  if (!last) {
    behind.outcome.code = s3_code_name(last.error().code);
    co_return behind;
  }
  BASALT_CHECK(*last == 0 && body.hashed() == filled);
  behind.outcome.md5 = body.md5();
  behind.outcome.payload.assign(memory.begin(), memory.begin() + static_cast<long>(filled));
  co_return behind;
}

Behind run_behind(const std::string& payload, std::string_view signed_text, bool give_up = false) {
  const std::string text =
      fmt::format("PUT /b/k HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", payload.size());
  http::RequestHead head;
  EXPECT_EQ(http::parse_request_head(as_bytes(text), 0, head).status, http::HeadStatus::kComplete);
  const Route route{.name = "PutObject",
                    .method = http::Method::kPut,
                    .target = Target::kObject,
                    .body = BodyKind::kStream};
  S3Request request;
  request.head = &head;
  request.route = &route;
  auth::Authenticated auth = anonymous();
  auth.payload = auth::PayloadKind::kSha256;
  const auto sha256 = auth::digest(Algorithm::kSha256, as_bytes(signed_text));
  std::copy_n(sha256.bytes.begin(), 32, auth.payload_sha256.begin());
  FakeExchange exchange(head, payload, 10'000);
  RunQueue run_queue;
  auth::HashStation station(run_queue, auth::HashPlan::measure());
  auto task = consume_behind(exchange, request, auth, station, give_up);
  task.start();
  while (!task.done()) {
    const bool worked = !station.prepare_sleep();
    const bool ran = run_queue.run() > 0;
    BASALT_CHECK(worked || ran);
  }
  EXPECT_TRUE(station.prepare_sleep());  // nothing is left in it
  return std::move(task.result());
}

std::string b64(Algorithm algorithm, std::string_view text) {
  return testing::base64_digest(algorithm, text);
}

const std::string kText =
    "The quick brown fox jumps over the lazy dog, twice and more than one read holds at a time.";

TEST(Body, PlainPayload) {
  for (const size_t piece : {1u, 7u, 1000u}) {
    const Outcome outcome = run({.body = kText}, piece);
    EXPECT_EQ(outcome.code, "");
    EXPECT_EQ(outcome.payload, kText);
    EXPECT_EQ(outcome.md5, auth::digest(Algorithm::kMd5, as_bytes(kText)));
    EXPECT_FALSE(outcome.checksum.has_value());
  }
  EXPECT_EQ(run({.body = ""}).code, "");
  EXPECT_EQ(run({.body = "", .want = Algorithm::kCrc64Nvme}).checksum->value,
            auth::digest(Algorithm::kCrc64Nvme, {}));
}

TEST(Body, DigestsBehindTheReading) {
  std::string payload;
  for (size_t i = 0; payload.size() < 700'000; ++i) payload += fmt::format("line {}\n", i);
  const Behind good = run_behind(payload, payload);
  EXPECT_TRUE(good.ended_before_verified);
  EXPECT_EQ(good.hashed_when_read, 0u);
  EXPECT_EQ(good.outcome.code, "");
  EXPECT_EQ(good.outcome.payload, payload);
  EXPECT_EQ(good.outcome.md5, auth::digest(Algorithm::kMd5, as_bytes(payload)));
  EXPECT_EQ(run_behind(payload, "another payload").outcome.code, "XAmzContentSHA256Mismatch");
  EXPECT_FALSE(run_behind(payload, payload, true).ended_before_verified);
}

TEST(Body, Lengths) {
  EXPECT_EQ(run({.content_length = false}).code, "MissingContentLength");
  EXPECT_EQ(run({.headers = {{"transfer-encoding", "chunked"}}, .content_length = false}).code,
            "MissingContentLength");
  EXPECT_EQ(run({.headers = {{"content-length", "5368709121"}}, .content_length = false}).code,
            "EntityTooLarge");
  const Outcome cut = run({.headers = {{"content-length", "10"}},
                           .body = "short",
                           .content_length = false,
                           .cut = true});
  EXPECT_EQ(cut.code, "IncompleteBody");
  EXPECT_TRUE(cut.close);
  EXPECT_EQ(
      run({.headers = {{"transfer-encoding", "chunked"}, {"x-amz-decoded-content-length", "5"}},
           .body = "hello",
           .content_length = false})
          .payload,
      "hello");
  EXPECT_EQ(
      run({.headers = {{"transfer-encoding", "chunked"}, {"x-amz-decoded-content-length", "4"}},
           .body = "hello",
           .content_length = false})
          .code,
      "IncompleteBody");
}

TEST(Body, ContentMd5) {
  EXPECT_EQ(run({.headers = {{"content-md5", b64(Algorithm::kMd5, kText)}}, .body = kText}).code,
            "");
  EXPECT_EQ(run({.headers = {{"content-md5", b64(Algorithm::kMd5, "other")}}, .body = kText}).code,
            "BadDigest");
  for (const char* bad : {"", "x", "YWJj", "!!!!"}) {
    EXPECT_EQ(run({.headers = {{"content-md5", bad}}, .body = kText}).code, "InvalidDigest") << bad;
  }
}

TEST(Body, SignedPayload) {
  EXPECT_EQ(run({.body = kText, .payload = auth::PayloadKind::kSha256, .signed_text = kText}).code,
            "");
  EXPECT_EQ(run({.body = kText, .payload = auth::PayloadKind::kSha256, .signed_text = "x"}).code,
            "XAmzContentSHA256Mismatch");
  const Outcome shared = run({.body = kText,
                              .payload = auth::PayloadKind::kSha256,
                              .signed_text = kText,
                              .want = Algorithm::kSha256});
  EXPECT_EQ(shared.checksum->value, auth::digest(Algorithm::kSha256, as_bytes(kText)));
}

TEST(Body, ChecksumHeaders) {
  for (const Algorithm algorithm : {Algorithm::kCrc32, Algorithm::kCrc32c, Algorithm::kCrc64Nvme,
                                    Algorithm::kSha1, Algorithm::kSha256}) {
    const std::string header(checksum_header(algorithm));
    const Outcome good = run({.headers = {{header, b64(algorithm, kText)}}, .body = kText});
    EXPECT_EQ(good.code, "") << header;
    ASSERT_TRUE(good.checksum.has_value());
    EXPECT_EQ(good.checksum->algorithm, algorithm);
    EXPECT_EQ(good.checksum->value, auth::digest(algorithm, as_bytes(kText)));
    const Outcome bad = run({.headers = {{header, b64(algorithm, "other")}}, .body = kText});
    EXPECT_EQ(bad.code, "BadDigest");
    EXPECT_EQ(bad.message,
              fmt::format("The {} you specified did not match the calculated checksum.",
                          checksum_name(algorithm)));
    EXPECT_EQ(run({.headers = {{header, "bogus"}}, .body = kText}).code, "InvalidRequest");
    EXPECT_EQ(run({.headers = {{header, ""}}, .body = kText}).code, "InvalidRequest");
  }
  EXPECT_EQ(run({.headers = {{"x-amz-checksum-crc32", b64(Algorithm::kCrc32, kText)},
                             {"x-amz-checksum-sha1", b64(Algorithm::kSha1, kText)}},
                 .body = kText})
                .code,
            "InvalidRequest");
  EXPECT_EQ(run({.headers = {{"x-amz-checksum-rot13", "AAAA"}}, .body = kText}).code,
            "InvalidRequest");
  EXPECT_EQ(run({.headers = {{"x-amz-checksum-mode", "ENABLED"}}, .body = kText}).code, "");
}

TEST(Body, SdkAlgorithm) {
  const std::pair<std::string, std::string> crc32{"x-amz-checksum-crc32",
                                                  b64(Algorithm::kCrc32, kText)};
  EXPECT_EQ(
      run({.headers = {{"x-amz-sdk-checksum-algorithm", "crc32"}, crc32}, .body = kText}).code, "");
  EXPECT_EQ(run({.headers = {{"x-amz-sdk-checksum-algorithm", "SHA1"}, crc32}, .body = kText}).code,
            "InvalidRequest");
  EXPECT_EQ(run({.headers = {{"x-amz-sdk-checksum-algorithm", "SHA1"}}, .body = kText}).code,
            "InvalidRequest");
  EXPECT_EQ(run({.headers = {{"x-amz-sdk-checksum-algorithm", "ROT13"}}, .body = kText}).code,
            "InvalidRequest");
}

TEST(Body, ChecksumOfTheObjectIsNotOfThisBody) {
  EXPECT_EQ(run({.headers = {{"x-amz-checksum-crc32", b64(Algorithm::kCrc32, "the object")}},
                 .body = kText,
                 .kind = BodyKind::kXml,
                 .checksum_of_object = true})
                .code,
            "");
}

TEST(Body, WantedChecksum) {
  const Outcome wanted = run({.body = kText, .want = Algorithm::kCrc32c});
  EXPECT_EQ(wanted.checksum->algorithm, Algorithm::kCrc32c);
  EXPECT_EQ(wanted.checksum->value, auth::digest(Algorithm::kCrc32c, as_bytes(kText)));
  const Outcome both = run({.headers = {{"x-amz-checksum-sha1", b64(Algorithm::kSha1, kText)}},
                            .body = kText,
                            .want = Algorithm::kCrc32c});
  EXPECT_EQ(both.checksum->algorithm, Algorithm::kSha1);
}

// --- aws-chunked, unsigned with a trailer

std::string chunked(std::string_view text, size_t chunk, std::string_view trailer) {
  std::string out;
  while (!text.empty()) {
    const std::string_view part = text.substr(0, chunk);
    text.remove_prefix(part.size());
    out += fmt::format("{:x}\r\n{}\r\n", part.size(), part);
  }
  out += "0\r\n";
  if (!trailer.empty()) out += fmt::format("{}\r\n", trailer);
  return out + "\r\n";
}

Case trailing(std::string body, std::string trailer_name = "x-amz-checksum-crc32",
              size_t length = kText.size()) {
  Case given;
  given.headers = {{"x-amz-decoded-content-length", std::to_string(length)},
                   {"content-encoding", "aws-chunked"}};
  if (!trailer_name.empty()) given.headers.emplace_back("x-amz-trailer", trailer_name);
  given.body = std::move(body);
  given.payload = auth::PayloadKind::kStreamingUnsignedTrailer;
  return given;
}

TEST(Body, UnsignedTrailer) {
  const std::string trailer = "x-amz-checksum-crc32:" + b64(Algorithm::kCrc32, kText);
  for (const size_t piece : {1u, 7u, 10'000u}) {
    for (const size_t buffer_size : {1u, 10u, 100'000u}) {
      const Outcome outcome = run(trailing(chunked(kText, 16, trailer)), piece, buffer_size);
      EXPECT_EQ(outcome.code, "") << piece << " " << buffer_size;
      EXPECT_EQ(outcome.payload, kText);
      EXPECT_EQ(outcome.checksum->algorithm, Algorithm::kCrc32);
    }
  }
  const std::string empty_trailer = "x-amz-checksum-crc32:" + b64(Algorithm::kCrc32, "");
  EXPECT_EQ(run(trailing(chunked("", 16, empty_trailer), "x-amz-checksum-crc32", 0)).code, "");
  // Long chunks go straight into the reader's memory, short ones through the connection's.
  std::string large;
  for (size_t i = 0; large.size() < 300'000; ++i) large += fmt::format("line {}\n", i);
  const std::string of_large = "x-amz-checksum-crc32:" + b64(Algorithm::kCrc32, large);
  for (const size_t chunk : {1000u, 70'000u, 1'000'000u}) {
    for (const size_t piece : {333u, 20'000u, 1'000'000u}) {
      for (const size_t buffer_size : {4096u, 100'000u}) {
        const Outcome outcome =
            run(trailing(chunked(large, chunk, of_large), "x-amz-checksum-crc32", large.size()),
                piece, buffer_size);
        EXPECT_EQ(outcome.code, "");
        EXPECT_EQ(outcome.payload, large);
      }
    }
  }
  EXPECT_EQ(run({.headers = trailing("", "x-amz-checksum-crc32", large.size()).headers,
                 .body = chunked(large, 100'000, of_large).substr(0, 150'000),
                 .payload = auth::PayloadKind::kStreamingUnsignedTrailer,
                 .cut = true},
                20'000, 100'000)
                .code,
            "IncompleteBody");
}

TEST(Body, UnsignedTrailerBroken) {
  const std::string good = "x-amz-checksum-crc32:" + b64(Algorithm::kCrc32, kText);
  const std::string wrong = "x-amz-checksum-crc32:" + b64(Algorithm::kCrc32, "other");
  EXPECT_EQ(run(trailing(chunked(kText, 16, wrong))).code, "BadDigest");
  EXPECT_EQ(run(trailing(chunked(kText, 16, "x-amz-checksum-crc32:bogus"))).code, "InvalidRequest");
  EXPECT_EQ(run(trailing(chunked(kText, 16, ""))).code, "MalformedTrailerError");
  EXPECT_EQ(run(trailing(chunked(kText, 16, good), "x-amz-checksum-sha1")).code,
            "MalformedTrailerError");
  EXPECT_EQ(run(trailing(chunked(kText, 16, good), "x-amz-checksum-rot13")).code, "InvalidRequest");
  EXPECT_EQ(run(trailing(chunked(kText, 16, good), "x-amz-checksum-crc32", kText.size() + 1)).code,
            "IncompleteBody");
  EXPECT_EQ(run(trailing(chunked(kText, 16, good), "x-amz-checksum-crc32", kText.size() - 1)).code,
            "IncompleteBody");
  EXPECT_NE(run(trailing(chunked(kText, 16, good) + "x")).code, "");
  EXPECT_NE(run(trailing("zz\r\n")).code, "");
  EXPECT_EQ(run(trailing(kText.substr(0, 20))).code.empty(), false);
  Case missing_length = trailing(chunked(kText, 16, good));
  missing_length.headers.erase(missing_length.headers.begin());
  EXPECT_EQ(run(missing_length).code, "MissingContentLength");
  Case both = trailing(chunked(kText, 16, good));
  both.headers.emplace_back("x-amz-checksum-sha1", b64(Algorithm::kSha1, kText));
  EXPECT_EQ(run(both).code, "InvalidRequest");
  std::string truncated = chunked(kText, 16, good);
  truncated.resize(truncated.size() / 2);
  EXPECT_EQ(run(trailing(truncated)).code, "IncompleteBody");
  Case not_trailing = {.headers = {{"x-amz-trailer", "x-amz-checksum-crc32"}}, .body = kText};
  EXPECT_EQ(run(not_trailing).code, "MalformedTrailerError");
}

TEST(Body, StoredContentEncoding) {
  EXPECT_EQ(stored_content_encoding("aws-chunked"), "");
  EXPECT_EQ(stored_content_encoding("gzip"), "gzip");
  EXPECT_EQ(stored_content_encoding("gzip, aws-chunked"), "gzip");
  EXPECT_EQ(stored_content_encoding("AWS-Chunked,gzip"), "gzip");
  EXPECT_EQ(stored_content_encoding("gzip,  br"), "gzip,  br");
}

TEST(Body, ChecksumWords) {
  EXPECT_EQ(checksum_from_name("crc64nvme"), Algorithm::kCrc64Nvme);
  EXPECT_EQ(checksum_from_name("MD5"), std::nullopt);
  EXPECT_EQ(checksum_element(Algorithm::kCrc32c), "ChecksumCRC32C");
}

}  // namespace
}  // namespace basalt::s3
