// Task<T>: a lazy coroutine with one awaiter, and Call<R>: an in-flight call that a coroutine
// awaits.
//
// Rules (STYLE: CONTRIBUTING.md "Coroutines"): no capturing lambda is a coroutine; parameters are
// values or references that outlive the task; no lock or LMDB transaction is held across co_await.
// A child starts when it is awaited and returns to its parent by symmetric transfer; a Call's
// result comes through the core's RunQueue. A Task is not destroyed while a Call in it is in flight
// (see completion.h); cancelling means that the awaited calls finish early with kCancelled and the
// coroutine leaves by its error path.
#pragma once

#include <coroutine>
#include <cstdlib>
#include <optional>
#include <utility>

#include "base/block_pool.h"
#include "base/completion.h"

namespace basalt {

template <class T = void>
class [[nodiscard]] Task;

namespace detail {

// Frames are blocks of the thread's pool (base/block_pool.h): the frames of a request's operations
// are those of the last one.
struct PromiseBase : Pooled {
  std::coroutine_handle<> continuation = std::noop_coroutine();

  std::suspend_always initial_suspend() noexcept { return {}; }
  struct Final {
    bool await_ready() noexcept { return false; }
    template <class P>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<P> handle) noexcept {
      return handle.promise().continuation;
    }
    void await_resume() noexcept {}
  };
  Final final_suspend() noexcept { return {}; }
  void unhandled_exception() noexcept { std::abort(); }  // nothing of ours throws
};

}  // namespace detail

template <class T>
class [[nodiscard]] Task {
 public:
  struct promise_type : detail::PromiseBase {
    std::optional<T> value;
    Task get_return_object() {
      return Task(std::coroutine_handle<promise_type>::from_promise(*this));
    }
    template <class U>
    void return_value(U&& result) {
      value.emplace(std::forward<U>(result));
    }
  };

  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Task& operator=(Task&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Task() {
    if (handle_) handle_.destroy();
  }

  bool await_ready() const noexcept { return false; }
  std::coroutine_handle<> await_suspend(std::coroutine_handle<> parent) noexcept {
    handle_.promise().continuation = parent;
    return handle_;
  }
  T await_resume() { return std::move(*handle_.promise().value); }

  // For the owner of a top-level task: run it up to its first wait; later resumptions come through
  // the run queue.
  void start() { handle_.resume(); }
  bool done() const { return handle_.done(); }
  T& result() { return *handle_.promise().value; }

 private:
  explicit Task(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
  std::coroutine_handle<promise_type> handle_;
};

template <>
class [[nodiscard]] Task<void> {
 public:
  struct promise_type : detail::PromiseBase {
    Task get_return_object() {
      return Task(std::coroutine_handle<promise_type>::from_promise(*this));
    }
    void return_void() noexcept {}
  };

  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Task& operator=(Task&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Task() {
    if (handle_) handle_.destroy();
  }

  bool await_ready() const noexcept { return false; }
  std::coroutine_handle<> await_suspend(std::coroutine_handle<> parent) noexcept {
    handle_.promise().continuation = parent;
    return handle_;
  }
  void await_resume() noexcept {}

  void start() { handle_.resume(); }
  bool done() const { return handle_.done(); }

 private:
  explicit Task(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
  std::coroutine_handle<promise_type> handle_;
};

// A top-level coroutine that owns itself: starts at once, its frame goes when it ends.
struct Detached {
  struct promise_type {
    Detached get_return_object() noexcept { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() noexcept {}
    void unhandled_exception() noexcept { std::abort(); }
  };
};

// Request: a struct that derives from Completion and has a member `result`. The call is started by
// whoever makes the Call (`start(request)` in its constructor), so naming several Calls and then
// awaiting each is scatter-gather. Neither copied nor moved: factories return it as a prvalue.
template <class Request>
class [[nodiscard]] Call : public Request {
 public:
  template <class Start, class... Args>
  explicit Call(Start&& start, Args&&... args) : Request{std::forward<Args>(args)...} {
    this->fn = &Call::completed;
    start(static_cast<Request&>(*this));
  }
  ~Call() {
    if (!done_) std::abort();  // a frame died while its call was in flight: our bug
  }

  bool await_ready() const noexcept { return done_; }
  void await_suspend(std::coroutine_handle<> waiter) noexcept { waiter_ = waiter; }
  auto await_resume() { return std::move(this->result); }

 private:
  static void completed(Completion& completion) {
    auto& self = static_cast<Call&>(completion);
    self.done_ = true;
    if (self.waiter_) self.waiter_.resume();
  }
  std::coroutine_handle<> waiter_;
  bool done_ = false;
};

}  // namespace basalt

// co_awaits a call or task that yields a Result-like; an error leaves the coroutine.
#define CO_TRY(name, awaitable)                                                      \
  auto name##_result_ = co_await (awaitable);                                        \
  if (!name##_result_) co_return std::unexpected(std::move(name##_result_).error()); \
  auto& name = *name##_result_

#define CO_CHECK(awaitable)                                                                \
  do {                                                                                     \
    auto co_check_result_ = co_await (awaitable);                                          \
    if (!co_check_result_) co_return std::unexpected(std::move(co_check_result_).error()); \
  } while (false)

// The same for a Result that is there already.
#define CO_TRY_NOW(name, expr)                                                       \
  auto name##_result_ = (expr);                                                      \
  if (!name##_result_) co_return std::unexpected(std::move(name##_result_).error()); \
  auto& name = *name##_result_
