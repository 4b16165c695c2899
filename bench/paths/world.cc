#include "bench/paths/world.h"

#include <fmt/format.h>

#include <array>

#include "auth/digest.h"
#include "base/check.h"
#include "bench/paths/sync_io.h"

namespace basalt::bench {
namespace {

constexpr std::string_view kAccessKey = "BENCHACCESSKEY";
constexpr std::string_view kSecretKey = "bench-secret-key-of-forty-characters-aaaa";
constexpr std::string_view kHost = "127.0.0.1:9000";

struct Done : Completion {
  bool done = false;
  Done() : Completion([](Completion& self) { static_cast<Done&>(self).done = true; }) {}
};

// One request at a time has one stream: the kernel that a server would take for it. Not what this
// processor measures, which would not be the same twice.
auth::HashPlan single_streams() {
  const auth::HashPlan::Entry md5{auth::lane_kernels(auth::LaneHash::kMd5).front(), 1};
  const auth::HashPlan::Entry sha256{auth::lane_kernels(auth::LaneHash::kSha256).front(), 1};
  return auth::HashPlan(std::span(&md5, 1), std::span(&sha256, 1));
}

}  // namespace

Result<std::unique_ptr<World>> World::open(const std::string& directory) {
  std::unique_ptr<World> world(new World());
  BASALT_CHECK_OK(world->build(directory));
  return world;
}

Status World::build(const std::string& directory) {
  storage::EngineOptions options;
  options.directory = directory;
  options.log_segment_bytes = 16u << 20;
  options.bulk_segment_bytes = 16u << 20;
  options.lmdb_map_bytes = uint64_t{1} << 30;
  // Nothing by the clock: under valgrind on a busy machine it would come in the middle of a count.
  options.checkpoint_interval_ms = 3'600'000;
  options.gc_interval_ms = 3'600'000;
  BASALT_TRY(engine, storage::Engine::open(options, clock_));
  engine_ = std::move(engine);
  BASALT_TRY(sealer, auth::Sealer::open(directory + "/seal.key", true));
  sealer_ = std::make_unique<auth::Sealer>(std::move(sealer));
  BASALT_TRY(fabric, shards::Fabric::create(1));
  fabric_ = std::move(fabric);
  BASALT_TRY(loop, reactor::Loop::create());
  loop_ = std::move(loop);
  RunQueue& run_queue = loop_->run_queue();
  io_ = std::make_unique<SyncIo>(run_queue);
  core_ = engine_->attach(0, *io_, run_queue, buffers_);
  mirror_ = std::make_unique<server::ControlMirror>(*sealer_);
  shards_ = std::make_unique<shards::CoreShards>(
      shards::CoreShards::Parts{*fabric_, 0, *engine_, *core_, run_queue, buffers_, *mirror_});
  hashes_ = std::make_unique<auth::HashStation>(run_queue, single_streams());
  pollers_ = {hashes_.get(), shards_.get(), core_.get(), io_.get()};
  gate_ = std::make_unique<auth::Gate>(mirror_->identities, auth::Gate::Options{});
  dispatcher_ = std::make_unique<s3::Dispatcher>(
      s3::Services{*shards_, mirror_->buckets, mirror_->identities, *gate_, clock_, buffers_,
                   options_, hashes_.get()},
      nullptr);
  sessions_ = session::SessionPool::create(*loop_, buffers_, clock_, limits_, *dispatcher_);
  auto load = shards::load_control(*shards_, *mirror_);
  drive(load);
  BASALT_CHECK_OK(load.result());
  mirror_->identities.set_root({.id = "root", .name = "root", .display_name = "root", .root = true},
                               {.access_key = std::string(kAccessKey),
                                .secret_key = std::string(kSecretKey),
                                .account_id = "root"});
  auto stream = std::make_unique<MemoryStream>(run_queue);
  stream_ = stream.get();
  sessions_->serve(std::move(stream));
  while (!stream_->idle()) turn();
  return {};
}

World::~World() {
  if (sessions_) {
    Done drained;
    sessions_->drain(1000, drained);
    while (!drained.done) turn();
  }
  if (core_) {
    Done stopped;
    core_->stop(stopped);
    while (!stopped.done) turn();
  }
  pollers_.clear();
  sessions_.reset();
  dispatcher_.reset();
  gate_.reset();
  hashes_.reset();
  shards_.reset();
  core_.reset();
  io_.reset();
}

bool World::turn() {
  bool any = false;
  for (Poller* poller : pollers_) any |= poller->poll();
  any |= loop_->run_queue().run() != 0;
  // What a poller keeps for a fuller batch (a hash station) leaves when the loop would sleep.
  if (!any) {
    for (Poller* poller : pollers_) any |= !poller->prepare_sleep();
    for (Poller* poller : pollers_) poller->woke();
  }
  return any;
}

std::string World::request(std::string_view method, std::string_view path, std::string_view query,
                           std::string_view body) const {
  const std::string hash =
      auth::to_hex(auth::digest(auth::Algorithm::kSha256, as_bytes(body)).view());
  const std::vector<auth::HeaderView> headers = {
      {"host", kHost}, {"x-amz-content-sha256", hash}, {"x-amz-date", kDateTime}};
  const std::array<std::string_view, 3> names = {"host", "x-amz-content-sha256", "x-amz-date"};
  const std::string authorization = auth::sign_header({.request = {method, path, query, headers},
                                                       .access_key = kAccessKey,
                                                       .secret_key = kSecretKey,
                                                       .region = "us-east-1",
                                                       .service = "s3",
                                                       .date_time = kDateTime,
                                                       .payload_hash = hash,
                                                       .signed_headers = names});
  // The fields an SDK sends beside those it must.
  std::string text = fmt::format(
      "{} {}{}{} HTTP/1.1\r\nHost: {}\r\nAccept-Encoding: identity\r\n"
      "User-Agent: Boto3/1.26.27 Python/3.11.2 Linux/6.1.0 Botocore/1.29.27\r\n"
      "X-Amz-Date: {}\r\nX-Amz-Content-SHA256: {}\r\nAuthorization: {}\r\n",
      method, path, query.empty() ? "" : "?", query, kHost, kDateTime, hash, authorization);
  if (method == "PUT" || method == "POST")
    text += fmt::format("Content-Length: {}\r\n", body.size());
  text += "\r\n";
  text += body;
  return text;
}

int World::ask(std::string_view request) {
  stream_->feed(request);
  while (!stream_->idle()) turn();
  return stream_->status();
}

int World::ask(std::string_view request, std::string& text) {
  text.clear();
  stream_->keep(&text);
  const int status = ask(request);
  stream_->keep(nullptr);
  return status;
}

}  // namespace basalt::bench
