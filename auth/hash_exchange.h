// HashExchange: where the hash stations of several cores lend each other their long messages.
//
// A core with two uploads fills two lanes, and so does the next one: two runs where one would do.
// So a station that has fewer streams than make a good run lends what it has queued, and one
// station at a time, the runner, hashes its own and the borrowed ones side by side, a slice a turn
// of its loop. Whoever has enough streams of its own neither lends nor borrows.
//
// One per process with several cores; it outlives the stations. Thread: any; every member is
// guarded by the mutex or atomic, and only HashStation and HashStream (auth/hash_station.h) use it.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "auth/hash_lanes.h"

namespace basalt::auth {

class HashStation;
class HashStream;

// The part of a stream that the runner works on.
struct HashLoan {
  // The runner's own while `borrowed`, else guarded by the mutex.
  const uint8_t* data = nullptr;
  size_t blocks = 0;
  size_t done = 0;  // blocks hashed, of which the owner has not taken note yet
  // Guarded by the mutex.
  size_t wake_at = 0;  // the owner waits for so many done
  bool urgent = false;
  bool borrowed = false;
};

class HashExchange {
 public:
  HashExchange() = default;
  HashExchange(const HashExchange&) = delete;
  HashExchange& operator=(const HashExchange&) = delete;

 private:
  friend class HashStation;
  friend class HashStream;
  std::mutex mutex_;
  std::condition_variable returned_;  // the runner gave back what it had borrowed
  HashStation* runner_ = nullptr;
  std::array<std::vector<HashStream*>, kLaneHashCount> lent_;
  std::atomic<size_t> lent_count_{0};  // of all of them, so that nobody locks for nothing
  std::array<std::atomic<size_t>, kLaneHashCount> open_{};  // streams that may be lent
};

}  // namespace basalt::auth
