// Server: builds the parts, starts the cores, listens, and stops them in order. Used by basaltd's
// main() and by tests.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "server/config.h"

namespace basalt::server {

class Server {
 public:
  // Opens the data directory (recovering it if needed), starts the cores, makes or loads the root
  // key, listens. Ready when it returns.
  static Result<std::unique_ptr<Server>> start(const Config& config);
  ~Server();

  const std::string& s3_address() const;
  const std::string& admin_address() const;
  // Root credentials made at this start (the first one without BASALT_ROOT_*); empty otherwise.
  struct FirstCredentials {
    std::string access_key, secret_key;
  };
  const FirstCredentials& first_credentials() const;

  Status reload_tls();
  // Stops accepting, waits for the requests under way (drain_timeout_ms), last checkpoint, ends the
  // threads.
  void stop();

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace basalt::server
