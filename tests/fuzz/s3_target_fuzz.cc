// s3_target_fuzz: request targets and hosts. Whatever parses has a key within its limits and
// without NUL, and finds a row that names all its sub-resources, or a reason why there is none.
// Continuation tokens that decode encode to themselves.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "protocol/s3/listing_output.h"
#include "protocol/s3/op.h"
#include "protocol/s3/request.h"
#include "protocol/s3/xml.h"

using namespace basalt;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const s3::S3Options options{.base_domains = {"s3.example.com"}};
  static s3::S3Request request;  // reused, as the dispatcher does
  const std::string_view text = as_text({data, size});

  const auto token = s3::decode_token(s3::TokenKind::kObjects, text);
  if (token && s3::encode_token(s3::TokenKind::kObjects, *token) != text) abort();

  const size_t split = text.find('\n');
  http::RequestHead head;
  head.target = text.substr(0, split);
  head.host =
      split == std::string_view::npos ? std::string_view("localhost") : text.substr(split + 1);
  if (head.target.empty() || head.target.size() > http::kTargetBytesMax) return 0;
  const size_t mark = head.target.find('?');
  head.path = head.target.substr(0, mark);
  head.query = mark == std::string_view::npos ? std::string_view() : head.target.substr(mark + 1);
  if (!s3::parse_request(head, options, request)) return 0;
  if (request.key.size() > s3::kKeyBytesMax || request.key.find('\0') != std::string::npos) abort();
  if (!s3::valid_utf8(request.key) || request.query.size() > s3::kQueryParametersMax) abort();
  const s3::Target target = s3::target_of(request);
  if (!request.key.empty() && target != s3::Target::kObject) abort();
  for (int method = 0; method <= static_cast<int>(http::Method::kOther); ++method) {
    head.method = static_cast<http::Method>(method);
    head.method_name = "M";
    const s3::Route* row = s3::match_route(head.method, target, request);
    if (row == nullptr) {
      if (s3::s3_code_status(s3::no_route_error(target, request).code) < 400) abort();
      continue;
    }
    if (row->target != target || row->method != head.method) abort();
    // A default operation that writes must not have swallowed a sub-resource.
    const bool writes = head.method == http::Method::kPut || head.method == http::Method::kDelete;
    if (writes && row->query_keys.empty() && target != s3::Target::kService) {
      for (const char* name : {"acl", "policy", "tagging", "uploadId", "versioning"}) {
        if (request.has(name)) abort();
      }
    }
  }
  return 0;
}
