// Compare: the same workload against several endpoints, in rounds: A B C, B C A, C A B, ... so that
// what drifts on the machine (heat, caches, neighbours) hits all of them. Reported are medians over
// the rounds, their spread, and ratios to the first.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.h"
#include "bench/runner.h"

namespace basalt::bench {

struct Comparison {
  std::vector<RunOptions> endpoints;         // the same but for the endpoint, its keys and its pids
  std::vector<std::vector<RunResult>> runs;  // [endpoint][round]
};

constexpr uint32_t kRoundsMax = 1000;

// The first round prepares; --cleanup is done by the last.
Result<Comparison> compare(const std::vector<RunOptions>& endpoints, uint32_t rounds);

std::string table(const Comparison& comparison);
nlohmann::ordered_json to_json(const Comparison& comparison);

}  // namespace basalt::bench
