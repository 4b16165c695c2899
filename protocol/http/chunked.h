// Transfer-Encoding: chunked, decoder (RFC 9112 section 7.1), pure, incremental. Extensions are
// skipped within a limit, trailers are read within a limit and dropped (S3 trailers are inside
// aws-chunked, not here).
//
// Strict: a size is 1 to 15 hex digits with nothing but ";" or CR LF behind it; no bare LF or CR
// anywhere; no control character in an extension; a trailer line is a field line and may not be
// folded.
#pragma once

#include "base/bytes.h"
#include "base/result.h"

namespace basalt::http {

class ChunkedDecoder {
 public:
  static constexpr size_t kLineBytesMax = 4096;  // a size line with its extensions
  static constexpr size_t kTrailerBytesMax = 8192;
  static constexpr uint32_t kSizeDigitsMax = 15;

  struct Step {
    size_t consumed = 0;  // of the input
    Bytes data;           // body bytes, a view into the input (may be empty)
    bool done = false;    // the last chunk and the trailer section are consumed
  };
  // Consumes up to the next run of data. Errors: kInvalid (malformed), kTooLarge. After an error
  // the decoder is useless.
  Result<Step> decode(Bytes input);

  // How many data bytes of the present chunk come next, before any framing. They may be read past
  // the decoder, which is then told by skip().
  uint64_t run_bytes() const { return state_ == State::kData ? remaining_ : 0; }
  void skip(uint64_t bytes);  // at most run_bytes()
  bool done() const { return state_ == State::kDone; }

 private:
  enum class State : uint8_t {
    kSize,
    kExtension,
    kSizeLf,
    kData,
    kDataCr,
    kDataLf,
    kTrailerStart,
    kTrailerName,
    kTrailerValue,
    kTrailerLf,
    kEndLf,
    kDone
  };
  State state_ = State::kSize;
  bool last_ = false;  // the chunk whose size line is read has size 0
  uint64_t remaining_ = 0;
  uint32_t line_bytes_ = 0;
  uint32_t digits_ = 0;
  uint32_t trailer_bytes_ = 0;
};

}  // namespace basalt::http
