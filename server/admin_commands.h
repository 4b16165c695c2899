// AdminCommands: what basaltctl can ask for. One table of commands; JSON in, JSON out
// (server/admin_socket.h). Core 0.
#pragma once

#include <string>

#include "base/task.h"
#include "protocol/s3/bucket_registry.h"
#include "server/accounts.h"
#include "storage/engine.h"

namespace basalt::server {

class AdminCommands {
 public:
  struct Parts {
    Accounts& accounts;
    const auth::IdentityTable& identities;
    const s3::BucketRegistry& buckets;
    storage::Engine& engine;
    const Clock& clock;
    int64_t started_ms;
    unsigned cores;
    std::string io_name;
    std::string s3_address;
    std::string root_access_key;  // of BASALT_ROOT_ACCESS_KEY: listed as not stored
  };
  explicit AdminCommands(Parts parts) : parts_(std::move(parts)) {}
  Task<std::string> run(std::string line);

 private:
  Parts parts_;
};

}  // namespace basalt::server
