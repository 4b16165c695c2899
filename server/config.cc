#include "server/config.h"

#include <fmt/format.h>
#include <sched.h>
#include <toml++/toml.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdlib>
#include <functional>
#include <map>
#include <optional>

#include "auth/identity.h"
#include "server/version.h"

namespace basalt::server {

namespace {

Result<uint64_t> parse_size(std::string_view text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  int shift = -1;
  if (unit.empty() || unit == "B") shift = 0;
  if (unit == "KiB" || unit == "K") shift = 10;
  if (unit == "MiB" || unit == "M") shift = 20;
  if (unit == "GiB" || unit == "G") shift = 30;
  if (unit == "TiB" || unit == "T") shift = 40;
  if (error != std::errc() || shift < 0 || (number << shift) >> shift != number) {
    return fail(Code::kInvalid,
                fmt::format("'{}' is not a size: write 256MiB, 4GiB or a number of bytes", text));
  }
  return number << shift;
}

template <class T>
Result<T> parse_number(std::string_view text) {
  T number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) {
    return fail(Code::kInvalid, fmt::format("'{}' is not a number in range", text));
  }
  return number;
}

Result<bool> parse_bool(std::string_view text) {
  if (text == "true" || text == "1" || text == "yes" || text == "on") return true;
  if (text == "false" || text == "0" || text == "no" || text == "off") return false;
  return fail(Code::kInvalid, fmt::format("'{}' is neither true nor false", text));
}

// One setting: its name in the file ("storage.checkpoint_entries"), its flag, and how a text
// becomes its value. The environment name is BASALT_ and the file name in capitals with '_' for
// '.'.
struct Setting {
  std::string_view name;
  std::string_view flag;  // "" = none
  std::string_view help;
  std::function<Status(Config&, std::string_view)> set;
};

template <class T>
auto number(T Config::* member) {
  return [member](Config& config, std::string_view text) -> Status {
    BASALT_TRY(value, parse_number<T>(text));
    config.*member = value;
    return {};
  };
}
template <class T>
auto engine_number(T storage::EngineOptions::* member) {
  return [member](Config& config, std::string_view text) -> Status {
    BASALT_TRY(value, parse_number<T>(text));
    config.engine.*member = value;
    return {};
  };
}
auto engine_size(uint64_t storage::EngineOptions::* member) {
  return [member](Config& config, std::string_view text) -> Status {
    BASALT_TRY(value, parse_size(text));
    config.engine.*member = value;
    return {};
  };
}
auto session_number(uint64_t session::SessionLimits::* member) {
  return [member](Config& config, std::string_view text) -> Status {
    BASALT_TRY(value, parse_number<uint64_t>(text));
    config.session.*member = value;
    return {};
  };
}
auto text_value(std::string Config::* member) {
  return [member](Config& config, std::string_view text) -> Status {
    config.*member = std::string(text);
    return {};
  };
}

const std::vector<Setting>& settings() {
  using session::SessionLimits;
  using storage::EngineOptions;
  static const std::vector<Setting> table = {
      {"data", "--data", "data directory (formatted if it is empty)",
       text_value(&Config::data_directory)},
      {"s3", "--s3", "S3 listener, ADDR:PORT", text_value(&Config::s3_address)},
      {"admin", "--admin", "admin HTTP listener, ADDR:PORT", text_value(&Config::admin_address)},
      {"cores", "--cores", "event loops, one pinned thread each; 0 = every core",
       number(&Config::cores)},
      {"pin_cores", "", "bind each loop to its core",
       [](Config& config, std::string_view text) -> Status {
         BASALT_TRY(value, parse_bool(text));
         config.pin_cores = value;
         return {};
       }},
      {"io", "--io", "auto (io_uring if the kernel allows it) or threads",
       [](Config& config, std::string_view text) -> Status {
         if (text == "auto")
           config.io = IoChoice::kAuto;
         else if (text == "threads")
           config.io = IoChoice::kThreads;
         else
           return fail(Code::kInvalid,
                       fmt::format("'{}' is not an I/O backend: auto or threads", text));
         return {};
       }},
      {"log_level", "--log-level", "debug, info, warn or error",
       [](Config& config, std::string_view text) -> Status {
         if (text == "debug")
           config.log_level = LogLevel::kDebug;
         else if (text == "info")
           config.log_level = LogLevel::kInfo;
         else if (text == "warn")
           config.log_level = LogLevel::kWarn;
         else if (text == "error")
           config.log_level = LogLevel::kError;
         else
           return fail(Code::kInvalid,
                       fmt::format("'{}' is not a log level: debug, info, warn or error", text));
         return {};
       }},
      {"access_log", "", "one log line a request",
       [](Config& config, std::string_view text) -> Status {
         BASALT_TRY(value, parse_bool(text));
         config.access_log = value;
         return {};
       }},
      {"region", "--region", "region name that requests are signed for",
       text_value(&Config::region)},
      {"base_domains", "--base-domains", "domains of virtual-hosted buckets, comma-separated",
       [](Config& config, std::string_view text) -> Status {
         config.base_domains.clear();
         while (!text.empty()) {
           const size_t comma = text.find(',');
           const std::string_view domain = text.substr(0, comma);
           if (domain.empty()) return fail(Code::kInvalid, "an empty domain in the list");
           std::string lower(domain);
           for (char& c : lower) {
             if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
           }
           config.base_domains.push_back(std::move(lower));
           text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
         }
         return {};
       }},
      {"tls.certificate", "--tls-cert", "PEM certificate chain; with it the S3 listener speaks TLS",
       text_value(&Config::tls_certificate_file)},
      {"tls.key", "--tls-key", "PEM private key", text_value(&Config::tls_key_file)},
      {"seal_key_file", "",
       "key that seals secrets at rest; made if absent (default DATA/seal.key)",
       text_value(&Config::seal_key_file)},
      {"drain_timeout_ms", "", "how long a stop waits for requests under way",
       number(&Config::drain_timeout_ms)},
      {"limits.connections", "", "connections per core", number(&Config::connections_max)},
      {"limits.buffer_bytes", "", "body buffers per core",
       [](Config& config, std::string_view text) -> Status {
         BASALT_TRY(value, parse_size(text));
         config.buffer_bytes_max = value;
         return {};
       }},
      {"limits.head_timeout_ms", "", "a request head must arrive in",
       session_number(&SessionLimits::head_timeout_ms)},
      {"limits.body_timeout_ms", "", "window of the body's minimum rate",
       session_number(&SessionLimits::body_timeout_ms)},
      {"limits.body_bytes_per_second_min", "", "slower bodies are cut",
       session_number(&SessionLimits::body_bytes_per_second_min)},
      {"limits.write_timeout_ms", "", "a response must progress within",
       session_number(&SessionLimits::write_timeout_ms)},
      {"limits.idle_timeout_ms", "", "an idle connection is closed after",
       session_number(&SessionLimits::idle_timeout_ms)},
      {"storage.shards", "", "shards at format, a power of two",
       engine_number(&EngineOptions::shard_count_at_format)},
      {"storage.log_segment_bytes", "", "log segment size at format (0: by disk size)",
       engine_size(&EngineOptions::log_segment_bytes)},
      {"storage.bulk_segment_bytes", "", "bulk segment size at format (0: by disk size)",
       engine_size(&EngineOptions::bulk_segment_bytes)},
      {"storage.own_file_bytes_min", "", "bodies from this size get a file of their own",
       engine_size(&EngineOptions::own_file_bytes_min)},
      {"storage.checkpoint_entries", "", "index entries that start a checkpoint",
       engine_number(&EngineOptions::checkpoint_entries)},
      {"storage.checkpoint_log_bytes", "", "log bytes that start a checkpoint",
       engine_size(&EngineOptions::checkpoint_log_bytes)},
      {"storage.checkpoint_interval_ms", "", "time that starts a checkpoint",
       engine_number(&EngineOptions::checkpoint_interval_ms)},
      {"storage.overlay_bytes_max", "", "uncheckpointed index memory per core",
       engine_size(&EngineOptions::overlay_bytes_max)},
      {"storage.lmdb_map_bytes", "", "address space of one shard's index",
       engine_size(&EngineOptions::lmdb_map_bytes)},
      {"storage.gc_sealed_age_ms", "", "segments younger than this are not collected",
       engine_number(&EngineOptions::gc_sealed_age_ms)},
      {"storage.gc_interval_ms", "", "time between two looks for segments to collect",
       engine_number(&EngineOptions::gc_interval_ms)},
      {"snapshot.interval_s", "", "seconds between snapshots of the indexes (0: only on command)",
       engine_number(&EngineOptions::snapshot_interval_s)},
      {"snapshot.bytes_per_second", "", "budget of making one (0: none)",
       engine_size(&EngineOptions::snapshot_bytes_per_second)},
      {"snapshot.kept", "", "snapshots kept, at least 1",
       engine_number(&EngineOptions::snapshots_kept)},
      {"scrub.bytes_per_second", "", "budget of a scrub (0: none)",
       engine_size(&EngineOptions::scrub_bytes_per_second)},
      {"scrub.light_interval_s", "", "seconds between scrubs of records and sizes (0: never)",
       engine_number(&EngineOptions::scrub_light_interval_s)},
      {"scrub.deep_interval_s", "", "seconds between scrubs of all bytes (0: never)",
       engine_number(&EngineOptions::scrub_deep_interval_s)},
      {"storage.allow_network_filesystem", "", "run on NFS and the like at your own risk",
       [](Config& config, std::string_view text) -> Status {
         BASALT_TRY(value, parse_bool(text));
         config.engine.allow_network_filesystem = value;
         return {};
       }},
  };
  return table;
}

const Setting* find_setting(std::string_view name) {
  for (const Setting& setting : settings()) {
    if (setting.name == name) return &setting;
  }
  return nullptr;
}

std::string environment_name(std::string_view name) {
  std::string out = "BASALT_";
  for (const char c : name) {
    out.push_back(c == '.' ? '_' : static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c));
  }
  return out;
}

Status apply_table(Config& config, const toml::table& table, const std::string& prefix,
                   const std::string& file) {
  for (const auto& [key, node] : table) {
    const std::string name = prefix + std::string(key.str());
    const auto line = node.source().begin.line;
    if (const toml::table* inner = node.as_table()) {
      BASALT_CHECK_OK(apply_table(config, *inner, name + ".", file));
      continue;
    }
    const Setting* setting = find_setting(name);
    if (setting == nullptr) {
      return fail(Code::kInvalid,
                  fmt::format("{}:{}: '{}' is not a setting (docs/configuration.md lists them)",
                              file, line, name));
    }
    std::string text;
    if (const auto* string = node.as_string()) {
      text = string->get();
    } else if (const auto* integer = node.as_integer()) {
      text = std::to_string(integer->get());
    } else if (const auto* boolean = node.as_boolean()) {
      text = boolean->get() ? "true" : "false";
    } else if (const toml::array* array = node.as_array()) {
      for (const auto& element : *array) {
        const auto* string = element.as_string();
        if (string == nullptr)
          return fail(Code::kInvalid,
                      fmt::format("{}:{}: '{}' wants a list of texts", file, line, name));
        if (!text.empty()) text += ',';
        text += string->get();
      }
    } else {
      return fail(Code::kInvalid,
                  fmt::format("{}:{}: '{}' has a value of a wrong kind", file, line, name));
    }
    if (const Status status = setting->set(config, text); !status) {
      return fail(Code::kInvalid,
                  fmt::format("{}:{}: {}: {}", file, line, name, status.error().detail));
    }
  }
  return {};
}

Status apply_file(Config& config, const std::string& file) {
  try {
    return apply_table(config, toml::parse_file(file), "", file);
  } catch (const toml::parse_error& error) {
    return fail(Code::kInvalid,
                fmt::format("{}:{}: {}", file, error.source().begin.line, error.description()));
  } catch (const std::exception& error) {
    return fail(Code::kInvalid, fmt::format("{}: {}", file, error.what()));
  }
}

Status apply_environment(Config& config) {
  for (const Setting& setting : settings()) {
    const std::string name = environment_name(setting.name);
    const char* value = std::getenv(name.c_str());
    if (value == nullptr) continue;
    if (const Status status = setting.set(config, value); !status) {
      return fail(Code::kInvalid,
                  fmt::format("{} in the environment: {}", name, status.error().detail));
    }
  }
  if (const char* value = std::getenv("BASALT_ROOT_ACCESS_KEY")) config.root_access_key = value;
  if (const char* value = std::getenv("BASALT_ROOT_SECRET_KEY")) config.root_secret_key = value;
  return {};
}

Status check_address(std::string_view what, std::string_view address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string_view::npos || colon == 0) {
    return fail(
        Code::kInvalid,
        fmt::format("{} address '{}' is not ADDR:PORT, such as 127.0.0.1:9000", what, address));
  }
  if (!parse_number<uint16_t>(address.substr(colon + 1))) {
    return fail(Code::kInvalid,
                fmt::format("{} address '{}' has no port from 0 to 65535", what, address));
  }
  return {};
}

}  // namespace

Status check_config(const Config& config) {
  if (config.data_directory.empty()) {
    return fail(Code::kInvalid,
                "no data directory: give --data DIR, 'data' in the file or BASALT_DATA");
  }
  BASALT_CHECK_OK(check_address("S3", config.s3_address));
  BASALT_CHECK_OK(check_address("admin", config.admin_address));
  if (config.cores > 256) return fail(Code::kInvalid, "more than 256 cores");
  if (config.tls_certificate_file.empty() != config.tls_key_file.empty()) {
    return fail(Code::kInvalid,
                "TLS needs both a certificate and a key: give --tls-cert and --tls-key");
  }
  if (config.root_access_key.empty() != config.root_secret_key.empty()) {
    return fail(Code::kInvalid,
                "set both BASALT_ROOT_ACCESS_KEY and BASALT_ROOT_SECRET_KEY, or neither");
  }
  if (!config.root_access_key.empty()) {
    BASALT_CHECK_OK(auth::check_access_key(config.root_access_key));
    BASALT_CHECK_OK(auth::check_secret_key(config.root_secret_key));
  }
  const unsigned shards = config.engine.shard_count_at_format;
  if (shards == 0 || shards > 1024 || (shards & (shards - 1)) != 0) {
    return fail(
        Code::kInvalid,
        fmt::format("storage.shards is {}: it must be a power of two from 1 to 1024", shards));
  }
  if (config.region.empty()) return fail(Code::kInvalid, "the region is empty");
  if (config.engine.snapshots_kept == 0)
    return fail(Code::kInvalid, "snapshot.kept must be at least 1");
  if (config.engine.checkpoint_entries == 0 || config.engine.checkpoint_interval_ms == 0) {
    return fail(Code::kInvalid,
                "storage.checkpoint_entries and storage.checkpoint_interval_ms must be above 0");
  }
  return {};
}

Result<Invocation> parse_invocation(int argc, const char* const* argv) {
  Invocation invocation;
  CLI::App app("Basalt, an S3-compatible object server", "basaltd");
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string("basaltd ") + std::string(kVersion));
  CLI::App* serve = app.add_subcommand("serve", "run the server in the foreground");
  // Carried out by server/tools.cc before this is reached; here for --help.
  app.add_subcommand("fsck", "check a data directory that no server has open, and repair it");
  app.add_subcommand("rebuild-index",
                     "make the indexes anew from a snapshot and the log, or from segments");
  app.add_subcommand("backup", "verify or restore a backup (basaltctl backup create makes one)");
  std::string config_file;
  serve->add_option("--config", config_file, "TOML file (docs/configuration.md)");
  serve->add_flag("--check-config", invocation.check_config, "check the configuration and exit");
  std::map<std::string_view, std::string> flags;
  std::map<std::string_view, CLI::Option*> options;
  for (const Setting& setting : settings()) {
    if (setting.flag.empty()) continue;
    options[setting.name] = serve->add_option(std::string(setting.flag), flags[setting.name],
                                              std::string(setting.help));
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    invocation.command = Invocation::Command::kExit;
    invocation.exit_status = app.exit(error) == 0 ? 0 : 2;
    return invocation;
  }
  Config& config = invocation.config;
  if (!config_file.empty()) BASALT_CHECK_OK(apply_file(config, config_file));
  BASALT_CHECK_OK(apply_environment(config));
  for (const Setting& setting : settings()) {
    const auto option = options.find(setting.name);
    if (option == options.end() || option->second->count() == 0) continue;
    if (const Status status = setting.set(config, flags[setting.name]); !status) {
      return fail(Code::kInvalid, fmt::format("{}: {}", setting.flag, status.error().detail));
    }
  }
  BASALT_CHECK_OK(check_config(config));
  if (config.cores == 0) {
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    config.cores = sched_getaffinity(0, sizeof allowed, &allowed) == 0
                       ? static_cast<unsigned>(CPU_COUNT(&allowed))
                       : 1;
  }
  if (config.seal_key_file.empty()) config.seal_key_file = config.data_directory + "/seal.key";
  config.engine.directory = config.data_directory;
  config.engine.core_count = config.cores;
  // Every core hosts at least one shard.
  while (config.engine.shard_count_at_format < config.cores)
    config.engine.shard_count_at_format *= 2;
  return invocation;
}

}  // namespace basalt::server
