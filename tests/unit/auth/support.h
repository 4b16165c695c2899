// Shared by the tests of auth/: a table with one account and AWS's example key, and requests that
// own their text.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "auth/identity.h"
#include "auth/sigv4.h"

namespace basalt::auth::testing {

inline constexpr std::string_view kAccessKey = "AKIAIOSFODNN7EXAMPLE";
inline constexpr std::string_view kSecretKey = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
inline constexpr int64_t k20130524Ms = 1369353600000;  // 2013-05-24T00:00:00Z
inline constexpr std::string_view kEmptyHash =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = ::testing::TempDir() + "basalt-auth-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryFolder() {
    for (const char* name : {"/key", "/key.new"}) ::unlink((path_ + name).c_str());
    ::rmdir(path_.c_str());
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline Sealer make_sealer() {
  TemporaryFolder folder;
  return std::move(*Sealer::open(folder.path() + "/key", true));
}

struct Identities {
  Sealer sealer = make_sealer();
  IdentityTable table{sealer};

  Identities() {
    add_account(
        {.id = "alice-id", .name = "alice", .display_name = "Alice", .email = "alice@example.com"});
    add_key({.access_key = std::string(kAccessKey),
             .secret_key = std::string(kSecretKey),
             .account_id = "alice-id"});
  }
  void add_account(const Account& account) {
    const std::string meta = encode_account(account);
    ASSERT_TRUE(table.apply_change(account_record_name(account.id), as_bytes(meta)));
  }
  void add_key(const AccessKey& key) {
    const std::string meta = encode_key(key, sealer);
    ASSERT_TRUE(table.apply_change(key_record_name(key.access_key), as_bytes(meta)));
  }
};

struct Request {
  std::string method = "GET", path = "/", query;
  std::vector<std::pair<std::string, std::string>> headers;

  std::vector<HeaderView> views() const {
    std::vector<HeaderView> out;
    for (const auto& [name, value] : headers) out.push_back({name, value});
    return out;
  }
  std::string& header(std::string_view name) {
    for (auto& [existing, value] : headers) {
      if (existing == name) return value;
    }
    return headers.emplace_back(name, "").second;
  }
  void remove(std::string_view name) {
    std::erase_if(headers, [&](const auto& header) { return header.first == name; });
  }
};

inline std::expected<Authenticated, AuthError> authenticate(const Gate& gate,
                                                            const Request& request,
                                                            int64_t wall_ms) {
  const auto headers = request.views();
  return gate.authenticate({request.method, request.path, request.query, headers}, wall_ms);
}

// Signs with all headers the request has, as SDKs do.
inline void sign(Request& request, std::string_view access_key = kAccessKey,
                 std::string_view secret_key = kSecretKey, std::string_view region = "us-east-1",
                 std::string_view service = "s3") {
  request.remove("authorization");
  std::vector<std::string_view> names;
  for (const auto& [name, value] : request.headers) names.push_back(name);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  const auto headers = request.views();
  const std::string value =
      sign_header({.request = {request.method, request.path, request.query, headers},
                   .access_key = access_key,
                   .secret_key = secret_key,
                   .region = region,
                   .service = service,
                   .date_time = request.header("x-amz-date"),
                   .payload_hash = request.header("x-amz-content-sha256"),
                   .signed_headers = names});
  request.headers.emplace_back("authorization", value);
}

}  // namespace basalt::auth::testing
