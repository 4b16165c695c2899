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
#include "storage/fsck.h"

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

}  // namespace

std::optional<int> run_tool(int argc, const char* const* argv) {
  if (argc < 2) return std::nullopt;
  const std::string_view command = argv[1];
  if (command != "fsck") return std::nullopt;
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
