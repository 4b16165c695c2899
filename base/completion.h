// Completion and RunQueue: how work that finishes later comes back, without allocation.
//
// A Completion is the first base of the struct that owns the buffers of a call. Whoever carries the
// call out fills the struct's result and posts it to the run queue of the core that made the call;
// the loop runs it. Never called from inside the submit: a caller may therefore submit while it
// holds its own state half changed.
//
// Ownership: the struct belongs to the caller and stays where it is until fn has been called. Every
// call that was accepted is completed exactly once, in bounded time, also at shutdown (with
// kCancelled). That is why a coroutine frame may own it: frames are not destroyed while a call of
// theirs is in flight.
//
// Thread: one core's. To complete a call of another core, go through shards/ (mailboxes).
#pragma once

#include <cstddef>
#include <utility>

namespace basalt {

struct Completion {
  using Function = void (*)(Completion&);
  Function fn = nullptr;
  Completion* next = nullptr;

  Completion() = default;
  explicit Completion(Function function) : fn(function) {}
  Completion(const Completion&) = delete;
  Completion& operator=(const Completion&) = delete;
};

class RunQueue {
 public:
  void post(Completion& completion) {
    completion.next = nullptr;
    *tail_ = &completion;
    tail_ = &completion.next;
  }
  bool empty() const { return head_ == nullptr; }

  // Runs what is queued now; what these post runs in the next call (so one request cannot starve
  // the loop). Returns how many ran.
  size_t run() {
    Completion* list = std::exchange(head_, nullptr);
    tail_ = &head_;
    size_t count = 0;
    while (list != nullptr) {
      Completion* next = list->next;
      list->fn(*list);
      list = next;
      ++count;
    }
    return count;
  }

 private:
  Completion* head_ = nullptr;
  Completion** tail_ = &head_;
};

}  // namespace basalt
