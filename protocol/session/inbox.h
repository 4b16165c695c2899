// Inbox: the bytes a connection has received and not used yet, and the framing of the request's
// body.
//
// One window of memory, in this order: [head of the request][decoded body bytes][raw bytes]. Raw
// bytes are what came from the socket; after the head they are decoded in place (chunk framing
// removed by moving runs together), and what stays raw once the body is done belongs to the next
// request. The head does not move while its request is handled: a body that needs more room gets a
// second buffer.
#pragma once

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/result.h"
#include "protocol/http/chunked.h"
#include "protocol/http/head.h"

namespace basalt::session {

class Inbox {
 public:
  static constexpr size_t kFirstBytes =
      16 * 1024;  // nearly every head, with a small body behind it
  static constexpr size_t kHeadBufferMax = 64 * 1024;  // room for http::kHeadBytesMax
  static constexpr size_t kBodyFirstBytes = 64 * 1024;
  static constexpr size_t kBodyBufferMax = 1024 * 1024;

  explicit Inbox(BufferPool& pool) : pool_(pool) {}

  Bytes raw() const { return {base_ + raw_begin_, raw_end_ - raw_begin_}; }
  bool has_raw() const { return raw_begin_ != raw_end_; }
  void received(size_t bytes) { raw_end_ += bytes; }  // into the room handed out last

  // --- Between requests
  void release();  // all memory; nothing may be left
  // Room to receive more of a head. kBusy: the pool is empty.
  Result<MutableBytes> head_room();
  // The head is complete: what follows is its body's.
  void begin_body(size_t head_bytes, const http::RequestHead& head);
  // The request is over; what is raw is the next one's.
  void end_request();

  // --- Body
  Status decode();  // all raw bytes up to the end of the body. Errors: http::ChunkedDecoder's
  bool body_done() const { return done_; }
  Bytes decoded() const { return {base_ + decoded_begin_, decoded_end_ - decoded_begin_}; }
  void consume(size_t bytes);
  // Bytes of the body still to come from the socket, if known.
  bool remaining_known() const { return !chunked_; }
  uint64_t remaining() const { return remaining_; }
  // How many body bytes may be read from the socket straight into the caller's memory now: none
  // while something is buffered.
  uint64_t direct_limit() const;
  void direct_received(size_t bytes);
  // Room to receive more of a body. kBusy: the pool is empty; kTooLarge: kBodyBufferMax bytes wait
  // to be consumed.
  Result<MutableBytes> body_room();

 private:
  void move_to(Buffer& target, size_t floor);
  void compact();
  size_t tail() const { return capacity_ - raw_end_; }

  BufferPool& pool_;
  Buffer head_buffer_;
  Buffer body_buffer_;
  uint8_t* base_ = nullptr;  // of the buffer in use
  size_t capacity_ = 0;
  size_t floor_ = 0;  // below it stands the head
  size_t decoded_begin_ = 0;
  size_t decoded_end_ = 0;
  size_t raw_begin_ = 0;
  size_t raw_end_ = 0;
  bool chunked_ = false;
  bool done_ = true;
  uint64_t remaining_ = 0;
  http::ChunkedDecoder decoder_;
};

}  // namespace basalt::session
