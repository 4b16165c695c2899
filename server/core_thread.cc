#include "server/core_thread.h"

#include <fmt/format.h>
#include <pthread.h>
#include <sched.h>

#include "base/log.h"

namespace basalt::server {

namespace {

constexpr size_t kKeptBufferBytes = 64u << 20;

// Pins the calling thread to the n-th core this process may use (containers and taskset restrict
// the set).
void pin_thread(unsigned core) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  unsigned index = core % static_cast<unsigned>(CPU_COUNT(&allowed));
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed) || index-- != 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (pthread_setaffinity_np(pthread_self(), sizeof one, &one) != 0) {
      log_warn("a loop could not be pinned to its core", {{"cpu", cpu}});
    }
    return;
  }
}

// Counts each request, and logs it if the operator wants that.
class Observer final : public s3::RequestObserver {
 public:
  Observer(CoreMetrics& metrics, bool access_log) : metrics_(metrics), access_log_(access_log) {}
  void observed(const s3::RequestRecord& record) override {
    metrics_.observe(record);
    if (!access_log_) return;
    log_info("request", {{"request_id", record.request_id},
                         {"operation", record.operation},
                         {"status", record.status},
                         {"code", record.error_code},
                         {"bucket", record.bucket},
                         {"key", record.key},
                         {"bytes_in", record.bytes_in},
                         {"bytes_out", record.bytes_out},
                         {"us", record.duration_ns / 1000},
                         {"access_key", record.access_key},
                         {"peer", record.peer}});
  }

 private:
  CoreMetrics& metrics_;
  const bool access_log_;
};

class HashTimer final : public auth::HashAlarm {
 public:
  explicit HashTimer(reactor::Loop& loop)
      : timer_(loop, [](void* self) { static_cast<HashTimer*>(self)->station->ring(); }, this) {}
  void arm() override { timer_.arm(auth::HashStation::kPatienceMs); }
  void disarm() override { timer_.disarm(); }

  auth::HashStation* station = nullptr;  // set before it is armed

 private:
  reactor::Timer timer_;
};

struct PromiseCompletion : Completion {
  std::promise<void> promise;
  PromiseCompletion()
      : Completion([](Completion& completion) {
          std::unique_ptr<PromiseCompletion> self(static_cast<PromiseCompletion*>(&completion));
          self->promise.set_value();
        }) {}
};

}  // namespace

void ControlMirror::on_change(storage::Table table, std::string_view name,
                              std::optional<Bytes> meta, uint64_t seq) {
  Status status;
  if (table == storage::Table::kBucket) {
    status = buckets.apply_change(name, meta, seq);
  } else if (name.starts_with("account/") || name.starts_with("key/")) {
    status = identities.apply_change(name, meta);
  }
  if (!status)
    log_error("a control record could not be read",
              {{"name", name}, {"why", status.error().detail}});
}

CoreThread::CoreThread(const Shared& shared, unsigned core, CoreMetrics& metrics)
    : shared_(shared), core_(core), metrics_(metrics) {}

CoreThread::~CoreThread() { stop(); }

Status CoreThread::build() {
  const Config& config = shared_.config;
  parts_ = std::make_unique<Parts>(
      shared_.sealer,
      BufferPool::Limits{.bytes_max = config.buffer_bytes_max, .kept_bytes_max = kKeptBufferBytes});
  Parts& parts = *parts_;
  BASALT_TRY(loop, reactor::Loop::create());
  parts.loop = std::move(loop);
  RunQueue& run_queue = parts.loop->run_queue();
  auto hash_timer = std::make_unique<HashTimer>(*parts.loop);
  parts.hashes = std::make_unique<auth::HashStation>(run_queue, shared_.hash_plan, hash_timer.get(),
                                                     shared_.hash_exchange);
  hash_timer->station = parts.hashes.get();
  parts.hash_alarm = std::move(hash_timer);
  BASALT_TRY(io, storage::make_io(run_queue, config.io == IoChoice::kThreads));
  parts.io = std::move(io);
  io_name_ = parts.io->name();
  parts.core_engine = shared_.engine.attach(core_, *parts.io, run_queue, parts.buffers);
  parts.shards = std::make_unique<shards::CoreShards>(
      shards::CoreShards::Parts{shared_.fabric, core_, shared_.engine, *parts.core_engine,
                                run_queue, parts.buffers, parts.mirror});
  parts.loop->add_poller(*parts.hashes);
  parts.loop->add_poller(*parts.shards);
  parts.loop->add_poller(*parts.core_engine);
  parts.loop->add_poller(*parts.io);  // last: submits what the others queued
  parts.gate = std::make_unique<auth::Gate>(parts.mirror.identities,
                                            auth::Gate::Options{.region = config.region});
  parts.services = std::make_unique<s3::Services>(
      s3::Services{*parts.shards, parts.mirror.buckets, parts.mirror.identities, *parts.gate,
                   shared_.clock, parts.buffers, shared_.s3_options, parts.hashes.get()});
  parts.observer = std::make_unique<Observer>(metrics_, config.access_log);
  parts.dispatcher = std::make_unique<s3::Dispatcher>(*parts.services, parts.observer.get());
  parts.sessions = session::SessionPool::create(*parts.loop, parts.buffers, shared_.clock,
                                                config.session, *parts.dispatcher);
  metrics_.loop = &parts.loop->stats();
  metrics_.sessions = &parts.sessions->stats();
  metrics_.shards = &parts.shards->stats();
  metrics_.engine = &parts.core_engine->stats();
  metrics_.hashes = &parts.hashes->stats();
  return {};
}

void CoreThread::thread_main() {
  pthread_setname_np(pthread_self(), fmt::format("basalt-{}", core_).c_str());
  if (shared_.config.pin_cores) pin_thread(core_);
  Status status = build();
  const bool good = status.has_value();
  built_.set_value(std::move(status));
  if (good) {
    parts_->loop->run();
    stop_returned_.get_future().wait();
  }
  if (parts_) {
    if (parts_->loop) parts_->loop->remove_pollers();
    // Streams and calls are gone (drain, stop_storage); the rest goes in reverse order of its
    // making.
    parts_->listener.reset();
    parts_->sessions.reset();
    parts_->dispatcher.reset();
    parts_->shards.reset();
    parts_->core_engine.reset();
    parts_->io.reset();
    parts_.reset();
  }
  flush_log();
}

void CoreThread::begin_start() {
  running_ = true;
  thread_ = std::thread([this] { thread_main(); });
}

Status CoreThread::wait_built() {
  asked_built_ = true;
  Status status = built_.get_future().get();
  built_good_ = status.has_value();
  return status;
}

Status CoreThread::finish_start() {
  BASALT_CHECK_OK(wait_built());
  return spawn<Status>([this] { return shards::load_control(*parts_->shards, parts_->mirror); })
      .get();
}

Status CoreThread::start() {
  begin_start();
  return finish_start();
}

void CoreThread::run_on_core(std::move_only_function<void()> fn) {
  std::promise<void> done;
  auto future = done.get_future();
  parts_->loop->run_in_loop([&] {
    fn();
    done.set_value();
  });
  future.get();
}

Result<std::string> CoreThread::listen(const std::string& address,
                                       std::shared_ptr<reactor::TlsContext> tls) {
  Result<std::string> bound;
  run_on_core([&] {
    auto listener = reactor::Listener::listen(
        *parts_->loop,
        {.address = address,
         .tls = std::move(tls),
         .connections_max = shared_.config.connections_max},
        [sessions = parts_->sessions.get()](std::unique_ptr<reactor::Stream> stream) {
          sessions->serve(std::move(stream));
        });
    if (!listener) {
      bound = std::unexpected(std::move(listener).error());
      return;
    }
    parts_->listener = std::move(*listener);
    metrics_.listener = &parts_->listener->stats();
    bound = parts_->listener->bound_address();
  });
  return bound;
}

void CoreThread::pause_listening() {
  run_on_core([&] {
    if (parts_->listener) parts_->listener->pause();
  });
}

std::future<void> CoreThread::drain() {
  auto* drained = new PromiseCompletion;
  auto future = drained->promise.get_future();
  parts_->loop->run_in_loop(
      [this, drained] { parts_->sessions->drain(shared_.config.drain_timeout_ms, *drained); });
  return future;
}

std::future<void> CoreThread::stop_storage() {
  auto* stopped = new PromiseCompletion;
  auto future = stopped->promise.get_future();
  parts_->loop->run_in_loop([this, stopped] { parts_->core_engine->stop(*stopped); });
  return future;
}

void CoreThread::stop() {
  if (!running_) return;
  running_ = false;
  // A start that failed on another core may not have asked this one yet.
  if (!asked_built_) (void)wait_built();
  if (built_good_) {
    parts_->loop->stop();
    stop_returned_.set_value();
  }
  thread_.join();
}

}  // namespace basalt::server
