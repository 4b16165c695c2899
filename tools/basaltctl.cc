// basaltctl: the operator's tool. Talks JSON to a running basaltd over its Unix socket
// (server/admin_socket.h).
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/result.h"

namespace {

using basalt::Code;
using basalt::fail;
using basalt::Result;
using nlohmann::json;

constexpr size_t kAnswerBytesMax = 64 << 20;

Result<json> ask(const std::string& socket_path, const json& request) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof address.sun_path) {
    return fail(Code::kInvalid, fmt::format("the socket path is longer than {} bytes",
                                            sizeof address.sun_path - 1));
  }
  std::memcpy(address.sun_path, socket_path.data(), socket_path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return basalt::fail_errno(errno, "socket");
  struct Closer {
    int fd;
    ~Closer() { close(fd); }
  } closer{fd};
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    const int error = errno;
    std::string why = basalt::fail_errno(error, socket_path).error().detail;
    if (error == ENOENT || error == ECONNREFUSED)
      why += " (is basaltd running on that data directory? give --socket DIR/admin.sock)";
    if (error == EACCES) why += " (run as root or as the server's user)";
    return fail(Code::kIo, why);
  }
  const std::string line = request.dump(-1, ' ', true, json::error_handler_t::replace) + "\n";
  for (size_t done = 0; done < line.size();) {
    const ssize_t wrote = send(fd, line.data() + done, line.size() - done, MSG_NOSIGNAL);
    if (wrote <= 0) return basalt::fail_errno(errno, "send");
    done += static_cast<size_t>(wrote);
  }
  std::string answer;
  while (answer.find('\n') == std::string::npos) {
    char bytes[65536];
    const ssize_t got = recv(fd, bytes, sizeof bytes, 0);
    if (got < 0) return basalt::fail_errno(errno, "recv");
    if (got == 0) return fail(Code::kIo, "the server closed the connection without an answer");
    answer.append(bytes, static_cast<size_t>(got));
    if (answer.size() > kAnswerBytesMax)
      return fail(Code::kTooLarge, "the answer is longer than 64 MiB");
  }
  json parsed = json::parse(answer, nullptr, false);
  if (parsed.is_discarded() || !parsed.is_object())
    return fail(Code::kInvalid, "the answer is not a JSON object");
  if (!parsed.value("ok", false))
    return fail(Code::kInvalid, parsed.value("error", "no reason given"));
  parsed.erase("ok");
  return parsed;
}

std::string scalar(const json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

// For people: an object as "name: value" lines, a list as a table.
void print_table(const json& rows) {
  if (rows.empty()) {
    fmt::print("(none)\n");
    return;
  }
  std::vector<std::string> names;
  std::vector<size_t> widths;
  // Rows need not have the same fields.
  for (const json& row : rows) {
    for (const auto& [name, value] : row.items()) {
      if (std::find(names.begin(), names.end(), name) != names.end()) continue;
      names.push_back(name);
      widths.push_back(name.size());
    }
  }
  const auto cell = [](const json& row, const std::string& name) {
    const auto at = row.find(name);
    return at == row.end() ? std::string() : scalar(*at);
  };
  for (const json& row : rows) {
    for (size_t i = 0; i < names.size(); ++i)
      widths[i] = std::max(widths[i], cell(row, names[i]).size());
  }
  for (size_t i = 0; i < names.size(); ++i) fmt::print("{:<{}}  ", names[i], widths[i]);
  fmt::print("\n");
  for (const json& row : rows) {
    for (size_t i = 0; i < names.size(); ++i)
      fmt::print("{:<{}}  ", cell(row, names[i]), widths[i]);
    fmt::print("\n");
  }
}

void print_answer(const json& answer) {
  for (const auto& [name, value] : answer.items()) {
    if (value.is_array()) {
      print_table(value);
    } else if (value.is_object()) {
      print_answer(value);
    } else {
      fmt::print("{}: {}\n", name, scalar(value));
    }
  }
}

Result<std::string> read_secret_file(const std::string& path) {
  std::ifstream file(path);
  if (!file)
    return fail(Code::kInvalid, fmt::format("cannot read {}: {}", path, std::strerror(errno)));
  std::string secret;
  std::getline(file, secret);
  while (!secret.empty() && (secret.back() == '\r' || secret.back() == ' ')) secret.pop_back();
  if (secret.empty())
    return fail(Code::kInvalid,
                fmt::format("{} is empty: put the secret key on its first line", path));
  return secret;
}

// Becomes the basaltd that lies beside this program, or else the one on PATH.
int run_basaltd(std::vector<std::string> arguments, bool as_json) {
  std::error_code error;
  const auto own = std::filesystem::read_symlink("/proc/self/exe", error);
  std::string program = (own.parent_path() / "basaltd").string();
  if (error || access(program.c_str(), X_OK) != 0) program = "basaltd";
  arguments.insert(arguments.begin(), program);
  if (as_json) arguments.push_back("--json");
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  execvp(program.c_str(), pointers.data());
  fmt::print(stderr, "basaltctl: cannot run {}: {}\n", program, std::strerror(errno));
  return 2;
}

// Asks until the backup has ended.
Result<json> await_backup(const std::string& socket_path) {
  for (;;) {
    BASALT_TRY(status, ask(socket_path, {{"command", "backup.status"}}));
    if (!status.value("running", false)) {
      if (const auto why = status.value("error", std::string()); !why.empty())
        return fail(Code::kIo, why);
      return std::move(status);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Administration of a running basaltd", "basaltctl");
  app.require_subcommand(1);
  std::string socket_path = "data/admin.sock";
  bool as_json = false;
  app.add_option("--socket", socket_path, "the server's admin socket, DIR/admin.sock")
      ->envname("BASALT_ADMIN_SOCKET")
      ->capture_default_str();
  app.add_flag("--json", as_json, "print the answer as JSON");
  app.fallthrough();  // --json and --socket may also stand after the command

  json request;
  std::string secret_key_file;
  auto want = [&](const char* command) {
    return [&request, command] { request["command"] = command; };
  };
  auto option = [&](CLI::App* sub, const char* flag, const char* field, const char* help) {
    return sub->add_option_function<std::string>(
        flag, [&request, field](const std::string& v) { request[field] = v; }, help);
  };

  app.add_subcommand("status", "version, health, space")->callback(want("status"));

  CLI::App* account = app.add_subcommand("account", "accounts")->require_subcommand(1);
  CLI::App* account_create = account->add_subcommand("create", "make an account");
  option(account_create, "name", "name", "its name")->required();
  option(account_create, "--id", "id", "canonical id (default: 64 random hex digits)");
  option(account_create, "--display-name", "display_name", "as S3 shows it (default: the name)");
  option(account_create, "--email", "email", "e-mail address");
  account_create->callback(want("account.create"));
  account->add_subcommand("list", "all accounts")->callback(want("account.list"));

  CLI::App* key = app.add_subcommand("key", "access keys")->require_subcommand(1);
  CLI::App* key_create =
      key->add_subcommand("create", "make an access key; its secret is shown once");
  option(key_create, "--account", "account", "account name or id")->required();
  option(key_create, "--access-key", "access_key", "bring your own access key");
  key_create->add_option("--secret-key-file", secret_key_file,
                         "file with its secret key on the first line");
  key_create->callback(want("key.create"));
  CLI::App* key_list = key->add_subcommand("list", "access keys");
  option(key_list, "--account", "account", "only of this account");
  key_list->callback(want("key.list"));
  for (const auto& [name, command, help] :
       {std::tuple{"disable", "key.disable", "refuse requests signed with it"},
        std::tuple{"enable", "key.enable", "accept it again"},
        std::tuple{"remove", "key.remove", "forget it"}}) {
    CLI::App* sub = key->add_subcommand(name, help);
    option(sub, "access_key", "access_key", "the access key")->required();
    sub->callback(want(command));
  }

  CLI::App* bucket = app.add_subcommand("bucket", "buckets")->require_subcommand(1);
  bucket->add_subcommand("list", "all buckets, their owners, and their size at the last checkpoint")
      ->callback(want("bucket.list"));

  CLI::App* scrub =
      app.add_subcommand("scrub", "look for damaged data in the background")->require_subcommand(1);
  CLI::App* scrub_start =
      scrub->add_subcommand("start", "read everything and check it (deep), or records only");
  scrub_start->add_flag_callback(
      "--light", [&request] { request["mode"] = "light"; }, "records, sizes and the index only");
  scrub_start
      ->add_option_function<uint64_t>(
          "--mib-per-second", [&request](uint64_t mib) { request["bytes_per_second"] = mib << 20; },
          "budget; 0: none (default: scrub.bytes_per_second of the configuration)")
      ->check(CLI::Range(uint64_t{0}, uint64_t{1} << 20));
  scrub_start->callback(want("scrub.start"));
  for (const auto& [name, command, help] :
       {std::tuple{"pause", "scrub.pause", "stop reading until resume; survives a restart"},
        std::tuple{"resume", "scrub.resume", "go on"},
        std::tuple{"cancel", "scrub.cancel", "end it"},
        std::tuple{"status", "scrub.status", "progress, and what was found damaged"}}) {
    scrub->add_subcommand(name, help)->callback(want(command));
  }

  CLI::App* snapshot =
      app.add_subcommand("snapshot", "snapshots of the indexes, for basaltd rebuild-index")
          ->require_subcommand(1);
  snapshot->add_subcommand("create", "make one now")->callback(want("snapshot.create"));
  snapshot->add_subcommand("status", "those there are")->callback(want("snapshot.status"));

  // The server makes a backup; verifying and restoring one need no server and are basaltd's.
  CLI::App* backup =
      app.add_subcommand("backup", "backups of a running server")->require_subcommand(1);
  std::string backup_path, restore_path;
  bool wait_for_backup = false;
  CLI::App* backup_create =
      backup->add_subcommand("create", "copy everything, consistently, to a new directory");
  backup_create->add_option("DEST", backup_path, "the new directory; the server writes it")
      ->required();
  bool no_wait = false;
  backup_create->add_flag("--no-wait", no_wait,
                          "return when it has begun; 'backup status' shows how it goes");
  backup_create
      ->add_option_function<uint64_t>(
          "--mib-per-second", [&request](uint64_t mib) { request["bytes_per_second"] = mib << 20; },
          "budget; 0: none (default)")
      ->check(CLI::Range(uint64_t{0}, uint64_t{1} << 20));
  backup_create->callback([&] {
    std::error_code error;
    request["command"] = "backup.create";
    request["destination"] =
        std::filesystem::absolute(backup_path, error).lexically_normal().string();
    wait_for_backup = !no_wait;
  });
  backup->add_subcommand("status", "the backup under way, or the last one")
      ->callback(want("backup.status"));
  backup->add_subcommand("cancel", "end it; what was written stays and is no backup")
      ->callback(want("backup.cancel"));
  std::vector<std::string> offline;
  CLI::App* backup_verify = backup->add_subcommand("verify", "read all of a backup and check it");
  backup_verify->add_option("BACKUP", backup_path, "the backup")->required();
  backup_verify->callback([&] { offline = {"backup", "verify", backup_path}; });
  CLI::App* backup_restore =
      backup->add_subcommand("restore", "write a new data directory from a backup");
  backup_restore->add_option("BACKUP", backup_path, "the backup")->required();
  backup_restore->add_option("DIR", restore_path, "the new data directory")->required();
  backup_restore->callback([&] { offline = {"backup", "restore", backup_path, restore_path}; });

  CLI11_PARSE(app, argc, argv);
  if (!offline.empty()) return run_basaltd(std::move(offline), as_json);

  if (!secret_key_file.empty()) {
    const auto secret = read_secret_file(secret_key_file);
    if (!secret) {
      fmt::print(stderr, "basaltctl: {}\n", secret.error().detail);
      return 2;
    }
    request["secret_key"] = *secret;
  }
  auto answer = ask(socket_path, request);
  if (answer && wait_for_backup) answer = await_backup(socket_path);
  if (!answer) {
    if (as_json) {
      fmt::print("{}\n", json{{"ok", false}, {"error", answer.error().detail}}.dump());
    } else {
      fmt::print(stderr, "basaltctl: {}\n", answer.error().detail);
    }
    return 1;
  }
  if (as_json) {
    fmt::print("{}\n", answer->dump(2));
  } else {
    print_answer(*answer);
  }
  return 0;
}
