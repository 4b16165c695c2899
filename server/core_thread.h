// CoreThread: one core: its thread, its loop, and everything that lives on it, built and torn down
// on that thread.
#pragma once

#include <future>
#include <memory>
#include <string>
#include <thread>

#include "auth/hash_station.h"
#include "auth/identity.h"
#include "auth/sigv4.h"
#include "base/buffer.h"
#include "base/clock.h"
#include "base/result.h"
#include "protocol/s3/bucket_registry.h"
#include "protocol/s3/dispatch.h"
#include "protocol/session/exchange.h"
#include "reactor/listener.h"
#include "reactor/loop.h"
#include "server/config.h"
#include "server/metrics.h"
#include "shards/core.h"
#include "shards/fabric.h"
#include "storage/engine.h"

namespace basalt::server {

// Keeps this core's buckets and identities in step with the committed control state.
class ControlMirror final : public shards::ControlListener {
 public:
  explicit ControlMirror(const auth::Sealer& sealer) : identities(sealer) {}
  void on_change(storage::Table table, std::string_view name, std::optional<Bytes> meta,
                 uint64_t seq) override;

  s3::BucketRegistry buckets;
  auth::IdentityTable identities;
};

class CoreThread {
 public:
  struct Shared {
    const Config& config;
    const s3::S3Options& s3_options;
    storage::Engine& engine;
    shards::Fabric& fabric;
    const auth::Sealer& sealer;
    const Clock& clock;
    const auth::HashPlan& hash_plan;
    auth::HashExchange* hash_exchange;  // null: there is one core
  };
  CoreThread(const Shared& shared, unsigned core, CoreMetrics& metrics);
  ~CoreThread();  // stop() was called, or start() failed

  // Starts the thread and waits until its loop runs and its copy of the control state is loaded.
  Status start();
  void begin_start();  // the two halves of start(), so that cores load side by side
  Status finish_start();

  // Runs fn on the core's thread and waits for it.
  void run_on_core(std::move_only_function<void()> fn);
  // Starts the coroutine on the core's thread; the future is set when it ends.
  template <class T>
  std::future<T> spawn(std::move_only_function<Task<T>()> make);

  // Listens for S3; the address the kernel gave.
  Result<std::string> listen(const std::string& address, std::shared_ptr<reactor::TlsContext> tls);
  void pause_listening();
  // Waits for the requests under way, at most the drain timeout.
  std::future<void> drain();
  // Writes what is under way, last checkpoint.
  std::future<void> stop_storage();
  void stop();  // ends the loop and joins

  struct Parts;
  Parts& parts() { return *parts_; }  // on the core's thread
  std::string_view io_name() const { return io_name_; }

 private:
  void thread_main();
  Status build();
  Status wait_built();

  Shared shared_;
  const unsigned core_;
  CoreMetrics& metrics_;
  std::thread thread_;
  std::promise<Status> built_;
  std::promise<void> stop_returned_;  // the loop must outlive the call that stops it
  std::unique_ptr<Parts> parts_;
  std::string io_name_;
  bool running_ = false;
  bool asked_built_ = false;
  bool built_good_ = false;
};

// What lives on the core, in the order it is built.
struct CoreThread::Parts {
  std::unique_ptr<reactor::Loop> loop;
  BufferPool buffers;
  std::unique_ptr<auth::HashAlarm> hash_alarm;
  std::unique_ptr<auth::HashStation> hashes;
  std::unique_ptr<storage::Io> io;
  std::unique_ptr<storage::CoreEngine> core_engine;
  ControlMirror mirror;
  std::unique_ptr<shards::CoreShards> shards;
  std::unique_ptr<auth::Gate> gate;
  std::unique_ptr<s3::Services> services;
  std::unique_ptr<s3::RequestObserver> observer;
  std::unique_ptr<s3::Dispatcher> dispatcher;
  std::unique_ptr<session::SessionPool> sessions;
  std::unique_ptr<reactor::Listener> listener;

  Parts(const auth::Sealer& sealer, BufferPool::Limits limits) : buffers(limits), mirror(sealer) {}
};

namespace detail {
template <class T>
Detached run_task(std::move_only_function<Task<T>()> make,
                  std::shared_ptr<std::promise<T>> promise) {
  if constexpr (std::is_void_v<T>) {
    co_await make();
    promise->set_value();
  } else {
    promise->set_value(co_await make());
  }
}
}  // namespace detail

template <class T>
std::future<T> CoreThread::spawn(std::move_only_function<Task<T>()> make) {
  auto promise = std::make_shared<std::promise<T>>();
  auto future = promise->get_future();
  parts_->loop->run_in_loop([make = std::move(make), promise]() mutable {
    detail::run_task<T>(std::move(make), std::move(promise));
  });
  return future;
}

}  // namespace basalt::server
