// AdminSocket: JSON over the Unix socket DIR/admin.sock, for basaltctl. Runs on core 0.
//
// One request object a line in, one answer object a line out, any number on a connection:
//   {"command":"account.create","name":"alice"}  ->  {"ok":true,"account":{...}}  or
//   {"ok":false,"error":"..."}
// The peer's uid (SO_PEERCRED) is its authentication: root, or the user the server runs as.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/task.h"
#include "reactor/listener.h"

namespace basalt::server {

constexpr size_t kAdminRequestBytesMax = 64 * 1024;
constexpr uint64_t kAdminIdleTimeoutMs = 60'000;

class AdminSocket {
 public:
  // Takes the request line, gives the answer line (without the line end).
  using Handler = std::function<Task<std::string>(std::string)>;

  static Result<std::unique_ptr<AdminSocket>> listen(reactor::Loop& loop, const std::string& path,
                                                     Handler handler);
  ~AdminSocket();
  // Aborts the connections; completes when none is left.
  void stop(Completion& stopped);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace basalt::server
