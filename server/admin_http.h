// AdminHttp: the admin HTTP listener's handler: /metrics, /-/healthy, /-/ready. No secrets, nothing
// that changes state.
#pragma once

#include <atomic>
#include <functional>
#include <string>

#include "protocol/session/exchange.h"

namespace basalt::server {

class AdminHttp final : public session::Handler {
 public:
  struct Sources {
    std::function<std::string()> metrics_text;
    std::function<bool()> ready;    // serving requests, not stopping
    std::function<bool()> healthy;  // the engine takes writes
  };
  explicit AdminHttp(Sources sources) : sources_(std::move(sources)) {}

  Task<void> handle(session::Exchange& exchange) override;
  Task<void> bad_head(session::Exchange& exchange, int status, std::string_view reason) override;

 private:
  Sources sources_;
};

}  // namespace basalt::server
