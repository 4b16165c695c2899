#include "bench/report.h"

#include <fmt/format.h>

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <ctime>

namespace basalt::bench {
namespace {

using nlohmann::ordered_json;

double rounded_us(double ns) { return std::round(ns / 100) / 10; }
double rounded(double value, double steps) { return std::round(value * steps) / steps; }

std::string us_text(double ns) {
  const double us = ns / 1000;
  return us < 100 ? fmt::format("{:.1f}", us) : fmt::format("{:.0f}", us);
}

std::string iso_time(int64_t seconds) {
  const time_t time = seconds;
  tm parts{};
  gmtime_r(&time, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", parts.tm_year + 1900, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
}

double per_second(const RunResult& result, uint64_t count) {
  return result.seconds > 0 ? static_cast<double>(count) / result.seconds : 0;
}

double us_per_op(double cpu_seconds, uint64_t operations) {
  return operations == 0 ? 0 : cpu_seconds * 1e6 / static_cast<double>(operations);
}

ordered_json latency_json(const Histogram& histogram, bool buckets) {
  ordered_json out;
  out["count"] = histogram.count();
  out["min"] = rounded_us(static_cast<double>(histogram.min()));
  out["mean"] = rounded_us(histogram.mean());
  for (const Percentile& percentile : kPercentiles) {
    out[percentile.name] = rounded_us(static_cast<double>(histogram.quantile(percentile.q)));
  }
  out["max"] = rounded_us(static_cast<double>(histogram.max()));
  if (!buckets) return out;
  // [upper bound in us, count], empty buckets left out: enough to draw any quantile, and to merge
  // with other runs.
  ordered_json list = ordered_json::array();
  for (size_t i = 0; i < Histogram::kBuckets; ++i) {
    if (const uint64_t count = histogram.count_at(i)) {
      list.push_back({static_cast<double>(Histogram::upper_bound(i)) / 1000, count});
    }
  }
  out["buckets"] = std::move(list);
  return out;
}

}  // namespace

std::vector<Op> ops_of(const RunResult& result) {
  std::vector<Op> ops;
  for (size_t i = 0; i < kOpCount; ++i) {
    const OpResult& op = result.ops[i];
    if (op.in_window + op.failed + op.unfinished + op.latency.count() != 0)
      ops.push_back(static_cast<Op>(i));
  }
  return ops;
}

std::string describe(const RunOptions& options) {
  std::string text;
  if (options.mixed) {
    text = "mixed";
    for (const MixShare& part : options.mix)
      text += fmt::format(" {}:{}", op_name(part.op), part.weight);
  } else {
    text = op_name(options.op);
  }
  const bool has_size = options.mixed || (options.op != Op::kList && options.op != Op::kDelete &&
                                          options.op != Op::kHead);
  if (has_size) {
    text += ", " + (options.sizes.all().size() == 1 ? size_text(options.sizes.all().front())
                                                    : options.sizes_text);
  }
  if (!options.mixed && options.op == Op::kMultipart)
    text += fmt::format(" in parts of {}", size_text(options.part_bytes));
  if (!options.mixed && options.op == Op::kList)
    text += fmt::format(" {} keys each", options.list_keys);
  text += fmt::format(", {} keys {}", options.keys, key_order_name(options.key_order));
  text += fmt::format(", {} connection{}, {} thread{}", options.connections,
                      options.connections == 1 ? "" : "s", options.threads,
                      options.threads == 1 ? "" : "s");
  text += options.rate > 0 ? fmt::format(", open loop at {:g}/s{}", options.rate,
                                         options.poisson ? " (Poisson)" : "")
                           : std::string(", closed loop");
  text += fmt::format(", {} signing", signing_name(options.signing));
  if (options.verify) text += ", verified";
  return text;
}

std::string table(const RunResult& result) {
  const RunOptions& options = result.options;
  std::string out =
      fmt::format("{}\n{}\n{:.1f} s measured after {:g} s of warm-up{}\n\n", options.endpoint.name,
                  describe(options), result.seconds, static_cast<double>(options.warmup_ms) / 1000,
                  result.interrupted ? " (interrupted)" : "");
  out += fmt::format("{:<15} {:>10} {:>10} {:>10} {:>9}", "latency in us", "operations", "op/s",
                     "MiB/s", "mean");
  for (const Percentile& percentile : kPercentiles) {
    if (percentile.q != 0.75 && percentile.q != 0.95)
      out += fmt::format(" {:>9}", percentile.title);
  }
  out += fmt::format(" {:>9} {:>7}\n", "max", "failed");
  const auto row = [&](std::string_view name, const Histogram& latency, const OpResult& op) {
    out += fmt::format("{:<15} {:>10} {:>10.0f} {:>10.1f} {:>9}", name, op.in_window,
                       per_second(result, op.in_window), per_second(result, op.bytes) / 1048576,
                       us_text(latency.mean()));
    for (const Percentile& percentile : kPercentiles) {
      if (percentile.q == 0.75 || percentile.q == 0.95) continue;
      out += fmt::format(" {:>9}", us_text(static_cast<double>(latency.quantile(percentile.q))));
    }
    out += fmt::format(" {:>9} {:>7}\n", us_text(static_cast<double>(latency.max())), op.failed);
  };
  size_t measured = 0;
  for (const Op op : ops_of(result)) {
    const OpResult& one = result.ops[static_cast<size_t>(op)];
    row(op_name(op), one.latency, one);
    if (options.rate > 0) row(fmt::format("  {} (sent)", op_name(op)), one.service, one);
    if (static_cast<size_t>(op) < kMeasuredOpCount) ++measured;
  }
  if (measured > 1) {
    OpResult total;
    total.in_window = result.completed();
    total.failed = result.failed();
    total.bytes = result.bytes();
    row("all", result.all(), total);
  }
  out += "\n";
  const uint64_t operations = result.completed();
  const double seconds = std::max(result.seconds, 1e-9);
  if (result.server_known) {
    out += fmt::format(
        "server: {:.2f} cores, {:.1f} us of CPU an operation, memory {} (at most {})\n",
        result.server_cpu_seconds / seconds, us_per_op(result.server_cpu_seconds, operations),
        size_text(result.server_rss_end), size_text(result.server_rss_max));
  }
  out +=
      fmt::format("client: {:.2f} cores, {:.1f} us of CPU an operation, busiest thread {:.0f} %\n",
                  result.client_cpu_seconds / seconds,
                  us_per_op(result.client_cpu_seconds, operations), result.busiest_thread * 100);
  if (result.busiest_thread > 0.9 && options.rate == 0) {
    out +=
        "note: a thread of the load generator was busy all the time; with more --threads the "
        "server may show more\n";
  }
  if (const uint64_t unfinished = result.unfinished(); unfinished != 0) {
    out += fmt::format(
        "note: {} operations were due and not done {:g} s after the end; they count with the "
        "latency so far\n",
        unfinished, static_cast<double>(options.drain_ms) / 1000);
  }
  for (const auto& [what, count] : result.failures)
    out += fmt::format("failed: {} {}\n", what, count);
  if (!result.first_failure.empty())
    out += fmt::format("first failure: {}\n", result.first_failure);
  return out;
}

ordered_json to_json(const RunResult& result) {
  const RunOptions& options = result.options;
  const double seconds = std::max(result.seconds, 1e-9);
  ordered_json out;
  out["format"] = "basalt-bench-run-1";
  out["name"] = options.endpoint.name;
  out["endpoint"] = options.endpoint.url;
  out["started"] = iso_time(result.started_wall_s);
  out["description"] = describe(options);
  ordered_json& asked = out["options"];
  asked["op"] = options.mixed ? "mixed" : std::string(op_name(options.op));
  for (const MixShare& part : options.mix)
    asked["mix"][std::string(op_name(part.op))] = part.weight;
  asked["size"] = options.sizes_text;
  asked["part_size"] = options.part_bytes;
  asked["list_keys"] = options.list_keys;
  asked["keys"] = options.keys;
  asked["key_distribution"] = key_order_name(options.key_order);
  asked["connections"] = options.connections;
  asked["threads"] = options.threads;
  asked["count"] = options.count;
  asked["warmup_s"] = static_cast<double>(options.warmup_ms) / 1000;
  asked["rate"] = options.rate;
  asked["arrivals"] = options.rate == 0 ? "closed" : options.poisson ? "poisson" : "fixed";
  asked["signing"] = signing_name(options.signing);
  asked["verify"] = options.verify;
  asked["seed"] = options.seed;
  out["duration_s"] = rounded(result.seconds, 1e6);
  out["interrupted"] = result.interrupted;
  ordered_json& total = out["total"];
  total["operations"] = result.completed();
  total["operations_per_s"] = rounded(per_second(result, result.completed()), 100);
  total["bytes"] = result.bytes();
  total["bytes_per_s"] = rounded(per_second(result, result.bytes()), 1);
  total["failed"] = result.failed();
  total["unfinished"] = result.unfinished();
  total["latency_us"] = latency_json(result.all(), false);
  ordered_json& ops = out["operations"] = ordered_json::object();
  for (const Op op : ops_of(result)) {
    const OpResult& one = result.ops[static_cast<size_t>(op)];
    ordered_json& entry = ops[std::string(op_name(op))];
    entry["operations"] = one.in_window;
    entry["operations_per_s"] = rounded(per_second(result, one.in_window), 100);
    entry["bytes"] = one.bytes;
    entry["bytes_per_s"] = rounded(per_second(result, one.bytes), 1);
    entry["failed"] = one.failed;
    entry["unfinished"] = one.unfinished;
    entry["latency_us"] = latency_json(one.latency, true);
    if (options.rate > 0) entry["service_us"] = latency_json(one.service, false);
  }
  out["failures"] = ordered_json::object();
  for (const auto& [what, count] : result.failures) out["failures"][what] = count;
  out["first_failure"] = result.first_failure;
  ordered_json& client = out["client"];
  client["cpu_cores"] = rounded(result.client_cpu_seconds / seconds, 1000);
  client["cpu_us_per_operation"] =
      rounded(us_per_op(result.client_cpu_seconds, result.completed()), 100);
  client["busiest_thread"] = rounded(result.busiest_thread, 1000);
  if (result.server_known) {
    ordered_json& server = out["server"];
    server["pids"] = options.pids;
    server["cpu_cores"] = rounded(result.server_cpu_seconds / seconds, 1000);
    server["cpu_us_per_operation"] =
        rounded(us_per_op(result.server_cpu_seconds, result.completed()), 100);
    server["rss_bytes"] = result.server_rss_end;
    server["rss_bytes_max"] = result.server_rss_max;
  }
  ordered_json& timeline = out["timeline"] = ordered_json::array();
  for (const TimelinePoint& point : result.timeline) {
    const double length = std::max(point.length_s, 1e-9);
    ordered_json entry;
    entry["t_s"] = rounded(point.at_s, 1000);
    entry["operations_per_s"] = rounded(static_cast<double>(point.operations) / length, 10);
    entry["bytes_per_s"] = rounded(static_cast<double>(point.bytes) / length, 1);
    entry["failed"] = point.failed;
    entry["p50_us"] = rounded_us(static_cast<double>(point.p50_ns));
    entry["p99_us"] = rounded_us(static_cast<double>(point.p99_ns));
    entry["max_us"] = rounded_us(static_cast<double>(point.max_ns));
    if (result.server_known) {
      entry["server_cores"] = rounded(point.server_cores, 1000);
      entry["server_rss_bytes"] = point.server_rss_bytes;
    }
    timeline.push_back(std::move(entry));
  }
  return out;
}

std::string csv_header() {
  std::string out =
      "name,started,operation,size,keys,connections,threads,rate,signing,duration_s,operations,"
      "operations_per_s,bytes_per_s,failed,unfinished,min_us,mean_us";
  for (const Percentile& percentile : kPercentiles) out += fmt::format(",{}_us", percentile.name);
  return out + ",max_us,client_cpu_cores,server_cpu_cores,server_rss_bytes_max\n";
}

std::string csv_rows(const RunResult& result) {
  const RunOptions& options = result.options;
  const double seconds = std::max(result.seconds, 1e-9);
  std::string out;
  for (const Op op : ops_of(result)) {
    const OpResult& one = result.ops[static_cast<size_t>(op)];
    out += fmt::format(
        "\"{}\",{},{},\"{}\",{},{},{},{:g},{},{:.3f},{},{:.2f},{:.0f},{},{},{:.1f},{:.1f}",
        options.endpoint.name, iso_time(result.started_wall_s), op_name(op), options.sizes_text,
        options.keys, options.connections, options.threads, options.rate,
        signing_name(options.signing), result.seconds, one.in_window,
        per_second(result, one.in_window), per_second(result, one.bytes), one.failed,
        one.unfinished, static_cast<double>(one.latency.min()) / 1000, one.latency.mean() / 1000);
    for (const Percentile& percentile : kPercentiles) {
      out += fmt::format(",{:.1f}", static_cast<double>(one.latency.quantile(percentile.q)) / 1000);
    }
    out += fmt::format(",{:.1f},{:.3f},", static_cast<double>(one.latency.max()) / 1000,
                       result.client_cpu_seconds / seconds);
    if (result.server_known)
      out += fmt::format("{:.3f},{}", result.server_cpu_seconds / seconds, result.server_rss_max);
    else
      out += ",";
    out += "\n";
  }
  return out;
}

Status write_text(const std::string& file, const std::string& text) {
  FILE* out = file == "-" ? stdout : std::fopen(file.c_str(), "w");
  if (out == nullptr) return fail_errno(errno, file);
  const bool written = std::fwrite(text.data(), 1, text.size(), out) == text.size();
  const bool flushed = (out == stdout ? std::fflush(out) : std::fclose(out)) == 0;
  if (!written || !flushed) return fail_errno(errno, file);
  return {};
}

}  // namespace basalt::bench
