#include "bench/command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/log.h"
#include "bench/compare.h"
#include "bench/options.h"
#include "bench/plot.h"
#include "bench/process_usage.h"
#include "bench/report.h"
#include "bench/runner.h"

namespace basalt::bench {
namespace {

// As it was typed; parsed into RunOptions afterwards.
struct Typed {
  std::vector<std::string> endpoints;
  std::string access_key, secret_key, op = "get", mix = "get:70,put:20,delete:5,head:5",
                                      size = "4KiB", part_size = "8MiB";
  std::string key_distribution, duration = "10s", warmup = "2s", timeout = "30s", drain = "10s",
                                signing = "header";
  std::string prepare = "auto", json, csv;
  std::vector<std::string> pids;
  uint32_t rounds = 3;
  RunOptions options;
};

std::string from_environment(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (const char* value = std::getenv(name); value != nullptr && *value != 0) return value;
  }
  return {};
}

void add_workload(CLI::App& app, Typed& typed) {
  RunOptions& options = typed.options;
  // A later option replaces an earlier one, so that scripts can add to a common start.
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  options.threads = std::clamp(std::thread::hardware_concurrency() / 2, 1u, 8u);
  app.add_option("--access-key", typed.access_key, "or AWS_ACCESS_KEY_ID, or in the URL")
      ->group("Endpoint");
  app.add_option("--secret-key", typed.secret_key,
                 "or AWS_SECRET_ACCESS_KEY, or in the URL (safer: other users see arguments)")
      ->group("Endpoint");
  app.add_option("--region", options.region, "or AWS_REGION")->group("Endpoint");
  app.add_option("--bucket", options.bucket, "created if it is missing")
      ->group("Endpoint")
      ->capture_default_str();
  app.add_option("--prefix", options.prefix, "of all keys")
      ->group("Endpoint")
      ->capture_default_str();
  app.add_option("--ca-file", options.ca_file,
                 "certificates that https endpoints are checked with, instead of the system's")
      ->group("Endpoint");
  app.add_flag("--insecure", options.insecure, "take any certificate")->group("Endpoint");

  app.add_option("--op", typed.op, "get, put, delete, head, list, multipart or mixed")
      ->group("Workload")
      ->capture_default_str();
  app.add_option("--mix", typed.mix, "shares of a mixed run")
      ->group("Workload")
      ->capture_default_str();
  app.add_option("--size", typed.size,
                 "4KiB, 4KiB-1MiB (evenly in the logarithm) or 4KiB:80,1MiB:20")
      ->group("Workload")
      ->capture_default_str();
  app.add_option("--part-size", typed.part_size, "of multipart uploads")
      ->group("Workload")
      ->capture_default_str();
  app.add_option("--list-keys", options.list_keys, "keys a listing asks for")
      ->group("Workload")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_option("--list-delimiter", options.list_delimiter,
                 "listings roll up at it, from the start of the prefix")
      ->group("Workload");
  app.add_option("--folders", options.folders, "spread the objects over so many folders")
      ->group("Workload")
      ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 32));
  app.add_option("--keys", options.keys, "how many objects there are")
      ->group("Workload")
      ->capture_default_str()
      ->check(CLI::Range(uint64_t{1}, kKeysMax));
  app.add_option("--key-distribution", typed.key_distribution,
                 "uniform, zipf or sequential; sequential for put and multipart, else uniform")
      ->group("Workload");
  app.add_option("--zipf-exponent", options.zipf_exponent)
      ->group("Workload")
      ->capture_default_str()
      ->check(CLI::Range(0.01, 10.0));
  app.add_option("--seed", options.seed, "of the random choices")
      ->group("Workload")
      ->capture_default_str();
  app.add_option("--signing", typed.signing,
                 "header, unsigned-payload, presigned, chunked, trailer, signed-trailer or none")
      ->group("Workload")
      ->capture_default_str();
  app.add_flag("--verify", options.verify, "compare every byte that GET returns")
      ->group("Workload");
  app.add_option("--prepare", typed.prepare,
                 "auto: what is missing is put; always: everything; never")
      ->group("Workload")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "always", "never"}));
  app.add_flag("--cleanup", options.cleanup, "delete the objects at the end")->group("Workload");

  app.add_option("--connections", options.connections)
      ->group("Load")
      ->capture_default_str()
      ->check(CLI::Range(1u, kConnectionsMax));
  app.add_option("--threads", options.threads)
      ->group("Load")
      ->capture_default_str()
      ->check(CLI::Range(1u, kThreadsMax));
  app.add_option("--cpus", options.cpus, "pin the threads to these CPUs: 0,2")
      ->group("Load")
      ->delimiter(',')
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--duration", typed.duration)->group("Load")->capture_default_str();
  app.add_option("--count", options.count, "so many operations instead of a duration")
      ->group("Load");
  app.add_option("--warmup", typed.warmup)->group("Load")->capture_default_str();
  app.add_option("--rate", options.rate, "open loop: operations a second, whatever the server does")
      ->group("Load")
      ->check(CLI::Range(0.001, 1e8));
  app.add_flag("--poisson", options.poisson, "with --rate: random gaps instead of equal ones")
      ->group("Load");
  app.add_option("--timeout", typed.timeout, "of one request")
      ->group("Load")
      ->capture_default_str();
  app.add_option("--drain", typed.drain, "how long answers are awaited after the end")
      ->group("Load")
      ->capture_default_str();

  app.add_option("--json", typed.json, "the whole result to this file, - is standard output")
      ->group("Output");
  app.add_option("--csv", typed.csv, "one line an operation to this file, - is standard output")
      ->group("Output");
  app.add_flag("--quiet", options.quiet, "no progress and no table")->group("Output");
}

Result<int> parse_pid(std::string_view text) {
  int pid = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), pid);
  if (error != std::errc() || end != text.data() + text.size() || pid <= 0) {
    return fail(Code::kInvalid, fmt::format("'{}' is not a process id", text));
  }
  return pid;
}

// --pid values: "123", "auto", "none"; in compare "name=123". Without one: auto.
Status find_server(const std::vector<std::string>& typed, const std::string& name,
                   RunOptions& options) {
  bool automatic = true;
  for (std::string_view text : typed) {
    if (const size_t equals = text.find('='); equals != std::string_view::npos) {
      if (text.substr(0, equals) != name) continue;
      text.remove_prefix(equals + 1);
    }
    automatic = text == "auto";
    if (text == "none" || automatic) continue;
    BASALT_TRY(pid, parse_pid(text));
    options.pids.push_back(pid);
  }
  if (automatic && options.endpoint.loopback)
    options.pids = processes_listening_on(options.endpoint.port);
  return {};
}

Result<RunOptions> options_of(const Typed& typed) {
  RunOptions options = typed.options;
  if (options.region == "us-east-1") {
    if (const std::string region = from_environment({"AWS_REGION", "AWS_DEFAULT_REGION"});
        !region.empty())
      options.region = region;
  }
  options.access_key =
      !typed.access_key.empty()
          ? typed.access_key
          : from_environment({"AWS_ACCESS_KEY_ID", "BASALT_ACCESS_KEY", "BASALT_ROOT_ACCESS_KEY"});
  options.secret_key = !typed.secret_key.empty()
                           ? typed.secret_key
                           : from_environment({"AWS_SECRET_ACCESS_KEY", "BASALT_SECRET_KEY",
                                               "BASALT_ROOT_SECRET_KEY"});
  bool known = false;
  for (size_t i = 0; i < kMeasuredOpCount; ++i) {
    if (op_name(static_cast<Op>(i)) != typed.op) continue;
    options.op = static_cast<Op>(i);
    known = true;
  }
  if (typed.op == "mixed") {
    known = options.mixed = true;
    BASALT_TRY(mix, parse_mix(typed.mix));
    options.mix = mix;
  }
  if (!known)
    return fail(Code::kInvalid,
                fmt::format("--op {}: get, put, delete, head, list, multipart or mixed", typed.op));
  options.sizes_text = typed.size;
  BASALT_TRY(sizes, Sizes::parse(typed.size));
  options.sizes = sizes;
  BASALT_TRY(part_bytes, parse_size(typed.part_size));
  if (part_bytes == 0) return fail(Code::kInvalid, "--part-size 0");
  options.part_bytes = part_bytes;
  constexpr uint64_t kPartsMax = 10'000;
  if (!options.mixed && options.op == Op::kMultipart &&
      std::ranges::max(sizes.all()) > kPartsMax * part_bytes) {
    return fail(Code::kInvalid, "more than 10000 parts: raise --part-size");
  }
  const bool writes = !options.mixed && (options.op == Op::kPut || options.op == Op::kMultipart);
  const std::string order = !typed.key_distribution.empty() ? typed.key_distribution
                            : writes                        ? "sequential"
                                                            : "uniform";
  known = false;
  for (const KeyOrder one : {KeyOrder::kUniform, KeyOrder::kZipf, KeyOrder::kSequential}) {
    if (key_order_name(one) != order) continue;
    options.key_order = one;
    known = true;
  }
  if (!known)
    return fail(Code::kInvalid,
                fmt::format("--key-distribution {}: uniform, zipf or sequential", order));
  BASALT_TRY(signing, parse_signing(typed.signing));
  options.signing = signing;
  for (const auto& [text, target] : {std::pair{&typed.duration, &options.duration_ms},
                                     {&typed.warmup, &options.warmup_ms},
                                     {&typed.timeout, &options.timeout_ms},
                                     {&typed.drain, &options.drain_ms}}) {
    BASALT_TRY(ms, parse_duration_ms(*text));
    *target = ms;
  }
  if (options.duration_ms == 0 || options.timeout_ms == 0)
    return fail(Code::kInvalid, "a duration or timeout of 0");
  options.prepare = typed.prepare == "auto"     ? RunOptions::Prepare::kAuto
                    : typed.prepare == "always" ? RunOptions::Prepare::kAlways
                                                : RunOptions::Prepare::kNever;
  // Deletes need their objects to be there: a warm-up would use them up.
  if (!options.mixed && options.op == Op::kDelete) options.warmup_ms = 0;
  options.threads = std::min(options.threads, options.connections);
  for (const int cpu : options.cpus) {
    if (cpu < 0 || cpu >= 1024) return fail(Code::kInvalid, fmt::format("--cpus {}", cpu));
  }
  return options;
}

Status set_endpoint(RunOptions& options, const std::string& text, const std::string& name) {
  BASALT_TRY(endpoint, parse_endpoint(text));
  options.endpoint = endpoint;
  if (!name.empty()) options.endpoint.name = name;
  if (!endpoint.access_key.empty()) {
    options.access_key = endpoint.access_key;
    options.secret_key = endpoint.secret_key;
  }
  if (options.signing != Signing::kNone &&
      (options.access_key.empty() || options.secret_key.empty())) {
    return fail(Code::kInvalid,
                "no keys: --access-key and --secret-key, or AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or "
                "--signing none");
  }
  return {};
}

int complain(const Error& error) {
  fmt::print(stderr, "basalt-bench: {}\n",
             error.detail.empty() ? code_name(error.code) : std::string_view(error.detail));
  return 2;
}

int run_command(const Typed& typed) {
  auto options = options_of(typed);
  if (!options) return complain(options.error());
  std::string url =
      typed.endpoints.empty()
          ? from_environment({"BASALT_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"})
          : typed.endpoints.front();
  if (url.empty())
    return complain({Code::kInvalid, "no --endpoint (and no BASALT_ENDPOINT or AWS_ENDPOINT_URL)"});
  if (auto set = set_endpoint(*options, url, {}); !set) return complain(set.error());
  if (auto found = find_server(typed.pids, options->endpoint.name, *options); !found)
    return complain(found.error());
  auto result = run(*options);
  if (!result) return complain(result.error());
  const bool machine = typed.json == "-" || typed.csv == "-";
  if (!options->quiet && !machine) fmt::print("{}", table(*result));
  if (!typed.json.empty()) {
    if (auto written = write_text(typed.json, to_json(*result).dump(1) + "\n"); !written)
      return complain(written.error());
  }
  if (!typed.csv.empty()) {
    if (auto written = write_text(typed.csv, csv_header() + csv_rows(*result)); !written)
      return complain(written.error());
  }
  return result->failed() + result->unfinished() == 0 && result->completed() != 0 ? 0 : 1;
}

int compare_command(const Typed& typed) {
  auto base = options_of(typed);
  if (!base) return complain(base.error());
  if (typed.endpoints.size() < 2)
    return complain({Code::kInvalid, "compare needs two --endpoint name=url or more"});
  std::vector<RunOptions> all;
  for (const std::string& spec : typed.endpoints) {
    const size_t equals = spec.find('=');
    const size_t scheme = spec.find("://");
    if (equals == std::string::npos || equals == 0 || scheme < equals) {
      return complain({Code::kInvalid, fmt::format("'{}' is not name=url",
                                                   spec.substr(0, std::min(equals, scheme)))});
    }
    RunOptions options = *base;
    const std::string name = spec.substr(0, equals);
    if (auto set = set_endpoint(options, spec.substr(equals + 1), name); !set)
      return complain(set.error());
    if (auto found = find_server(typed.pids, name, options); !found) return complain(found.error());
    all.push_back(std::move(options));
  }
  auto comparison = compare(all, typed.rounds);
  if (!comparison) return complain(comparison.error());
  if (!base->quiet && typed.json != "-" && typed.csv != "-") fmt::print("{}", table(*comparison));
  uint64_t bad = 0;
  std::string csv = csv_header();
  for (const auto& runs : comparison->runs) {
    for (const RunResult& run : runs) {
      bad += run.failed() + run.unfinished();
      csv += csv_rows(run);
    }
  }
  if (!typed.json.empty()) {
    if (auto written = write_text(typed.json, to_json(*comparison).dump(1) + "\n"); !written)
      return complain(written.error());
  }
  if (!typed.csv.empty()) {
    if (auto written = write_text(typed.csv, csv); !written) return complain(written.error());
  }
  return bad == 0 && !interrupted() ? 0 : 1;
}

int plot_command(const std::vector<std::string>& files, const std::string& out) {
  std::vector<nlohmann::ordered_json> documents;
  for (const std::string& file : files) {
    std::ifstream in(file);
    if (!in) return complain({Code::kNotFound, fmt::format("{} cannot be read", file)});
    documents.push_back(nlohmann::ordered_json::parse(in, nullptr, false));
    if (documents.back().is_discarded())
      return complain({Code::kInvalid, fmt::format("{} is not JSON", file)});
  }
  const auto svg = plot(documents);
  if (!svg) return complain(svg.error());
  if (auto written = write_text(out, *svg); !written) return complain(written.error());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  set_log_level(LogLevel::kWarn);
  CLI::App app("basalt-bench: a load generator for any S3 endpoint", "basalt-bench");
  app.require_subcommand(1);
  Typed typed;
  CLI::App* run = app.add_subcommand("run", "measure one endpoint (the default command)");
  run->add_option("--endpoint", typed.endpoints,
                  "http://127.0.0.1:9000; or BASALT_ENDPOINT, AWS_ENDPOINT_URL")
      ->group("Endpoint")
      ->expected(1);
  run->add_option(
         "--pid", typed.pids,
         "the server's process, for its CPU and memory: a number, auto (the local process that "
         "listens there) or none")
      ->group("Output")
      ->capture_default_str();
  add_workload(*run, typed);
  CLI::App* compare = app.add_subcommand(
      "compare", "measure several endpoints in turn and print ratios to the first");
  Typed compared;
  compare
      ->add_option("--endpoint", compared.endpoints,
                   "name=http://[ACCESS:SECRET@]host:port, at least two")
      ->group("Endpoint")
      ->expected(1)
      ->take_all();
  compare->add_option("--pid", compared.pids, "name=NUMBER, auto or none")->group("Output");
  compare->add_option("--rounds", compared.rounds)
      ->group("Load")
      ->capture_default_str()
      ->check(CLI::Range(1u, kRoundsMax));
  add_workload(*compare, compared);
  CLI::App* plot = app.add_subcommand("plot", "draw results of run or compare as SVG");
  std::vector<std::string> files;
  std::string out = "-";
  plot->add_option("file", files, "JSON results")->required();
  plot->add_option("-o,--output", out, "the SVG file, - is standard output")->capture_default_str();

  // "basalt-bench --op put" is "basalt-bench run --op put".
  std::vector<std::string> words(argv + 1, argv + argc);
  const bool asks_help = !words.empty() && (words[0] == "-h" || words[0] == "--help");
  if (words.empty() || (words[0].starts_with('-') && !asks_help))
    words.insert(words.begin(), "run");
  std::ranges::reverse(words);  // as CLI11 wants it
  try {
    app.parse(words);
  } catch (const CLI::ParseError& error) {
    const int status = app.exit(error);
    return status == 0 ? 0 : 2;
  }
  handle_signals();
  if (run->parsed()) return run_command(typed);
  if (compare->parsed()) return compare_command(compared);
  return plot_command(files, out);
}

}  // namespace basalt::bench
