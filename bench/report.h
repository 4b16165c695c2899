// Reports of a run: a table for people, JSON for programs and `plot`, CSV for spreadsheets.
// The fields are described in docs/benchmarking.md.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "bench/runner.h"

namespace basalt::bench {

struct Percentile {
  const char* name;  // "p99_9"
  const char* title;
  double q;
};
inline constexpr Percentile kPercentiles[] = {
    {"p50", "p50", 0.5},         {"p75", "p75", 0.75}, {"p90", "p90", 0.9},
    {"p95", "p95", 0.95},        {"p99", "p99", 0.99}, {"p99_9", "p99.9", 0.999},
    {"p99_99", "p99.99", 0.9999}};

std::string table(const RunResult& result);
nlohmann::ordered_json to_json(const RunResult& result);
std::string csv_header();
std::string csv_rows(const RunResult& result);  // one line an operation
// "get, 4 KiB, 10000 keys uniform, 32 connections, ..."
std::string describe(const RunOptions& options);
// The operations of a result that say anything: the measured ones, then the requests inside a
// multipart upload.
std::vector<Op> ops_of(const RunResult& result);

// To a file, or standard output for "-".
Status write_text(const std::string& file, const std::string& text);

}  // namespace basalt::bench
