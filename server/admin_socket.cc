#include "server/admin_socket.h"

#include <fmt/format.h>
#include <unistd.h>

#include <set>

#include "base/log.h"

namespace basalt::server {

namespace {

constexpr uint32_t kAdminConnectionsMax = 64;
constexpr uint64_t kAdminWriteTimeoutMs = 10'000;

bool peer_allowed(std::string_view peer) {
  const std::string own = fmt::format("unix:uid={}", geteuid());
  return peer == "unix:uid=0" || peer == own;
}

Call<reactor::ReadCall> read_some(reactor::Stream& stream, MutableBytes into) {
  return Call<reactor::ReadCall>([&](reactor::ReadCall& call) { stream.read(call); }, into,
                                 kAdminIdleTimeoutMs);
}

Task<Status> write_all(reactor::Stream& stream, std::string_view text) {
  Call<reactor::WriteCall> call([&](reactor::WriteCall& write) { stream.write(write); },
                                std::initializer_list<Bytes>{as_bytes(text)}, kAdminWriteTimeoutMs);
  co_return co_await call;
}

}  // namespace

struct AdminSocket::Impl {
  reactor::Loop& loop;
  Handler handler;
  std::unique_ptr<reactor::Listener> listener;
  std::set<reactor::Stream*> open;
  Completion* stopped = nullptr;

  Impl(reactor::Loop& l, Handler h) : loop(l), handler(std::move(h)) {}

  Task<void> converse(reactor::Stream& stream) {
    std::string pending;
    uint8_t bytes[4096];
    while (true) {
      auto got = co_await read_some(stream, bytes);
      if (!got || *got == 0) co_return;
      pending.append(reinterpret_cast<const char*>(bytes), *got);
      size_t end = 0;
      while ((end = pending.find('\n')) != std::string::npos) {
        std::string line = pending.substr(0, end);
        pending.erase(0, end + 1);
        std::string answer = co_await handler(std::move(line));
        answer.push_back('\n');
        if (!co_await write_all(stream, answer)) co_return;
      }
      if (pending.size() > kAdminRequestBytesMax) {
        [[maybe_unused]] auto ignored = co_await write_all(
            stream, "{\"ok\":false,\"error\":\"the request is longer than 64 KiB\"}\n");
        co_return;
      }
    }
  }

  Detached serve(std::unique_ptr<reactor::Stream> stream) {
    open.insert(stream.get());
    if (peer_allowed(stream->peer())) {
      co_await converse(*stream);
    } else {
      log_warn("admin socket: peer refused", {{"peer", stream->peer()}});
      [[maybe_unused]] auto ignored = co_await write_all(
          *stream, "{\"ok\":false,\"error\":\"run as root or as the server's user\"}\n");
    }
    open.erase(stream.get());
    stream.reset();
    if (open.empty() && stopped != nullptr) loop.run_queue().post(*std::exchange(stopped, nullptr));
  }
};

Result<std::unique_ptr<AdminSocket>> AdminSocket::listen(reactor::Loop& loop,
                                                         const std::string& path, Handler handler) {
  std::unique_ptr<AdminSocket> socket(new AdminSocket);
  socket->impl_ = std::make_unique<Impl>(loop, std::move(handler));
  Impl* impl = socket->impl_.get();
  BASALT_TRY(
      listener,
      reactor::Listener::listen(
          loop, {.address = "unix:" + path, .connections_max = kAdminConnectionsMax},
          [impl](std::unique_ptr<reactor::Stream> stream) { impl->serve(std::move(stream)); }));
  impl->listener = std::move(listener);
  return socket;
}

AdminSocket::~AdminSocket() = default;

void AdminSocket::stop(Completion& stopped) {
  impl_->listener.reset();
  if (impl_->open.empty()) {
    impl_->loop.run_queue().post(stopped);
    return;
  }
  impl_->stopped = &stopped;
  for (reactor::Stream* stream : impl_->open) stream->abort();
}

}  // namespace basalt::server
