// The commands of basaltctl that look after the data: scrub, index snapshots, backups. JSON forms
// of what storage says.
#pragma once

#include <nlohmann/json.hpp>

#include "base/result.h"
#include "protocol/s3/bucket_registry.h"
#include "storage/maintenance.h"

namespace basalt::server {

// Findings in one answer; `findings_total` says how many there are.
constexpr size_t kFindingsShownMax = 10'000;

// `command`: the part behind "scrub.", for example "start". `request` may hold "mode" ("deep" or
// "light"), "bytes_per_second" (a number; 0 is no bound).
Result<nlohmann::json> run_scrub_command(storage::Maintenance& maintenance,
                                         const s3::BucketRegistry& buckets,
                                         std::string_view command, const nlohmann::json& request);

// "create" and "status".
Result<nlohmann::json> run_snapshot_command(storage::Maintenance& maintenance,
                                            std::string_view command);
// "create" (with "destination", an absolute path, and "bytes_per_second"), "cancel" and "status".
Result<nlohmann::json> run_backup_command(storage::Maintenance& maintenance,
                                          std::string_view command, const nlohmann::json& request);

// {"kind", "file", "offset", "what"}, and where it is known "shard", "bucket", "key", "version",
// "upload_id", "part".
nlohmann::json finding_json(const storage::Finding& finding, const s3::BucketRegistry* buckets);

}  // namespace basalt::server
