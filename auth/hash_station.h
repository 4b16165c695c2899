// HashStation: hashes the bodies of one core's uploads side by side.
//
// MD5 and SHA-256 of one message cannot be hurried, but those of several can run in the lanes of a
// vector (auth/hash_lanes.h): 8 messages take hardly longer than one. So an upload does not hash a
// piece when it arrives; it queues it, and the station hashes what all uploads of the core have
// queued.
//
// When: at once if enough lanes are filled; else when the loop has nothing else to do, and then
// only if there is no reason to be patient. Patience is what fills lanes when a few uploads are
// under way: a digest is needed when the disk has the body, which is later than the processor could
// have it, so until then a stream waits for the others of its core. It ends as soon as
//   - every open stream has queued something, so that nobody is left to wait for (one upload alone
//     never waits), or
//   - somebody waits for a queued stream (HashStream::wait()): it is hashed first, and whoever has
//     queued something shares the run, or
//   - the alarm rings, kPatienceMs after patience began, whatever the others do.
//
// With an exchange (auth/hash_exchange.h) "every open stream" includes the long messages of the
// other cores, and a station may hash them beside its own.
//
// The core owns one station, gives it to its loop as a poller, and hands it down. Thread: the
// core's own, for all that is in this file. Nothing is hashed anywhere but inside poll(),
// prepare_sleep() and the members of HashStream; a long message also inside another core's.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "auth/digest.h"
#include "auth/hash_exchange.h"
#include "auth/hash_lanes.h"
#include "base/bytes.h"
#include "base/completion.h"
#include "base/poller.h"

namespace basalt::auth {

class HashStream;

// Which kernel to use for how many streams, from what they cost on this processor.
class HashPlan {
 public:
  struct Entry {
    LaneKernel kernel;
    double ns_per_block = 1;  // of a run over one block of each lane, filled or not
  };
  // Measures every kernel of lane_kernels() (about a millisecond in all). With SHA instructions
  // OpenSSL's single stream beats 8 lanes of SHA-256, and is then the plan for any number.
  static HashPlan measure();
  struct JointEntry {
    JointKernel kernel;
    double ns_per_block = 1;  // of a run over one block of each lane of both
  };
  // For tests. Not empty; the first has one lane.
  explicit HashPlan(std::span<const Entry> md5, std::span<const Entry> sha256,
                    std::span<const JointEntry> joint = {});

  // The kernel that gets most done with `streams` (at least 1) of them.
  const Entry& best(LaneHash hash, size_t streams) const;
  // For so many streams of both: a kernel whose lanes they fill, and which beats the best ones of
  // each by itself. Null: there is none.
  const JointEntry* best_joint(size_t md5, size_t sha256) const;
  // From so many streams on, waiting for more is not worth it: three quarters of the best rate.
  size_t enough(LaneHash hash) const { return tables_[static_cast<size_t>(hash)].enough; }

 private:
  struct Table {
    std::array<Entry, kHashLanesMax + 1> best;
    size_t enough = 1;
  };
  static Table make_table(std::span<const Entry> entries);
  double ns_per_block_of_one(LaneHash hash, size_t streams) const;
  std::array<Table, kLaneHashCount> tables_;
  std::vector<JointEntry> joint_;
};

// What the station did. Read by the metrics, written by the core.
struct HashStationStats {
  struct PerHash {
    std::atomic<uint64_t> bytes{0};        // hashed, padding included
    std::atomic<uint64_t> lane_blocks{0};  // blocks of lanes that were filled ...
    std::atomic<uint64_t> run_blocks{
        0};  // ... in so many blocks of runs: their ratio is the filling
  };
  std::array<PerHash, kLaneHashCount> hashes;
};

// Ends the station's patience: calls HashStation::ring() on the core's thread, once,
// HashStation::kPatienceMs after it was armed unless it was disarmed.
class HashAlarm {
 public:
  virtual ~HashAlarm() = default;
  virtual void arm() = 0;
  virtual void disarm() = 0;
};

class HashStation final : public Poller {
 public:
  // A call of poll() or prepare_sleep() hashes for about so long.
  static constexpr double kRunNsMax = 150'000;
  // With few lanes filled it returns sooner, so that other uploads can join.
  static constexpr double kFewLanesRunNsMax = 50'000;
  // So often poll() may leave work for when the loop has nothing else to do.
  static constexpr unsigned kPollsSkippedMax = 16;

  // Longer than what a disk usually takes for a body and its flush. Only what nobody waits for
  // waits so long.
  static constexpr uint64_t kPatienceMs = 20;

  // Without an alarm (nullptr) it is never patient. An exchange needs an alarm, and wake_fd().
  HashStation(RunQueue& run_queue, const HashPlan& plan, HashAlarm* alarm = nullptr,
              HashExchange* exchange = nullptr);
  ~HashStation() override;  // no stream is left
  HashStation(const HashStation&) = delete;
  HashStation& operator=(const HashStation&) = delete;

  bool poll() override;
  // Hashes what is queued, unless it is patient. False if it did, so that the loop looks for
  // further work first.
  bool prepare_sleep() override;
  void woke() override;
  // Becomes readable when another core has hashed what this one slept for; -1 without an exchange.
  int wake_fd() const override { return wake_fd_; }
  // What is queued now is hashed without further patience.
  void ring();

  const HashStationStats& stats() const { return stats_; }

 private:
  friend class HashStream;
  struct List {
    HashStream* head = nullptr;
    HashStream* tail = nullptr;
  };
  // Streams with blocks to hash. `urgent`: somebody waits for them.
  struct Queue {
    List urgent;
    List patient;
    size_t count = 0;
    size_t long_count = 0;  // of them, those that may be lent
    size_t open = 0;        // streams that exist, queued or not
    size_t long_open = 0;
  };
  // Streams of other cores: what there is to borrow, and in a slice what is borrowed.
  struct Foreign {
    size_t count = 0;
    size_t urgent = 0;
  };
  struct Guest {
    HashStream* stream;
    bool urgent;
  };
  // What a run is made of.
  struct Filling {
    std::array<HashLane, kHashLanesMax> lanes;
    std::array<HashStream*, kHashLanesMax> streams;
    size_t filled = 0;
  };
  void enqueue(HashStream& stream);
  void remove(HashStream& stream);
  void link(HashStream& stream);
  void unlink(HashStream& stream);
  void urgency_changed(HashStream& stream);
  size_t fill(LaneHash hash, size_t width, size_t blocks_max, Filling& filling);
  void hashed(LaneHash hash, const Filling& filling, size_t blocks);
  void enter_guests(LaneHash hash, bool urgent, size_t width, Filling& filling, size_t& blocks);
  void guest_hashed(HashStream& stream, size_t blocks);
  double run_one(LaneHash hash, double ns_max);
  double run_joint(const HashPlan::JointEntry& choice, double ns_max);
  void run(bool md5, bool sha256, double ns_max);
  bool run_slice(bool md5, bool sha256, double ns_max);
  size_t runnable(LaneHash hash) const { return queue(hash).count + foreign(hash).count; }
  bool enough(LaneHash hash) const { return queue(hash).count >= plan_.enough(hash); }
  bool due(LaneHash hash) const;
  Queue& queue(LaneHash hash) { return queues_[static_cast<size_t>(hash)]; }
  const Queue& queue(LaneHash hash) const { return queues_[static_cast<size_t>(hash)]; }
  Foreign& foreign(LaneHash hash) { return foreign_[static_cast<size_t>(hash)]; }
  const Foreign& foreign(LaneHash hash) const { return foreign_[static_cast<size_t>(hash)]; }

  // Sharing, in hash_exchange.cc. "Locked" is called with the exchange's mutex.
  size_t long_open_elsewhere(LaneHash hash) const;
  void look_around();
  void count_foreign_locked();
  void lend_locked(LaneHash hash);
  void unlend_locked(HashStream& stream);
  void take_note_locked(HashStream& stream);
  void borrow_locked(LaneHash hash);
  enum class Slice : uint8_t { kAlone, kRunner, kLent };
  Slice begin_slice(bool md5, bool sha256);
  void end_slice();
  bool lend_and_doze();
  void recall(HashStream& stream);
  void wake_locked();

  RunQueue& run_queue_;
  const HashPlan plan_;
  HashAlarm* const alarm_;
  HashExchange* const exchange_;
  int wake_fd_ = -1;
  std::vector<HashStream*> lent_;  // own streams in the exchange
  std::array<Foreign, kLaneHashCount> foreign_;
  std::array<std::vector<Guest>, kLaneHashCount> guests_;  // of this slice
  bool dozing_ = false;                                    // asleep_ may be set
  bool asleep_ = false;  // guarded by the exchange's mutex, as is the next
  bool rung_ = false;
  bool alarm_armed_ = false;
  bool overdue_ = false;  // it rang, and some of what was queued then may still be
  std::array<Queue, kLaneHashCount> queues_;
  unsigned polls_skipped_ = 0;
  HashStationStats stats_;
};

// Waits for a HashStream.
struct HashWait : Completion {
  bool result = true;
};

// The digest of one message. Neither copied nor moved.
//
// With a station, add() takes no more than a note of where bytes are: they stay there unchanged
// until hashed() has passed them. Dropping the stream (or clear()) forgets them at once: nothing
// refers to them any more. Without a station (nullptr) add() hashes at once, with OpenSSL.
class HashStream {
 public:
  // A long message (256 KiB and more) may be lent to another core's station: what add() was given
  // is then read by that core's thread.
  static constexpr uint64_t kLongBytesMin = 256 * 1024;
  HashStream(HashStation* station, LaneHash hash, bool is_long = false);
  ~HashStream();
  HashStream(const HashStream&) = delete;
  HashStream& operator=(const HashStream&) = delete;

  // Not after finish(). Bytes that follow the previous ones in memory are one run with them.
  void add(Bytes data);
  // The message is complete; digest() is there when done().
  void finish();

  uint64_t added() const { return added_; }
  // The first so many bytes of the message need not be kept.
  uint64_t hashed() const { return hashed_; }
  bool finished() const { return finished_; }
  bool done() const { return done_; }

  // Completes, through the run queue, when hashed() has reached `position` (at most added()), or
  // after finish() when done(). One waiter at a time; the stream is not dropped while it has one.
  // For a stream with a station, which is not patient with it from now on.
  void wait(HashWait& call, uint64_t position);

  Digest digest() const;  // after done()

  // Forgets the message and what is queued of it; the next one may be added. No waiter.
  void clear();

 private:
  friend class HashStation;
  Bytes next_blocks();
  void consumed(size_t bytes);
  void pull();
  void answer();
  void drop_front(size_t bytes);
  void take_tail();
  void put_padding();

  HashStation* const station_;
  const LaneHash hash_;
  const bool long_;
  std::array<uint32_t, 8> state_;  // the runner's while loan_.borrowed
  // Runs of bytes not hashed yet; `first_` is the first, so that a message in one place needs no
  // memory.
  Bytes first_;
  std::vector<Bytes> more_;
  size_t more_begin_ = 0;
  // A block that is not contiguous in the caller's memory.
  std::array<uint8_t, kHashBlockBytes> partial_;
  size_t partial_bytes_ = 0;
  std::array<uint8_t, 2 * kHashBlockBytes> padding_;

  uint64_t added_ = 0;
  uint64_t hashed_ = 0;
  bool finished_ = false;
  bool padded_ = false;
  bool done_ = false;
  bool queued_ = false;
  bool lent_ = false;  // then it is not queued
  HashLoan loan_;
  bool in_urgent_ = false;  // of the two lists, while queued_
  HashStream* next_ = nullptr;
  HashStream* previous_ = nullptr;
  HashWait* waiter_ = nullptr;
  uint64_t wait_position_ = 0;
};

}  // namespace basalt::auth
