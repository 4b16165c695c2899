// Dispatcher: an HTTP request in, S3's answer out. One per core; the session layer calls it.
//
// The way of a request: request id -> target taken apart (request.h) -> row of the table
// (routes.cc) -> the gate (auth/sigv4.h), once -> bucket -> access decision (access.h) -> body, for
// rows that take XML -> handler -> answer. Error XML, request id fields, the log line and the
// observer's record are written here and nowhere else.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/task.h"
#include "protocol/s3/error.h"
#include "protocol/s3/op.h"
#include "protocol/session/exchange.h"

namespace basalt::s3 {

// One finished request, for metrics and the access log. Views live until observed() returns.
struct RequestRecord {
  std::string_view operation;  // the row's name; "Unknown" if no row matched, "BadHead" if the head
                               // could not be parsed, "CorsPreflight"
  int status = 0;              // 0: the client went away before an answer
  std::string_view error_code;  // "" if none
  uint64_t bytes_in = 0;        // of the body, after the transfer coding
  uint64_t bytes_out = 0;       // of the body
  uint64_t duration_ns = 0;
  std::string_view bucket;
  std::string_view key;
  std::string_view request_id;
  std::string_view access_key;  // "" if anonymous or not verified
  std::string_view account_id;  // likewise
  std::string_view peer;
  std::string_view method;
  std::string_view
      target;  // as sent; may hold a presigned URL's signature: cut before it is logged
  std::string_view user_agent;
  bool tls = false;
};

struct RequestObserver {
  virtual ~RequestObserver() = default;
  virtual void observed(const RequestRecord& record) = 0;
};

class Dispatcher : public session::Handler {
 public:
  // `observer` may be null; both outlive the dispatcher's last request.
  Dispatcher(const Services& services, RequestObserver* observer);
  ~Dispatcher() override;

  Task<void> handle(session::Exchange& exchange) override;
  Task<void> bad_head(session::Exchange& exchange, int status, std::string_view reason) override;

 private:
  using RequestId = std::array<char, 16>;
  struct Scratch;

  RequestId next_request_id();
  std::unique_ptr<Scratch> take_scratch();
  void give_back(std::unique_ptr<Scratch> scratch);

  // Everything up to the body; fills scratch. No I/O.
  S3Result<> admit(session::Exchange& exchange, Scratch& scratch);
  Task<S3Result<Reply>> serve(session::Exchange& exchange, Scratch& scratch,
                              std::string_view request_id);
  void add_common_fields(session::Exchange& exchange, std::string_view request_id) const;
  // Fills the response head; the body to send.
  std::string error_answer(session::Exchange& exchange, const S3Request& request, S3Error& error,
                           std::string_view request_id) const;

  Services services_;
  RequestObserver* observer_;
  std::string host_id_;
  uint64_t id_base_;
  uint64_t id_count_ = 0;
  std::vector<std::unique_ptr<Scratch>> spare_;
};

// <Error> in S3's form. `resource` is the request's path, decoded.
std::string error_xml(const S3Error& error, std::string_view resource, std::string_view request_id,
                      std::string_view host_id);

}  // namespace basalt::s3
