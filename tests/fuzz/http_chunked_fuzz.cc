// ChunkedDecoder: the same data, end and verdict however the input is cut. First byte: the cut.
#include <cstdlib>
#include <string>

#include "protocol/http/chunked.h"

namespace {

struct Outcome {
  std::string data;
  bool error = false;
  bool done = false;
  size_t consumed = 0;
  bool operator==(const Outcome&) const = default;
};

Outcome decode(std::string_view wire, size_t step) {
  basalt::http::ChunkedDecoder decoder;
  Outcome outcome;
  size_t known = 0;
  while (!outcome.done) {
    while (outcome.consumed < known && !outcome.done) {
      const std::string piece(wire.substr(outcome.consumed, known - outcome.consumed));
      const auto result = decoder.decode(basalt::as_bytes(piece));
      if (!result) {
        outcome.error = true;
        outcome.consumed = 0;  // not specified
        return outcome;
      }
      if (result->consumed == 0 && !result->done) std::abort();
      outcome.data += basalt::as_text(result->data);
      outcome.consumed += result->consumed;
      outcome.done = result->done;
    }
    if (known == wire.size()) break;
    known = std::min(wire.size(), known + step);
  }
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view wire(reinterpret_cast<const char*>(data) + 1, size - 1);
  const Outcome whole = decode(wire, wire.size() + 1);
  const Outcome pieces = decode(wire, 1 + data[0] % 16);
  if (!(whole == pieces)) std::abort();
  return 0;
}
