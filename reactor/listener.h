// Listener: accepts on one address for one loop (SO_REUSEPORT: each core has its own), TCP or Unix.
//
// Accept storms at EMFILE: a reserve descriptor closes the surplus connection, and accepting pauses
// 100 ms. connections_max is per loop; beyond it new connections are closed at once (counted).
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "reactor/loop.h"
#include "reactor/stream.h"

namespace basalt::reactor {

// A server certificate and key shared by the listeners; reload() swaps in new files for later
// handshakes (SIGHUP). TLS 1.2 and 1.3, no renegotiation, no compression. Thread-safe.
class TlsContext {
 public:
  virtual ~TlsContext() = default;
  static Result<std::shared_ptr<TlsContext>> create(const std::string& certificate_chain_file,
                                                    const std::string& key_file);
  // From any thread; reads files. Connections that exist keep the certificate they began with.
  virtual Status reload() = 0;  // on error the old certificate stays in use
};

struct ListenOptions {
  // "127.0.0.1:9000", "[::]:9000" (IPv4 too), "localhost:9000", "unix:/path/admin.sock" (mode 0600;
  // a stale socket file of a dead process is replaced, a live one is kBusy). No names are resolved.
  std::string address;
  bool reuse_port = true;           // TCP
  std::shared_ptr<TlsContext> tls;  // null: plain
  uint32_t connections_max = 16384;
  uint64_t tls_handshake_timeout_ms = 10'000;
  int backlog = 1024;
};

struct ListenerStats {
  std::atomic<uint64_t> accepted{0}, refused_full{0}, accept_errors{0}, tls_failures{0}, open{0};
};

class Listener {
 public:
  using Accepted =
      std::move_only_function<void(std::unique_ptr<Stream>)>;  // TLS: after the handshake
  static constexpr uint64_t kPauseMs = 100;  // after EMFILE, ENFILE, ENOBUFS, ENOMEM
  virtual ~Listener() = default;             // stops listening; accepted streams live on
  static Result<std::unique_ptr<Listener>> listen(Loop& loop, const ListenOptions& options,
                                                  Accepted accepted);
  virtual std::string bound_address() const = 0;  // with the port the kernel chose for port 0
  // Graceful stop: closes the listening socket (new connections are refused by the kernel or go to
  // another core's listener); connections that were accepted and handshakes under way go on. Not to
  // be undone.
  virtual void pause() = 0;
  virtual const ListenerStats& stats() const = 0;
};

}  // namespace basalt::reactor
