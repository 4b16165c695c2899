// DIR/scrub.json: what a scrub must not forget over a restart. Written to a temporary name, synced,
// renamed: it is whole or the one before. A damaged or strange file is ignored: then the next scrub
// begins at the beginning.
#include <fcntl.h>
#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "storage/files_local.h"
#include "storage/files_posix.h"
#include "storage/scrub.h"

namespace basalt::storage {

namespace {

using nlohmann::json;

constexpr const char* kName = "scrub.json";
constexpr const char* kTemporaryName = "scrub.json.tmp";
constexpr size_t kStateBytesMax = 64u << 20;

// Keys are any bytes; JSON texts are not.
std::string hex(std::string_view bytes) {
  std::string out;
  for (const char c : bytes)
    fmt::format_to(std::back_inserter(out), "{:02x}", static_cast<uint8_t>(c));
  return out;
}
std::string unhex(const std::string& text) {
  std::string out;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    out.push_back(static_cast<char>(std::stoi(text.substr(i, 2), nullptr, 16)));
  }
  return out;
}

json finding_json(const Finding& finding) {
  json out{{"kind", static_cast<unsigned>(finding.kind)},
           {"file", finding.file},
           {"offset", finding.offset},
           {"what", finding.what}};
  if (finding.shard) out["shard"] = *finding.shard;
  if (finding.key) {
    out["table"] = static_cast<unsigned>(finding.key->table);
    out["space"] = finding.key->space;
    out["name"] = hex(finding.key->name);
  }
  return out;
}

Finding finding_of(const json& in) {
  Finding finding;
  finding.kind = static_cast<Finding::Kind>(in.at("kind").get<unsigned>());
  finding.file = in.at("file").get<std::string>();
  finding.offset = in.at("offset").get<uint64_t>();
  finding.what = in.at("what").get<std::string>();
  if (in.contains("shard")) finding.shard = in["shard"].get<unsigned>();
  if (in.contains("name")) {
    finding.key = OwnedKey{static_cast<Table>(in.at("table").get<unsigned>()),
                           in.at("space").get<uint64_t>(), unhex(in["name"].get<std::string>())};
  }
  return finding;
}

}  // namespace

void Scrub::save_state() {
  saved_ns_ = parts_.clock.monotonic_ns();
  json out;
  {
    const std::lock_guard lock(mutex_);
    json findings = json::array(), files = json::array();
    for (const Finding& finding : status_.findings) findings.push_back(finding_json(finding));
    for (const auto& [name, file] : files_) {
      files.push_back({name, file.verified_ms, file.findings});
    }
    out = {{"version", 1},
           {"state", static_cast<unsigned>(status_.state)},
           {"deep", status_.mode == ScrubMode::kDeep},
           {"bytes_per_second", status_.bytes_per_second},
           {"started_ms", status_.started_ms},
           {"ended_ms", status_.ended_ms},
           {"records", status_.records},
           {"blobs", status_.blobs},
           {"bytes", status_.bytes},
           {"finding_count", status_.finding_count},
           {"last_light_ms", status_.last_light_ms},
           {"last_deep_ms", status_.last_deep_ms},
           {"stage", position_.stage},
           {"shard", position_.shard},
           {"table", position_.table},
           {"key", hex(position_.key)},
           {"findings", std::move(findings)},
           {"files", std::move(files)}};
  }
  const std::string text = out.dump(-1, ' ', true, json::error_handler_t::replace);
  const auto write = [&]() -> Status {
    const int directory = parts_.files.directory_fd();
    UniqueFd fd(
        ::openat(directory, kTemporaryName, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!fd) return fail_errno(errno, "create scrub.json");
    BASALT_CHECK_OK(write_at(fd.get(), as_bytes(text), 0, "write scrub.json"));
    BASALT_CHECK_OK(sync_file(fd.get(), "sync scrub.json"));
    if (::renameat(directory, kTemporaryName, directory, kName) != 0) {
      return fail_errno(errno, "rename scrub.json");
    }
    return sync_file(directory, "sync data directory");
  };
  if (const auto written = write(); !written) {
    log_warn("the state of the scrub cannot be written", {{"why", written.error().detail}});
  }
}

void Scrub::load_state() {
  // Counted from the first start, so that a fresh directory is not scrubbed at once.
  status_.last_light_ms = status_.last_deep_ms = 0;
  UniqueFd fd(::openat(parts_.files.directory_fd(), kName, O_RDONLY | O_CLOEXEC));
  if (!fd) {
    status_.last_light_ms = status_.last_deep_ms = parts_.clock.wall_ms();
    return;
  }
  struct stat info{};
  std::string text;
  if (::fstat(fd.get(), &info) == 0 && static_cast<size_t>(info.st_size) <= kStateBytesMax) {
    text.resize(static_cast<size_t>(info.st_size));
    const auto got = read_at(fd.get(), {reinterpret_cast<uint8_t*>(text.data()), text.size()}, 0);
    if (!got) text.clear();
  }
  try {
    const json in = json::parse(text);
    if (in.at("version").get<int>() != 1) return;
    ScrubStatus status = status_;
    Position position;
    status.state = static_cast<ScrubState>(in.at("state").get<unsigned>() % 3);
    status.mode = in.at("deep").get<bool>() ? ScrubMode::kDeep : ScrubMode::kLight;
    status.bytes_per_second = in.at("bytes_per_second").get<uint64_t>();
    status.started_ms = in.at("started_ms").get<int64_t>();
    status.ended_ms = in.at("ended_ms").get<int64_t>();
    status.records = in.at("records").get<uint64_t>();
    status.blobs = in.at("blobs").get<uint64_t>();
    status.bytes = in.at("bytes").get<uint64_t>();
    status.finding_count = in.at("finding_count").get<uint64_t>();
    status.last_light_ms = in.at("last_light_ms").get<int64_t>();
    status.last_deep_ms = in.at("last_deep_ms").get<int64_t>();
    position.stage = in.at("stage").get<unsigned>();
    position.shard = in.at("shard").get<unsigned>();
    position.table = in.at("table").get<size_t>();
    position.key = unhex(in.at("key").get<std::string>());
    for (const json& finding : in.at("findings")) status.findings.push_back(finding_of(finding));
    for (const json& file : in.at("files")) {
      const auto name = file.at(0).get<std::string>();
      files_[name] = {name, file.at(1).get<int64_t>(), file.at(2).get<uint64_t>()};
    }
    if (position.stage > 4 || position.shard >= parts_.indexes.size() ||
        position.table >= kTableCount) {
      position = {};
    }
    status_ = std::move(status);
    position_ = std::move(position);
  } catch (const std::exception& error) {
    log_warn("scrub.json cannot be read and is ignored", {{"why", error.what()}});
    files_.clear();
  }
}

}  // namespace basalt::storage
