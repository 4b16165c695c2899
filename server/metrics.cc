#include "server/metrics.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <map>

#include "protocol/s3/error.h"
#include "protocol/s3/op.h"

namespace basalt::server {

namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<std::pair<std::string_view, std::string>>;

// Buckets shown to Prometheus: powers of 4 from 16 us to 67 s.
constexpr std::array<uint64_t, 12> kShownBoundsUs = {
    16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864};

class Families {
 public:
  MetricFamily& family(const char* name, MetricType type, const char* help) {
    for (MetricFamily& family : list_) {
      if (family.name == name) return family;
    }
    list_.push_back({name, help, type, {}});
    return list_.back();
  }
  static ClientMetric labelled(const Labels& labels) {
    ClientMetric metric;
    for (const auto& [name, value] : labels) metric.label.push_back({std::string(name), value});
    return metric;
  }
  void counter(const char* name, const char* help, double value, const Labels& labels = {}) {
    ClientMetric metric = labelled(labels);
    metric.counter.value = value;
    family(name, MetricType::Counter, help).metric.push_back(std::move(metric));
  }
  void gauge(const char* name, const char* help, double value, const Labels& labels = {}) {
    ClientMetric metric = labelled(labels);
    metric.gauge.value = value;
    family(name, MetricType::Gauge, help).metric.push_back(std::move(metric));
  }
  std::vector<MetricFamily> take() { return std::move(list_); }
  std::vector<MetricFamily>& list() { return list_; }

 private:
  std::vector<MetricFamily> list_;
};

double get(const std::atomic<uint64_t>& value) {
  return static_cast<double>(value.load(std::memory_order_relaxed));
}

uint64_t resident_bytes() {
  std::FILE* file = std::fopen("/proc/self/statm", "re");
  if (file == nullptr) return 0;
  unsigned long total = 0, resident = 0;
  const int got = std::fscanf(file, "%lu %lu", &total, &resident);
  std::fclose(file);
  return got == 2 ? resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)) : 0;
}

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         1e-6 * static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

}  // namespace

size_t LatencyHistogram::index_of(uint64_t us) {
  if (us < 4) return us;
  const int octave = std::bit_width(us) - 1;  // >= 2
  const size_t step = (us >> (octave - 2)) & 3;
  return std::min<size_t>(static_cast<size_t>(octave - 1) * 4 + step, kBuckets - 1);
}

uint64_t LatencyHistogram::upper_bound_us(size_t index) {
  if (index < 4) return index + 1;
  const size_t octave = index / 4 + 1;
  return (uint64_t{4} + index % 4 + 1) << (octave - 2);
}

CoreMetrics::CoreMetrics() : operations(s3::routes().size() + 1) {
#define S3_ERROR(code, status, message) errors[#code] = 0;
#include "protocol/s3/errors.def"
#undef S3_ERROR
  const auto rows = s3::routes();
  for (size_t i = 0; i < rows.size(); ++i) index_of_operation.emplace(rows[i].name, i);
}

void CoreMetrics::observe(const s3::RequestRecord& record) {
  // The last slot counts requests that found no row.
  const auto found = index_of_operation.find(record.operation);
  OperationMetrics& operation =
      operations[found != index_of_operation.end() ? found->second : operations.size() - 1];
  const size_t status_class =
      record.status >= 100 && record.status < 600 ? static_cast<size_t>(record.status / 100) : 0;
  operation.by_class[status_class].fetch_add(1, std::memory_order_relaxed);
  operation.bytes_in.fetch_add(record.bytes_in, std::memory_order_relaxed);
  operation.bytes_out.fetch_add(record.bytes_out, std::memory_order_relaxed);
  operation.latency.record(record.duration_ns / 1000);
  if (record.error_code.empty()) return;
  if (const auto slot = errors.find(record.error_code); slot != errors.end()) {
    slot->second.fetch_add(1, std::memory_order_relaxed);
  }
}

CoreMetrics& Metrics::add_core() {
  cores_.push_back(std::make_unique<CoreMetrics>());
  return *cores_.back();
}

std::vector<MetricFamily> Metrics::Collect() const {
  Families out;
  static constexpr const char* kClasses[] = {"none", "1xx", "2xx", "3xx", "4xx", "5xx"};
  const auto rows = s3::routes();
  for (size_t index = 0; index <= rows.size(); ++index) {
    const std::string name(index < rows.size() ? rows[index].name : "none");
    double in = 0, sent = 0;
    uint64_t total = 0, sum_us = 0;
    std::array<double, 6> by_class{};
    std::array<uint64_t, LatencyHistogram::kBuckets> counts{};
    for (const auto& core : cores_) {
      const OperationMetrics& operation = core->operations[index];
      for (size_t c = 0; c < by_class.size(); ++c) by_class[c] += get(operation.by_class[c]);
      in += get(operation.bytes_in);
      sent += get(operation.bytes_out);
      sum_us += operation.latency.sum_us();
      for (size_t i = 0; i < counts.size(); ++i) counts[i] += operation.latency.count(i);
    }
    for (const uint64_t count : counts) total += count;
    if (total == 0) continue;  // an operation nobody asked for has no series
    for (size_t c = 0; c < by_class.size(); ++c) {
      if (by_class[c] == 0) continue;
      out.counter("basalt_s3_requests_total", "S3 requests by operation and status class.",
                  by_class[c], {{"operation", name}, {"class", kClasses[c]}});
    }
    out.counter("basalt_s3_received_bytes_total", "Request body bytes.", in, {{"operation", name}});
    out.counter("basalt_s3_sent_bytes_total", "Response body bytes.", sent, {{"operation", name}});
    ClientMetric metric = Families::labelled({{"operation", name}});
    metric.histogram.sample_count = total;
    metric.histogram.sample_sum = 1e-6 * static_cast<double>(sum_us);
    for (const uint64_t bound : kShownBoundsUs) {
      uint64_t below = 0;
      for (size_t i = 0; i < counts.size() && LatencyHistogram::upper_bound_us(i) <= bound; ++i)
        below += counts[i];
      metric.histogram.bucket.push_back({below, 1e-6 * static_cast<double>(bound)});
    }
    out.family("basalt_s3_request_seconds", MetricType::Histogram,
               "Time from the head to the end of the response.")
        .metric.push_back(std::move(metric));
  }
  std::map<std::string_view, double> errors;
  for (const auto& core : cores_) {
    for (const auto& [code, count] : core->errors) {
      if (get(count) > 0) errors[code] += get(count);
    }
  }
  for (const auto& [code, count] : errors) {
    out.counter("basalt_s3_errors_total", "S3 error answers by code.", count,
                {{"code", std::string(code)}});
  }

  for (size_t i = 0; i < cores_.size(); ++i) {
    const CoreMetrics& core = *cores_[i];
    const Labels label{{"core", std::to_string(i)}};
    if (core.loop != nullptr) {
      out.counter("basalt_loop_turns_total", "Turns of the core's event loop.",
                  get(core.loop->turns), label);
      out.counter("basalt_loop_sleeps_total", "Turns that slept.", get(core.loop->sleeps), label);
      out.counter("basalt_loop_busy_seconds_total", "Time the loop did not sleep.",
                  1e-9 * get(core.loop->busy_ns), label);
      ClientMetric turns = Families::labelled(label);
      uint64_t below = 0;
      for (size_t b = 0; b < reactor::TurnHistogram::kBuckets; ++b) {
        below += core.loop->turn_times.count(b);
        turns.histogram.bucket.push_back(
            {below, 1e-6 * static_cast<double>(reactor::TurnHistogram::upper_bound_us(b))});
      }
      turns.histogram.sample_count =
          below + core.loop->turn_times.count(reactor::TurnHistogram::kBuckets);
      turns.histogram.sample_sum = 1e-9 * get(core.loop->busy_ns);
      out.family("basalt_loop_turn_seconds", MetricType::Histogram,
                 "Time between two waits for events: nothing else of the core runs meanwhile.")
          .metric.push_back(std::move(turns));
      out.gauge("basalt_loop_longest_turn_seconds", "Longest turn since the start.",
                1e-6 * get(core.loop->longest_turn_us), label);
    }
    if (core.listener != nullptr) {
      out.counter("basalt_connections_accepted_total", "Connections accepted.",
                  get(core.listener->accepted), label);
      out.counter("basalt_connections_refused_total", "Connections closed at the limit.",
                  get(core.listener->refused_full), label);
      out.counter("basalt_accept_errors_total", "accept(2) failures.",
                  get(core.listener->accept_errors), label);
      out.counter("basalt_tls_failures_total", "TLS handshakes that failed.",
                  get(core.listener->tls_failures), label);
      out.gauge("basalt_connections_open", "Connections open.", get(core.listener->open), label);
    }
    if (core.sessions != nullptr) {
      out.counter("basalt_http_bad_heads_total", "Request heads refused by the parser.",
                  get(core.sessions->bad_heads), label);
      out.counter("basalt_http_timeouts_total", "Connections that missed a deadline.",
                  get(core.sessions->timeouts), label);
    }
    if (core.shards != nullptr) {
      out.counter("basalt_shard_calls_total", "Calls to shards by way.",
                  get(core.shards->local_calls), {{"core", std::to_string(i)}, {"way", "local"}});
      out.counter("basalt_shard_calls_total", "Calls to shards by way.",
                  get(core.shards->remote_calls), {{"core", std::to_string(i)}, {"way", "remote"}});
      out.counter("basalt_shard_calls_refused_total", "Calls refused because a queue was full.",
                  get(core.shards->refused_full), label);
      out.counter("basalt_shard_answers_kept_total", "Answers that waited for room in a queue.",
                  get(core.shards->answers_kept), label);
    }
    if (core.hashes != nullptr) {
      constexpr std::array<const char*, auth::kLaneHashCount> kNames = {"md5", "sha256"};
      for (size_t hash = 0; hash < kNames.size(); ++hash) {
        const auth::HashStationStats::PerHash& done = core.hashes->hashes[hash];
        const Labels labels{{"core", std::to_string(i)}, {"hash", kNames[hash]}};
        out.counter("basalt_hash_bytes_total", "Bytes hashed by the station.", get(done.bytes),
                    labels);
        out.counter("basalt_hash_lane_blocks_total", "64-byte blocks hashed, of all streams.",
                    get(done.lane_blocks), labels);
        out.counter("basalt_hash_run_blocks_total", "Blocks each lane had time for.",
                    get(done.run_blocks), labels);
      }
    }
    if (core.engine != nullptr) {
      const storage::EngineStats& engine = *core.engine;
      out.counter("basalt_log_batches_total", "Log batches made durable.", get(engine.log_batches),
                  label);
      out.counter("basalt_log_records_total", "Records in them.", get(engine.log_records), label);
      out.counter("basalt_log_bytes_total", "Bytes in them.", get(engine.log_bytes), label);
      out.counter("basalt_device_flushes_total", "fdatasync calls on data files.",
                  get(engine.device_flushes), label);
      out.gauge("basalt_overlay_entries", "Index entries not checkpointed yet.",
                get(engine.overlay_entries), label);
      out.gauge("basalt_overlay_bytes", "Their memory.", get(engine.overlay_bytes), label);
      out.gauge("basalt_overlay_bytes_max", "Limit of basalt_overlay_bytes; beyond it writes wait.",
                get(engine.overlay_bytes_max), label);
      out.gauge("basalt_buffer_bytes", "Body buffers handed out.", get(engine.buffer_bytes), label);
      out.gauge("basalt_buffer_bytes_max",
                "Limit of basalt_buffer_bytes (limits.buffer_bytes); beyond it 503 SlowDown.",
                get(engine.buffer_bytes_max), label);
      out.gauge("basalt_io_in_flight", "File operations submitted and not ended.",
                get(engine.io_in_flight), label);
      out.gauge("basalt_io_at_once_max",
                "So many of them are with the kernel at once at most; the others wait.",
                get(engine.io_at_once_max), label);
      out.gauge("basalt_index_file_bytes", "Index pages allocated, at the last checkpoint.",
                get(engine.index_file_bytes), label);
      out.gauge("basalt_index_used_bytes",
                "Index pages that hold something, at the last checkpoint.",
                get(engine.index_used_bytes), label);
      out.gauge("basalt_index_reader_lag",
                "Commits since the oldest read transaction of an index began.",
                get(engine.index_reader_lag), label);
      out.gauge("basalt_index_read_age_seconds",
                "Age of the oldest read transaction of an index: of a scrub, snapshot or backup.",
                1e-3 * get(engine.index_read_age_ms), label);
      out.gauge("basalt_index_read_age_seconds_max",
                "Beyond it whoever holds the transaction goes on without a pace.",
                1e-3 * storage::kPacedWalkMsMax, label);
      out.counter("basalt_index_damage_total", "Damaged pages and rows of an index that were met.",
                  get(engine.index_damage), label);
      out.counter("basalt_checkpoints_total", "Checkpoints committed.", get(engine.checkpoints),
                  label);
      out.counter("basalt_checkpoint_entries_total", "Entries they wrote.",
                  get(engine.checkpoint_entries), label);
      out.counter("basalt_checkpoint_seconds_total", "Time they took.",
                  1e-3 * get(engine.checkpoint_ms_total), label);
      out.counter("basalt_blob_written_bytes_total",
                  "Bytes written to bulk segments and own files.", get(engine.blob_write_bytes),
                  label);
      out.counter("basalt_blob_read_bytes_total", "Verified bytes read from blobs.",
                  get(engine.blob_read_bytes), label);
      out.counter("basalt_corrupt_reads_total", "Reads whose checksum did not match.",
                  get(engine.corrupt_reads), label);
      out.counter("basalt_io_errors_total", "I/O errors of the kernel.", get(engine.io_errors),
                  label);
    }
  }

  if (storage::Maintenance* maintenance = engine_.maintenance(); maintenance != nullptr) {
    const storage::ScrubStatus scrub = maintenance->scrub().status(false);
    out.gauge("basalt_scrub_running", "1 while a scrub reads.",
              scrub.state == storage::ScrubState::kRunning ? 1 : 0);
    out.gauge("basalt_scrub_findings",
              "Damage that the last scrub found, or the running one so far.",
              static_cast<double>(scrub.finding_count));
    out.gauge("basalt_scrub_records", "Records it has looked at.",
              static_cast<double>(scrub.records));
    out.gauge("basalt_scrub_bytes", "Bytes it has read.", static_cast<double>(scrub.bytes));
    out.gauge("basalt_scrub_ended_seconds", "When a scrub last ended, seconds since 1970.",
              1e-3 * static_cast<double>(scrub.last_light_ms), {{"mode", "light"}});
    out.gauge("basalt_scrub_ended_seconds", "When a scrub last ended, seconds since 1970.",
              1e-3 * static_cast<double>(scrub.last_deep_ms), {{"mode", "deep"}});
  }

  if (storage::Maintenance* maintenance = engine_.maintenance(); maintenance != nullptr) {
    const auto snapshots = maintenance->snapshots().status();
    out.gauge("basalt_snapshot_made_seconds",
              "When the newest snapshot of the indexes was made, seconds since 1970.",
              1e-3 * static_cast<double>(snapshots.made_ms));
    out.counter("basalt_snapshot_failures_total", "Snapshots that could not be made.",
                static_cast<double>(snapshots.failures));
    out.gauge("basalt_log_retained_bytes",
              "Log segments kept only to make an index anew from the newest snapshot.",
              static_cast<double>(snapshots.log_bytes_retained));
    const storage::BackupStatus backup = maintenance->backup().status();
    out.gauge("basalt_backup_running", "1 while a backup is made.", backup.running ? 1 : 0);
  }

  const storage::SpaceUse use = engine_.space_use();
  out.gauge("basalt_disk_bytes", "Size of the file system with the data directory.",
            static_cast<double>(use.disk_bytes));
  out.gauge("basalt_disk_free_bytes", "Free bytes of it.",
            static_cast<double>(use.disk_free_bytes));
  out.gauge("basalt_segment_live_bytes", "Live bytes in segments and files.",
            static_cast<double>(use.segment_live_bytes));
  out.gauge("basalt_segments", "Segment files by kind.", static_cast<double>(use.log_segments),
            {{"kind", "log"}});
  out.gauge("basalt_segments", "Segment files by kind.", static_cast<double>(use.bulk_segments),
            {{"kind", "bulk"}});
  out.gauge("basalt_segments", "Segment files by kind.", static_cast<double>(use.own_files),
            {{"kind", "own"}});
  out.counter("basalt_segments_reused_total", "Emptied segments taken into use again.",
              static_cast<double>(use.segments_reused));
  out.counter("basalt_gc_records_moved_total", "Records that garbage collection moved.",
              static_cast<double>(use.records_moved));
  out.counter("basalt_gc_bytes_moved_total", "Bytes of their bodies.",
              static_cast<double>(use.bytes_moved));
  out.gauge("basalt_writes_waiting", "Writes that wait for garbage collection to make room.",
            static_cast<double>(use.writes_waiting));
  out.gauge("basalt_below_low_water",
            "1 below the low-water mark: new data waits for garbage collection, or is refused.",
            use.below_low_water ? 1 : 0);
  out.gauge("basalt_healthy", "0 once a write failed: the engine is read-only until a restart.",
            engine_.healthy() ? 1 : 0);
  out.gauge("basalt_build_info", "Version and I/O backend.", 1,
            {{"version", version_}, {"io", io_name_}});
  out.gauge("process_resident_memory_bytes", "Resident memory size in bytes.",
            static_cast<double>(resident_bytes()));
  out.counter("process_cpu_seconds_total", "User and system CPU time in seconds.", cpu_seconds());
  return out.take();
}

std::string Metrics::text() const { return prometheus::TextSerializer().Serialize(Collect()); }

}  // namespace basalt::server
