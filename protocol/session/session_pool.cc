#include "base/check.h"
#include "protocol/session/connection.h"
#include "protocol/session/exchange.h"

namespace basalt::session {
namespace {

// Pipelined requests a connection may have answered in a row before the others get their turn.
constexpr int kInARowMax = 8;

struct YieldCall : Completion {
  bool result = true;
};

class Pool final : public SessionPool {
 public:
  Pool(reactor::Loop& loop, BufferPool& buffers, const Clock& clock, const SessionLimits& limits,
       Handler& handler)
      : shared_{loop, buffers, clock, limits, {}, false},
        handler_(handler),
        drain_timer_(loop, [](void* self) { static_cast<Pool*>(self)->abort_all(); }, this) {}

  ~Pool() override { BASALT_CHECK(first_ == nullptr); }

  void serve(std::unique_ptr<reactor::Stream> stream) override {
    if (shared_.draining) return;
    auto* connection = new Connection(shared_, std::move(stream));
    connection->next = first_;
    if (first_ != nullptr) first_->link = &connection->next;
    first_ = connection;
    connection->link = &first_;
    bump(shared_.stats.open);
    run(*this, *connection);
  }

  void drain(uint64_t deadline_ms, Completion& drained) override {
    BASALT_CHECK(drained_ == nullptr);
    shared_.draining = true;
    drained_ = &drained;
    for (Connection* connection = first_; connection != nullptr; connection = connection->next) {
      if (connection->idle) connection->stream().abort();  // completes through the run queue
    }
    if (first_ == nullptr) return finish_drain();
    drain_timer_.arm(deadline_ms);
  }

  const SessionStats& stats() const override { return shared_.stats; }

 private:
  // The life of a connection. It owns itself; the pool knows it for drain().
  static Detached run(Pool& pool, Connection& connection) {
    Shared& shared = pool.shared_;
    int in_a_row = 0;
    for (;;) {
      if (!connection.inbox().has_raw()) {
        if (shared.draining) break;
        connection.inbox().release();
        in_a_row = 0;
        connection.idle = true;
        const Status readable = co_await Call<reactor::WaitCall>(
            [&connection](reactor::WaitCall& call) { connection.stream().wait_readable(call); },
            shared.limits.idle_timeout_ms);
        connection.idle = false;
        if (!readable) break;
      } else if (++in_a_row >= kInARowMax) {
        in_a_row = 0;
        co_await Call<YieldCall>(
            [&shared](YieldCall& call) { shared.loop.run_queue().post(call); });
      }

      Connection::HeadStep step = connection.try_head();
      while (step == Connection::HeadStep::kWait || step == Connection::HeadStep::kNoBuffer) {
        const bool arrived = co_await connection.wait_for_head(step);
        step = arrived ? connection.try_head() : Connection::HeadStep::kClosed;
      }
      if (step == Connection::HeadStep::kClosed) break;
      if (step == Connection::HeadStep::kBad) {
        bump(shared.stats.bad_heads);
        co_await pool.handler_.bad_head(connection, connection.bad_status(),
                                        connection.bad_reason());
      } else {
        bump(shared.stats.requests);
        if (connection.continue_at_once() && !co_await connection.send_continue()) break;
        co_await pool.handler_.handle(connection);
      }

      Connection::After after = connection.after_response();
      if (after == Connection::After::kDrain) {
        after = co_await connection.drain_body() ? Connection::After::kNext
                                                 : Connection::After::kLinger;
      }
      if (after == Connection::After::kLinger)
        connection.stream().close_lingering(shared.limits.linger_ms);
      if (after != Connection::After::kNext) break;
      connection.end_request();
    }
    pool.closed(connection);
  }

  void closed(Connection& connection) {
    *connection.link = connection.next;
    if (connection.next != nullptr) connection.next->link = connection.link;
    delete &connection;
    bump(shared_.stats.open, -1);
    if (first_ == nullptr && drained_ != nullptr) finish_drain();
  }

  void finish_drain() {
    drain_timer_.disarm();
    shared_.loop.run_queue().post(*std::exchange(drained_, nullptr));
  }

  void abort_all() {
    for (Connection* connection = first_; connection != nullptr; connection = connection->next) {
      connection->stream().abort();
    }
  }

  Shared shared_;
  Handler& handler_;
  reactor::Timer drain_timer_;
  Connection* first_ = nullptr;
  Completion* drained_ = nullptr;
};

}  // namespace

std::unique_ptr<SessionPool> SessionPool::create(reactor::Loop& loop, BufferPool& buffers,
                                                 const Clock& clock, const SessionLimits& limits,
                                                 Handler& handler) {
  return std::make_unique<Pool>(loop, buffers, clock, limits, handler);
}

}  // namespace basalt::session
