// routes: every row is reachable, no two tie, sub-resources never reach a default operation, rows
// with a handler have their test file, and docs/s3-operations.md lists the rows as they are.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "protocol/s3/op.h"
#include "protocol/s3/ops/handlers.h"

namespace basalt::s3 {
namespace {

const std::filesystem::path kRoot = BASALT_SOURCE_ROOT;

struct Asked {
  http::RequestHead head;
  S3Request request;
  std::vector<std::string> kept;

  Asked(http::Method method, std::string_view query_keys, std::string_view header) {
    head.method = method;
    head.method_name = "METHOD";
    request.head = &head;
    std::stringstream keys{std::string(query_keys)};
    for (std::string key; std::getline(keys, key, ',');) {
      const size_t equals = key.find('=');
      request.query.push_back(
          {key.substr(0, equals), equals == std::string::npos ? "" : key.substr(equals + 1), true});
    }
    if (!header.empty()) {
      const size_t equals = header.find('=');
      kept = {std::string(header.substr(0, equals)),
              equals == std::string_view::npos ? "x"
                                               : std::string(header.substr(equals + 1)) + "; more"};
      head.fields.push_back({kept[0], kept[1]});
    }
  }
};

TEST(Routes, EveryRowIsReachable) {
  for (const Route& row : routes()) {
    const Asked asked(row.method, row.query_keys, row.header);
    const Route* found = match_route(row.method, row.target, asked.request);
    ASSERT_NE(found, nullptr) << row.name;
    EXPECT_EQ(found->name, row.name);
  }
}

TEST(Routes, NoTwoRowsTie) {
  std::set<std::string> seen, names;
  for (const Route& row : routes()) {
    EXPECT_TRUE(names.insert(std::string(row.name)).second) << row.name;
    const auto key = fmt::format("{} {} {} {}", static_cast<int>(row.method),
                                 static_cast<int>(row.target), row.query_keys, row.header);
    EXPECT_TRUE(seen.insert(key).second) << row.name;
    EXPECT_FALSE(row.action.empty()) << row.name;
    EXPECT_NE(row.handler, nullptr) << row.name;
  }
}

TEST(Routes, ForeignParametersAreIgnored) {
  const Asked asked(http::Method::kGet, "list-type=2,foo,x-id=ListObjectsV2,allow-unordered", "");
  const Route* row = match_route(http::Method::kGet, Target::kBucket, asked.request);
  ASSERT_NE(row, nullptr);
  EXPECT_EQ(row->name, "ListObjectsV2");
}

TEST(Routes, SubresourcesNeverReachADefaultOperation) {
  using http::Method;
  for (const Route& named : routes()) {
    const std::string key(named.query_keys.substr(0, named.query_keys.find_first_of(",=")));
    if (key.empty() || key == "list-type" || key == "x-id") continue;
    for (const Target target : {Target::kBucket, Target::kObject}) {
      for (const Method method :
           {Method::kGet, Method::kHead, Method::kPut, Method::kPost, Method::kDelete}) {
        const Asked asked(method, key, "");
        const Route* row = match_route(method, target, asked.request);
        if (row == nullptr) continue;
        const bool reads_object =
            target == Target::kObject && (method == Method::kGet || method == Method::kHead);
        if (reads_object && (named.target == Target::kBucket || key == "partNumber")) continue;
        if (method != Method::kPut && key == "partNumber") continue;
        EXPECT_TRUE(row->query_keys.find(key) != std::string_view::npos)
            << key << " reaches " << row->name;
      }
    }
  }
}

TEST(Routes, SaysWhyNothingMatched) {
  using http::Method;
  const auto error = [](Method method, Target target, std::string_view keys) {
    const Asked asked(method, keys, "");
    EXPECT_EQ(match_route(method, target, asked.request), nullptr) << keys;
    return no_route_error(target, asked.request);
  };
  EXPECT_EQ(error(Method::kPut, Target::kService, "").code, S3Code::kMethodNotAllowed);
  EXPECT_EQ(error(Method::kPut, Target::kBucket, "policyStatus").code, S3Code::kMethodNotAllowed);
  EXPECT_EQ(error(Method::kPut, Target::kBucket, "policyStatus").details[1].second,
            "POLICY_STATUS");
  EXPECT_EQ(error(Method::kPost, Target::kObject, "").code, S3Code::kMethodNotAllowed);
  EXPECT_EQ(error(Method::kPost, Target::kBucket, "").code, S3Code::kPreconditionFailed);
  EXPECT_EQ(error(Method::kPut, Target::kObject, "uploadId").code, S3Code::kInvalidArgument);
  EXPECT_EQ(error(Method::kPut, Target::kObject, "partNumber").code, S3Code::kInvalidArgument);
  EXPECT_EQ(error(Method::kGet, Target::kBucket, "acl,policy").code, S3Code::kInvalidArgument);
  EXPECT_EQ(error(Method::kPatch, Target::kBucket, "").code, S3Code::kMethodNotAllowed);
}

TEST(Routes, TheDocumentListsTheRows) {
  std::ifstream in(kRoot / "docs" / "s3-operations.md");
  std::stringstream text;
  text << in.rdbuf();
  for (const Route& row : routes()) {
    const auto line =
        fmt::format("| {} | {} |", row.name, row.handler == &not_implemented ? "501" : "yes");
    EXPECT_NE(text.str().find(line), std::string::npos) << line;
  }
}

}  // namespace
}  // namespace basalt::s3
