#include "server/server.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <deque>
#include <utility>

#include "base/log.h"
#include "reactor/loop.h"
#include "server/accounts.h"
#include "server/admin_commands.h"
#include "server/admin_http.h"
#include "server/admin_socket.h"
#include "server/core_thread.h"
#include "server/metrics.h"
#include "server/version.h"

namespace basalt::server {

namespace {

// For operators and tools/dev: the root credentials of the first start, readable by the server's
// user only.
Status write_credentials_file(const std::string& path, const auth::AccessKey& key) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return fail_errno(errno, path);
  const std::string text =
      fmt::format("access_key={}\nsecret_key={}\n", key.access_key, key.secret_key);
  const bool good =
      write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && fsync(fd) == 0;
  const int error = errno;
  close(fd);
  if (!good) return fail_errno(error, path);
  return {};
}

constexpr uint64_t kAdminSocketRetryMs = 1000;

}  // namespace

struct Server::Impl {
  Config config;
  SystemClock clock;
  const auth::HashPlan hash_plan = auth::HashPlan::measure();
  auth::HashExchange hash_exchange;
  s3::S3Options s3_options;
  std::optional<auth::Sealer> sealer;
  std::unique_ptr<storage::Engine> engine;
  std::unique_ptr<shards::Fabric> fabric;
  std::unique_ptr<Metrics> metrics;
  std::deque<CoreThread> cores;
  std::shared_ptr<reactor::TlsContext> tls;
  std::string s3_address, admin_address;
  FirstCredentials first_credentials;
  std::atomic<bool> ready{false};
  int64_t started_ms = 0;
  bool stopped = false;

  // On core 0.
  std::unique_ptr<Accounts> accounts;
  std::unique_ptr<AdminCommands> admin_commands;
  std::unique_ptr<AdminHttp> admin_http;
  std::unique_ptr<session::SessionPool> admin_sessions;
  std::unique_ptr<reactor::Listener> admin_listener;
  std::unique_ptr<AdminSocket> admin_socket;
  bool admin_socket_waits = false;
  std::optional<reactor::Timer> admin_socket_again;  // while the disk has no room for its name

  Status start_cores();
  Status set_up_root();
  Status start_admin();
  Status open_admin_socket();
  Status listen_s3();
  void stop();
};

Status Server::Impl::start_cores() {
  const CoreThread::Shared shared{
      config,  s3_options, *engine,   *fabric,
      *sealer, clock,      hash_plan, config.cores > 1 ? &hash_exchange : nullptr};
  for (unsigned core = 0; core < config.cores; ++core)
    cores.emplace_back(shared, core, metrics->add_core());
  for (CoreThread& core : cores) core.begin_start();
  for (CoreThread& core : cores) BASALT_CHECK_OK(core.finish_start());
  metrics->set_build(std::string(kVersion), std::string(cores.front().io_name()));
  return {};
}

Status Server::Impl::set_up_root() {
  CoreThread& home = cores.front();
  home.run_on_core([&] {
    accounts = std::make_unique<Accounts>(*home.parts().shards, home.parts().mirror.identities,
                                          *sealer, clock);
  });
  auto root =
      home.spawn<Result<auth::Account>>([this] { return accounts->ensure_root_account(); }).get();
  if (!root) return std::unexpected(std::move(root).error());
  if (!config.root_access_key.empty()) {
    const auth::AccessKey key{config.root_access_key, config.root_secret_key, root->id, true,
                              started_ms};
    for (CoreThread& core : cores) {
      core.run_on_core([&] { core.parts().mirror.identities.set_root(*root, key); });
    }
    return {};
  }
  auto key =
      home.spawn<Result<Accounts::RootKey>>([&] { return accounts->ensure_root_key(*root); }).get();
  if (!key) return std::unexpected(std::move(key).error());
  if (key->created) {
    first_credentials = {key->key.access_key, key->key.secret_key};
    BASALT_CHECK_OK(write_credentials_file(config.data_directory + "/root-credentials", key->key));
  }
  return {};
}

Status Server::Impl::start_admin() {
  CoreThread& home = cores.front();
  Status status;
  home.run_on_core([&] {
    CoreThread::Parts& parts = home.parts();
    admin_http = std::make_unique<AdminHttp>(AdminHttp::Sources{
        .metrics_text = [this] { return metrics->text(); },
        .ready = [this] { return ready.load(std::memory_order_relaxed); },
        .healthy = [this] { return engine->healthy(); },
    });
    admin_sessions = session::SessionPool::create(*parts.loop, parts.buffers, clock, config.session,
                                                  *admin_http);
    auto listener = reactor::Listener::listen(
        *parts.loop, {.address = config.admin_address, .reuse_port = false, .connections_max = 256},
        [this](std::unique_ptr<reactor::Stream> stream) {
          admin_sessions->serve(std::move(stream));
        });
    if (!listener) {
      status = std::unexpected(std::move(listener).error());
      return;
    }
    admin_listener = std::move(*listener);
    admin_address = admin_listener->bound_address();
    admin_commands = std::make_unique<AdminCommands>(AdminCommands::Parts{
        *accounts, parts.mirror.identities, parts.mirror.buckets, *engine, clock, started_ms,
        config.cores, std::string(home.io_name()), s3_address, config.root_access_key});
    admin_socket_again.emplace(
        *parts.loop,
        [](void* self) {
          if (const Status opened = static_cast<Impl*>(self)->open_admin_socket(); !opened)
            log_error("no admin socket", {{"why", opened.error().detail}});
        },
        this);
    status = open_admin_socket();
  });
  return status;
}

// A full disk (xfs has no place for a name then) is no reason not to serve: it is tried again.
Status Server::Impl::open_admin_socket() {
  auto socket = AdminSocket::listen(
      *cores.front().parts().loop, config.data_directory + "/admin.sock",
      [this](std::string line) { return admin_commands->run(std::move(line)); });
  if (socket) {
    if (admin_socket_waits) log_info("the admin socket is there");
    admin_socket = std::move(*socket);
    return {};
  }
  if (socket.error().code != Code::kNoSpace) return std::unexpected(std::move(socket).error());
  if (!std::exchange(admin_socket_waits, true))
    log_warn("the disk is full: no admin socket yet", {{"why", socket.error().detail}});
  admin_socket_again->arm(kAdminSocketRetryMs);
  return {};
}

Status Server::Impl::listen_s3() {
  if (!config.tls_certificate_file.empty()) {
    BASALT_TRY(context,
               reactor::TlsContext::create(config.tls_certificate_file, config.tls_key_file));
    tls = std::move(context);
  }
  s3_address = config.s3_address;
  for (CoreThread& core : cores) {
    // The first core's port 0 becomes a number; the others share it.
    BASALT_TRY(bound, core.listen(s3_address, tls));
    s3_address = bound;
  }
  return {};
}

void Server::Impl::stop() {
  if (std::exchange(stopped, true)) return;
  ready.store(false, std::memory_order_relaxed);
  for (CoreThread& core : cores) core.pause_listening();
  if (engine) engine->end_waits();
  std::vector<std::future<void>> waits;
  for (CoreThread& core : cores) waits.push_back(core.drain());
  for (auto& wait : waits) wait.get();
  waits.clear();
  if (!cores.empty() && admin_sessions) {
    CoreThread& home = cores.front();
    struct Stopped : Completion {
      std::promise<void> promise;
    } sessions_stopped, socket_stopped;
    sessions_stopped.fn = [](Completion& c) { static_cast<Stopped&>(c).promise.set_value(); };
    socket_stopped.fn = sessions_stopped.fn;
    home.run_on_core([&] {
      admin_listener.reset();
      admin_socket_again.reset();
      admin_sessions->drain(1000, sessions_stopped);
      if (admin_socket) {
        admin_socket->stop(socket_stopped);
      } else {
        socket_stopped.promise.set_value();
      }
    });
    sessions_stopped.promise.get_future().get();
    socket_stopped.promise.get_future().get();
    home.run_on_core([&] {
      admin_socket.reset();
      admin_sessions.reset();
      admin_commands.reset();
      accounts.reset();
    });
    unlink((config.data_directory + "/admin.sock").c_str());
  }
  for (CoreThread& core : cores) waits.push_back(core.stop_storage());
  for (auto& wait : waits) wait.get();
  for (CoreThread& core : cores) core.stop();
  cores.clear();
  metrics.reset();
  engine.reset();
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() { stop(); }

Result<std::unique_ptr<Server>> Server::start(const Config& config) {
  auto impl = std::make_unique<Impl>();
  impl->config = config;
  impl->started_ms = impl->clock.wall_ms();
  impl->s3_options = {config.region, config.base_domains};
  if (mkdir(config.data_directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return fail_errno(errno, config.data_directory);
  }
  BASALT_TRY(engine, storage::Engine::open(config.engine, impl->clock));
  impl->engine = std::move(engine);
  BASALT_TRY(sealer, auth::Sealer::open(config.seal_key_file, true));
  impl->sealer.emplace(std::move(sealer));
  BASALT_TRY(fabric, shards::Fabric::create(config.cores));
  impl->fabric = std::move(fabric);
  impl->metrics = std::make_unique<Metrics>(*impl->engine);
  Impl& parts = *impl;
  std::unique_ptr<Server> server(
      new Server(std::move(impl)));  // its destructor stops what was started
  BASALT_CHECK_OK(parts.start_cores());
  BASALT_CHECK_OK(parts.set_up_root());
  BASALT_CHECK_OK(parts.listen_s3());
  BASALT_CHECK_OK(parts.start_admin());
  parts.ready.store(true, std::memory_order_relaxed);
  return server;
}

const std::string& Server::s3_address() const { return impl_->s3_address; }
const std::string& Server::admin_address() const { return impl_->admin_address; }
const Server::FirstCredentials& Server::first_credentials() const {
  return impl_->first_credentials;
}

Status Server::reload_tls() {
  if (!impl_->tls) return {};
  return impl_->tls->reload();
}

void Server::stop() { impl_->stop(); }

}  // namespace basalt::server
