#include "auth/aws_chunked.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <utility>

#include "auth/sha256.h"

namespace basalt::auth {
namespace {

constexpr std::string_view kSignatureExtension = ";chunk-signature=";
constexpr std::string_view kTrailerSignature = "x-amz-trailer-signature";
constexpr size_t kSignatureDigits = 64;
constexpr uint64_t kSignedChunkBytesMin =
    8192;  // "Each chunk size must be at least 8 KB", S3 API reference
constexpr size_t kSizeDigitsMax = 16;

std::optional<uint64_t> parse_size(std::string_view hex) {
  if (hex.empty() || hex.size() > kSizeDigitsMax) return std::nullopt;
  uint64_t value = 0;
  for (char c : hex) {
    unsigned digit;
    if (c >= '0' && c <= '9') {
      digit = static_cast<unsigned>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      digit = static_cast<unsigned>(c - 'a') + 10;
    } else if (c >= 'A' && c <= 'F') {
      digit = static_cast<unsigned>(c - 'A') + 10;
    } else {
      return std::nullopt;
    }
    value = value << 4 | digit;
  }
  return value;
}

bool is_token_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '_' || c == '.';
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

}  // namespace

struct AwsChunkedDecoder::Impl {
  enum class State : uint8_t { kSizeLine, kData, kDataEnd, kTrailer, kLastLine, kDone, kFailed };

  explicit Impl(Options the_options)
      : options(std::move(the_options)),
        is_signed(options.kind == PayloadKind::kStreamingSigned ||
                  options.kind == PayloadKind::kStreamingSignedTrailer),
        has_trailer(options.kind == PayloadKind::kStreamingSignedTrailer ||
                    options.kind == PayloadKind::kStreamingUnsignedTrailer) {
    if (is_signed && options.signing) {
      hmac.set_key(options.signing->signing_key);
      previous_signature = options.signing->seed_signature;
    }
    // Signed chunks without a key to check them, or a kind that is not chunked, are a mistake of
    // the caller: refuse all.
    if ((is_signed && !options.signing) || (!is_signed && !has_trailer))
      fail_with(ChunkFailure::kSignature);
  }
  ~Impl() {
    if (options.signing)
      OPENSSL_cleanse(options.signing->signing_key.data(), options.signing->signing_key.size());
  }

  Options options;
  const bool is_signed;
  const bool has_trailer;

  State state = State::kSizeLine;
  ChunkFailure failure = ChunkFailure::kMalformed;
  std::string line;  // an unfinished line
  uint64_t chunk_left = 0;
  uint64_t decoded = 0;
  uint64_t previous_chunk_bytes = 0;
  bool any_chunk = false;
  unsigned line_end_seen = 0;  // bytes of a CRLF
  size_t trailer_bytes = 0;
  bool blank_seen = false;  // an empty line before the trailer signature
  bool trailer_signed = false;

  HmacSha256 hmac;
  Sha256 chunk_hash;
  std::string chunk_signature;
  std::string previous_signature;
  std::string string_to_sign;
  std::string signed_trailer;  // "name:value\n" of each trailer line
  std::vector<std::pair<std::string, std::string>> trailers;

  std::unexpected<ChunkFailure> fail_with(ChunkFailure what) {
    state = State::kFailed;
    failure = what;
    return std::unexpected(what);
  }

  enum class Line : uint8_t { kWhole, kMore, kTooLong };

  // Takes a line, without its '\n', out of the input; `text` is valid until the next call.
  Line take_line(Bytes input, size_t& consumed, std::string& keep, std::string_view& text) {
    const std::string_view rest = as_text(input.subspan(consumed));
    const size_t room = kLineBytesMax - keep.size();
    const size_t end = rest.substr(0, room).find('\n');
    if (end == std::string_view::npos) {
      if (rest.size() >= room) return Line::kTooLong;
      keep.append(rest);
      consumed += rest.size();
      return Line::kMore;
    }
    if (keep.empty()) {
      text = rest.substr(0, end);
    } else {
      keep.append(rest.substr(0, end));
      whole_line.swap(keep);
      keep.clear();
      text = whole_line;
    }
    consumed += end + 1;
    return Line::kWhole;
  }
  std::string whole_line;

  bool verify(std::string_view algorithm, std::string_view first, std::string_view second,
              std::string_view given) {
    string_to_sign.clear();
    string_to_sign.append(algorithm).push_back('\n');
    string_to_sign.append(options.signing->date_time).push_back('\n');
    string_to_sign.append(options.signing->scope).push_back('\n');
    string_to_sign.append(previous_signature).push_back('\n');
    string_to_sign.append(first);
    if (!second.empty()) string_to_sign.append("\n").append(second);
    const HexDigest expected = hex_digest(hmac.sign(string_to_sign));
    if (!equal_constant_time(as_bytes(expected.view()), as_bytes(given))) return false;
    previous_signature.assign(expected.view());
    return true;
  }

  bool verify_chunk() {
    if (!is_signed) return true;
    return verify("AWS4-HMAC-SHA256-PAYLOAD", kEmptySha256, hex_digest(chunk_hash.finish()).view(),
                  chunk_signature);
  }

  std::optional<ChunkFailure> size_line(std::string_view text) {
    if (!text.ends_with('\r')) return ChunkFailure::kMalformed;
    text.remove_suffix(1);
    std::string_view size_text = text;
    if (is_signed) {
      const size_t semicolon = std::min(text.find(';'), text.size());
      size_text = text.substr(0, semicolon);
      const std::string_view extension = text.substr(semicolon);
      if (extension.empty()) return ChunkFailure::kSignature;
      if (!extension.starts_with(kSignatureExtension) ||
          extension.size() != kSignatureExtension.size() + kSignatureDigits) {
        return ChunkFailure::kMalformed;
      }
      chunk_signature.assign(extension.substr(kSignatureExtension.size()));
      chunk_hash.reset();
    }
    const auto size = parse_size(size_text);
    if (!size || *size > kChunkBytesMax) return ChunkFailure::kMalformed;
    if (*size > options.decoded_length - decoded) return ChunkFailure::kTooLong;
    if (*size > 0) {
      // Many tiny chunks would cost us more than the client: a hash, an HMAC and a look at the line
      // each.
      if (is_signed && any_chunk && previous_chunk_bytes < kSignedChunkBytesMin)
        return ChunkFailure::kTooSmallChunk;
      any_chunk = true;
      previous_chunk_bytes = *size;
      chunk_left = *size;
      state = State::kData;
      return std::nullopt;
    }
    if (decoded != options.decoded_length) return ChunkFailure::kTooLong;
    if (!verify_chunk()) return ChunkFailure::kSignature;
    state = has_trailer ? State::kTrailer : State::kLastLine;
    line_end_seen = 0;
    if (!has_trailer && !options.announced.empty()) return ChunkFailure::kMalformedTrailer;
    return std::nullopt;
  }

  std::optional<ChunkFailure> trailer_line(std::string_view text) {
    // The lines end with CRLF; minio-go ends them with LF alone, as they stand in the string to
    // sign.
    if (text.ends_with('\r')) text.remove_suffix(1);
    if (text.empty()) {
      if (is_signed && !trailer_signed) {
        // minio-go sets an empty line before the trailer signature.
        if (blank_seen) return ChunkFailure::kMalformedTrailer;
        blank_seen = true;
        return std::nullopt;
      }
      if (trailers.size() != options.announced.size()) return ChunkFailure::kMalformedTrailer;
      state = State::kDone;
      return std::nullopt;
    }
    if (trailer_signed) return ChunkFailure::kMalformedTrailer;
    const size_t colon = text.find(':');
    if (colon == std::string_view::npos || colon == 0 ||
        !std::ranges::all_of(text.substr(0, colon), is_token_char)) {
      return ChunkFailure::kMalformedTrailer;
    }
    std::string name(text.substr(0, colon));
    for (char& c : name) {
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c | 0x20);
    }
    const std::string_view value = trim(text.substr(colon + 1));
    if (!std::ranges::all_of(value, [](char c) { return c == '\t' || (c >= 0x20 && c != 0x7f); })) {
      return ChunkFailure::kMalformedTrailer;
    }
    if (name == kTrailerSignature) {
      if (!is_signed) return ChunkFailure::kMalformedTrailer;
      if (!verify("AWS4-HMAC-SHA256-TRAILER", hex_digest(sha256(signed_trailer)).view(), {},
                  value)) {
        return ChunkFailure::kSignature;
      }
      trailer_signed = true;
      return std::nullopt;
    }
    if (std::ranges::find(options.announced, name) == options.announced.end() ||
        std::ranges::any_of(trailers, [&](const auto& seen) { return seen.first == name; })) {
      return ChunkFailure::kMalformedTrailer;
    }
    if (is_signed) signed_trailer.append(name).append(":").append(value).push_back('\n');
    trailers.emplace_back(std::move(name), value);
    return std::nullopt;
  }

  // The byte that is due of a CRLF; true when it is whole, false when more input is needed, nullopt
  // if it is another byte.
  std::optional<bool> take_line_end(Bytes input, size_t& consumed) {
    while (line_end_seen < 2) {
      if (consumed == input.size()) return false;
      if (input[consumed] != (line_end_seen == 0 ? '\r' : '\n')) return std::nullopt;
      ++consumed;
      ++line_end_seen;
    }
    return true;
  }

  std::expected<Step, ChunkFailure> decode(Bytes input) {
    Step step;
    while (true) {
      switch (state) {
        case State::kSizeLine: {
          std::string_view text;
          const Line result = take_line(input, step.consumed, line, text);
          if (result == Line::kTooLong) return fail_with(ChunkFailure::kMalformed);
          if (result == Line::kMore) return step;
          if (const auto what = size_line(text)) return fail_with(*what);
          break;
        }
        case State::kData: {
          const size_t run =
              static_cast<size_t>(std::min<uint64_t>(chunk_left, input.size() - step.consumed));
          if (run == 0) return step;
          step.data = input.subspan(step.consumed, run);
          if (is_signed) chunk_hash.update(step.data);
          step.consumed += run;
          decoded += run;
          chunk_left -= run;
          if (chunk_left == 0) {
            if (!verify_chunk()) return fail_with(ChunkFailure::kSignature);
            state = State::kDataEnd;
            line_end_seen = 0;
          }
          return step;
        }
        case State::kDataEnd:
        case State::kLastLine: {
          const auto whole = take_line_end(input, step.consumed);
          if (!whole) return fail_with(ChunkFailure::kMalformed);
          if (!*whole) return step;
          state = state == State::kDataEnd ? State::kSizeLine : State::kDone;
          line_end_seen = 2;  // the one extra CRLF below is for trailers only
          break;
        }
        case State::kTrailer: {
          std::string_view text;
          const size_t before = step.consumed;
          const Line result = take_line(input, step.consumed, line, text);
          trailer_bytes += step.consumed - before;
          if (result == Line::kTooLong || trailer_bytes > kTrailerBytesMax) {
            return fail_with(ChunkFailure::kMalformedTrailer);
          }
          if (result == Line::kMore) return step;
          if (const auto what = trailer_line(text)) return fail_with(*what);
          if (state == State::kDone) line_end_seen = 0;
          break;
        }
        case State::kDone:
          // minio-go ends an unsigned trailer with one CRLF more than the format has.
          (void)take_line_end(input, step.consumed);
          step.done = true;
          return step;
        case State::kFailed:
          return std::unexpected(failure);
      }
    }
  }
};

AwsChunkedDecoder::AwsChunkedDecoder(Options options)
    : impl_(std::make_unique<Impl>(std::move(options))) {}
AwsChunkedDecoder::~AwsChunkedDecoder() = default;

std::expected<AwsChunkedDecoder::Step, ChunkFailure> AwsChunkedDecoder::decode(Bytes input) {
  return impl_->decode(input);
}

const std::vector<std::pair<std::string, std::string>>& AwsChunkedDecoder::trailers() const {
  return impl_->trailers;
}
uint64_t AwsChunkedDecoder::run_bytes() const {
  return impl_->state == Impl::State::kData ? impl_->chunk_left : 0;
}
uint64_t AwsChunkedDecoder::decoded_bytes() const { return impl_->decoded; }

}  // namespace basalt::auth
