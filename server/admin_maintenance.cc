#include "server/admin_maintenance.h"

#include <fmt/format.h>

namespace basalt::server {

namespace {

using nlohmann::json;
using storage::ScrubMode;
using storage::ScrubState;
using storage::Table;

constexpr size_t kUploadIdBytes = 16;

std::string hex(std::string_view bytes) {
  std::string out;
  for (const char c : bytes)
    fmt::format_to(std::back_inserter(out), "{:02x}", static_cast<uint8_t>(c));
  return out;
}

void name_key(json& out, const storage::OwnedKey& key, const s3::BucketRegistry* buckets) {
  std::string_view name = key.name;
  const auto tail = [&](size_t bytes) {
    const std::string_view cut =
        name.size() >= bytes ? name.substr(name.size() - bytes) : std::string_view();
    name.remove_suffix(cut.size());
    return cut;
  };
  const auto separator = [&] {
    if (!name.empty() && name.back() == '\0') name.remove_suffix(1);
  };
  switch (key.table) {
    case Table::kCurrent:
      out["key"] = name;
      break;
    case Table::kVersion:
      out["version"] = hex(tail(8));
      separator();
      out["key"] = name;
      break;
    case Table::kUpload:
      out["upload_id"] = hex(tail(kUploadIdBytes));
      separator();
      out["key"] = name;
      break;
    case Table::kPart:
      if (name.size() == kUploadIdBytes + 2) {
        out["part"] = static_cast<uint8_t>(name[kUploadIdBytes]) << 8 |
                      static_cast<uint8_t>(name[kUploadIdBytes + 1]);
      }
      out["upload_id"] = hex(name.substr(0, kUploadIdBytes));
      break;
    case Table::kBucket:
      out["bucket"] = name;
      return;
    case Table::kIdentity:
      out["identity"] = name;
      return;
    case Table::kOutbox:
      break;
  }
  out["space"] = key.space;
  if (buckets == nullptr) return;
  for (const auto& [bucket_name, bucket] : buckets->all()) {
    if (bucket->space == key.space) out["bucket"] = bucket_name;
  }
}

const char* state_name(ScrubState state) {
  switch (state) {
    case ScrubState::kIdle:
      return "idle";
    case ScrubState::kRunning:
      return "running";
    case ScrubState::kPaused:
      return "paused";
  }
  return "unknown";
}

}  // namespace

json finding_json(const storage::Finding& finding, const s3::BucketRegistry* buckets) {
  json out{{"kind", storage::finding_name(finding.kind)},
           {"file", finding.file},
           {"offset", finding.offset},
           {"what", finding.what}};
  if (finding.shard) out["shard"] = *finding.shard;
  if (finding.key) name_key(out, *finding.key, buckets);
  return out;
}

Result<json> run_scrub_command(storage::Maintenance& maintenance, const s3::BucketRegistry& buckets,
                               std::string_view command, const json& request) {
  storage::Scrub& scrub = maintenance.scrub();
  if (command == "start") {
    const auto mode = request.value("mode", std::string("deep"));
    if (mode != "deep" && mode != "light") {
      return fail(Code::kInvalid, fmt::format("'{}' is not a scrub: deep or light", mode));
    }
    std::optional<uint64_t> rate;
    if (const auto at = request.find("bytes_per_second"); at != request.end()) {
      if (!at->is_number_unsigned())
        return fail(Code::kInvalid, "'bytes_per_second' is not a number");
      rate = at->get<uint64_t>();
    }
    BASALT_CHECK_OK(scrub.start(mode == "deep" ? ScrubMode::kDeep : ScrubMode::kLight, rate));
  } else if (command == "pause") {
    BASALT_CHECK_OK(scrub.pause());
  } else if (command == "resume") {
    BASALT_CHECK_OK(scrub.resume());
  } else if (command == "cancel") {
    BASALT_CHECK_OK(scrub.cancel());
  }
  const storage::ScrubStatus status = scrub.status(true);
  json findings = json::array(), files = json::array();
  for (const storage::Finding& finding : status.findings) {
    if (findings.size() == kFindingsShownMax) break;
    findings.push_back(finding_json(finding, &buckets));
  }
  for (const auto& file : status.files) {
    files.push_back(
        {{"file", file.file}, {"verified_ms", file.verified_ms}, {"findings", file.findings}});
  }
  return json{{"state", state_name(status.state)},
              {"mode", status.mode == ScrubMode::kDeep ? "deep" : "light"},
              {"stage", status.state == ScrubState::kIdle ? "" : status.stage},
              {"bytes_per_second", status.bytes_per_second},
              {"started_ms", status.started_ms},
              {"ended_ms", status.ended_ms},
              {"shards", status.shards},
              {"shards_done", status.shards_done},
              {"records", status.records},
              {"blobs", status.blobs},
              {"bytes", status.bytes},
              {"last_light_ms", status.last_light_ms},
              {"last_deep_ms", status.last_deep_ms},
              {"findings_total", status.finding_count},
              {"findings", std::move(findings)},
              {"files", std::move(files)}};
}

Result<json> run_snapshot_command(storage::Maintenance& maintenance, std::string_view command) {
  storage::Snapshots& snapshots = maintenance.snapshots();
  if (command == "create") BASALT_CHECK_OK(snapshots.create());
  const auto status = snapshots.status();
  json list = json::array();
  for (const auto& one : status.snapshots) {
    list.push_back({{"snapshot", one.stamp}, {"made_ms", one.made_ms}, {"bytes", one.bytes}});
  }
  return json{{"running", status.running},
              {"bytes_done", status.bytes_done},
              {"error", status.error},
              {"failures", status.failures},
              {"log_bytes_retained", status.log_bytes_retained},
              {"snapshots", std::move(list)}};
}

Result<json> run_backup_command(storage::Maintenance& maintenance, std::string_view command,
                                const json& request) {
  storage::Backup& backup = maintenance.backup();
  if (command == "create") {
    const auto destination = request.value("destination", std::string());
    BASALT_CHECK_OK(backup.create(destination, request.value("bytes_per_second", uint64_t{0})));
  } else if (command == "cancel") {
    BASALT_CHECK_OK(backup.cancel());
  }
  const storage::BackupStatus status = backup.status();
  return json{{"running", status.running},
              {"destination", status.destination},
              {"stage", status.stage},
              {"bytes_done", status.bytes_done},
              {"files_done", status.files_done},
              {"files_total", status.files_total},
              {"started_ms", status.started_ms},
              {"ended_ms", status.ended_ms},
              {"error", status.error}};
}

}  // namespace basalt::server
