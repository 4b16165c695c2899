// SocketStream: what plain and TLS streams share: calls in flight, readiness events, deadlines,
// death.
//
// Readiness is level-triggered and lazy: an event is registered when somebody first has to wait and
// stays registered; when it fires and nobody waits, it is removed. A keep-alive connection that is
// always waited on thus costs no epoll_ctl per request, and no edge can be lost (with edges, data
// and a reset that arrive together look like data alone). Attempts are made inside the event's
// callback, completions are posted: no code of a caller runs in a callback, and so no stream dies
// inside its own event.
#pragma once

#include <event2/event_struct.h>

#include <memory>

#include "reactor/address.h"
#include "reactor/listener.h"
#include "reactor/loop.h"
#include "reactor/stream.h"

namespace basalt::reactor {

class SocketStream : public Stream {
 public:
  // `listener`: whose `open` gauge counts this connection until it is destroyed; may be null.
  SocketStream(Loop& loop, int fd, const PeerName& peer, std::shared_ptr<ListenerStats> listener);
  ~SocketStream() override;

  void read(ReadCall& call) final;
  void wait_readable(WaitCall& call) final;
  void write(WriteCall& call) final;
  void sendfile(SendFileCall& call) final;
  Result<size_t> read_now(MutableBytes into) final;
  Result<size_t> write_now(std::span<const iovec> pieces, bool more) override;
  std::string_view peer() const final { return peer_.view(); }
  int fd() const final { return fd_; }
  void abort() final;
  void close_lingering(uint64_t linger_ms) final;

 protected:
  // What one attempt that does not block gave.
  struct Attempt {
    enum class Kind : uint8_t { kMoved, kEnd, kNeedsReadable, kNeedsWritable, kFailed } kind;
    size_t bytes = 0;       // kMoved
    bool drained = false;   // kMoved by a read: the socket is empty now
    bool again = false;     // kMoved by a write: go on in the next round, others want the loop too
    int error = 0;          // kFailed: errno
    const char* what = "";  // kFailed
  };
  virtual Attempt try_read(MutableBytes into) = 0;
  // Is there something a read would return? kMoved or kEnd: yes.
  virtual Attempt try_peek() = 0;
  // Bytes that need no readiness of the socket (inside the TLS library).
  virtual bool has_pending() const { return false; }
  virtual Attempt try_write(std::span<const iovec> pieces, bool more) = 0;
  virtual Attempt try_sendfile(SendFileCall& call) = 0;
  // Bytes that try_sendfile() has taken from the file already go first, and alone.
  virtual bool file_bytes_taken() const { return false; }
  // Says good-bye (close_notify), without blocking.
  virtual void say_end() {}
  // A handshake in progress takes the events first.
  virtual bool drive_handshake() { return false; }
  virtual void handshake_timed_out() {}

  void watch_readable();
  void watch_writable();
  void die(Code code, const char* what, int error);
  bool dead() const { return read_death_.dead || write_death_.dead; }

  Loop& loop_;
  int fd_;
  Timer read_timer_;
  Timer write_timer_;
  bool read_needs_writable_ = false;  // TLS: the handshake or a read waits to write

 private:
  struct Death {
    bool dead = false;
    Code code = Code::kCancelled;
    int error = 0;
    const char* what = "";
    std::unexpected<Error> as_error() const;
  };
  // Runs the rest of a long write in the next round of the run queue. Posted only while a
  // write-side call is in flight; the call's own completion is posted later, so this has run before
  // the stream can be destroyed.
  struct Continuation : Completion {
    SocketStream* stream = nullptr;
  };

  static void on_readable(evutil_socket_t, short, void* self);
  static void on_writable(evutil_socket_t, short, void* self);
  void drive_read();
  void drive_write();
  void drive_file();
  bool write_side_waits(const Attempt& attempt);
  void fail_read(const Death& death);
  void fail_write(const Death& death);
  void fail_attempt(const Attempt& attempt);

  event read_event_;
  event write_event_;
  bool read_watched_ = false;
  bool write_watched_ = false;
  bool drained_ = false;  // the last read emptied the socket, and the event has not fired since
  bool write_needs_readable_ = false;
  bool continuing_ = false;
  ReadCall* read_call_ = nullptr;
  WaitCall* wait_call_ = nullptr;
  WriteCall* write_call_ = nullptr;
  SendFileCall* file_call_ = nullptr;
  int piece_ = 0;  // of write_call_: the first not wholly written
  Death read_death_;
  Death write_death_;
  Continuation continuation_;
  PeerName peer_;
  std::shared_ptr<ListenerStats> listener_;
};

}  // namespace basalt::reactor
