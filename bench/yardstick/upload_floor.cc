// upload-floor: what storing a large body must cost on this machine, and nothing else. A server for
// the load generator: every PUT's body is received into huge pages, hashed in the lanes of
// auth/hash_lanes.h, written by O_DIRECT and io_uring into a file that has been written before, and
// answered after one fdatasync. No signature is verified, no name, index, log, CRC or limit exists.
//
// The streams hash in step: nothing is hashed until every connection has something, so the lanes
// are as full as connections can fill them. That is the least processor time, not the best
// throughput.
#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <liburing.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <csignal>
#include <cstring>
#include <memory>
#include <optional>
#include <string_view>

#include "auth/digest.h"
#include "auth/hash_station.h"
#include "base/buffer.h"
#include "base/check.h"
#include "bench/yardstick/common.h"

namespace basalt::bench::yardstick {
namespace {

constexpr size_t kPieceBytes = 1u << 20;
constexpr size_t kPiecesMax = 4;  // of a body in memory, as the server has
constexpr uint64_t kFileBytes = 256u << 20;
constexpr size_t kAlignment = 4096;
constexpr size_t kHeadBytesMax = 16 * 1024;
constexpr size_t kHeadReadBytes = 2048;
// So long the streams wait for one that has nothing: only at the end of a measurement.
constexpr int kPatienceMs = 20;
constexpr uint32_t kFlush = 0xff;

constexpr std::array<uint32_t, 4> kMd5Start = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
constexpr std::array<uint32_t, 8> kSha256Start = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                                  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

struct Connection {
  int fd = -1;
  uint32_t number = 0;
  bool gone = false;
  bool watched = true;
  std::string head;
  bool in_body = false;
  uint64_t length = 0, received = 0, hashed = 0, handed_over = 0;
  uint64_t place = 0;  // in the file
  unsigned writes = 0;
  bool flushing = false, flushed = false;
  std::array<bool, kPiecesMax> writing{};
  std::vector<Buffer> pieces;
  std::array<uint32_t, 4> md5;
  std::array<uint32_t, 8> sha256;

  uint8_t* at(uint64_t position) {
    return pieces[position / kPieceBytes % pieces.size()].data() + position % kPieceBytes;
  }
  // What may be received now, in one place.
  MutableBytes room() {
    const uint64_t slot = received / kPieceBytes;
    if (slot >= pieces.size()) {
      const uint64_t before = (slot - pieces.size() + 1) * kPieceBytes;  // ends what was there
      if (writing[slot % pieces.size()] || hashed < before) return {};
    }
    return {at(received), std::min(kPieceBytes - received % kPieceBytes, length - received)};
  }
  size_t hashable() const {
    if (!in_body) return 0;
    const uint64_t piece_end = (hashed / kPieceBytes + 1) * kPieceBytes;
    return (std::min(received, piece_end) - hashed) / auth::kHashBlockBytes * auth::kHashBlockBytes;
  }
};

class Floor {
 public:
  explicit Floor(const Options& options)
      : options_(options),
        plan_(auth::HashPlan::measure()),
        buffers_({.bytes_max = size_t{1} << 30, .kept_bytes_max = size_t{1} << 30}) {}
  ~Floor() {
    for (auto& connection : connections_) {
      if (connection) ::close(connection->fd);
    }
    connections_.clear();
    if (ring_ready_) io_uring_queue_exit(&ring_);
    for (const int fd : {listener_, epoll_, signals_, wake_, file_}) {
      if (fd >= 0) ::close(fd);
    }
    if (!file_name_.empty()) ::unlink(file_name_.c_str());
  }

  bool open();
  void run();
  void report() const;

 private:
  void watch(int fd, uint64_t tag) {
    epoll_event event{.events = EPOLLIN, .data = {.u64 = tag}};
    BASALT_CHECK(::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) == 0);
  }
  void watch(Connection& connection, bool wanted) {
    if (connection.watched == wanted) return;
    connection.watched = wanted;
    epoll_event event{.events = wanted ? uint32_t{EPOLLIN} : 0u,
                      .data = {.u64 = kConnections + connection.number}};
    BASALT_CHECK(::epoll_ctl(epoll_, EPOLL_CTL_MOD, connection.fd, &event) == 0);
  }
  void accept_all();
  void readable(Connection& connection);
  void take_head(Connection& connection);
  void begin_body(Connection& connection, uint64_t length);
  void received(Connection& connection, size_t bytes);
  void hand_over(Connection& connection);
  void submit_flush(Connection& connection);
  void reap();
  void hash(bool patient);
  bool hash_run(bool patient);
  void run_lanes(auth::LaneHash hash, std::span<Connection*> streams, size_t blocks);
  void pad(Connection& connection);
  void answer_if_done(Connection& connection);
  void lost(Connection& connection);
  void wake_at(const Connection& connection, uint64_t bytes);
  io_uring_sqe* entry() {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    if (sqe == nullptr) io_uring_submit(&ring_);
    return sqe != nullptr ? sqe : io_uring_get_sqe(&ring_);
  }

  static constexpr uint64_t kListener = 0, kSignals = 1, kWake = 2, kConnections = 16;

  const Options& options_;
  const auth::HashPlan plan_;
  BufferPool buffers_;
  int listener_ = -1, epoll_ = -1, signals_ = -1, wake_ = -1, file_ = -1;
  std::string file_name_;
  io_uring ring_{};
  bool ring_ready_ = false;
  uint64_t next_place_ = 0;
  std::vector<std::unique_ptr<Connection>> connections_;
  uint64_t bodies_ = 0, bytes_ = 0, receives_ = 0, wakes_ = 0, flushes_ = 0;
  uint64_t lane_blocks_ = 0, run_blocks_ = 0;
};

bool Floor::open() {
  const auto failed = [](const char* what) {
    fmt::print(stderr, "upload-floor: {}: {}\n", what, std::strerror(errno));
    return false;
  };
  listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (::bind(listener_, generic, size) != 0 || ::listen(listener_, 1024) != 0 ||
      ::getsockname(listener_, generic, &size) != 0) {
    return failed("listen");
  }
  epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  sigprocmask(SIG_BLOCK, &ends, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  signals_ = ::signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK);
  wake_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  watch(listener_, kListener);
  watch(signals_, kSignals);
  watch(wake_, kWake);
  if (options_.write) {
    file_name_ = options_.directory + "/upload-floor";
    file_ = ::open(file_name_.c_str(), O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
    if (file_ < 0) return failed("open");
    const Buffer zeros = buffers_.take(kPieceBytes);
    std::memset(zeros.data(), 'x', kPieceBytes);
    for (uint64_t at = 0; at < kFileBytes; at += kPieceBytes) {
      if (::pwrite(file_, zeros.data(), kPieceBytes, static_cast<off_t>(at)) !=
          static_cast<ssize_t>(kPieceBytes)) {
        return failed("write");
      }
    }
    if (::fsync(file_) != 0) return failed("fsync");
    io_uring_params params{};
    params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
    errno = -io_uring_queue_init_params(256, &ring_, &params);
    if (errno == EINVAL) {  // Linux before 6.1
      params = {};
      errno = -io_uring_queue_init_params(256, &ring_, &params);
    }
    if (errno != 0) return failed("io_uring");
    ring_ready_ = true;
    if (errno = -io_uring_register_eventfd(&ring_, wake_); errno != 0) return failed("io_uring");
  }
  fmt::print("{{\"port\": {}}}\n", ntohs(address.sin_port));
  std::fflush(stdout);
  return true;
}

void Floor::accept_all() {
  while (true) {
    const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    const int one = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    auto connection = std::make_unique<Connection>();
    connection->fd = fd;
    connection->number = static_cast<uint32_t>(connections_.size());
    watch(fd, kConnections + connection->number);
    connections_.push_back(std::move(connection));
  }
}

// Numbers are not used again: a measurement has a few dozen connections.
void Floor::lost(Connection& connection) {
  if (!connection.gone) ::epoll_ctl(epoll_, EPOLL_CTL_DEL, connection.fd, nullptr);
  connection.gone = true;
  if (connection.writes > 0 || connection.flushing) return;
  ::close(connection.fd);
  connections_[connection.number].reset();
}

// The kernel wakes nobody for less than this.
void Floor::wake_at(const Connection& connection, uint64_t bytes) {
  if (options_.low_water == 0) return;
  const int value = static_cast<int>(std::clamp<uint64_t>(bytes, 1, options_.low_water));
  ::setsockopt(connection.fd, SOL_SOCKET, SO_RCVLOWAT, &value, sizeof value);
}

void Floor::readable(Connection& connection) {
  ++receives_;
  if (!connection.in_body) {
    const size_t have = connection.head.size();
    connection.head.resize(have + kHeadReadBytes);
    const ssize_t size = ::recv(connection.fd, connection.head.data() + have, kHeadReadBytes, 0);
    connection.head.resize(have + static_cast<size_t>(std::max<ssize_t>(size, 0)));
    if (size == 0 || (size < 0 && errno != EAGAIN)) return lost(connection);
    return take_head(connection);
  }
  const MutableBytes room = connection.room();
  if (room.empty()) return watch(connection, false);
  const ssize_t size = ::recv(connection.fd, room.data(), room.size(), 0);
  if (size < 0 && errno == EAGAIN) return;
  if (size <= 0) return lost(connection);
  received(connection, static_cast<size_t>(size));
}

void Floor::take_head(Connection& connection) {
  const size_t end = connection.head.find("\r\n\r\n");
  if (end == std::string::npos) {
    if (connection.head.size() > kHeadBytesMax) lost(connection);
    return;
  }
  uint64_t length = 0;
  constexpr std::string_view kLength = "content-length:";
  for (size_t at = 0; at < end; at = connection.head.find("\r\n", at) + 2) {
    if (::strncasecmp(connection.head.data() + at, kLength.data(), kLength.size()) != 0) continue;
    const char* digits = connection.head.data() + at + kLength.size();
    while (*digits == ' ') ++digits;
    std::from_chars(digits, connection.head.data() + end, length);
  }
  if (length % kAlignment != 0 || length > kFileBytes) return lost(connection);
  const std::string rest = connection.head.substr(end + 4);
  connection.head.clear();
  if (rest.size() > length) return lost(connection);  // pipelined
  begin_body(connection, length);
  if (length == 0) return answer_if_done(connection);
  if (rest.empty()) return;
  std::memcpy(connection.at(0), rest.data(), rest.size());
  received(connection, rest.size());
}

void Floor::begin_body(Connection& connection, uint64_t length) {
  connection.in_body = true;
  connection.length = length;
  connection.received = connection.hashed = connection.handed_over = 0;
  connection.flushed = false;
  connection.md5 = kMd5Start;
  connection.sha256 = kSha256Start;
  if (next_place_ + length > kFileBytes) next_place_ = 0;
  connection.place = next_place_;
  next_place_ += length;
  const size_t wanted = std::min<size_t>(kPiecesMax, (length + kPieceBytes - 1) / kPieceBytes);
  while (connection.pieces.size() < wanted) {
    connection.pieces.push_back(buffers_.take(kPieceBytes));
    BASALT_CHECK(connection.pieces.back());
  }
}

void Floor::received(Connection& connection, size_t bytes) {
  if (connection.received == 0 || connection.length - connection.received >= options_.low_water) {
    const uint64_t left = connection.length - connection.received - bytes;
    if (connection.received == 0 || left < options_.low_water) wake_at(connection, left);
  }
  connection.received += bytes;
  if (!options_.md5) connection.hashed = connection.received;
  const bool whole = connection.received == connection.length;
  if (whole || connection.received % kPieceBytes == 0) hand_over(connection);
  if (whole) answer_if_done(connection);
}

// A piece to the disk; with the last one its flush, unless others are still on their way.
void Floor::hand_over(Connection& connection) {
  const uint64_t begin = connection.handed_over;
  connection.handed_over = connection.received;
  if (!options_.write) return;
  const uint32_t slot = begin / kPieceBytes % connection.pieces.size();
  io_uring_sqe* sqe = entry();
  io_uring_prep_write(sqe, file_, connection.at(begin),
                      static_cast<unsigned>(connection.received - begin), connection.place + begin);
  io_uring_sqe_set_data64(sqe, uint64_t{connection.number} << 8 | slot);
  connection.writing[slot] = true;
  ++connection.writes;
}

void Floor::submit_flush(Connection& connection) {
  io_uring_sqe* sqe = entry();
  io_uring_prep_fsync(sqe, file_, IORING_FSYNC_DATASYNC);
  io_uring_sqe_set_data64(sqe, uint64_t{connection.number} << 8 | kFlush);
  connection.flushing = true;
  ++flushes_;
}

void Floor::reap() {
  io_uring_cqe* cqe = nullptr;
  while (io_uring_peek_cqe(&ring_, &cqe) == 0 && cqe != nullptr) {
    const uint64_t tag = io_uring_cqe_get_data64(cqe);
    const int result = cqe->res;
    io_uring_cqe_seen(&ring_, cqe);
    Connection& connection = *connections_[tag >> 8];
    if ((tag & 0xff) == kFlush) {
      BASALT_CHECK(result == 0);
      connection.flushing = false;
      connection.flushed = true;
    } else {
      BASALT_CHECK(result > 0 && static_cast<size_t>(result) % kAlignment == 0);
      connection.writing[tag & 0xff] = false;
      --connection.writes;
    }
    if (connection.gone) {
      lost(connection);
      continue;
    }
    if (connection.writes == 0 && !connection.flushed && !connection.flushing &&
        connection.handed_over == connection.length) {
      submit_flush(connection);
    }
    watch(connection, true);
    answer_if_done(connection);
  }
}

void Floor::run_lanes(auth::LaneHash hash, std::span<Connection*> streams, size_t blocks) {
  const bool md5 = hash == auth::LaneHash::kMd5;
  const auth::LaneKernel kernel = plan_.best(hash, streams.size()).kernel;
  std::array<uint32_t, 8> nobody[auth::kHashLanesMax];
  for (size_t first = 0; first < streams.size(); first += kernel.lanes) {
    std::array<auth::HashLane, auth::kHashLanesMax> lanes;
    for (size_t i = 0; i < kernel.lanes; ++i) {
      if (first + i >= streams.size()) {
        lanes[i] = {nobody[i].data(), lanes[0].data};
        continue;
      }
      Connection& stream = *streams[first + i];
      lanes[i] = {md5 ? stream.md5.data() : stream.sha256.data(), stream.at(stream.hashed)};
    }
    kernel.compress(lanes.data(), blocks);
    if (md5) run_blocks_ += blocks;
  }
  if (md5) lane_blocks_ += streams.size() * blocks;
}

// One run over all streams that have something. False: there is nothing, or somebody to wait for.
bool Floor::hash_run(bool patient) {
  std::vector<Connection*> streams;
  size_t bytes = options_.step;
  for (auto& connection : connections_) {
    if (!connection || connection->gone || connection->length == 0) continue;
    const size_t ready = connection->hashable();
    const uint64_t wanted = std::min<uint64_t>(
        options_.step,
        std::min(connection->length, (connection->hashed / kPieceBytes + 1) * kPieceBytes) -
            connection->hashed);
    if (ready == 0 || ready < wanted) {
      if (patient) return false;
      if (ready == 0) continue;
    }
    streams.push_back(connection.get());
    bytes = std::min(bytes, ready);
  }
  if (streams.empty()) return false;
  const size_t blocks = bytes / auth::kHashBlockBytes;
  const auth::HashPlan::JointEntry* joint =
      options_.sha256 ? plan_.best_joint(streams.size(), streams.size()) : nullptr;
  if (joint != nullptr && streams.size() % joint->kernel.md5 == 0) {
    for (size_t first = 0; first < streams.size(); first += joint->kernel.md5) {
      std::array<auth::HashLane, auth::kHashLanesMax> md5, sha256;
      for (size_t i = 0; i < joint->kernel.md5; ++i) {
        Connection& stream = *streams[first + i];
        md5[i] = {stream.md5.data(), stream.at(stream.hashed)};
        sha256[i] = {stream.sha256.data(), stream.at(stream.hashed)};
      }
      joint->kernel.compress(md5.data(), sha256.data(), blocks);
      run_blocks_ += blocks;
    }
    lane_blocks_ += streams.size() * blocks;
  } else {
    run_lanes(auth::LaneHash::kMd5, streams, blocks);
    if (options_.sha256) run_lanes(auth::LaneHash::kSha256, streams, blocks);
  }
  for (Connection* stream : streams) {
    stream->hashed += blocks * auth::kHashBlockBytes;
    watch(*stream, true);
    if (stream->hashed != stream->length) continue;
    pad(*stream);
    answer_if_done(*stream);
  }
  return true;
}

void Floor::hash(bool patient) {
  while (hash_run(patient)) {
  }
}

// The lengths are whole blocks, so padding is a block of its own.
void Floor::pad(Connection& connection) {
  for (const bool md5 : {true, false}) {
    if (!md5 && !options_.sha256) continue;
    std::array<uint8_t, auth::kHashBlockBytes> block{0x80};
    for (size_t i = 0; i < 8; ++i) {
      const size_t shift = md5 ? 8 * i : 56 - 8 * i;
      block[block.size() - 8 + i] = static_cast<uint8_t>(connection.length * 8 >> shift);
    }
    const auth::HashLane lane{md5 ? connection.md5.data() : connection.sha256.data(), block.data()};
    auth::lane_kernels(md5 ? auth::LaneHash::kMd5 : auth::LaneHash::kSha256)
        .front()
        .compress(&lane, 1);
  }
}

void Floor::answer_if_done(Connection& connection) {
  if (!connection.in_body || connection.received != connection.length ||
      connection.hashed != connection.length) {
    return;
  }
  if (options_.write && connection.length > 0 && !connection.flushed) return;
  connection.in_body = false;
  bodies_ += connection.length > 0;
  bytes_ += connection.length;
  std::array<uint8_t, 16> digest;
  std::memcpy(digest.data(), connection.md5.data(), digest.size());
  const std::string text = fmt::format(
      "HTTP/1.1 200 OK\r\nETag: \"{}\"\r\nContent-Length: 0\r\n\r\n", auth::to_hex(digest));
  // The client waits for nothing else, so there is room for it.
  if (::send(connection.fd, text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) {
    lost(connection);
  }
}

void Floor::report() const {
  const double bodies = std::max(1.0, static_cast<double>(bodies_));
  fmt::print(
      "{{\"bodies\": {}, \"bytes\": {}, \"receives\": {:.2f}, \"wakes\": {:.2f}, \"flushes\": "
      "{:.2f}, "
      "\"lanes\": {:.2f}, \"cpu_s_per_gb\": {:.3f}}}\n",
      bodies_, bytes_, static_cast<double>(receives_) / bodies,
      static_cast<double>(wakes_) / bodies, static_cast<double>(flushes_) / bodies,
      static_cast<double>(lane_blocks_) / std::max(1.0, static_cast<double>(run_blocks_)),
      static_cast<double>(process_cpu_ns()) / std::max(1.0, static_cast<double>(bytes_)));
}

void Floor::run() {
  bool impatient = false;
  while (true) {
    std::array<epoll_event, 64> events;
    const int count = ::epoll_wait(epoll_, events.data(), events.size(), kPatienceMs);
    ++wakes_;
    impatient = count == 0;
    for (int i = 0; i < count; ++i) {
      const uint64_t tag = events[static_cast<size_t>(i)].data.u64;
      if (tag == kSignals) return;
      if (tag == kListener) {
        accept_all();
      } else if (tag == kWake) {
        uint64_t value;
        [[maybe_unused]] const ssize_t size = ::read(wake_, &value, sizeof value);
      } else if (auto& connection = connections_[tag - kConnections]; connection) {
        if (!connection->gone) readable(*connection);
      }
    }
    if (options_.md5) hash(!impatient);
    if (ring_ready_) {
      do {
        io_uring_submit_and_get_events(&ring_);
        reap();
      } while (io_uring_sq_ready(&ring_) > 0);
    }
  }
}

}  // namespace

int upload_floor(const Options& options) {
  Floor floor(options);
  if (!floor.open()) return 1;
  floor.run();
  floor.report();
  return 0;
}

}  // namespace basalt::bench::yardstick
