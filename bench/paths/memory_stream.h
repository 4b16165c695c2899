// MemoryStream: a connection without a socket: what feed() gives is read, what is written is
// counted.
//
// It behaves like a plain socket whose peer reads at once: writes and file transfers never wait.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstring>
#include <string>

#include "base/check.h"
#include "base/completion.h"
#include "reactor/stream.h"

namespace basalt::bench {

class MemoryStream final : public reactor::Stream {
 public:
  explicit MemoryStream(RunQueue& run_queue) : run_queue_(run_queue) {}

  // The peer sends `bytes`, which stay where they are until they are used up. Only when idle().
  void feed(std::string_view bytes) {
    input_ = as_bytes(bytes);
    status_ = 0;
    sent_ = 0;
    if (wait_ != nullptr) finish(wait_, Status());
    if (read_ != nullptr) {
      reactor::ReadCall* call = std::exchange(read_, nullptr);
      call->result = take(call->into);
      run_queue_.post(*call);
    }
  }
  // The session waits for another request and has used up the last.
  bool idle() const { return wait_ != nullptr && input_.empty(); }
  int status() const { return status_; }          // of the last response
  uint64_t sent_bytes() const { return sent_; }   // since feed(), heads included
  void keep(std::string* text) { kept_ = text; }  // appends what is written; null: no more

  void read(reactor::ReadCall& call) override {
    if (aborted_) return fail_call(call);
    if (input_.empty()) {
      read_ = &call;
      return;
    }
    call.result = take(call.into);
    run_queue_.post(call);
  }
  void wait_readable(reactor::WaitCall& call) override {
    if (aborted_) return fail_call(call);
    wait_ = &call;
    if (!input_.empty()) finish(wait_, Status());
  }
  void write(reactor::WriteCall& call) override {
    call.result = Status();
    for (int i = 0; i < call.piece_count; ++i) wrote(call.pieces[i]);
    run_queue_.post(call);
  }
  void sendfile(reactor::SendFileCall& call) override {
    sent_ += call.length;
    call.result = Status();
    run_queue_.post(call);
  }
  Result<size_t> read_now(MutableBytes into) override {
    if (input_.empty()) return fail(Code::kBusy);
    return take(into);
  }
  Result<size_t> write_now(std::span<const iovec> pieces, bool) override {
    size_t total = 0;
    for (const iovec& piece : pieces) {
      wrote(piece);
      total += piece.iov_len;
    }
    return total;
  }
  bool can_sendfile() const override { return true; }
  bool tls() const override { return false; }
  std::string_view peer() const override { return "192.0.2.7:4711"; }
  int fd() const override { return -1; }
  void abort() override {
    aborted_ = true;
    if (wait_ != nullptr) finish(wait_, fail(Code::kCancelled));
    if (read_ != nullptr) fail_call(*std::exchange(read_, nullptr));
  }
  void close_lingering(uint64_t) override { aborted_ = true; }

 private:
  size_t take(MutableBytes into) {
    const size_t count = std::min(into.size(), input_.size());
    std::memcpy(into.data(), input_.data(), count);
    input_ = input_.subspan(count);
    return count;
  }
  void wrote(const iovec& piece) {
    const std::string_view text(static_cast<const char*>(piece.iov_base), piece.iov_len);
    constexpr std::string_view kStart = "HTTP/1.1 ";
    if (sent_ == 0 && text.starts_with(kStart)) {
      std::from_chars(text.data() + kStart.size(), text.data() + text.size(), status_);
    }
    sent_ += text.size();
    if (kept_ != nullptr) kept_->append(text);
  }
  void finish(reactor::WaitCall*& call, Status status) {
    call->result = std::move(status);
    run_queue_.post(*std::exchange(call, nullptr));
  }
  template <class C>
  void fail_call(C& call) {
    call.result = fail(Code::kCancelled);
    run_queue_.post(call);
  }

  RunQueue& run_queue_;
  Bytes input_;
  reactor::WaitCall* wait_ = nullptr;
  reactor::ReadCall* read_ = nullptr;
  std::string* kept_ = nullptr;
  int status_ = 0;
  uint64_t sent_ = 0;
  bool aborted_ = false;
};

}  // namespace basalt::bench
