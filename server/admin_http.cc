#include "server/admin_http.h"

namespace basalt::server {

Task<void> AdminHttp::handle(session::Exchange& exchange) {
  http::ResponseHead& head = exchange.response();
  head.add("X-Content-Type-Options", "nosniff");
  head.add("Cache-Control", "no-store");
  const http::RequestHead& request = exchange.head();
  std::string body;
  head.status = 200;
  std::string_view type = "text/plain; charset=utf-8";
  if (request.method != http::Method::kGet && request.method != http::Method::kHead) {
    head.status = 405;
    head.add("Allow", "GET, HEAD");
    body = "method not allowed\n";
  } else if (request.path == "/metrics") {
    type = "text/plain; version=0.0.4; charset=utf-8";
    body = sources_.metrics_text();
  } else if (request.path == "/-/healthy") {
    const bool good = sources_.healthy();
    head.status = good ? 200 : 503;
    body = good ? "ok\n" : "degraded\n";
  } else if (request.path == "/-/ready") {
    const bool good = sources_.ready();
    head.status = good ? 200 : 503;
    body = good ? "ready\n" : "not ready\n";
  } else {
    head.status = 404;
    body = "not found\n";
  }
  head.add("Content-Type", type);
  [[maybe_unused]] auto sent = co_await exchange.send(body);
}

Task<void> AdminHttp::bad_head(session::Exchange& exchange, int status, std::string_view reason) {
  http::ResponseHead& head = exchange.response();
  head.status = status;
  head.add("Content-Type", "text/plain; charset=utf-8");
  const std::string body = std::string(reason) + "\n";
  [[maybe_unused]] auto sent = co_await exchange.send(body);
}

}  // namespace basalt::server
