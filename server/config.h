// Config: what an operator can set. Sources, later ones win: defaults, TOML file, environment
// (BASALT_*), flags. docs/configuration.md lists every name.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/result.h"
#include "protocol/session/exchange.h"
#include "storage/engine.h"

namespace basalt::server {

enum class IoChoice : uint8_t { kAuto, kThreads };

struct Config {
  std::string data_directory;
  std::string s3_address = "127.0.0.1:9000";
  std::string admin_address = "127.0.0.1:9001";
  unsigned cores = 0;  // 0: every core this process may run on
  bool pin_cores = true;
  IoChoice io = IoChoice::kAuto;
  LogLevel log_level = LogLevel::kInfo;
  bool access_log = false;

  std::string region = "us-east-1";
  std::vector<std::string> base_domains;  // for virtual-hosted addressing
  std::string tls_certificate_file, tls_key_file;
  std::string seal_key_file;  // default: DIR/seal.key

  // From the environment only, never from a flag or a file that others can read.
  std::string root_access_key, root_secret_key;

  uint32_t connections_max = 16384;        // per core
  uint64_t buffer_bytes_max = 384u << 20;  // body buffers, per core
  uint64_t drain_timeout_ms = 10'000;
  session::SessionLimits session;
  // A server scrubs and keeps snapshots of its indexes unless it is told otherwise; an engine by
  // itself does not.
  static storage::EngineOptions engine_defaults() {
    storage::EngineOptions options;
    options.scrub_light_interval_s = 86'400;
    options.scrub_deep_interval_s = 14 * 86'400;
    options.snapshot_interval_s = 86'400;
    return options;
  }
  storage::EngineOptions engine =
      engine_defaults();  // directory and core_count are filled from above
};

// What the command line asked for.
struct Invocation {
  enum class Command : uint8_t { kServe, kExit } command = Command::kServe;
  int exit_status = 0;
  bool check_config = false;
  Config config;
};

// Parses flags, the file they name and the environment. Errors (kInvalid) say what is wrong, where,
// and how to mend it.
// --help and --version print and give kExit.
Result<Invocation> parse_invocation(int argc, const char* const* argv);

// kInvalid with a sentence for the operator.
Status check_config(const Config& config);

}  // namespace basalt::server
