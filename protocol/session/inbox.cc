#include "protocol/session/inbox.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace basalt::session {
namespace {

// Less room than this is not worth a recv.
constexpr size_t kRoomMin = 2048;

}  // namespace

void Inbox::release() {
  BASALT_CHECK(!has_raw());
  head_buffer_.release();
  body_buffer_.release();
  base_ = nullptr;
  capacity_ = floor_ = decoded_begin_ = decoded_end_ = raw_begin_ = raw_end_ = 0;
}

// Decoded and raw bytes move to the front, without a gap between them.
void Inbox::compact() {
  const size_t decoded_size = decoded_end_ - decoded_begin_;
  const size_t raw_size = raw_end_ - raw_begin_;
  if (decoded_size != 0) std::memmove(base_ + floor_, base_ + decoded_begin_, decoded_size);
  decoded_begin_ = floor_;
  decoded_end_ = floor_ + decoded_size;
  if (raw_size != 0) std::memmove(base_ + decoded_end_, base_ + raw_begin_, raw_size);
  raw_begin_ = decoded_end_;
  raw_end_ = raw_begin_ + raw_size;
}

void Inbox::move_to(Buffer& target, size_t floor) {
  const size_t decoded_size = decoded_end_ - decoded_begin_;
  const size_t raw_size = raw_end_ - raw_begin_;
  uint8_t* to = target.data();
  if (decoded_size != 0) std::memcpy(to + floor, base_ + decoded_begin_, decoded_size);
  if (raw_size != 0) std::memcpy(to + floor + decoded_size, base_ + raw_begin_, raw_size);
  base_ = to;
  capacity_ = target.size();
  floor_ = decoded_begin_ = floor;
  decoded_end_ = raw_begin_ = floor + decoded_size;
  raw_end_ = raw_begin_ + raw_size;
}

Result<MutableBytes> Inbox::head_room() {
  if (base_ == nullptr) {
    head_buffer_ = pool_.take(kFirstBytes);
    if (!head_buffer_) return fail(Code::kBusy, "no buffer");
    base_ = head_buffer_.data();
    capacity_ = head_buffer_.size();
  }
  if (tail() < kRoomMin) compact();
  if (tail() < kRoomMin) {
    BASALT_CHECK(capacity_ < kHeadBufferMax);  // the parser has refused a longer head
    Buffer larger = pool_.take(kHeadBufferMax);
    if (!larger) return fail(Code::kBusy, "no buffer");
    move_to(larger, 0);
    head_buffer_ = std::move(larger);
  }
  return MutableBytes(base_ + raw_end_, tail());
}

void Inbox::begin_body(size_t head_bytes, const http::RequestHead& head) {
  raw_begin_ += head_bytes;
  floor_ = decoded_begin_ = decoded_end_ = raw_begin_;
  chunked_ = head.chunked;
  remaining_ = head.content_length.value_or(0);
  done_ = !chunked_ && remaining_ == 0;
  decoder_ = {};
}

void Inbox::end_request() {
  if (body_buffer_) head_buffer_ = std::move(body_buffer_);
  floor_ = 0;
  // A buffer that was empty starts from its beginning again.
  if (!has_raw()) raw_begin_ = raw_end_ = 0;
  decoded_begin_ = decoded_end_ = raw_begin_;
  floor_ = 0;
  chunked_ = false;
  remaining_ = 0;
  done_ = true;
}

Status Inbox::decode() {
  while (!done_ && has_raw()) {
    size_t run = raw_begin_;
    size_t size = 0;
    if (chunked_) {
      BASALT_TRY(step, decoder_.decode(raw()));
      if (!step.data.empty()) run = static_cast<size_t>(step.data.data() - base_);
      size = step.data.size();
      raw_begin_ += step.consumed;
      done_ = step.done;
    } else {
      size = std::min<uint64_t>(remaining_, raw_end_ - raw_begin_);
      raw_begin_ += size;
      remaining_ -= size;
      done_ = remaining_ == 0;
    }
    if (size == 0) continue;
    if (decoded_begin_ == decoded_end_) decoded_begin_ = decoded_end_ = run;
    if (decoded_end_ != run) std::memmove(base_ + decoded_end_, base_ + run, size);
    decoded_end_ += size;
  }
  return {};
}

void Inbox::consume(size_t bytes) {
  BASALT_CHECK(bytes <= decoded_end_ - decoded_begin_);
  decoded_begin_ += bytes;
}

uint64_t Inbox::direct_limit() const {
  if (done_ || has_raw() || decoded_begin_ != decoded_end_) return 0;
  return chunked_ ? decoder_.run_bytes() : remaining_;
}

void Inbox::direct_received(size_t bytes) {
  if (chunked_) {
    decoder_.skip(bytes);
    return;
  }
  remaining_ -= bytes;
  done_ = remaining_ == 0;
}

Result<MutableBytes> Inbox::body_room() {
  if (tail() < kRoomMin || decoded_begin_ == raw_end_) compact();
  // A long body deserves longer reads than what is left behind the head.
  const bool long_body = chunked_ || remaining_ > tail();
  if (tail() >= (long_body && !body_buffer_ ? kFirstBytes : kRoomMin))
    return MutableBytes(base_ + raw_end_, tail());
  const size_t held = raw_end_ - floor_;
  if (held + kRoomMin > kBodyBufferMax) return fail(Code::kTooLarge, "body bytes are not consumed");
  size_t wanted = std::max(kBodyFirstBytes, std::min(held * 2, kBodyBufferMax));
  if (!chunked_) wanted = std::max<size_t>(kRoomMin, std::min<uint64_t>(wanted, held + remaining_));
  Buffer larger = pool_.take(std::max(wanted, held + kRoomMin));
  if (!larger) return fail(Code::kBusy, "no buffer");
  move_to(larger, 0);
  body_buffer_ = std::move(larger);
  return MutableBytes(base_ + raw_end_, tail());
}

}  // namespace basalt::session
