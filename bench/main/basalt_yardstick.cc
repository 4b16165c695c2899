// basalt-yardstick: what the parts under the server can do by themselves on this machine, for
// bench/table.
#include <CLI/CLI.hpp>
#include <string>

#include "base/log.h"
#include "bench/yardstick/common.h"

int main(int argc, char** argv) {
  using namespace basalt::bench::yardstick;
  basalt::set_log_level(basalt::LogLevel::kWarn);
  CLI::App app("basalt-yardstick: single parts by themselves, each as one line of JSON",
               "basalt-yardstick");
  app.require_subcommand(1);
  Options options;
  const auto add = [&](const char* name, const char* help) {
    CLI::App* command = app.add_subcommand(name, help);
    command->add_option("--dir", options.directory, "scratch directory, or a server's data")
        ->required();
    command->add_option("--seconds", options.seconds)->capture_default_str();
    return command;
  };
  CLI::App* sync = add("write-sync", "pwrite and fdatasync, one after the other");
  sync->add_option("--size", options.size, "bytes, a multiple of 4096")->capture_default_str();
  CLI::App* floor = app.add_subcommand(
      "put-floor", "a server of one thread that does nothing but write and flush; until SIGTERM");
  floor->add_option("--dir", options.directory, "scratch directory")->required();
  floor->add_option("--port", options.port, "of 127.0.0.1")->required();
  CLI::App* put = add("engine-put", "durable puts through the storage engine alone");
  put->add_option("--size", options.size)->capture_default_str();
  put->add_option("--in-flight", options.in_flight)->capture_default_str();
  CLI::App* scan =
      add("lmdb-scan", "cursor scan of --records on one partition of --dir, a server's data");
  CLI::App* seek =
      add("lmdb-seek", "a seek for each of --records folders on every partition of --dir");
  for (CLI::App* command : {scan, seek}) {
    command->add_option("--records", options.records)->capture_default_str();
    command->add_option("--prefix", options.prefix, "of the names");
  }
  CLI::App* upload = add("upload-floor", "a server that does only what a large PUT must cost");
  upload->add_flag("--md5", options.md5, "of every body");
  upload->add_flag("--sha256", options.sha256, "as well, with --md5");
  upload->add_flag("--write", options.write, "O_DIRECT and one fdatasync a body");
  upload->add_option("--step", options.step, "bytes hashed at a time")->capture_default_str();
  upload->add_option("--low-water", options.low_water, "SO_RCVLOWAT of a body, 0: none")
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  if (sync->parsed()) return write_sync(options);
  if (floor->parsed()) return put_floor(options);
  if (put->parsed()) return engine_put(options);
  if (upload->parsed()) return upload_floor(options);
  if (scan->parsed()) return lmdb_scan(options);
  return lmdb_seek(options);
}
