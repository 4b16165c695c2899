// What auth/ costs: the gate, the digests over 64 KiB, the aws-chunked decoder.
#include <benchmark/benchmark.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "auth/aws_chunked.h"
#include "auth/crc64.h"
#include "auth/digest.h"
#include "auth/identity.h"
#include "auth/sigv4.h"
#include "base/check.h"

namespace basalt::auth {
namespace {

constexpr int64_t kNowMs =
    1369353600000;  // 2013-05-24T00:00:00Z, of the examples in the S3 API reference
constexpr std::string_view kAccessKey = "AKIAIOSFODNN7EXAMPLE";
constexpr std::string_view kSecretKey = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
constexpr std::string_view kEmptyHash =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

Sealer make_sealer() {
  std::string folder = "basalt-micro-XXXXXX";
  if (const char* parent = getenv("TMPDIR"); parent != nullptr)
    folder.insert(0, std::string(parent) + "/");
  BASALT_CHECK(::mkdtemp(folder.data()) != nullptr);
  const std::string file = folder + "/key";
  auto sealer = Sealer::open(file, true);
  BASALT_CHECK(sealer.has_value());
  ::unlink(file.c_str());
  ::rmdir(folder.c_str());
  return std::move(*sealer);
}

// A gate with one key, and a signed request for it.
struct Fixture {
  Sealer sealer = make_sealer();
  IdentityTable table{sealer};
  std::unique_ptr<Gate> gate;
  std::string authorization;
  std::vector<HeaderView> headers;
  std::array<std::string_view, 3> names = {"host", "x-amz-content-sha256", "x-amz-date"};

  Fixture() {
    table.set_root({.id = "root", .name = "root"},
                   {.access_key = std::string(kAccessKey), .secret_key = std::string(kSecretKey)});
    gate = std::make_unique<Gate>(table, Gate::Options{});
    headers = {{"Host", "localhost:9000"},
               {"User-Agent", "a client with a longer name/1.0"},
               {"x-amz-date", "20130524T000000Z"},
               {"x-amz-content-sha256", kEmptyHash}};
    authorization = sign_header(sign_input());
    headers.push_back({"Authorization", authorization});
  }
  RequestView request(std::string_view method) const {
    return {method, "/bucket/some/key.bin", "versionId=null", headers};
  }
  SignInput sign_input() const {
    return {.request = request("GET"),
            .access_key = kAccessKey,
            .secret_key = kSecretKey,
            .region = "us-east-1",
            .service = "s3",
            .date_time = "20130524T000000Z",
            .payload_hash = kEmptyHash,
            .signed_headers = names};
  }
};

// The canonical request of the fixture's request, as long as the one that is hashed.
std::string canonical_text(const Fixture& fixture) {
  std::string text = "GET\n/bucket/some/key.bin\nversionId=null\n";
  for (const std::string_view name : fixture.names) {
    for (const HeaderView& header : fixture.headers) {
      if (header.name.size() != name.size() ||
          strncasecmp(header.name.data(), name.data(), name.size()) != 0)
        continue;
      text.append(name).append(":").append(header.value).append("\n");
    }
  }
  return text.append("\nhost;x-amz-content-sha256;x-amz-date\n").append(kEmptyHash);
}

void authenticate(benchmark::State& state) {
  const Fixture fixture;
  for (auto _ : state)
    BASALT_CHECK(fixture.gate->authenticate(fixture.request("GET"), kNowMs).has_value());
}
BENCHMARK(authenticate);

// What verification cannot do without: SHA-256 of the canonical request and HMAC of the string to
// sign (with the signing key at hand), by OpenSSL. The yardstick of `authenticate`.
void openssl_sha256_and_hmac(benchmark::State& state) {
  const Fixture fixture;
  const std::string canonical = canonical_text(fixture);
  const std::string to_sign =
      "AWS4-HMAC-SHA256\n20130524T000000Z\n20130524/us-east-1/s3/aws4_request\n" +
      std::string(kEmptyHash);
  const std::array<uint8_t, 32> key{1, 2, 3};
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  EVP_MD* sha256 = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  EVP_MAC* mac = EVP_MAC_fetch(nullptr, "HMAC", nullptr);
  EVP_MAC_CTX* keyed = EVP_MAC_CTX_new(mac);
  char name[] = "SHA256";
  const OSSL_PARAM parameters[] = {OSSL_PARAM_construct_utf8_string("digest", name, 0),
                                   OSSL_PARAM_construct_end()};
  BASALT_CHECK(EVP_MAC_init(keyed, key.data(), key.size(), parameters) == 1);
  for (auto _ : state) {
    std::array<uint8_t, 32> hash, signature;
    unsigned size = 0;
    EVP_DigestInit_ex2(context, sha256, nullptr);
    EVP_DigestUpdate(context, canonical.data(), canonical.size());
    EVP_DigestFinal_ex(context, hash.data(), &size);
    benchmark::DoNotOptimize(hash);
    size_t written = 0;
    EVP_MAC_init(keyed, nullptr, 0, nullptr);  // the same key again, from its prepared states
    EVP_MAC_update(keyed, reinterpret_cast<const uint8_t*>(to_sign.data()), to_sign.size());
    EVP_MAC_final(keyed, signature.data(), &written, signature.size());
    benchmark::DoNotOptimize(signature);
  }
  EVP_MAC_CTX_free(keyed);
  EVP_MAC_free(mac);
  EVP_MD_free(sha256);
  EVP_MD_CTX_free(context);
}
BENCHMARK(openssl_sha256_and_hmac);

void authenticate_bad_signature(benchmark::State& state) {
  const Fixture fixture;
  for (auto _ : state)
    BASALT_CHECK(!fixture.gate->authenticate(fixture.request("PUT"), kNowMs).has_value());
}
BENCHMARK(authenticate_bad_signature);

void authenticate_unknown_key(benchmark::State& state) {
  Fixture fixture;
  std::string other = fixture.authorization;
  other.replace(other.find("AKIAIOSF"), 8, "AKIAXXXX");
  fixture.headers.back().value = other;
  for (auto _ : state)
    BASALT_CHECK(!fixture.gate->authenticate(fixture.request("GET"), kNowMs).has_value());
}
BENCHMARK(authenticate_unknown_key);

void sign(benchmark::State& state) {
  const Fixture fixture;
  for (auto _ : state) benchmark::DoNotOptimize(sign_header(fixture.sign_input()));
}
BENCHMARK(sign);

constexpr size_t kBodyBytes = 64 * 1024;

void digest_64k(benchmark::State& state) {
  static constexpr const char* kNames[kAlgorithmCount] = {"md5",   "sha1",   "sha256",
                                                          "crc32", "crc32c", "crc64nvme"};
  const std::vector<uint8_t> bytes(kBodyBytes, 'x');
  Hasher hasher(static_cast<Algorithm>(state.range(0)));
  for (auto _ : state) hasher.update(bytes);
  state.SetLabel(kNames[state.range(0)]);
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kBodyBytes));
}
BENCHMARK(digest_64k)->DenseRange(0, kAlgorithmCount - 1);

void crc64nvme_portable_64k(benchmark::State& state) {
  const std::vector<uint8_t> bytes(kBodyBytes, 'x');
  for (auto _ : state) benchmark::DoNotOptimize(crc64_nvme_portable(bytes));
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kBodyBytes));
}
BENCHMARK(crc64nvme_portable_64k);

void aws_chunked_unsigned_64k(benchmark::State& state) {
  std::string body = "10000\r\n";
  body.append(kBodyBytes, 'x').append("\r\n0\r\n\r\n");
  for (auto _ : state) {
    AwsChunkedDecoder decoder(
        {.kind = PayloadKind::kStreamingUnsignedTrailer, .decoded_length = kBodyBytes});
    Bytes rest = as_bytes(body);
    while (true) {
      const auto step = decoder.decode(rest);
      BASALT_CHECK(step.has_value());
      if (step->done) break;
      rest = rest.subspan(step->consumed);
    }
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kBodyBytes));
}
BENCHMARK(aws_chunked_unsigned_64k);

}  // namespace
}  // namespace basalt::auth
