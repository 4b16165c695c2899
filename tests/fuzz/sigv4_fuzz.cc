// The gate against arbitrary requests. What must hold: no crash; nobody but the signer gets an
// identity; and whatever sign_header() signs, the gate accepts or refuses for a reason other than
// the signature.
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "auth/identity.h"
#include "auth/sigv4.h"
#include "base/check.h"

namespace {

using namespace basalt;
using namespace basalt::auth;

constexpr std::string_view kAccessKey = "AKIAIOSFODNN7EXAMPLE";
constexpr std::string_view kSecretKey = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
constexpr int64_t kNowMs = 1369353600000;
constexpr std::string_view kHash =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

struct World {
  Sealer sealer;
  IdentityTable table;
  Gate gate;

  static Sealer make_sealer() {
    char folder[] = "/tmp/basalt-fuzz-XXXXXX";
    BASALT_CHECK(::mkdtemp(folder) != nullptr);
    const std::string file = std::string(folder) + "/key";
    auto sealer = Sealer::open(file, true);
    BASALT_CHECK(sealer.has_value());
    ::unlink(file.c_str());
    ::rmdir(folder);
    return std::move(*sealer);
  }
  World() : sealer(make_sealer()), table(sealer), gate(table, {}) {
    table.set_root({.id = "root", .name = "root"}, {.access_key = std::string(kAccessKey),
                                                    .secret_key = std::string(kSecretKey),
                                                    .account_id = "root"});
  }
};

std::string_view take_line(std::string_view& text) {
  const size_t end = std::min(text.find('\n'), text.size());
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return line;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const World world;
  if (size == 0) return 0;
  const bool with_signature = (data[0] & 1) != 0;
  std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::string_view method = take_line(text), path = take_line(text), query = take_line(text);
  std::vector<std::string> names;
  std::vector<HeaderView> headers;
  while (!text.empty() && headers.size() < 260) {
    const std::string_view line = take_line(text);
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    headers.push_back({line.substr(0, colon), line.substr(colon + 1)});
  }
  if (!with_signature) {
    const auto result = world.gate.authenticate({method, path, query, headers}, kNowMs);
    // A corpus file may hold a request signed by hand; a found identity is then the one whose
    // secret signed it.
    if (result && !result->identity.anonymous())
      BASALT_CHECK(result->identity.access_key() == kAccessKey);
    return 0;
  }

  std::erase_if(headers, [](const HeaderView& header) {
    return header.name.empty() ||
           !std::ranges::all_of(header.name,
                                [](char c) { return (c >= 'a' && c <= 'z') || c == '-'; }) ||
           header.name == "authorization" || header.name == "x-amz-date" ||
           header.name == "x-amz-content-sha256" || header.name == "host";
  });
  if (headers.size() > 150) headers.resize(150);
  headers.push_back({"host", "localhost"});
  headers.push_back({"x-amz-date", "20130524T000000Z"});
  headers.push_back({"x-amz-content-sha256", kHash});
  std::vector<std::string_view> signed_names;
  for (const HeaderView& header : headers) signed_names.push_back(header.name);
  std::ranges::sort(signed_names);
  signed_names.erase(std::unique(signed_names.begin(), signed_names.end()), signed_names.end());
  const std::string authorization = sign_header({.request = {method, path, query, headers},
                                                 .access_key = kAccessKey,
                                                 .secret_key = kSecretKey,
                                                 .region = "us-east-1",
                                                 .service = "s3",
                                                 .date_time = "20130524T000000Z",
                                                 .payload_hash = kHash,
                                                 .signed_headers = signed_names});
  if (authorization.empty()) return 0;
  headers.push_back({"authorization", authorization});
  const auto result = world.gate.authenticate({method, path, query, headers}, kNowMs);
  if (result) {
    BASALT_CHECK(!result->identity.anonymous());
    std::string other_method(method);
    other_method += "X";
    BASALT_CHECK(!world.gate.authenticate({other_method, path, query, headers}, kNowMs));
  } else {
    BASALT_CHECK(result.error().failure != AuthFailure::kSignatureDoesNotMatch);
  }
  return 0;
}
