// What protocol/s3 costs around a handler: taking a target apart, finding the row, writing a
// listing.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <string>

#include "base/check.h"
#include "protocol/http/head.h"
#include "protocol/s3/op.h"
#include "protocol/s3/request.h"
#include "protocol/s3/xml.h"

namespace basalt::s3 {
namespace {

void parse_and_route(benchmark::State& state, std::string_view line) {
  const std::string text = fmt::format("{} HTTP/1.1\r\nHost: localhost:9000\r\n\r\n", line);
  http::RequestHead head;
  BASALT_CHECK(http::parse_request_head(as_bytes(text), 0, head).status ==
               http::HeadStatus::kComplete);
  const S3Options options{};
  S3Request request;
  for (auto _ : state) {
    BASALT_CHECK(parse_request(head, options, request).has_value());
    const Route* route = match_route(head.method, target_of(request), request);
    BASALT_CHECK(route != nullptr);
    benchmark::DoNotOptimize(route);
  }
}
BENCHMARK_CAPTURE(parse_and_route, get_object, "GET /bucket/some/folder/key.bin");
BENCHMARK_CAPTURE(parse_and_route, list_objects_v2,
                  "GET /bucket?list-type=2&prefix=some%2Ffolder%2F&max-keys=1000&delimiter=%2F");
BENCHMARK_CAPTURE(parse_and_route, upload_part,
                  "PUT /bucket/key?partNumber=7&uploadId=0123456789abcdef0123456789abcdef");

void write_listing_of_1000(benchmark::State& state) {
  for (auto _ : state) {
    XmlWriter xml("ListBucketResult");
    xml.text("Name", "bucket");
    for (uint64_t i = 0; i < 1000; ++i) {
      xml.open("Contents");
      xml.text("Key", "some/folder/with a key & more.bin");
      xml.time("LastModified", 1795227660000);
      xml.etag("ETag", "9e107d9d372bb6826bd81d3542a419d6");
      xml.number("Size", i * 4096);
      xml.text("StorageClass", "STANDARD");
      xml.close("Contents");
    }
    benchmark::DoNotOptimize(xml.finish());
  }
  state.SetItemsProcessed(state.iterations() * 1000);
}
BENCHMARK(write_listing_of_1000);

}  // namespace
}  // namespace basalt::s3
