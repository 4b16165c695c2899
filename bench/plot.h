// Plot: an SVG of one or several runs: latency by percentile (an axis that stretches the tail),
// throughput over time, and p50 and p99 over time. No library and no script: the file opens in any
// browser.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.h"

namespace basalt::bench {

// `documents` are results of `run` or `compare` (whose middle run by throughput of each endpoint is
// drawn).
Result<std::string> plot(const std::vector<nlohmann::ordered_json>& documents);

}  // namespace basalt::bench
