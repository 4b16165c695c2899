// World: one core of a server with everything from the session to the storage engine, but without
// sockets, without a second core and without time: requests go in as bytes, on the caller's thread.
//
// What it leaves out of a request are the kernel's part (socket, io_uring, flush) and the sleeping
// of the loop; all the rest is the code of basaltd, put together as server/core_thread.cc does.
// With SyncIo and a clock that stands still two runs execute the same instructions, which is what
// tests/instructions and the allocation counts are made of.
//
// Thread: one; the engine's own helper threads run beside it and do nothing of note.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "auth/hash_station.h"
#include "auth/identity.h"
#include "auth/sigv4.h"
#include "base/buffer.h"
#include "base/clock.h"
#include "base/result.h"
#include "bench/paths/memory_stream.h"
#include "protocol/s3/dispatch.h"
#include "protocol/session/exchange.h"
#include "reactor/loop.h"
#include "server/core_thread.h"
#include "shards/core.h"
#include "shards/fabric.h"
#include "storage/engine.h"
#include "storage/io.h"

namespace basalt::bench {

class World {
 public:
  static constexpr int64_t kNowMs = 1'795'226'460'123;  // 2026-11-21T02:01:00.123Z
  static constexpr std::string_view kDateTime = "20261121T020100Z";

  // `directory` holds the data; formatted if it is empty.
  static Result<std::unique_ptr<World>> open(const std::string& directory);
  ~World();  // a clean stop: afterwards everything is in the index

  // A whole request, signed with the SHA-256 of its body in the header.
  std::string request(std::string_view method, std::string_view path, std::string_view query = {},
                      std::string_view body = {}) const;
  // Feeds it to the one connection and turns until it is answered; the status.
  int ask(std::string_view request);
  // The same, with all that was sent in `text`.
  int ask(std::string_view request, std::string& text);

  const auth::Gate& gate() const { return *gate_; }
  shards::CoreShards& shards() { return *shards_; }
  storage::CoreEngine& engine_core() { return *core_; }
  bool turn();  // true: something was done
  template <class T>
  void drive(Task<T>& task) {
    task.start();
    while (!task.done()) turn();
  }

 private:
  World() = default;
  Status build(const std::string& directory);

  ManualClock clock_{kNowMs};
  s3::S3Options options_;
  session::SessionLimits limits_;
  BufferPool buffers_;
  std::unique_ptr<reactor::Loop> loop_;
  std::unique_ptr<storage::Engine> engine_;
  std::unique_ptr<auth::Sealer> sealer_;
  std::unique_ptr<shards::Fabric> fabric_;
  std::unique_ptr<storage::Io> io_;
  std::unique_ptr<storage::CoreEngine> core_;
  std::unique_ptr<server::ControlMirror> mirror_;
  std::unique_ptr<shards::CoreShards> shards_;
  std::unique_ptr<auth::HashStation> hashes_;
  std::unique_ptr<auth::Gate> gate_;
  std::unique_ptr<s3::Dispatcher> dispatcher_;
  std::unique_ptr<session::SessionPool> sessions_;
  MemoryStream* stream_ = nullptr;
  std::vector<Poller*> pollers_;
};

}  // namespace basalt::bench
