// basaltd: reads the configuration, starts the server, waits for signals.
//   SIGTERM, SIGINT  stop cleanly (a second one ends the process at once: the data directory
//   survives that) SIGHUP           read the TLS certificate and key again
#include <event2/event.h>
#include <fmt/format.h>
#include <lmdb.h>
#include <openssl/crypto.h>
#include <sodium.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "base/log.h"
#include "server/config.h"
#include "server/server.h"
#include "server/tools.h"
#include "server/version.h"
#include "storage/seeded_bugs.h"

namespace {

using namespace basalt;

// A truncated or unreadable index page: nothing after it can be trusted, and a restart recovers.
void on_sigbus(int, siginfo_t*, void*) {
  static constexpr char kText[] =
      "{\"level\":\"error\",\"msg\":\"SIGBUS: an index file was cut or the disk failed under it; "
      "restart to recover\"}\n";
  [[maybe_unused]] const ssize_t wrote = write(STDERR_FILENO, kText, sizeof kText - 1);
  _exit(3);
}

void raise_open_files_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

int run(const server::Config& config) {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, number);
  pthread_sigmask(SIG_BLOCK, &signals,
                  nullptr);  // inherited by every thread; this one waits for them
  std::signal(SIGPIPE, SIG_IGN);
  struct sigaction bus{};
  bus.sa_sigaction = on_sigbus;
  bus.sa_flags = SA_SIGINFO;
  sigaction(SIGBUS, &bus, nullptr);
  prctl(PR_SET_DUMPABLE, 0);  // no secrets in core dumps
  raise_open_files_limit();

  log_info("starting", {{"version", server::kVersion},
                        {"libevent", event_get_version()},
                        {"lmdb", mdb_version(nullptr, nullptr, nullptr)},
                        {"openssl", OpenSSL_version(OPENSSL_VERSION)},
                        {"data", config.data_directory},
                        {"cores", config.cores}});
  if (const auto bug = storage::seeded_bug_name(); bug != "none") {
    log_error("THIS BUILD LOSES DATA: it has a seeded bug, for tests of the tests", {{"bug", bug}});
  }
  flush_log();
  auto server = server::Server::start(config);
  if (!server) {
    log_error("cannot start",
              {{"code", code_name(server.error().code)}, {"why", server.error().detail}});
    flush_log();
    return 1;
  }
  log_info("listening", {{"s3", (*server)->s3_address()},
                         {"admin", (*server)->admin_address()},
                         {"tls", !config.tls_certificate_file.empty()}});
  flush_log();
  if (const auto& first = (*server)->first_credentials(); !first.access_key.empty()) {
    // Printed once; afterwards they are in DIR/root-credentials only.
    std::printf(
        "Root credentials, made at this first start (also in %s/root-credentials):\n  access key "
        "%s\n  secret key %s\n",
        config.data_directory.c_str(), first.access_key.c_str(), first.secret_key.c_str());
    std::fflush(stdout);
  }
  while (true) {
    int number = 0;
    if (sigwait(&signals, &number) != 0) continue;
    if (number == SIGHUP) {
      if (const Status status = (*server)->reload_tls(); !status) {
        log_error("the certificate was not reloaded; the old one stays",
                  {{"why", status.error().detail}});
      } else {
        log_info("certificate reloaded");
      }
      flush_log();
      continue;
    }
    log_info("stopping", {{"signal", number}});
    flush_log();
    break;
  }
  // A second signal takes its default action.
  for (const int number : {SIGTERM, SIGINT}) std::signal(number, SIG_DFL);
  sigdelset(&signals, SIGHUP);
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  (*server)->stop();
  log_info("stopped");
  flush_log();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (sodium_init() < 0) {
    std::fputs("basaltd: libsodium did not start\n", stderr);
    return 1;
  }
  if (const auto status = server::run_tool(argc, argv)) return *status;
  auto invocation = server::parse_invocation(argc, argv);
  if (!invocation) {
    fmt::print(stderr, "basaltd: {}\n", invocation.error().detail);
    return 2;
  }
  if (invocation->command == server::Invocation::Command::kExit) return invocation->exit_status;
  if (invocation->check_config) {
    fmt::print("configuration is good: data {}, s3 {}, admin {}, {} cores\n",
               invocation->config.data_directory, invocation->config.s3_address,
               invocation->config.admin_address, invocation->config.cores);
    return 0;
  }
  set_log_level(invocation->config.log_level);
  return run(invocation->config);
}
