#include "reactor/listener.h"

#include <event2/event.h>
#include <event2/event_struct.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <unordered_map>

#include "base/log.h"
#include "reactor/address.h"
#include "reactor/plain_stream.h"
#include "reactor/tls.h"

namespace basalt::reactor {
namespace {

// Accepted in one callback before the other sockets get their turn.
constexpr int kAcceptBatch = 64;

int open_reserve() { return open("/dev/null", O_RDONLY | O_CLOEXEC); }

// What outlives the Listener while a callback or a deferred function still holds it.
struct Core {
  Listener::Accepted accepted;
  bool closed = false;
  std::unordered_map<TlsStream*, std::unique_ptr<TlsStream>> handshaking;
};

class SocketListener final : public Listener {
 public:
  SocketListener(Loop& loop, const ListenOptions& options, Accepted accepted)
      : loop_(loop),
        options_(options),
        pause_timer_(loop, [](void* self) { static_cast<SocketListener*>(self)->resume(); }, this) {
    core_->accepted = std::move(accepted);
  }

  ~SocketListener() override {
    core_->closed = true;
    close_socket();
    core_->handshaking.clear();
    if (reserve_fd_ >= 0) close(reserve_fd_);
  }

  Status open() {
    BASALT_TRY(address, parse_address(options_.address));
    unix_ = address.family() == AF_UNIX;
    fd_ = socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd_ < 0) return fail_errno(errno, "socket");
    const int one = 1;
    const int zero = 0;
    if (unix_) {
      BASALT_CHECK_OK(remove_stale(address));
      // The file gets the socket inode's mode; no moment at which others may connect.
      if (fchmod(fd_, 0600) != 0) return fail_errno(errno, "fchmod of the socket");
    } else {
      setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
      if (options_.reuse_port && setsockopt(fd_, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) != 0) {
        return fail_errno(errno, "SO_REUSEPORT");
      }
      if (address.family() == AF_INET6)
        setsockopt(fd_, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
      setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);  // accepted sockets inherit it
    }
    if (bind(fd_, address.get(), address.size) != 0) {
      return fail_errno(errno, fmt::format("bind to {}", options_.address));
    }
    if (unix_) {
      unix_path_ = address.unix_path;
      bound_ = options_.address;
    } else {
      sockaddr_storage bound{};
      socklen_t size = sizeof bound;
      getsockname(fd_, reinterpret_cast<sockaddr*>(&bound), &size);
      bound_ = address_text(bound);
    }
    if (::listen(fd_, options_.backlog) != 0)
      return fail_errno(errno, fmt::format("listen on {}", options_.address));
    reserve_fd_ = open_reserve();
    event_assign(&event_, loop_.base(), fd_, EV_READ | EV_PERSIST, &SocketListener::on_readable,
                 this);
    if (event_add(&event_, nullptr) != 0) return fail(Code::kIo, "event_add of the listener");
    watched_ = true;
    return {};
  }

  std::string bound_address() const override { return bound_; }
  void pause() override { close_socket(); }
  const ListenerStats& stats() const override { return *stats_; }

 private:
  static Status remove_stale(const SocketAddress& address) {
    struct stat status;
    if (lstat(address.unix_path.c_str(), &status) != 0) {
      return errno == ENOENT
                 ? Status()
                 : Status(fail_errno(errno, fmt::format("stat of {}", address.unix_path)));
    }
    if (!S_ISSOCK(status.st_mode)) {
      return fail(Code::kInvalid, fmt::format("{} exists and is not a socket", address.unix_path));
    }
    const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (probe < 0) return fail_errno(errno, "socket");
    const bool refused = connect(probe, address.get(), address.size) != 0 && errno == ECONNREFUSED;
    close(probe);
    if (!refused) return fail(Code::kBusy, fmt::format("{} is in use", address.unix_path));
    if (unlink(address.unix_path.c_str()) != 0 && errno != ENOENT) {
      return fail_errno(errno, fmt::format("unlink of {}", address.unix_path));
    }
    return {};
  }

  void close_socket() {
    pause_timer_.disarm();
    if (watched_) event_del(&event_);
    watched_ = false;
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
    if (!unix_path_.empty()) unlink(unix_path_.c_str());
    unix_path_.clear();
  }

  void resume() {
    if (fd_ < 0 || watched_) return;
    if (reserve_fd_ < 0) reserve_fd_ = open_reserve();
    watched_ = event_add(&event_, nullptr) == 0;
    if (!watched_) pause_timer_.arm(kPauseMs);
  }

  void pause_after_error(int error) {
    stats_->accept_errors.fetch_add(1, std::memory_order_relaxed);
    if ((error == EMFILE || error == ENFILE) && reserve_fd_ >= 0) {
      // Gives one waiting client an end instead of silence, and the queue room.
      close(reserve_fd_);
      const int surplus = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC);
      if (surplus >= 0) close(surplus);
      reserve_fd_ = open_reserve();
    }
    // At most one line in 10 s: the pauses follow each other while the shortage lasts.
    if (last_warned_ns_ == 0 || loop_.now_ns() - last_warned_ns_ > 10'000'000'000) {
      last_warned_ns_ = loop_.now_ns();
      log_warn("accepting pauses", {{"address", bound_}, {"errno", error}});
    }
    event_del(&event_);
    watched_ = false;
    pause_timer_.arm(kPauseMs);
  }

  static void on_readable(evutil_socket_t, short, void* self) {
    auto& listener = *static_cast<SocketListener*>(self);
    listener.loop_.now_ns();
    const std::shared_ptr<Core> core = listener.core_;  // `accepted` might destroy the listener
    for (int i = 0; i < kAcceptBatch && !core->closed && listener.watched_; ++i) {
      if (!listener.accept_one()) return;
    }
  }

  bool accept_one() {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    const int fd =
        accept4(fd_, reinterpret_cast<sockaddr*>(&address), &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == EAGAIN) return false;
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        pause_after_error(errno);
        return false;
      }
      // ECONNABORTED and the network errors of accept(2) concern this one connection.
      stats_->accept_errors.fetch_add(1, std::memory_order_relaxed);
      return errno == EINTR || errno == ECONNABORTED || errno == EPROTO || errno == EPERM;
    }
    if (stats_->open.load(std::memory_order_relaxed) >= options_.connections_max) {
      stats_->refused_full.fetch_add(1, std::memory_order_relaxed);
      close(fd);
      return true;
    }
    stats_->accepted.fetch_add(1, std::memory_order_relaxed);
    if (unix_) address.ss_family = AF_UNIX;
    const PeerName peer(address, fd);
    stats_->open.fetch_add(1, std::memory_order_relaxed);  // the stream takes it back when it goes
    if (!options_.tls) {
      core_->accepted(std::make_unique<PlainStream>(loop_, fd, peer, stats_));
      return true;
    }
    const auto context = static_cast<OpensslContext&>(*options_.tls).current();
    auto stream = TlsStream::create(loop_, fd, peer, stats_, *context);
    if (!stream) {
      close(fd);
      stats_->open.fetch_sub(1, std::memory_order_relaxed);
      stats_->tls_failures.fetch_add(1, std::memory_order_relaxed);
      return true;
    }
    TlsStream& handshaking = *stream;
    core_->handshaking.emplace(&handshaking, std::move(stream));
    handshaking.start_handshake(options_.tls_handshake_timeout_ms,
                                [this, raw = &handshaking](bool ok) { handshake_done(*raw, ok); });
    return true;
  }

  // Runs in the stream's callback; the stream moves on, or dies, after it. (The listener lives: it
  // owns the handshaking ones.)
  void handshake_done(TlsStream& stream, bool ok) {
    if (!ok) stats_->tls_failures.fetch_add(1, std::memory_order_relaxed);
    loop_.defer([core = core_, raw = &stream, ok] {
      auto node = core->handshaking.extract(raw);
      if (!node.empty() && ok && !core->closed) core->accepted(std::move(node.mapped()));
    });
  }

  Loop& loop_;
  const ListenOptions options_;
  std::shared_ptr<Core> core_ = std::make_shared<Core>();
  std::shared_ptr<ListenerStats> stats_ = std::make_shared<ListenerStats>();
  Timer pause_timer_;
  event event_;
  bool watched_ = false;
  bool unix_ = false;
  int fd_ = -1;
  int reserve_fd_ = -1;
  uint64_t last_warned_ns_ = 0;
  std::string bound_;
  std::string unix_path_;
};

}  // namespace

Result<std::unique_ptr<Listener>> Listener::listen(Loop& loop, const ListenOptions& options,
                                                   Accepted accepted) {
  auto listener = std::make_unique<SocketListener>(loop, options, std::move(accepted));
  BASALT_CHECK_OK(listener->open());
  return listener;
}

}  // namespace basalt::reactor
