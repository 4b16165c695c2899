#include "protocol/s3/body.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

#include "base/block_pool.h"
#include "base/check.h"

namespace basalt::s3 {
namespace {

using auth::Algorithm;
using auth::PayloadKind;

struct ChecksumWords {
  Algorithm algorithm;
  std::string_view name;
  std::string_view header;
  std::string_view element;
};
constexpr ChecksumWords kChecksums[] = {
    {Algorithm::kCrc32, "CRC32", "x-amz-checksum-crc32", "ChecksumCRC32"},
    {Algorithm::kCrc32c, "CRC32C", "x-amz-checksum-crc32c", "ChecksumCRC32C"},
    {Algorithm::kCrc64Nvme, "CRC64NVME", "x-amz-checksum-crc64nvme", "ChecksumCRC64NVME"},
    {Algorithm::kSha1, "SHA1", "x-amz-checksum-sha1", "ChecksumSHA1"},
    {Algorithm::kSha256, "SHA256", "x-amz-checksum-sha256", "ChecksumSHA256"},
};
// Shorter runs of an aws-chunked body are copied out of the connection's buffer: fewer system
// calls.
constexpr uint64_t kDirectRunBytesMin = 16 * 1024;
constexpr std::string_view kChecksumPrefix = "x-amz-checksum-";
// Fields with that prefix that are no checksum of the body.
constexpr std::string_view kNoChecksums[] = {"x-amz-checksum-algorithm", "x-amz-checksum-type",
                                             "x-amz-checksum-mode"};

const ChecksumWords* words(Algorithm algorithm) {
  for (const ChecksumWords& row : kChecksums) {
    if (row.algorithm == algorithm) return &row;
  }
  return nullptr;
}

bool equals_ignoring_case(std::string_view a, std::string_view b) {
  return http::field_name_equals(a, b);
}

bool starts_with_ignoring_case(std::string_view text, std::string_view start) {
  return text.size() >= start.size() && equals_ignoring_case(text.substr(0, start.size()), start);
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

std::optional<auth::Digest> decode_digest(std::string_view text, Algorithm algorithm) {
  const auto bytes = auth::from_base64(text);
  if (!bytes || bytes->size() != auth::digest_bytes(algorithm)) return std::nullopt;
  auth::Digest digest;
  std::memcpy(digest.bytes.data(), bytes->data(), bytes->size());
  digest.size = static_cast<uint8_t>(bytes->size());
  return digest;
}

std::optional<uint64_t> parse_length(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool streaming(PayloadKind kind) {
  return kind != PayloadKind::kUnsigned && kind != PayloadKind::kSha256;
}

std::unexpected<S3Error> fail_closing(S3Code code, std::string message = {}, std::string log = {}) {
  S3Error error(code, std::move(message));
  error.close = true;
  error.log = std::move(log);
  return std::unexpected(std::move(error));
}

// An error of the connection while the body was read.
std::unexpected<S3Error> fail_reading(Error&& inner) {
  switch (inner.code) {
    case Code::kCancelled:
      return fail_closing(S3Code::kIncompleteBody, {}, std::move(inner.detail));
    case Code::kTimeout:
      return fail_closing(S3Code::kRequestTimeout, {}, std::move(inner.detail));
    case Code::kInvalid:
    case Code::kTooLarge:
      return fail_closing(S3Code::kInvalidRequest, "The body's transfer coding is malformed.",
                          std::move(inner.detail));
    default: {
      S3Error error(std::move(inner));
      error.close = true;
      return std::unexpected(std::move(error));
    }
  }
}

std::unexpected<S3Error> fail_chunk(auth::ChunkFailure failure) {
  switch (failure) {
    case auth::ChunkFailure::kMalformed:
      return fail_closing(S3Code::kInvalidRequest, "The aws-chunked body is malformed.");
    case auth::ChunkFailure::kMalformedTrailer:
      return fail_closing(S3Code::kMalformedTrailerError);
    case auth::ChunkFailure::kSignature:
      return fail_closing(S3Code::kSignatureDoesNotMatch);
    case auth::ChunkFailure::kTooSmallChunk:
      return fail_closing(S3Code::kInvalidChunkSizeError);
    case auth::ChunkFailure::kTooLong:
      return fail_closing(S3Code::kIncompleteBody);
  }
  return fail_closing(S3Code::kInvalidRequest);
}

// What a client said about its payload's checksums.
struct Promises {
  std::optional<auth::Digest> md5;
  std::optional<Algorithm> algorithm;
  std::optional<auth::Digest> checksum;  // of a header; a trailer's comes with the body
  bool in_trailer = false;
  std::vector<std::string> announced;  // x-amz-trailer
};

constexpr const char* kUnknownAlgorithm =
    "Checksum algorithm provided is unsupported. Please try again with any of the valid types: "
    "[CRC32, CRC32C, CRC64NVME, SHA1, SHA256]";

S3Result<> read_checksum_header(const http::Field& field, Promises& promises) {
  const ChecksumWords* row = nullptr;
  for (const ChecksumWords& candidate : kChecksums) {
    if (equals_ignoring_case(field.name, candidate.header)) row = &candidate;
  }
  if (row == nullptr) {
    for (const std::string_view other : kNoChecksums) {
      if (equals_ignoring_case(field.name, other)) return {};
    }
    return s3_fail(S3Code::kInvalidRequest,
                   "The algorithm type you specified in x-amz-checksum- header is invalid.");
  }
  if (promises.algorithm) {
    return s3_fail(
        S3Code::kInvalidRequest,
        "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.");
  }
  promises.algorithm = row->algorithm;
  promises.checksum = decode_digest(field.value, row->algorithm);
  if (!promises.checksum) {
    return s3_fail(S3Code::kInvalidRequest,
                   "Value for " + std::string(row->header) + " header is invalid.");
  }
  return {};
}

S3Result<> read_trailer_announcement(std::string_view value, Promises& promises) {
  while (!value.empty()) {
    const size_t comma = value.find(',');
    const std::string name = lower(trimmed(value.substr(0, comma)));
    value.remove_prefix(comma == std::string_view::npos ? value.size() : comma + 1);
    if (name.empty()) continue;
    const auto* row =
        std::find_if(std::begin(kChecksums), std::end(kChecksums),
                     [&](const ChecksumWords& candidate) { return candidate.header == name; });
    if (row == std::end(kChecksums)) {
      return s3_fail(S3Code::kInvalidRequest,
                     "The value specified in the x-amz-trailer header is not supported");
    }
    if (promises.algorithm) {
      return s3_fail(
          S3Code::kInvalidRequest,
          "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.");
    }
    promises.algorithm = row->algorithm;
    promises.in_trailer = true;
    promises.announced.push_back(name);
  }
  return {};
}

S3Result<> read_content_md5(const S3Request& request, Promises& promises) {
  const http::Field* field = request.find_header("content-md5");
  if (field == nullptr) return {};
  promises.md5 = decode_digest(field->value, Algorithm::kMd5);
  if (promises.md5) return {};
  S3Error error(S3Code::kInvalidDigest, "The Content-MD5 you specified was invalid.");
  error.details = {{"Content-MD5", std::string(field->value)}};
  return std::unexpected(std::move(error));
}

S3Result<Promises> read_promises(const S3Request& request, PayloadKind kind) {
  Promises promises;
  if (auto read = read_content_md5(request, promises); !read)
    return std::unexpected(std::move(read.error()));
  if (request.route != nullptr && request.route->checksum_of_object) return promises;
  for (const http::Field& field : request.head->fields) {
    if (!starts_with_ignoring_case(field.name, kChecksumPrefix)) continue;
    auto read = read_checksum_header(field, promises);
    if (!read) return std::unexpected(std::move(read.error()));
  }
  const http::Field* trailer = request.find_header("x-amz-trailer");
  if (trailer != nullptr) {
    if (kind != PayloadKind::kStreamingSignedTrailer &&
        kind != PayloadKind::kStreamingUnsignedTrailer) {
      return s3_fail(S3Code::kMalformedTrailerError);
    }
    auto read = read_trailer_announcement(trailer->value, promises);
    if (!read) return std::unexpected(std::move(read.error()));
  }
  const http::Field* sdk = request.find_header("x-amz-sdk-checksum-algorithm");
  if (sdk != nullptr) {
    const auto algorithm = checksum_from_name(sdk->value);
    if (!algorithm) return s3_fail(S3Code::kInvalidRequest, kUnknownAlgorithm);
    if (!promises.algorithm) {
      // Content-MD5 is enough for SDKs that name an algorithm and then send the older digest.
      if (promises.md5) return promises;
      return s3_fail(
          S3Code::kInvalidRequest,
          "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or "
          "x-amz-trailer headers were found.");
    }
    if (*algorithm != *promises.algorithm) {
      return s3_fail(S3Code::kInvalidRequest,
                     "Value for x-amz-sdk-checksum-algorithm header is invalid.");
    }
  }
  return promises;
}

S3Result<uint64_t> payload_length(const http::RequestHead& head, PayloadKind kind) {
  std::optional<uint64_t> length = head.content_length;
  const http::Field* decoded = head.find("x-amz-decoded-content-length");
  if (streaming(kind) || (head.chunked && decoded != nullptr)) {
    if (decoded == nullptr) return s3_fail(S3Code::kMissingContentLength);
    length = parse_length(decoded->value);
    if (!length) {
      S3Error error(S3Code::kInvalidArgument,
                    "x-amz-decoded-content-length must be a number of bytes.");
      error.details = {{"ArgumentName", "x-amz-decoded-content-length"},
                       {"ArgumentValue", std::string(decoded->value)}};
      return std::unexpected(std::move(error));
    }
  }
  if (!length) return s3_fail(S3Code::kMissingContentLength);
  if (*length > kPutBytesMax) {
    S3Error error(S3Code::kEntityTooLarge);
    error.details = {{"ProposedSize", std::to_string(*length)},
                     {"MaxSizeAllowed", std::to_string(kPutBytesMax)}};
    return std::unexpected(std::move(error));
  }
  return *length;
}

class CheckedBody final : public RequestBody, public Pooled {
 public:
  CheckedBody(session::Exchange& exchange, uint64_t length, Promises promises,
              const auth::Authenticated& auth, bool wants_md5, auth::HashStation* station)
      : exchange_(exchange),
        length_(length),
        promises_(std::move(promises)),
        station_(length <= kDirectHashBytesMax ? nullptr : station) {
    if (wants_md5 || promises_.md5) md5_.emplace(station_, auth::LaneHash::kMd5, is_long());
    if (auth.payload == PayloadKind::kSha256) {
      payload_sha256_ = auth.payload_sha256;
      sha256_.emplace(station_, auth::LaneHash::kSha256, is_long());
    }
    if (promises_.algorithm) compute(*promises_.algorithm, checksum_);
    if (streaming(auth.payload)) {
      decoder_ = std::make_unique<auth::AwsChunkedDecoder>(
          auth::AwsChunkedDecoder::Options{.kind = auth.payload,
                                           .signing = auth.chunk_signing,
                                           .decoded_length = length,
                                           .announced = promises_.announced});
    }
  }

  uint64_t length() const override { return length_; }
  std::optional<Algorithm> announced() const override { return promises_.algorithm; }

  void want(Algorithm algorithm) override {
    BASALT_CHECK(received_ == 0 && state_ == State::kReading);
    if (promises_.algorithm == algorithm) return;
    wanted_ = algorithm;
    compute(algorithm, extra_);
  }

  Task<S3Result<size_t>> read(MutableBytes into) override {
    BASALT_CHECK(!into.empty() && state_ != State::kFailed);
    const size_t slice_max = station_ == nullptr ? kHashSliceBytesMax : kReadSliceBytesMax;
    if (into.size() > slice_max) into = into.first(slice_max);
    size_t count = 0;
    if (state_ == State::kReading) {
      if (decoder_ != nullptr) {
        auto read = co_await read_chunked(into);
        if (!read) co_return failed(std::move(read.error()));
        count = *read;
      } else {
        auto read = co_await read_plain(into);
        if (!read) co_return failed(std::move(read.error()));
        count = *read;
      }
    }
    if (count > 0) {
      update(into.first(count));
      co_return count;
    }
    if (state_ != State::kVerified) {
      finish_digests();
      co_await wait_for_digests();
      auto verified = verify();
      if (!verified) co_return failed(std::move(verified.error()));
      state_ = State::kVerified;
    }
    co_return size_t{0};
  }

  bool ended() const override { return state_ == State::kEnded || state_ == State::kVerified; }

  void finish_digests() override {
    if (state_ == State::kVerified) return;
    if (md5_ && !md5_->finished()) md5_->finish();
    if (sha256_ && !sha256_->finished()) sha256_->finish();
  }

  uint64_t hashed() const override {
    uint64_t position = received_;
    if (md5_) position = std::min(position, md5_->hashed());
    if (sha256_) position = std::min(position, sha256_->hashed());
    return position;
  }

  Task<void> hash_to(uint64_t position) override {
    if (md5_ && md5_->hashed() < position) co_await wait_for(*md5_, position);
    if (sha256_ && sha256_->hashed() < position) co_await wait_for(*sha256_, position);
  }

  void release() override {
    if (state_ == State::kVerified) return;
    state_ = State::kFailed;
    if (md5_) md5_->clear();
    if (sha256_) sha256_->clear();
  }

  const auth::Digest& md5() const override { return md5_result_; }

  std::optional<Checksum> checksum() const override {
    if (promises_.algorithm) return Checksum{*promises_.algorithm, checksum_result_};
    if (wanted_) return Checksum{*wanted_, extra_result_};
    return std::nullopt;
  }

 private:
  enum class State : uint8_t { kReading, kEnded, kVerified, kFailed };

  std::unexpected<S3Error> failed(S3Error&& error) {
    release();
    return std::unexpected(std::move(error));
  }

  bool is_long() const { return length_ >= auth::HashStream::kLongBytesMin; }

  // The signed payload hash and a SHA256 checksum are one computation.
  void compute(Algorithm algorithm, std::optional<auth::Hasher>& hasher) {
    if (algorithm != Algorithm::kSha256) {
      hasher.emplace(algorithm);
    } else if (!sha256_) {
      sha256_.emplace(station_, auth::LaneHash::kSha256, is_long());
    }
  }

  static Call<auth::HashWait> wait_for(auth::HashStream& stream, uint64_t position) {
    return Call<auth::HashWait>([&](auth::HashWait& call) { stream.wait(call, position); });
  }

  Task<void> wait_for_digests() {
    if (md5_ && sha256_ && !md5_->done() && !sha256_->done()) {
      // Both at once: one run may be made for them.
      auto md5 = wait_for(*md5_, received_);
      auto sha256 = wait_for(*sha256_, received_);
      co_await md5;
      co_await sha256;
      co_return;
    }
    if (md5_ && !md5_->done()) co_await wait_for(*md5_, received_);
    if (sha256_ && !sha256_->done()) co_await wait_for(*sha256_, received_);
  }

  // Straight from the connection into the caller's buffer.
  Task<S3Result<size_t>> read_plain(MutableBytes into) {
    if (received_ == length_ && exchange_.body_done()) {
      state_ = State::kEnded;
      co_return size_t{0};
    }
    auto read = co_await exchange_.read(into);
    if (!read) co_return fail_reading(std::move(read.error()));
    received_ += *read;
    if (received_ > length_) co_return fail_closing(S3Code::kIncompleteBody);
    if (*read == 0 && received_ != length_) co_return fail_closing(S3Code::kIncompleteBody);
    if (*read == 0 || (received_ == length_ && exchange_.body_done())) state_ = State::kEnded;
    co_return *read;
  }

  Task<S3Result<size_t>> read_chunked(MutableBytes into) {
    size_t filled = 0;
    while (true) {
      const Bytes buffered = exchange_.buffered();
      if (buffered.empty()) {
        if (filled > 0) break;
        // The rest of a long chunk goes straight to where it is wanted.
        if (const uint64_t run = decoder_->run_bytes(); run >= kDirectRunBytesMin) {
          auto read = co_await exchange_.read(into.first(std::min<uint64_t>(run, into.size())));
          if (!read) co_return fail_reading(std::move(read.error()));
          if (*read == 0) co_return fail_closing(S3Code::kIncompleteBody);
          const auto step = decoder_->decode(into.first(*read));
          if (!step) co_return fail_chunk(step.error());
          BASALT_CHECK(step->data.data() == into.data() && step->data.size() == *read);
          filled = *read;
          continue;
        }
        auto more = co_await exchange_.fill();
        if (!more) co_return fail_reading(std::move(more.error()));
        if (!*more) co_return fail_closing(S3Code::kIncompleteBody);
        continue;
      }
      // No more input than there is room for, so that the run of payload always fits; after the
      // last of it only framing and trailers may come.
      const bool all = received_ + filled == length_;
      const Bytes input =
          all ? buffered : buffered.first(std::min(buffered.size(), into.size() - filled));
      const auto step = decoder_->decode(input);
      if (!step) co_return fail_chunk(step.error());
      BASALT_CHECK(step->consumed <= input.size() && step->data.size() <= into.size() - filled);
      if (step->consumed == 0 && step->data.empty() && !step->done) {
        co_return fail_closing(S3Code::kInvalidRequest, "The aws-chunked body is malformed.");
      }
      if (!step->data.empty())
        std::memcpy(into.data() + filled, step->data.data(), step->data.size());
      filled += step->data.size();
      exchange_.consume_buffered(step->consumed);
      if (step->done) {
        if (auto ended = co_await no_more_bytes(); !ended)
          co_return std::unexpected(std::move(ended.error()));
        state_ = State::kEnded;
        break;
      }
      if (filled == into.size() && received_ + filled != length_) break;
    }
    received_ += filled;
    if (state_ == State::kEnded && received_ != length_)
      co_return fail_closing(S3Code::kIncompleteBody);
    co_return filled;
  }

  // Bytes after the final chunk would be a second message hidden in this one. The decoder lets pass
  // what clients are known to send there (minio-go ends an unsigned trailer with a second empty
  // line).
  Task<S3Result<>> no_more_bytes() {
    while (true) {
      const Bytes rest = exchange_.buffered();
      if (rest.empty()) {
        if (exchange_.body_done()) co_return S3Result<>{};
        auto more = co_await exchange_.fill();
        if (!more) co_return fail_reading(std::move(more.error()));
        if (!*more) co_return S3Result<>{};
        continue;
      }
      const auto step = decoder_->decode(rest);
      if (!step || step->consumed == 0) {
        co_return fail_closing(S3Code::kInvalidRequest,
                               "The aws-chunked body goes on after its last chunk.");
      }
      exchange_.consume_buffered(step->consumed);
    }
  }

  void update(Bytes data) {
    if (md5_) md5_->add(data);
    if (sha256_) sha256_->add(data);
    if (checksum_) checksum_->update(data);
    if (extra_) extra_->update(data);
  }

  S3Result<> verify() {
    if (md5_) md5_result_ = md5_->digest();
    auth::Digest sha256;
    if (sha256_) sha256 = sha256_->digest();
    if (promises_.algorithm) checksum_result_ = checksum_ ? checksum_->finish() : sha256;
    if (wanted_) extra_result_ = extra_ ? extra_->finish() : sha256;

    if (payload_sha256_ && !auth::equal_constant_time(sha256.view(), *payload_sha256_)) {
      S3Error error(S3Code::kXAmzContentSHA256Mismatch);
      error.details = {{"ClientComputedContentSHA256", auth::to_hex(*payload_sha256_)},
                       {"S3ComputedContentSHA256", auth::to_hex(sha256.view())}};
      return std::unexpected(std::move(error));
    }
    if (promises_.md5 && *promises_.md5 != md5_result_) {
      S3Error error(S3Code::kBadDigest,
                    "The Content-MD5 you specified did not match what we received.");
      error.details = {{"ExpectedDigest", auth::to_base64(promises_.md5->view())},
                       {"CalculatedDigest", auth::to_base64(md5_result_.view())}};
      return std::unexpected(std::move(error));
    }
    if (promises_.in_trailer) {
      auto taken = take_trailer();
      if (!taken) return taken;
    }
    if (promises_.checksum && *promises_.checksum != checksum_result_) {
      return s3_fail(S3Code::kBadDigest,
                     "The " + std::string(checksum_name(*promises_.algorithm)) +
                         " you specified did not match the calculated checksum.");
    }
    return {};
  }

  S3Result<> take_trailer() {
    const std::string_view header = checksum_header(*promises_.algorithm);
    for (const auto& [name, value] : decoder_->trailers()) {
      if (name != header) continue;
      promises_.checksum = decode_digest(value, *promises_.algorithm);
      if (!promises_.checksum) {
        return s3_fail(S3Code::kInvalidRequest,
                       "Value for " + std::string(header) + " trailing header is invalid.");
      }
      return {};
    }
    return s3_fail(S3Code::kMalformedTrailerError);
  }

  session::Exchange& exchange_;
  const uint64_t length_;
  Promises promises_;
  auth::HashStation* const station_;
  std::optional<std::array<uint8_t, 32>> payload_sha256_;
  std::unique_ptr<auth::AwsChunkedDecoder> decoder_;
  std::optional<auth::HashStream> md5_, sha256_;
  std::optional<auth::Hasher> checksum_, extra_;
  std::optional<Algorithm> wanted_;
  auth::Digest md5_result_, checksum_result_, extra_result_;
  uint64_t received_ = 0;
  State state_ = State::kReading;
};

}  // namespace

S3Result<std::unique_ptr<RequestBody>> RequestBody::open(session::Exchange& exchange,
                                                         const S3Request& request,
                                                         const auth::Authenticated& auth,
                                                         auth::HashStation* station) {
  auto length = payload_length(*request.head, auth.payload);
  if (!length) return std::unexpected(std::move(length.error()));
  auto promises = read_promises(request, auth.payload);
  if (!promises) return std::unexpected(std::move(promises.error()));
  // Only stored payloads have an ETag; other bodies need MD5 only if the client sent one.
  const bool wants_md5 = request.route == nullptr || request.route->body == BodyKind::kStream;
  return std::make_unique<CheckedBody>(exchange, *length, std::move(*promises), auth, wants_md5,
                                       station);
}

Task<S3Result<std::string>> read_whole_body(session::Exchange& exchange, const S3Request& request,
                                            const auth::Authenticated& auth, size_t bytes_max) {
  auto opened = RequestBody::open(exchange, request, auth);
  if (!opened) co_return std::unexpected(std::move(opened.error()));
  RequestBody& body = **opened;
  if (body.length() > bytes_max) {
    S3Error error(S3Code::kMaxMessageLengthExceeded);
    error.details = {{"MaxMessageLengthBytes", std::to_string(bytes_max)}};
    co_return std::unexpected(std::move(error));
  }
  // Memory follows the bytes that came, not the length that was promised.
  constexpr size_t kStep = 16 * 1024;
  std::string text;
  while (true) {
    const size_t have = text.size();
    text.resize(have + std::min<size_t>(kStep, body.length() - have + 1));
    auto read =
        co_await body.read({reinterpret_cast<uint8_t*>(text.data()) + have, text.size() - have});
    if (!read) co_return std::unexpected(std::move(read.error()));
    text.resize(have + *read);
    if (*read == 0) co_return text;
  }
}

std::string stored_content_encoding(std::string_view value) {
  const std::string_view original = value;
  bool stripped = false;
  std::string kept;
  while (!value.empty()) {
    const size_t comma = value.find(',');
    const std::string_view coding = trimmed(value.substr(0, comma));
    value.remove_prefix(comma == std::string_view::npos ? value.size() : comma + 1);
    if (equals_ignoring_case(coding, "aws-chunked")) stripped = true;
    if (coding.empty() || equals_ignoring_case(coding, "aws-chunked")) continue;
    if (!kept.empty()) kept += ',';
    kept += coding;
  }
  return stripped ? kept : std::string(original);
}

std::string_view checksum_header(Algorithm algorithm) {
  const ChecksumWords* row = words(algorithm);
  return row == nullptr ? std::string_view() : row->header;
}

std::string_view checksum_name(Algorithm algorithm) {
  const ChecksumWords* row = words(algorithm);
  return row == nullptr ? std::string_view() : row->name;
}

std::string_view checksum_element(Algorithm algorithm) {
  const ChecksumWords* row = words(algorithm);
  return row == nullptr ? std::string_view() : row->element;
}

std::optional<Algorithm> checksum_from_name(std::string_view name) {
  for (const ChecksumWords& row : kChecksums) {
    if (equals_ignoring_case(name, row.name)) return row.algorithm;
  }
  return std::nullopt;
}

}  // namespace basalt::s3
