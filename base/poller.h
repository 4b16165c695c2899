// Poller: a source of completions that a core's loop serves each turn (the io_uring, the mailboxes,
// a hash station).
//
// It lets storage/ and shards/ live on a loop without knowing libevent: the loop watches wake_fd()
// and calls poll(). Thread: all calls on the core's own thread, except whoever writes to
// wake_fd()'s eventfd.
#pragma once

namespace basalt {

class Poller {
 public:
  virtual ~Poller() = default;

  // Does the work that is ready, submits what was queued, never blocks. Returns true if it did
  // anything. Called every turn of the loop, whatever ended its sleep. The loop never reads
  // wake_fd(); a poller that reads it spares a turn that finds nothing.
  virtual bool poll() = 0;

  // Called before the loop sleeps, perhaps twice. Returns false if work arrived meanwhile (the loop
  // then does not sleep). After it returned true, whoever brings work must make wake_fd() readable.
  virtual bool prepare_sleep() { return true; }
  // Called when the loop woke, or did not sleep after all, before poll().
  virtual void woke() {}

  // A file descriptor that becomes readable when poll() has work, or -1. Fixed for the poller's
  // life. Watched edge-triggered: each write to an eventfd ends one sleep.
  virtual int wake_fd() const { return -1; }
};

}  // namespace basalt
