// PlainStream: a TCP or Unix socket without TLS.
#pragma once

#include "reactor/socket_stream.h"

namespace basalt::reactor {

class PlainStream final : public SocketStream {
 public:
  static constexpr size_t kFileSliceMax =
      1 << 20;  // per sendfile(2): about 100 us from the page cache

  using SocketStream::SocketStream;
  bool can_sendfile() const override { return true; }
  bool tls() const override { return false; }

 private:
  Attempt try_read(MutableBytes into) override;
  Attempt try_peek() override { return {Attempt::Kind::kMoved}; }  // the event itself said so
  Attempt try_write(std::span<const iovec> pieces, bool more) override;
  Attempt try_sendfile(SendFileCall& call) override;
};

}  // namespace basalt::reactor
