// parse_request_head: never reads outside, its views lie in the input, and growing the input byte
// by byte (with `scanned`) gives the verdict of the whole.
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "protocol/http/head.h"

namespace {

void check(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace basalt;
  const std::vector<uint8_t> copy(data,
                                  data + size);  // of exact size: the sanitizer sees an overrun
  http::RequestHead head;
  const http::HeadResult whole = http::parse_request_head(copy, 0, head);
  if (whole.status == http::HeadStatus::kComplete) {
    check(whole.consumed <= size && whole.consumed >= 16);
    check(!head.path.empty());
    check(!(head.chunked && head.content_length));
    check(head.http10 || !head.host.empty());
    const auto* begin = reinterpret_cast<const char*>(copy.data());
    for (const auto& field : head.fields) {
      check(field.name.data() >= begin &&
            field.value.data() + field.value.size() <= begin + whole.consumed);
      check(!field.name.empty());
      for (const char c : field.value) check(c != '\r' && c != '\n' && c != '\0');
    }
  } else {
    check(head.fields.empty());
  }
  size_t scanned = 0;
  for (size_t known = 1; known <= size; ++known) {
    const http::HeadResult part =
        http::parse_request_head(basalt::Bytes(copy.data(), known), scanned, head);
    if (part.status == http::HeadStatus::kNeedMore) {
      scanned = known;
      continue;
    }
    // An error may be seen before the rest has come; a complete head is complete either way.
    check((part.status == http::HeadStatus::kComplete) ==
          (whole.status == http::HeadStatus::kComplete));
    check(part.consumed == whole.consumed);
    break;
  }
  return 0;
}
