#include "server/tools.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "base/log.h"
#include "protocol/s3/bucket_registry.h"
#include "server/admin_maintenance.h"
#include "storage/backup.h"
#include "storage/fsck.h"
#include "storage/rebuild.h"

namespace basalt::server {

namespace {

using nlohmann::json;

constexpr int kSound = 0, kDamaged = 1, kFailed = 2;

int failed(const Error& error, bool as_json) {
  if (as_json) {
    fmt::print("{}\n", json{{"ok", false}, {"error", error.detail}}.dump(
                           -1, ' ', true, json::error_handler_t::replace));
  } else {
    fmt::print(stderr, "basaltd: {}\n",
               error.detail.empty() ? code_name(error.code) : std::string_view(error.detail));
  }
  return kFailed;
}

void print_finding(const storage::Finding& finding) {
  const json shown = finding_json(finding, nullptr);
  std::string key;
  for (const char* name : {"bucket", "key", "upload_id", "identity"}) {
    const auto at = shown.find(name);
    if (at == shown.end()) continue;
    key += fmt::format(" {} {}", name, at->dump(-1, ' ', true, json::error_handler_t::replace));
  }
  fmt::print("{:<10} {} at {}: {}{}\n", storage::finding_name(finding.kind),
             finding.file.empty() ? "-" : finding.file, finding.offset, finding.what, key);
}

json findings_json(const std::vector<storage::Finding>& findings) {
  json list = json::array();
  for (const storage::Finding& finding : findings) list.push_back(finding_json(finding, nullptr));
  return list;
}

int run_fsck(const storage::FsckOptions& options, bool as_json) {
  storage::FsckOptions with_progress = options;
  if (!as_json) {
    with_progress.progress = [](const std::string& line) {
      fmt::print(stderr, "checking {}\n", line);
    };
  }
  const auto report = storage::fsck(with_progress);
  if (!report) return failed(report.error(), as_json);
  // After a repair the damage is past; what was lost by it is in the list of repairs and in the
  // quarantine.
  const int status =
      report->sound() || (options.repair && !report->repairs.empty()) ? kSound : kDamaged;
  if (as_json) {
    fmt::print("{}\n", json{{"ok", true},
                            {"sound", report->sound()},
                            {"records", report->records},
                            {"blobs", report->blobs},
                            {"bytes_read", report->bytes},
                            {"log_records", report->log_records},
                            {"findings_total", report->finding_count},
                            {"orphans_total", report->orphan_count},
                            {"findings", findings_json(report->findings)},
                            {"repairs", report->repairs},
                            {"quarantine", report->quarantine}}
                           .dump(-1, ' ', true, json::error_handler_t::replace));
    return status;
  }
  for (const storage::Finding& finding : report->findings) print_finding(finding);
  fmt::print(
      "{} records, {} blobs, {} log records that a start would replay; {} findings, {} orphans\n",
      report->records, report->blobs, report->log_records, report->finding_count,
      report->orphan_count);
  for (const std::string& line : report->repairs) fmt::print("repaired: {}\n", line);
  if (!report->quarantine.empty())
    fmt::print("taken out, to be looked at and kept: {}\n", report->quarantine);
  if (!report->sound() && !options.repair) {
    fmt::print(
        "nothing was changed: --yes repairs (and moves to quarantine, never deletes); where index "
        "pages are "
        "damaged, 'basaltd rebuild-index' with a snapshot loses less\n");
  }
  return status;
}

std::function<void(const std::string&)> progress(bool as_json, const char* verb) {
  if (as_json) return {};
  return [verb](const std::string& line) { fmt::print(stderr, "{} {}\n", verb, line); };
}

int run_rebuild(const storage::RebuildOptions& options, bool as_json) {
  storage::RebuildOptions with_progress = options;
  with_progress.progress = progress(as_json, "rebuild:");
  const auto report = storage::rebuild_index(with_progress);
  if (!report) return failed(report.error(), as_json);
  const bool whole = report->losses.empty() && report->dropped == 0 && report->uncertain == 0 &&
                     !options.from_segments;
  if (as_json) {
    fmt::print("{}\n", json{{"ok", true},
                            {"whole", whole},
                            {"source", report->source},
                            {"records", report->records},
                            {"log_records", report->log_records},
                            {"control_records", report->control_records},
                            {"dropped", report->dropped},
                            {"uncertain", report->uncertain},
                            {"losses", report->losses},
                            {"quarantine", report->quarantine}}
                           .dump(-1, ' ', true, json::error_handler_t::replace));
    return whole ? kSound : kDamaged;
  }
  fmt::print("from {}: {} records, {} of the log\n", report->source, report->records,
             report->log_records);
  for (const std::string& loss : report->losses) fmt::print("lost: {}\n", loss);
  if (report->dropped != 0) {
    fmt::print("{} records have no bytes any more: records.jsonl in the quarantine\n",
               report->dropped);
  }
  if (report->uncertain != 0) {
    fmt::print("{} objects may have been deleted or replaced: uncertain.jsonl in the quarantine\n",
               report->uncertain);
  }
  fmt::print("the old indexes are in {}\n", report->quarantine);
  return whole ? kSound : kDamaged;
}

int run_verify(const std::string& backup, bool as_json) {
  const auto check = storage::verify_backup(backup, progress(as_json, "reading"));
  if (!check) return failed(check.error(), as_json);
  if (as_json) {
    fmt::print("{}\n", json{{"ok", true},
                            {"sound", check->finding_count == 0},
                            {"files", check->files},
                            {"bytes", check->bytes},
                            {"records", check->records},
                            {"blobs", check->blobs},
                            {"findings_total", check->finding_count},
                            {"findings", findings_json(check->findings)}}
                           .dump(-1, ' ', true, json::error_handler_t::replace));
  } else {
    for (const storage::Finding& finding : check->findings) print_finding(finding);
    fmt::print("{} files of {} bytes, {} records, {} blobs; {} findings\n", check->files,
               check->bytes, check->records, check->blobs, check->finding_count);
  }
  return check->finding_count == 0 ? kSound : kDamaged;
}

int run_restore(const std::string& backup, const std::string& directory, bool as_json) {
  if (const Status restored =
          storage::restore_backup(backup, directory, progress(as_json, "copying"));
      !restored) {
    return failed(restored.error(), as_json);
  }
  if (as_json) {
    fmt::print("{}\n", json{{"ok", true}, {"directory", directory}}.dump());
  } else {
    fmt::print("{} is a data directory now: start a server on it\n", directory);
  }
  return kSound;
}

}  // namespace

std::optional<int> run_tool(int argc, const char* const* argv) {
  if (argc < 2) return std::nullopt;
  const std::string_view command = argv[1];
  if (command != "fsck" && command != "rebuild-index" && command != "backup") return std::nullopt;
  CLI::App app("Basalt's offline tools: the server must not run on the directory", "basaltd");
  app.require_subcommand(1);
  app.fallthrough();
  bool as_json = false;
  app.add_flag("--json", as_json, "print one JSON object");
  std::function<int()> run;

  storage::FsckOptions fsck;
  CLI::App* fsck_app = app.add_subcommand("fsck", "check a data directory");
  fsck_app->add_option("DIR", fsck.directory, "the data directory")->required();
  fsck_app->add_flag("--deep", fsck.deep, "read all data");
  fsck_app->add_flag("--yes", fsck.repair,
                     "repair; what is in the way is moved to DIR/quarantine, never deleted");
  fsck_app->callback([&] { run = [&] { return run_fsck(fsck, as_json); }; });

  storage::RebuildOptions rebuild;
  CLI::App* rebuild_app = app.add_subcommand("rebuild-index", "make the indexes anew");
  rebuild_app->add_option("DIR", rebuild.directory, "the data directory")->required();
  CLI::Option* segments =
      rebuild_app->add_flag("--from-segments", rebuild.from_segments,
                            "from what lies in log segments alone: the last resort");
  rebuild_app
      ->add_option("--snapshot", rebuild.snapshot,
                   "the snapshot to begin from (default: the newest good one)")
      ->excludes(segments);
  rebuild_app->callback([&] { run = [&] { return run_rebuild(rebuild, as_json); }; });

  std::string backup, directory;
  CLI::App* backup_app = app.add_subcommand("backup", "backups")->require_subcommand(1);
  CLI::App* verify = backup_app->add_subcommand("verify", "read all of a backup and check it");
  verify->add_option("BACKUP", backup, "the backup")->required();
  verify->callback([&] { run = [&] { return run_verify(backup, as_json); }; });
  CLI::App* restore = backup_app->add_subcommand("restore", "write a data directory from a backup");
  restore->add_option("BACKUP", backup, "the backup")->required();
  restore->add_option("DIR", directory, "the new data directory")->required();
  restore->callback([&] { run = [&] { return run_restore(backup, directory, as_json); }; });

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kSound : kFailed;
  }
  set_log_level(LogLevel::kWarn);
  const int status = run();
  flush_log();
  return status;
}

}  // namespace basalt::server
