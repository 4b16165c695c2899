#include "bench/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "bench/report.h"

namespace basalt::bench {
namespace {

// What is compared. `better`: which direction the ratio is good in is for the reader; the name says
// the unit.
struct Measure {
  const char* name;
  const char* title;
  std::function<double(const RunResult&)> value;
};

const std::vector<Measure>& measures() {
  static const auto quantile_us = [](double q) {
    return [q](const RunResult& result) {
      return static_cast<double>(result.all().quantile(q)) / 1000;
    };
  };
  static const auto per_second = [](const RunResult& result, uint64_t count) {
    return static_cast<double>(count) / std::max(result.seconds, 1e-9);
  };
  static const std::vector<Measure> kMeasures = {
      {"operations_per_s", "op/s", [](const RunResult& r) { return per_second(r, r.completed()); }},
      {"bytes_per_s", "MiB/s",
       [](const RunResult& r) { return per_second(r, r.bytes()) / 1048576; }},
      {"mean_us", "mean us", [](const RunResult& r) { return r.all().mean() / 1000; }},
      {"p50_us", "p50 us", quantile_us(0.5)},
      {"p99_us", "p99 us", quantile_us(0.99)},
      {"p99_9_us", "p99.9 us", quantile_us(0.999)},
      {"p99_99_us", "p99.99 us", quantile_us(0.9999)},
      {"server_cpu_us_per_operation", "server CPU us/op",
       [](const RunResult& r) {
         return r.server_known && r.completed() != 0
                    ? r.server_cpu_seconds * 1e6 / static_cast<double>(r.completed())
                    : 0;
       }},
      {"server_rss_mib_max", "server MiB",
       [](const RunResult& r) { return static_cast<double>(r.server_rss_max) / 1048576; }},
      {"client_cpu_us_per_operation", "client CPU us/op",
       [](const RunResult& r) {
         return r.completed() != 0 ? r.client_cpu_seconds * 1e6 / static_cast<double>(r.completed())
                                   : 0;
       }},
  };
  return kMeasures;
}

struct Spread {
  double low = 0, median = 0, high = 0;
};

Spread spread(const std::vector<RunResult>& runs, const Measure& measure) {
  std::vector<double> values;
  for (const RunResult& run : runs) values.push_back(measure.value(run));
  if (values.empty()) return {};
  std::ranges::sort(values);
  const size_t middle = values.size() / 2;
  const double median =
      values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
  return {values.front(), median, values.back()};
}

}  // namespace

Result<Comparison> compare(const std::vector<RunOptions>& endpoints, uint32_t rounds) {
  Comparison comparison;
  comparison.endpoints = endpoints;
  comparison.runs.resize(endpoints.size());
  for (uint32_t round = 0; round < rounds && !interrupted(); ++round) {
    for (size_t turn = 0; turn < endpoints.size() && !interrupted(); ++turn) {
      const size_t which = (turn + round) % endpoints.size();
      RunOptions options = endpoints[which];
      // What deletes its objects needs them anew each round.
      const bool consumes = !options.mixed && options.op == Op::kDelete;
      if (round != 0 && !consumes) options.prepare = RunOptions::Prepare::kNever;
      options.cleanup = options.cleanup && round + 1 == rounds;
      if (!options.quiet)
        fmt::print(stderr, "round {} of {}: {}\n", round + 1, rounds, options.endpoint.name);
      auto result = run(options);
      if (!result) {
        if (interrupted()) break;
        return fail(result.error().code,
                    fmt::format("{}: {}", options.endpoint.name, result.error().detail));
      }
      // A run that was cut short is not comparable.
      if (!result->interrupted) comparison.runs[which].push_back(std::move(*result));
    }
  }
  return comparison;
}

std::string table(const Comparison& comparison) {
  std::string out = fmt::format("{}\n", describe(comparison.endpoints.front()));
  for (size_t i = 0; i < comparison.endpoints.size(); ++i) {
    const Endpoint& endpoint = comparison.endpoints[i].endpoint;
    out += fmt::format("  {} = {}, {} rounds\n", endpoint.name, endpoint.url,
                       comparison.runs[i].size());
  }
  out += fmt::format("\n{:<18}", "median [low high]");
  for (const RunOptions& options : comparison.endpoints)
    out += fmt::format(" {:>32}", options.endpoint.name);
  for (size_t i = 1; i < comparison.endpoints.size(); ++i) {
    out += fmt::format(" {:>20}", fmt::format("{}/{}", comparison.endpoints[i].endpoint.name,
                                              comparison.endpoints[0].endpoint.name));
  }
  out += "\n";
  for (const Measure& measure : measures()) {
    std::vector<Spread> spreads;
    for (const auto& runs : comparison.runs) spreads.push_back(spread(runs, measure));
    if (std::ranges::all_of(spreads, [](const Spread& one) { return one.high == 0; })) continue;
    out += fmt::format("{:<18}", measure.title);
    for (const Spread& one : spreads) {
      out += fmt::format(" {:>32}",
                         fmt::format("{:.1f} [{:.1f} {:.1f}]", one.median, one.low, one.high));
    }
    for (size_t i = 1; i < spreads.size(); ++i) {
      const bool known = spreads[0].median > 0 && spreads[i].median > 0;
      out += fmt::format(
          " {:>20}", known ? fmt::format("{:.3f}", spreads[i].median / spreads[0].median) : "-");
    }
    out += "\n";
  }
  for (size_t i = 0; i < comparison.runs.size(); ++i) {
    uint64_t failed = 0, unfinished = 0;
    std::string first;
    for (const RunResult& run : comparison.runs[i]) {
      failed += run.failed();
      unfinished += run.unfinished();
      if (first.empty()) first = run.first_failure;
    }
    if (failed + unfinished != 0) {
      out += fmt::format("{}: {} failed, {} unfinished, first failure: {}\n",
                         comparison.endpoints[i].endpoint.name, failed, unfinished, first);
    }
  }
  return out;
}

nlohmann::ordered_json to_json(const Comparison& comparison) {
  nlohmann::ordered_json out;
  out["format"] = "basalt-bench-compare-1";
  out["description"] = describe(comparison.endpoints.front());
  out["baseline"] = comparison.endpoints.front().endpoint.name;
  auto& list = out["endpoints"] = nlohmann::ordered_json::array();
  for (size_t i = 0; i < comparison.endpoints.size(); ++i) {
    nlohmann::ordered_json entry;
    entry["name"] = comparison.endpoints[i].endpoint.name;
    entry["endpoint"] = comparison.endpoints[i].endpoint.url;
    for (const Measure& measure : measures()) {
      const Spread one = spread(comparison.runs[i], measure);
      const double base = spread(comparison.runs[0], measure).median;
      auto& value = entry["medians"][measure.name];
      value["median"] = one.median;
      value["low"] = one.low;
      value["high"] = one.high;
      if (base > 0) value["ratio"] = one.median / base;
    }
    auto& runs = entry["runs"] = nlohmann::ordered_json::array();
    for (const RunResult& run : comparison.runs[i]) runs.push_back(to_json(run));
    list.push_back(std::move(entry));
  }
  return out;
}

}  // namespace basalt::bench
