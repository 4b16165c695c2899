// The chunked decoder against arbitrary bodies. What must hold: no crash; never more consumed than
// given nor more payload than announced; the same outcome however the body is cut; nothing signed
// passes unless it was signed.
#include <algorithm>
#include <optional>
#include <string>

#include "auth/aws_chunked.h"
#include "base/check.h"

namespace {

using namespace basalt;
using namespace basalt::auth;

struct Outcome {
  std::string payload;
  bool done = false;
  std::optional<ChunkFailure> failure;
  size_t consumed = 0;
};

Outcome run(const AwsChunkedDecoder::Options& options, Bytes body, size_t step) {
  AwsChunkedDecoder decoder(options);
  Outcome outcome;
  size_t end = 0;
  while (true) {
    const auto result = decoder.decode(body.subspan(outcome.consumed, end - outcome.consumed));
    if (!result) {
      outcome.failure = result.error();
      BASALT_CHECK(!outcome.done);
      return outcome;
    }
    BASALT_CHECK(result->consumed <= end - outcome.consumed &&
                 result->data.size() <= result->consumed);
    outcome.payload += as_text(result->data);
    outcome.consumed += result->consumed;
    outcome.done = result->done;
    BASALT_CHECK(outcome.payload.size() == decoder.decoded_bytes());
    BASALT_CHECK(outcome.payload.size() <= options.decoded_length);
    if (outcome.done) BASALT_CHECK(outcome.payload.size() == options.decoded_length);
    if (result->consumed > 0) continue;
    if (end == body.size()) return outcome;
    end = std::min(body.size(), end + step);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 3) return 0;
  AwsChunkedDecoder::Options options;
  options.kind = static_cast<PayloadKind>(2 + data[0] % 3);
  options.decoded_length = data[1];
  const size_t step = data[2] % 32 + 1;
  if (data[0] & 0x80) options.announced.push_back("x-amz-checksum-crc32");
  if (options.kind != PayloadKind::kStreamingUnsignedTrailer) {
    options.signing = ChunkSigning{.signing_key = {1, 2, 3},
                                   .scope = "20130524/us-east-1/s3/aws4_request",
                                   .date_time = "20130524T000000Z",
                                   .seed_signature = "0"};
  }
  const Bytes body(data + 3, size - 3);
  const Outcome whole = run(options, body, body.size() + 1), cut = run(options, body, step);
  BASALT_CHECK(whole.done == cut.done && whole.failure == cut.failure);
  if (!whole.failure) BASALT_CHECK(whole.payload == cut.payload && whole.consumed == cut.consumed);
  if (options.signing) BASALT_CHECK(!whole.done);
  return 0;
}
