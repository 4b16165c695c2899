// What protocol/http costs: a request's head in, a response's head out.
#include <benchmark/benchmark.h>

#include <string>

#include "base/check.h"
#include "protocol/http/head.h"
#include "protocol/http/response.h"

namespace basalt::http {
namespace {

constexpr std::string_view kGet =
    "GET /bucket/some/folder/key.bin HTTP/1.1\r\n"
    "Host: s3.example.net:9000\r\n"
    "Accept-Encoding: identity\r\n"
    "User-Agent: Boto3/1.26.27 Python/3.11.2 Linux/6.1.0 Botocore/1.29.27\r\n"
    "X-Amz-Date: 20261121T022100Z\r\n"
    "X-Amz-Content-SHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\r\n"
    "Authorization: AWS4-HMAC-SHA256 "
    "Credential=AKIAIOSFODNN7EXAMPLE/20261121/us-east-1/s3/aws4_request, "
    "SignedHeaders=host;x-amz-content-sha256;x-amz-date, "
    "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41\r\n"
    "amz-sdk-invocation-id: 5a1f7d2e-9a3f-4c85-8f6e-2b1f0f7c2a11\r\n"
    "amz-sdk-request: attempt=1\r\n\r\n";

void parse_head(benchmark::State& state) {
  RequestHead head;
  for (auto _ : state) {
    head.clear();
    BASALT_CHECK(parse_request_head(as_bytes(kGet), 0, head).status == HeadStatus::kComplete);
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kGet.size()));
}
BENCHMARK(parse_head);

void write_head(benchmark::State& state) {
  ResponseHead head;
  std::string out;
  for (auto _ : state) {
    head.clear();
    out.clear();
    head.status = 200;
    head.add("x-amz-request-id", "0123456789ABCDEF");
    head.add("Accept-Ranges", "bytes");
    head.add("ETag", "\"9e107d9d372bb6826bd81d3542a419d6\"");
    head.add("Last-Modified", "Sat, 21 Nov 2026 02:21:00 GMT");
    head.add("Content-Type", "binary/octet-stream");
    head.write({.length = 4096}, 1795227660000, out);
    benchmark::DoNotOptimize(out.data());
  }
}
BENCHMARK(write_head);

}  // namespace
}  // namespace basalt::http
