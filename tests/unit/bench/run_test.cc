#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bench/compare.h"
#include "bench/plot.h"
#include "bench/report.h"
#include "bench/runner.h"
#include "tests/unit/bench/fake_server.h"

namespace basalt::bench {
namespace {

using testing::FakeServer;
using ::testing::HasSubstr;

RunOptions options_for(const FakeServer& server) {
  RunOptions options;
  options.endpoint = *parse_endpoint(server.url());
  options.signing = Signing::kNone;
  options.sizes = *Sizes::parse("3000:3,200000");
  options.sizes_text = "3000:3,200000";
  options.keys = 20;
  options.connections = 4;
  options.threads = 2;
  options.warmup_ms = 0;
  options.count = 200;
  options.timeout_ms = 5000;
  options.quiet = true;
  return options;
}

const OpResult& of(const RunResult& result, Op op) { return result.ops[static_cast<size_t>(op)]; }

TEST(Run, PreparesAndReads) {
  FakeServer server;
  RunOptions options = options_for(server);
  options.verify = true;
  auto result = run(options);
  ASSERT_TRUE(result) << result.error().detail;
  EXPECT_EQ(server.object_count(), 21u);  // the bucket is one for the fake
  EXPECT_EQ(of(*result, Op::kGet).in_window, 200u);
  EXPECT_EQ(of(*result, Op::kGet).latency.count(), 200u);
  EXPECT_EQ(result->failed(), 0u);
  EXPECT_GT(result->bytes(), 200u * 3000);
  EXPECT_GT(result->seconds, 0);

  // What is there is not put again.
  const uint64_t put = server.sum_of_put_bytes;
  ASSERT_TRUE(run(options));
  EXPECT_EQ(server.sum_of_put_bytes, put);
  options.cleanup = true;
  ASSERT_TRUE(run(options));
  EXPECT_EQ(server.object_count(), 1u);
}

TEST(Run, ReadsEveryFraming) {
  FakeServer server;
  RunOptions options = options_for(server);
  options.verify = true;
  ASSERT_TRUE(run(options));
  for (const auto fault : {FakeServer::Fault::kChunked, FakeServer::Fault::kUntilClose}) {
    server.fault = fault;
    const auto result = run(options);
    ASSERT_TRUE(result);
    EXPECT_EQ(of(*result, Op::kGet).in_window, 200u) << result->first_failure;
    EXPECT_EQ(result->failed(), 0u);
  }
}

TEST(Run, CountsFailuresByKind) {
  FakeServer server;
  RunOptions options = options_for(server);
  ASSERT_TRUE(run(options));
  options.verify = true;
  options.count = 50;
  const std::pair<FakeServer::Fault, const char*> kCases[] = {
      {FakeServer::Fault::kWrongByte, "wrong_bytes"},
      {FakeServer::Fault::kShortBody, "wrong_bytes"},
      {FakeServer::Fault::kSlowDown, "status 503"},
      {FakeServer::Fault::kGarbage, "protocol"},
      {FakeServer::Fault::kCloseInstead, "closed"}};
  for (const auto& [fault, name] : kCases) {
    server.fault = fault;
    const auto result = run(options);
    ASSERT_TRUE(result);
    EXPECT_EQ(result->failed(), 50u) << name;
    EXPECT_EQ(result->failures.at(name), 50u) << result->first_failure;
    EXPECT_EQ(result->completed(), 0u);
  }
  server.fault = FakeServer::Fault::kSlowDown;
  EXPECT_THAT(run(options)->first_failure, HasSubstr("503 SlowDown"));
}

TEST(Run, WithoutVerifyOnlyTheLengthCounts) {
  FakeServer server;
  RunOptions options = options_for(server);
  server.fault = FakeServer::Fault::kWrongByte;
  EXPECT_EQ(run(options)->failed(), 0u);
  server.fault = FakeServer::Fault::kShortBody;
  EXPECT_EQ(run(options)->failed(), 200u);
}

TEST(Run, OpenLoopChargesTheWaitToTheServer) {
  FakeServer server;
  RunOptions options = options_for(server);
  options.sizes = *Sizes::parse("100");
  options.threads = 1;
  options.connections = 2;
  ASSERT_TRUE(run(options));
  options.count = 0;
  options.duration_ms = 1000;
  options.rate = 200;
  options.prepare = RunOptions::Prepare::kNever;
  server.fault = FakeServer::Fault::kPauseOnce;
  const auto result = run(options);
  ASSERT_TRUE(result);
  const OpResult& get = of(*result, Op::kGet);
  EXPECT_NEAR(static_cast<double>(get.latency.count()), 200, 20);
  // 300 ms of silence: about 60 operations were due in it. The two that were sent know of it, the
  // others waited unsent.
  EXPECT_GT(get.latency.quantile(0.9), 100'000'000u);
  EXPECT_GE(get.latency.max(), 290'000'000u);
}

TEST(Run, OpenLoopCountsWhatWasNotDone) {
  FakeServer server;
  RunOptions options = options_for(server);
  options.sizes = *Sizes::parse("100");
  options.threads = 1;
  options.connections = 1;
  ASSERT_TRUE(run(options));
  options.count = 0;
  options.duration_ms = 300;
  options.drain_ms = 100;
  options.rate = 100;
  options.prepare = RunOptions::Prepare::kNever;
  server.pause_ms = 2000;
  server.fault = FakeServer::Fault::kPauseOnce;
  const auto result = run(options);
  ASSERT_TRUE(result);
  const OpResult& get = of(*result, Op::kGet);
  EXPECT_NEAR(static_cast<double>(get.unfinished), 30, 6);
  EXPECT_NEAR(static_cast<double>(get.latency.count()), 30, 6);
  EXPECT_GE(get.latency.max(), 390'000'000u);
}

TEST(Run, ClosedLoopKeepsToTheDuration) {
  FakeServer server;
  RunOptions options = options_for(server);
  options.count = 0;
  options.duration_ms = 400;
  options.warmup_ms = 100;
  const auto result = run(options);
  ASSERT_TRUE(result);
  EXPECT_GE(result->seconds, 0.35);  // no upper bound: the machine may be busy
  EXPECT_GT(result->completed(), 0u);
  EXPECT_GE(result->timeline.size(), 1u);
  uint64_t sum = 0;
  for (const TimelinePoint& point : result->timeline) sum += point.operations;
  EXPECT_LE(sum, result->completed());
}

TEST(Run, EveryOperation) {
  FakeServer server;
  RunOptions options = options_for(server);
  options.part_bytes = 150'000;
  options.sizes = *Sizes::parse("200000");
  for (const Op op : {Op::kPut, Op::kHead, Op::kList, Op::kMultipart}) {
    options.op = op;
    const auto result = run(options);
    ASSERT_TRUE(result) << result.error().detail;
    EXPECT_EQ(of(*result, op).in_window, 200u) << op_name(op) << " " << result->first_failure;
  }
  const auto uploads = run(options);
  EXPECT_EQ(of(*uploads, Op::kUploadPart).in_window, 400u);
  EXPECT_EQ(of(*uploads, Op::kCompleteUpload).in_window, 200u);

  // Each object is deleted once, then the run is over.
  options.op = Op::kDelete;
  options.count = 0;
  const auto deleted = run(options);
  ASSERT_TRUE(deleted);
  EXPECT_EQ(of(*deleted, Op::kDelete).in_window, 20u);
  EXPECT_EQ(server.object_count(), 1u);
}

TEST(Run, MixedDeletesOnlyWhatItPut) {
  FakeServer server;
  RunOptions options = options_for(server);
  options.mixed = true;
  options.mix = *parse_mix("get:50,put:25,delete:25");
  options.count = 400;
  options.verify = true;
  options.cleanup = true;
  const auto result = run(options);
  ASSERT_TRUE(result) << result.error().detail;
  EXPECT_EQ(result->failed(), 0u) << result->first_failure;
  EXPECT_EQ(result->completed(), 400u);
  EXPECT_GT(of(*result, Op::kDelete).in_window, 0u);
  EXPECT_EQ(server.object_count(), 1u);
}

TEST(Run, NobodyListens) {
  RunOptions options;
  {
    FakeServer server;
    options = options_for(server);
  }
  const auto result = run(options);
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().detail, HasSubstr("onnect"));
}

TEST(Reports, HoldTogether) {
  FakeServer server;
  RunOptions first = options_for(server), second = first;
  first.endpoint.name = "one";
  second.endpoint.name = "two <&>";
  const auto comparison = compare({first, second}, 2);
  ASSERT_TRUE(comparison);
  ASSERT_EQ(comparison->runs[1].size(), 2u);
  EXPECT_THAT(table(*comparison), HasSubstr("two <&>/one"));
  const auto json = to_json(*comparison);
  EXPECT_DOUBLE_EQ(json["endpoints"][0]["medians"]["operations_per_s"]["ratio"].get<double>(), 1);
  const RunResult& run = comparison->runs[0][0];
  EXPECT_THAT(table(run), HasSubstr("p99.99"));
  const auto run_json = to_json(run);
  uint64_t count = 0;
  for (const auto& bucket : run_json["operations"]["get"]["latency_us"]["buckets"])
    count += bucket[1].get<uint64_t>();
  EXPECT_EQ(count, 200u);
  const std::string header = csv_header(), rows = csv_rows(run);
  // The size is quoted because it may hold a comma, as it does here.
  EXPECT_EQ(std::ranges::count(header, ',') + 1, std::ranges::count(rows, ','));
  const auto svg = plot({run_json, json});
  ASSERT_TRUE(svg) << svg.error().detail;
  EXPECT_THAT(*svg, HasSubstr("two &lt;&amp;&gt;"));
  EXPECT_FALSE(plot({nlohmann::ordered_json::parse("{\"format\":\"basalt-bench-run-1\"}")}));
  EXPECT_FALSE(plot({nlohmann::ordered_json::parse("[1]")}));
}

}  // namespace
}  // namespace basalt::bench
