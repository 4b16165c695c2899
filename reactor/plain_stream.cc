#include "reactor/plain_stream.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace basalt::reactor {

std::unique_ptr<Stream> Stream::adopt(Loop& loop, int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0)
    address.ss_family = AF_UNIX;
  const int flags = fcntl(fd, F_GETFL);
  fcntl(fd, F_SETFL, flags | O_NONBLOCK);
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one,
             sizeof one);  // fails on Unix sockets, which do not delay
  return std::make_unique<PlainStream>(loop, fd, PeerName(address, fd), nullptr);
}

SocketStream::Attempt PlainStream::try_read(MutableBytes into) {
  ssize_t size;
  do {
    size = recv(fd_, into.data(), into.size(), MSG_DONTWAIT);
  } while (size < 0 && errno == EINTR);
  if (size > 0) {
    const auto moved = static_cast<size_t>(size);
    return {.kind = Attempt::Kind::kMoved, .bytes = moved, .drained = moved < into.size()};
  }
  if (size == 0) return {.kind = Attempt::Kind::kEnd};
  if (errno == EAGAIN) return {.kind = Attempt::Kind::kNeedsReadable};
  return {.kind = Attempt::Kind::kFailed, .error = errno, .what = "recv"};
}

SocketStream::Attempt PlainStream::try_write(std::span<const iovec> pieces, bool more) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(pieces.data());
  message.msg_iovlen = pieces.size();
  ssize_t size;
  do {
    size = sendmsg(fd_, &message, MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0));
  } while (size < 0 && errno == EINTR);
  if (size >= 0) return {.kind = Attempt::Kind::kMoved, .bytes = static_cast<size_t>(size)};
  if (errno == EAGAIN) return {.kind = Attempt::Kind::kNeedsWritable};
  return {.kind = Attempt::Kind::kFailed, .error = errno, .what = "sendmsg"};
}

SocketStream::Attempt PlainStream::try_sendfile(SendFileCall& call) {
  auto offset = static_cast<off_t>(call.offset);
  ssize_t size;
  do {
    size = ::sendfile(fd_, call.fd, &offset, std::min<uint64_t>(call.length, kFileSliceMax));
  } while (size < 0 && errno == EINTR);
  if (size > 0) return {.kind = Attempt::Kind::kMoved, .bytes = static_cast<size_t>(size)};
  if (size == 0)
    return {.kind = Attempt::Kind::kFailed, .error = EIO, .what = "sendfile: the file is shorter"};
  if (errno == EAGAIN) return {.kind = Attempt::Kind::kNeedsWritable};
  return {.kind = Attempt::Kind::kFailed, .error = errno, .what = "sendfile"};
}

}  // namespace basalt::reactor
