// Metrics: per-core plain counters, gathered when Prometheus scrapes (prometheus-cpp's Collectable
// and TextSerializer).
//
// Each core writes its own CoreMetrics with relaxed stores and no lock; collect() adds them up on
// the scraping core. Names and meanings: docs/metrics.md.
#pragma once

#include <prometheus/collectable.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "auth/hash_station.h"
#include "protocol/s3/dispatch.h"
#include "protocol/session/exchange.h"
#include "reactor/listener.h"
#include "reactor/loop.h"
#include "shards/core.h"
#include "storage/engine.h"
#include "storage/maintenance.h"

namespace basalt::server {

// Log-linear latency histogram: 4 steps to an octave, from 1 us to 64 s. Exposed as Prometheus
// buckets at powers of 4.
class LatencyHistogram {
 public:
  static constexpr size_t kBuckets = 108;
  void record(uint64_t us) {
    counts_[index_of(us)].fetch_add(1, std::memory_order_relaxed);
    sum_us_.fetch_add(us, std::memory_order_relaxed);
  }
  static size_t index_of(uint64_t us);
  static uint64_t upper_bound_us(size_t index);
  uint64_t count(size_t index) const { return counts_[index].load(std::memory_order_relaxed); }
  uint64_t sum_us() const { return sum_us_.load(std::memory_order_relaxed); }

 private:
  std::array<std::atomic<uint64_t>, kBuckets> counts_{};
  std::atomic<uint64_t> sum_us_{0};
};

struct OperationMetrics {
  std::array<std::atomic<uint64_t>, 6> by_class{};  // [status / 100], 0 = none sent
  std::atomic<uint64_t> bytes_in{0}, bytes_out{0};
  LatencyHistogram latency;
};

// One core's.
struct CoreMetrics {
  std::vector<OperationMetrics> operations;  // one a route row, and one for what found no row
  std::map<std::string_view, std::atomic<uint64_t>>
      errors;  // by error code; every code has its slot from the start
  std::unordered_map<std::string_view, size_t> index_of_operation;
  const reactor::LoopStats* loop = nullptr;
  const reactor::ListenerStats* listener = nullptr;
  const session::SessionStats* sessions = nullptr;
  const shards::CoreShardsStats* shards = nullptr;
  const storage::EngineStats* engine = nullptr;
  const auth::HashStationStats* hashes = nullptr;

  CoreMetrics();
  void observe(const s3::RequestRecord& record);
};

class Metrics final : public prometheus::Collectable {
 public:
  explicit Metrics(storage::Engine& engine) : engine_(engine) {}
  // Before the cores serve.
  CoreMetrics& add_core();
  void set_build(std::string version, std::string io_name) {
    version_ = std::move(version);
    io_name_ = std::move(io_name);
  }
  std::vector<prometheus::MetricFamily> Collect() const override;
  std::string text() const;  // the exposition format

 private:
  storage::Engine& engine_;
  std::string io_name_;
  std::string version_;
  std::vector<std::unique_ptr<CoreMetrics>> cores_;
};

}  // namespace basalt::server
