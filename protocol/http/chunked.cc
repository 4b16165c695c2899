#include "protocol/http/chunked.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace basalt::http {
namespace {

int hex_value(uint8_t c) {
  if (c >= '0' && c <= '9') return c - '0';
  const uint8_t low = c | 0x20;
  if (low >= 'a' && low <= 'f') return low - 'a' + 10;
  return -1;
}

bool token_byte(uint8_t c) {
  if ((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z')) return true;
  return c != 0 && std::strchr("!#$%&'*+-.^_`|~", c) != nullptr;
}

bool control_byte(uint8_t c) { return (c < 0x20 && c != '\t') || c == 0x7f; }

}  // namespace

void ChunkedDecoder::skip(uint64_t bytes) {
  BASALT_CHECK(bytes <= run_bytes());
  remaining_ -= bytes;
  if (remaining_ == 0) state_ = State::kDataCr;
}

Result<ChunkedDecoder::Step> ChunkedDecoder::decode(Bytes input) {
  Step step;
  size_t at = 0;
  while (at < input.size() && state_ != State::kDone) {
    if (state_ == State::kData) {
      const size_t size = std::min<uint64_t>(remaining_, input.size() - at);
      step.data = input.subspan(at, size);
      step.consumed = at + size;
      skip(size);
      return step;
    }
    const uint8_t c = input[at++];
    switch (state_) {
      case State::kSize: {
        const int value = hex_value(c);
        if (value >= 0) {
          if (++digits_ > kSizeDigitsMax) return fail(Code::kTooLarge, "chunk size");
          remaining_ = remaining_ * 16 + static_cast<uint64_t>(value);
          break;
        }
        if (digits_ == 0 || (c != ';' && c != '\r'))
          return fail(Code::kInvalid, "malformed chunk size");
        last_ = remaining_ == 0;
        line_bytes_ = digits_;
        state_ = c == ';' ? State::kExtension : State::kSizeLf;
        break;
      }
      case State::kExtension:
        if (c == '\r') {
          state_ = State::kSizeLf;
          break;
        }
        if (control_byte(c)) return fail(Code::kInvalid, "control character in a chunk extension");
        if (++line_bytes_ > kLineBytesMax) return fail(Code::kTooLarge, "chunk extension");
        break;
      case State::kSizeLf:
        if (c != '\n') return fail(Code::kInvalid, "bare CR in a chunk size line");
        digits_ = 0;
        state_ = last_ ? State::kTrailerStart : State::kData;
        break;
      case State::kDataCr:
        if (c != '\r') return fail(Code::kInvalid, "no CR LF after a chunk");
        state_ = State::kDataLf;
        break;
      case State::kDataLf:
        if (c != '\n') return fail(Code::kInvalid, "no CR LF after a chunk");
        state_ = State::kSize;
        break;
      case State::kTrailerStart:
        if (c == '\r') {
          state_ = State::kEndLf;
          break;
        }
        if (!token_byte(c)) return fail(Code::kInvalid, "malformed trailer");
        if (++trailer_bytes_ > kTrailerBytesMax) return fail(Code::kTooLarge, "trailers");
        state_ = State::kTrailerName;
        break;
      case State::kTrailerName:
        if (c == ':')
          state_ = State::kTrailerValue;
        else if (!token_byte(c))
          return fail(Code::kInvalid, "malformed trailer");
        if (++trailer_bytes_ > kTrailerBytesMax) return fail(Code::kTooLarge, "trailers");
        break;
      case State::kTrailerValue:
        if (c == '\r')
          state_ = State::kTrailerLf;
        else if (control_byte(c))
          return fail(Code::kInvalid, "control character in a trailer");
        if (++trailer_bytes_ > kTrailerBytesMax) return fail(Code::kTooLarge, "trailers");
        break;
      case State::kTrailerLf:
        if (c != '\n') return fail(Code::kInvalid, "bare CR in a trailer");
        if (++trailer_bytes_ > kTrailerBytesMax) return fail(Code::kTooLarge, "trailers");
        state_ = State::kTrailerStart;
        break;
      case State::kEndLf:
        if (c != '\n') return fail(Code::kInvalid, "bare CR after the trailers");
        state_ = State::kDone;
        break;
      case State::kData:
      case State::kDone:
        break;
    }
  }
  step.consumed = at;
  step.done = state_ == State::kDone;
  return step;
}

}  // namespace basalt::http
