#include "protocol/s3/request.h"

#include "protocol/s3/xml.h"

namespace basalt::s3 {
namespace {

bool contains_nul(std::string_view text) { return text.find('\0') != std::string_view::npos; }

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

// Percent-decoding into a string whose memory is kept.
bool decode_into(std::string_view text, bool plus_is_space, std::string& out) {
  out.clear();
  if (text.find('%') == std::string_view::npos &&
      (!plus_is_space || text.find('+') == std::string_view::npos)) {
    out.assign(text);
    return true;
  }
  auto decoded = percent_decode(text, plus_is_space);
  if (!decoded) return false;
  out = std::move(*decoded);
  return true;
}

// The bucket of a virtual-hosted request, or "".
std::string bucket_of_host(std::string_view host, const S3Options& options) {
  if (options.base_domains.empty() || host.empty()) return {};
  const size_t colon = host.rfind(':');
  if (colon != std::string_view::npos && host.find(']', colon) == std::string_view::npos)
    host = host.substr(0, colon);
  std::string name(host);
  for (char& c : name) c = lower(c);
  if (name.ends_with('.')) name.pop_back();
  for (const std::string& domain : options.base_domains) {
    if (name.size() > domain.size() + 1 && name.ends_with(domain) &&
        name[name.size() - domain.size() - 1] == '.') {
      return name.substr(0, name.size() - domain.size() - 1);
    }
  }
  return {};
}

S3Result<> parse_query(std::string_view query, S3Request& request) {
  size_t count = 0;
  while (!query.empty()) {
    const size_t end = query.find('&');
    const std::string_view pair = query.substr(0, end);
    query.remove_prefix(end == std::string_view::npos ? query.size() : end + 1);
    if (pair.empty()) continue;
    if (count == kQueryParametersMax) return s3_fail(S3Code::kInvalidURI);
    if (count == request.query.size()) request.query.emplace_back();
    Parameter& parameter = request.query[count++];
    const size_t equals = pair.find('=');
    parameter.has_equals = equals != std::string_view::npos;
    const std::string_view value =
        parameter.has_equals ? pair.substr(equals + 1) : std::string_view();
    if (!decode_into(pair.substr(0, equals), true, parameter.name) ||
        !decode_into(value, true, parameter.value)) {
      return s3_fail(S3Code::kInvalidURI);
    }
    if (contains_nul(parameter.name) || contains_nul(parameter.value)) {
      return s3_fail(S3Code::kInvalidArgument, "A query parameter contains a NUL character.");
    }
  }
  request.query.resize(count);
  return {};
}

}  // namespace

S3Result<> parse_request(const http::RequestHead& head, const S3Options& options,
                         S3Request& request) {
  request.route = nullptr;
  request.head = &head;
  request.bucket.clear();
  request.key.clear();
  if (auto parsed = parse_query(head.query, request); !parsed) return parsed;

  std::string_view path = head.path;
  if (path == "*") path = "/";  // OPTIONS *
  if (!path.starts_with('/')) return s3_fail(S3Code::kInvalidURI);
  path.remove_prefix(1);

  request.bucket = bucket_of_host(head.host, options);
  request.virtual_hosted = !request.bucket.empty();
  if (!request.virtual_hosted) {
    const size_t slash = path.find('/');
    if (!decode_into(path.substr(0, slash), false, request.bucket))
      return s3_fail(S3Code::kInvalidURI);
    // "//key" names no bucket; taking it for the service would list buckets where an object was
    // meant.
    if (request.bucket.empty() && slash != std::string_view::npos)
      return s3_fail(S3Code::kInvalidBucketName);
    path.remove_prefix(slash == std::string_view::npos ? path.size() : slash + 1);
  }
  if (!decode_into(path, false, request.key)) return s3_fail(S3Code::kInvalidURI);
  if (contains_nul(request.bucket) || contains_nul(request.key) || !valid_utf8(request.key)) {
    return s3_fail(S3Code::kInvalidURI);
  }
  if (request.key.size() > kKeyBytesMax) {
    S3Error error(S3Code::kKeyTooLongError);
    error.details = {{"Size", std::to_string(request.key.size())},
                     {"MaxSizeAllowed", std::to_string(kKeyBytesMax)}};
    return std::unexpected(std::move(error));
  }
  return {};
}

Target target_of(const S3Request& request) {
  if (request.bucket.empty()) return Target::kService;
  return request.key.empty() ? Target::kBucket : Target::kObject;
}

}  // namespace basalt::s3
