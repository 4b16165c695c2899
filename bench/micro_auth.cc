// Costs of auth/, one row a measurement: name, nanoseconds a call, and GB/s where a call takes
// bytes in.
//   micro_auth [seconds a row, default 0.5]
#include <fmt/format.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <vector>

#include "auth/aws_chunked.h"
#include "auth/crc64.h"
#include "auth/digest.h"
#include "auth/identity.h"
#include "auth/sigv4.h"
#include "base/check.h"

namespace {

using namespace basalt;
using namespace basalt::auth;

double seconds_a_row = 0.5;

// CPU time of the thread: a busy machine disturbs it least.
double cpu_seconds() {
  timespec now;
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

void measure(std::string_view name, size_t bytes, const std::function<void()>& call) {
  const double start = cpu_seconds();
  uint64_t calls = 0;
  double seconds = 0;
  for (uint64_t batch = 1; seconds < seconds_a_row; batch *= 2) {
    for (uint64_t i = 0; i < batch; ++i) call();
    calls += batch;
    seconds = cpu_seconds() - start;
  }
  const double each = seconds / static_cast<double>(calls);
  fmt::print("{{\"name\":\"{}\",\"ns\":{:.0f},\"gb_per_s\":{:.2f}}}\n", name, each * 1e9,
             static_cast<double>(bytes) / each / 1e9);
}

Sealer make_sealer() {
  char folder[] = "/tmp/basalt-bench-XXXXXX";
  BASALT_CHECK(::mkdtemp(folder) != nullptr);
  const std::string file = std::string(folder) + "/key";
  auto sealer = Sealer::open(file, true);
  BASALT_CHECK(sealer.has_value());
  ::unlink(file.c_str());
  ::rmdir(folder);
  return std::move(*sealer);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) seconds_a_row = std::atof(argv[1]);
  constexpr int64_t kNowMs = 1369353600000;
  constexpr std::string_view kHash =
      "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
  const Sealer sealer = make_sealer();
  IdentityTable table(sealer);
  table.set_root({.id = "root", .name = "root"},
                 {.access_key = "AKIAIOSFODNN7EXAMPLE",
                  .secret_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"});
  const Gate gate(table, {});

  std::vector<HeaderView> headers;
  headers.reserve(8);  // the views of it below stay valid
  for (const HeaderView& header : {HeaderView{"Host", "localhost:9000"},
                                   {"User-Agent", "a client with a longer name/1.0"},
                                   {"x-amz-date", "20130524T000000Z"},
                                   {"x-amz-content-sha256", kHash}}) {
    headers.push_back(header);
  }
  const std::vector<std::string_view> names = {"host", "x-amz-content-sha256", "x-amz-date"};
  const SignInput input{.request = {"GET", "/bucket/some/key.bin", "versionId=null", headers},
                        .access_key = "AKIAIOSFODNN7EXAMPLE",
                        .secret_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                        .region = "us-east-1",
                        .service = "s3",
                        .date_time = "20130524T000000Z",
                        .payload_hash = kHash,
                        .signed_headers = names};
  const std::string authorization = sign_header(input);
  headers.push_back({"Authorization", authorization});
  const RequestView request{"GET", "/bucket/some/key.bin", "versionId=null", headers};
  measure("authenticate_header", 0,
          [&] { BASALT_CHECK(gate.authenticate(request, kNowMs).has_value()); });
  const RequestView changed{"PUT", "/bucket/some/key.bin", "versionId=null", headers};
  measure("authenticate_bad_signature", 0,
          [&] { BASALT_CHECK(!gate.authenticate(changed, kNowMs).has_value()); });
  std::string other = authorization;
  other.replace(other.find("AKIAIOSF"), 8, "AKIAXXXX");
  headers.back().value = other;
  measure("authenticate_unknown_key", 0,
          [&] { BASALT_CHECK(!gate.authenticate(request, kNowMs).has_value()); });
  measure("sign_header", 0, [&] { BASALT_CHECK(!sign_header(input).empty()); });

  const std::vector<uint8_t> bytes(64 * 1024, 'x');
  constexpr std::string_view kNames[kAlgorithmCount] = {"md5",   "sha1",   "sha256",
                                                        "crc32", "crc32c", "crc64nvme"};
  for (size_t i = 0; i < kAlgorithmCount; ++i) {
    Hasher hasher(static_cast<Algorithm>(i));
    measure(fmt::format("{}_64k", kNames[i]), bytes.size(), [&] { hasher.update(bytes); });
  }
  measure("crc64nvme_portable_64k", bytes.size(), [&] { (void)crc64_nvme_portable(bytes); });
  std::string body = "10000\r\n";
  body.append(as_text(bytes)).append("\r\n0\r\n\r\n");
  measure("aws_chunked_unsigned_64k", bytes.size(), [&] {
    AwsChunkedDecoder decoder(
        {.kind = PayloadKind::kStreamingUnsignedTrailer, .decoded_length = bytes.size()});
    Bytes rest = as_bytes(body);
    while (true) {
      const auto step = decoder.decode(rest);
      BASALT_CHECK(step.has_value());
      if (step->done) break;
      rest = rest.subspan(step->consumed);
    }
  });
  return 0;
}
