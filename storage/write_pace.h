// WritePace: who may write new data where space is short. Near the low-water mark new data is paced
// to what garbage collection gives back: free space above the mark is handed out in parts, to
// whoever has waited longest. Deletes, collection and checkpoints never ask.
//
// A wait is bounded four ways: in time (kRoomWaitNs), in number and in memory held (kRoomWaitsMax,
// kRoomWaitBytesMax), and by hope: where collection finds nothing that would give space back,
// nobody waits. Any thread; a short mutex, which nobody takes where space is not short.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>

namespace basalt::storage {

// A write that finds no room waits at most so long for garbage collection; then the disk is full.
constexpr uint64_t kRoomWaitNs = 20'000'000'000;
// Writes that wait, of all cores, and the memory they keep meanwhile: collection needs slots and
// buffers of its own.
constexpr size_t kRoomWaitsMax = 1024;
constexpr uint64_t kRoomWaitBytesMax = 64u << 20;

enum class Room : uint8_t {
  kYes,    // and it is counted
  kWait,   // not now: ask again
  kNone,   // the disk is full: nothing to collect, or waited in vain
  kCrowd,  // too many wait already
  kEnded,  // the server stops
};

class WritePace;

// One write that asks for room. Stays where it is while it waits; its end gives up its place.
class RoomTicket {
 public:
  RoomTicket(uint64_t bytes, uint64_t held_bytes) : bytes_(bytes), held_bytes_(held_bytes) {}
  ~RoomTicket();
  RoomTicket(const RoomTicket&) = delete;
  RoomTicket& operator=(const RoomTicket&) = delete;

 private:
  friend class WritePace;
  enum class State : uint8_t { kNew, kWaiting, kGranted };
  const uint64_t bytes_;       // to be written
  const uint64_t held_bytes_;  // of memory, while it waits
  WritePace* pace_ = nullptr;  // while it waits
  State state_ = State::kNew;  // changed under WritePace::mutex_
  uint64_t give_up_ns_ = 0;
};

class WritePace {
 public:
  // Once kYes, always kYes. After kWait: again when something may have changed, in any order of
  // tickets; after anything else a ticket begins anew.
  Room ask(RoomTicket& ticket, uint64_t now_ns);
  bool paced() const { return paced_.load(std::memory_order_relaxed); }
  size_t waiting() const;

  struct View {
    bool paced = false;         // new data needs credit
    bool below = false;         // free space is below the low-water mark
    uint64_t credit_bytes = 0;  // until the next look
  };
  void look(const View& view);
  // Does collection find anything that is worth it?
  void set_collectable(bool collectable);
  // While true, nobody waits.
  void end_waits(bool ended);

 private:
  friend class RoomTicket;
  void leave(RoomTicket& ticket);
  void remove(RoomTicket& ticket);  // mutex_ held

  std::atomic<bool> paced_{false};
  mutable std::mutex mutex_;
  bool below_ = false;
  bool collectable_ = true;
  bool ended_ = false;
  int64_t credit_ = 0;
  std::deque<RoomTicket*> waiting_;  // the longest first
  uint64_t held_bytes_ = 0;
};

}  // namespace basalt::storage
