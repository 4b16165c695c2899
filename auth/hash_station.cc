#include "auth/hash_station.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/check.h"

namespace basalt::auth {
namespace {

constexpr std::array<uint32_t, 8> kMd5Start = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
constexpr std::array<uint32_t, 8> kSha256Start = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                                  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

const std::array<uint32_t, 8>& start_of(LaneHash hash) {
  return hash == LaneHash::kMd5 ? kMd5Start : kSha256Start;
}

void compress_single(LaneHash hash, std::array<uint32_t, 8>& state, Bytes blocks) {
  const HashLane lane{state.data(), blocks.data()};
  lane_kernels(hash).front().compress(&lane, blocks.size() / kHashBlockBytes);
}

void bump(std::atomic<uint64_t>& counter, uint64_t by) {
  counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
}

// What `compress` of kBlocks blocks of every lane takes, a block.
template <class Compress>
double measured(Compress compress) {
  constexpr size_t kBlocks = 64;
  constexpr int kRounds = 8;  // the best counts: a busy machine only makes it slower
  const std::vector<uint8_t> data(kBlocks * kHashBlockBytes, 0x5a);
  // Lanes of both hashes at most; the start of the one does for the other.
  std::array<std::array<uint32_t, 8>, 2 * kHashLanesMax> states;
  states.fill(kSha256Start);
  std::array<HashLane, 2 * kHashLanesMax> lanes;
  for (size_t i = 0; i < lanes.size(); ++i) lanes[i] = {states[i].data(), data.data()};
  double best_ns = 1e9;
  for (int round = 0; round < kRounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    compress(lanes.data(), kBlocks);
    const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - start;
    best_ns = std::min(best_ns, took.count() / kBlocks);
  }
  return std::max(best_ns, 1.0);
}

}  // namespace

// --- The plan

HashPlan::HashPlan(std::span<const Entry> md5, std::span<const Entry> sha256,
                   std::span<const JointEntry> joint)
    : tables_{make_table(md5), make_table(sha256)}, joint_(joint.begin(), joint.end()) {}

HashPlan HashPlan::measure() {
  std::array<std::vector<Entry>, kLaneHashCount> entries;
  for (const LaneHash hash : {LaneHash::kMd5, LaneHash::kSha256}) {
    for (const LaneKernel& kernel : lane_kernels(hash)) {
      entries[static_cast<size_t>(hash)].push_back({kernel, measured(kernel.compress)});
    }
  }
  std::vector<JointEntry> joint;
  for (const JointKernel& kernel : joint_kernels()) {
    const double ns = measured([&](const HashLane* lanes, size_t blocks) {
      kernel.compress(lanes, lanes + kHashLanesMax, blocks);
    });
    joint.push_back({kernel, ns});
  }
  return HashPlan(entries[0], entries[1], joint);
}

HashPlan::Table HashPlan::make_table(std::span<const Entry> entries) {
  BASALT_CHECK(!entries.empty() && entries.front().kernel.lanes == 1);
  const auto rate = [](const Entry& entry, size_t streams) {
    return static_cast<double>(std::min<size_t>(streams, entry.kernel.lanes)) / entry.ns_per_block;
  };
  Table table;
  for (size_t streams = 1; streams < table.best.size(); ++streams) {
    const Entry* best = &entries.front();
    for (const Entry& entry : entries) {
      BASALT_CHECK(entry.kernel.lanes <= kHashLanesMax);
      if (rate(entry, streams) > rate(*best, streams)) best = &entry;
    }
    table.best[streams] = *best;
  }
  table.best[0] = table.best[1];
  const double full = rate(table.best.back(), kHashLanesMax);
  while (rate(table.best[table.enough], table.enough) < 0.75 * full) ++table.enough;
  return table;
}

const HashPlan::Entry& HashPlan::best(LaneHash hash, size_t streams) const {
  const Table& table = tables_[static_cast<size_t>(hash)];
  return table.best[std::min(streams, table.best.size() - 1)];
}

double HashPlan::ns_per_block_of_one(LaneHash hash, size_t streams) const {
  const Entry& entry = best(hash, streams);
  return entry.ns_per_block / static_cast<double>(std::min<size_t>(streams, entry.kernel.lanes));
}

const HashPlan::JointEntry* HashPlan::best_joint(size_t md5, size_t sha256) const {
  const JointEntry* best = nullptr;
  double best_share = 1;
  for (const JointEntry& entry : joint_) {
    if (entry.kernel.md5 > md5 || entry.kernel.sha256 > sha256) continue;
    const double apart = entry.kernel.md5 * ns_per_block_of_one(LaneHash::kMd5, md5) +
                         entry.kernel.sha256 * ns_per_block_of_one(LaneHash::kSha256, sha256);
    if (entry.ns_per_block >= best_share * apart) continue;
    best_share = entry.ns_per_block / apart;
    best = &entry;
  }
  return best;
}

// --- The station

HashStation::HashStation(RunQueue& run_queue, const HashPlan& plan, HashAlarm* alarm,
                         HashExchange* exchange)
    : run_queue_(run_queue), plan_(plan), alarm_(alarm), exchange_(exchange) {
  if (exchange_ == nullptr) return;
  BASALT_CHECK(alarm_ != nullptr);
  wake_fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  BASALT_CHECK(wake_fd_ >= 0);
}

HashStation::~HashStation() {
  for (const Queue& queue : queues_) BASALT_CHECK(queue.open == 0);
  if (wake_fd_ >= 0) close(wake_fd_);
}

void HashStation::link(HashStream& stream) {
  Queue& in = queue(stream.hash_);
  stream.in_urgent_ = stream.waiter_ != nullptr;
  List& list = stream.in_urgent_ ? in.urgent : in.patient;
  stream.next_ = nullptr;
  stream.previous_ = list.tail;
  (list.tail == nullptr ? list.head : list.tail->next_) = &stream;
  list.tail = &stream;
}

void HashStation::unlink(HashStream& stream) {
  Queue& in = queue(stream.hash_);
  List& list = stream.in_urgent_ ? in.urgent : in.patient;
  (stream.previous_ == nullptr ? list.head : stream.previous_->next_) = stream.next_;
  (stream.next_ == nullptr ? list.tail : stream.next_->previous_) = stream.previous_;
}

void HashStation::enqueue(HashStream& stream) {
  stream.queued_ = true;
  link(stream);
  ++queue(stream.hash_).count;
  if (stream.long_) ++queue(stream.hash_).long_count;
}

void HashStation::remove(HashStream& stream) {
  stream.queued_ = false;
  unlink(stream);
  --queue(stream.hash_).count;
  if (stream.long_) --queue(stream.hash_).long_count;
}

void HashStation::urgency_changed(HashStream& stream) {
  if (!stream.queued_ || stream.in_urgent_ == (stream.waiter_ != nullptr)) return;
  unlink(stream);
  link(stream);
}

// Takes up to `width` streams, those first that somebody waits for. Returns for how many blocks.
// Before them other cores' that are waited for: those are few, and here nobody sees how long ago
// they came.
size_t HashStation::fill(LaneHash hash, size_t width, size_t blocks_max, Filling& filling) {
  filling.filled = 0;
  size_t blocks = blocks_max;
  enter_guests(hash, true, width, filling, blocks);
  for (const List* list : {&queue(hash).urgent, &queue(hash).patient}) {
    for (HashStream* stream = list->head; stream != nullptr && filling.filled < width;
         stream = stream->next_) {
      const Bytes run = stream->next_blocks();  // not empty: it is queued
      blocks = std::min(blocks, run.size() / kHashBlockBytes);
      filling.streams[filling.filled] = stream;
      filling.lanes[filling.filled++] = {stream->state_.data(), run.data()};
    }
  }
  enter_guests(hash, false, width, filling, blocks);
  return blocks;
}

void HashStation::hashed(LaneHash hash, const Filling& filling, size_t blocks) {
  HashStationStats::PerHash& counters = stats_.hashes[static_cast<size_t>(hash)];
  bump(counters.bytes, filling.filled * blocks * kHashBlockBytes);
  bump(counters.lane_blocks, filling.filled * blocks);
  bump(counters.run_blocks, blocks);
  for (size_t i = 0; i < filling.filled; ++i) {
    HashStream& stream = *filling.streams[i];
    if (stream.station_ != this) {
      guest_hashed(stream, blocks);
      continue;
    }
    // To the back: with more streams than lanes each gets its turn.
    remove(stream);
    stream.consumed(blocks * kHashBlockBytes);
    stream.pull();
    stream.answer();
  }
}

// One run of the kernel that suits what is queued. How long it took, by the plan.
double HashStation::run_one(LaneHash hash, double ns_max) {
  const HashPlan::Entry& choice = plan_.best(hash, runnable(hash));
  Filling filling;
  const size_t blocks =
      fill(hash, choice.kernel.lanes,
           std::max<size_t>(1, static_cast<size_t>(ns_max / choice.ns_per_block)), filling);
  std::array<std::array<uint32_t, 8>, kHashLanesMax> nobody;
  for (size_t i = filling.filled; i < choice.kernel.lanes; ++i) {
    filling.lanes[i] = {nobody[i].data(), filling.lanes[0].data};
  }
  choice.kernel.compress(filling.lanes.data(), blocks);
  hashed(hash, filling, blocks);
  return static_cast<double>(blocks) * choice.ns_per_block;
}

double HashStation::run_joint(const HashPlan::JointEntry& choice, double ns_max) {
  Filling md5, sha256;
  size_t blocks = std::max<size_t>(1, static_cast<size_t>(ns_max / choice.ns_per_block));
  blocks = fill(LaneHash::kMd5, choice.kernel.md5, blocks, md5);
  blocks = fill(LaneHash::kSha256, choice.kernel.sha256, blocks, sha256);
  choice.kernel.compress(md5.lanes.data(), sha256.lanes.data(), blocks);
  hashed(LaneHash::kMd5, md5, blocks);
  hashed(LaneHash::kSha256, sha256, blocks);
  return static_cast<double>(blocks) * choice.ns_per_block;
}

// Hashes what is queued of one or both, for about `ns_max` each, or until what is left is patient.
void HashStation::run(bool md5, bool sha256, double ns_max) {
  double md5_ns = 0, sha256_ns = 0;
  while (true) {
    const bool more_md5 = md5 && md5_ns < ns_max && due(LaneHash::kMd5);
    const bool more_sha256 = sha256 && sha256_ns < ns_max && due(LaneHash::kSha256);
    if (!more_md5 && !more_sha256) return;
    if (more_md5 && more_sha256) {
      const HashPlan::JointEntry* joint =
          plan_.best_joint(runnable(LaneHash::kMd5), runnable(LaneHash::kSha256));
      if (joint != nullptr) {
        const double ns = run_joint(*joint, ns_max - std::max(md5_ns, sha256_ns));
        md5_ns += ns;
        sha256_ns += ns;
        continue;
      }
    }
    if (more_md5) {
      md5_ns += run_one(LaneHash::kMd5, ns_max - md5_ns);
    } else {
      sha256_ns += run_one(LaneHash::kSha256, ns_max - sha256_ns);
    }
  }
}

// The same for what is queued here, or lent to the station that runs already. False: all of it is
// lent.
bool HashStation::run_slice(bool md5, bool sha256, double ns_max) {
  const Slice slice = exchange_ == nullptr ? Slice::kAlone : begin_slice(md5, sha256);
  if (slice == Slice::kLent) return false;
  run(md5, sha256, ns_max);
  if (slice == Slice::kRunner) end_slice();
  return true;
}

// Is there no reason to wait for more streams?
bool HashStation::due(LaneHash hash) const {
  const Queue& in = queue(hash);
  const Foreign& others = foreign(hash);
  if (in.count + others.count == 0) return false;
  if (alarm_ == nullptr || in.urgent.head != nullptr || others.urgent > 0) return true;
  if (overdue_ && in.count > 0) return true;
  // For a short message only the streams of this core are company.
  const bool alone = exchange_ == nullptr || in.count > in.long_count;
  const size_t streams = alone ? in.count : in.count + others.count;
  const size_t open = alone ? in.open : in.open + long_open_elsewhere(hash);
  return streams >= std::min(plan_.enough(hash), open);
}

bool HashStation::poll() {
  look_around();
  const bool late = polls_skipped_ >= kPollsSkippedMax;
  const auto now = [&](LaneHash hash) {
    return (queue(hash).count > 0 && enough(hash)) || (late && due(hash));
  };
  const bool md5 = now(LaneHash::kMd5), sha256 = now(LaneHash::kSha256);
  const bool skipped = (!md5 && due(LaneHash::kMd5)) || (!sha256 && due(LaneHash::kSha256));
  const bool ran = (md5 || sha256) && run_slice(md5, sha256, kRunNsMax);
  polls_skipped_ = skipped ? polls_skipped_ + 1 : 0;
  return ran;
}

bool HashStation::prepare_sleep() {
  polls_skipped_ = 0;
  look_around();
  const bool md5 = due(LaneHash::kMd5), sha256 = due(LaneHash::kSha256);
  bool ran = false;
  if (md5 || sha256) {
    const bool full = (!md5 || enough(LaneHash::kMd5)) && (!sha256 || enough(LaneHash::kSha256));
    ran = run_slice(md5, sha256, full ? kRunNsMax : kFewLanesRunNsMax);
  }
  if (!ran && !lend_and_doze()) return false;
  const bool empty = queue(LaneHash::kMd5).count == 0 && queue(LaneHash::kSha256).count == 0;
  if (empty && lent_.empty()) overdue_ = false;
  // What is lent comes back when the alarm rings, should nobody run it.
  if (const bool patient = (!empty && !overdue_) || !lent_.empty();
      alarm_ != nullptr && patient != alarm_armed_) {
    alarm_armed_ = patient;
    patient ? alarm_->arm() : alarm_->disarm();
  }
  return !ran;
}

void HashStation::ring() {
  alarm_armed_ = false;
  overdue_ =
      queue(LaneHash::kMd5).count > 0 || queue(LaneHash::kSha256).count > 0 || !lent_.empty();
}

// --- A stream

HashStream::HashStream(HashStation* station, LaneHash hash, bool is_long)
    : station_(station),
      hash_(hash),
      long_(is_long && station != nullptr && station->exchange_ != nullptr),
      state_(start_of(hash)) {
  if (station_ == nullptr) return;
  ++station_->queue(hash_).open;
  if (!long_) return;
  ++station_->queue(hash_).long_open;
  station_->exchange_->open_[static_cast<size_t>(hash_)].fetch_add(1);
}

HashStream::~HashStream() {
  clear();
  if (station_ == nullptr) return;
  --station_->queue(hash_).open;
  if (!long_) return;
  --station_->queue(hash_).long_open;
  station_->exchange_->open_[static_cast<size_t>(hash_)].fetch_sub(1);
}

void HashStream::clear() {
  BASALT_CHECK(waiter_ == nullptr);
  if (lent_) station_->recall(*this);
  if (queued_) station_->remove(*this);
  state_ = start_of(hash_);
  first_ = {};
  more_.clear();
  more_begin_ = 0;
  partial_bytes_ = 0;
  added_ = hashed_ = 0;
  finished_ = padded_ = done_ = false;
}

void HashStream::add(Bytes data) {
  BASALT_CHECK(!finished_);
  if (data.empty()) return;
  added_ += data.size();
  Bytes& last = more_begin_ < more_.size() ? more_.back() : first_;
  if (last.empty()) {
    last = data;
  } else if (last.data() + last.size() == data.data()) {
    last = Bytes(last.data(), last.size() + data.size());
  } else {
    more_.push_back(data);
  }
  pull();
}

void HashStream::finish() {
  BASALT_CHECK(!finished_);
  finished_ = true;
  pull();
}

// Makes the next whole blocks available, and queues the stream if there are any. Without a station
// the blocks are hashed here.
void HashStream::pull() {
  if (queued_ || lent_) return;
  while (true) {
    const Bytes blocks = next_blocks();
    if (station_ != nullptr) {
      if (!blocks.empty()) station_->enqueue(*this);
      return;
    }
    if (blocks.empty()) break;
    compress_single(hash_, state_, blocks);
    consumed(blocks.size());
  }
  take_tail();  // nobody keeps the bytes
}

// What is left is less than a block: copied, so that its memory is free.
void HashStream::take_tail() {
  if (first_.empty()) return;
  BASALT_CHECK(more_begin_ == more_.size() && partial_bytes_ + first_.size() < kHashBlockBytes);
  std::memcpy(partial_.data() + partial_bytes_, first_.data(), first_.size());
  partial_bytes_ += first_.size();
  drop_front(first_.size());
}

// Whole blocks in one place, to be compressed next. Empty: more bytes must come first, or done.
Bytes HashStream::next_blocks() {
  while (true) {
    if (partial_bytes_ == 0 && first_.size() >= kHashBlockBytes) {
      return first_.first(first_.size() / kHashBlockBytes * kHashBlockBytes);
    }
    if (first_.empty()) {
      if (!finished_ || padded_) return {};
      put_padding();
      continue;
    }
    // A block that begins in one run and ends in another; a tail that may still be followed by its
    // own next bytes waits for them.
    const size_t room = kHashBlockBytes - partial_bytes_;
    if (first_.size() < room && more_begin_ == more_.size() && !finished_) return {};
    const size_t taken = std::min(room, first_.size());
    std::memcpy(partial_.data() + partial_bytes_, first_.data(), taken);
    partial_bytes_ += taken;
    drop_front(taken);
    if (partial_bytes_ == kHashBlockBytes) {
      compress_single(hash_, state_, partial_);
      partial_bytes_ = 0;
    }
  }
}

void HashStream::drop_front(size_t bytes) {
  first_ = first_.subspan(bytes);
  if (!padded_) hashed_ += bytes;
  if (!first_.empty()) return;
  if (more_begin_ < more_.size()) first_ = more_[more_begin_++];
  if (more_begin_ == more_.size()) {
    more_.clear();
    more_begin_ = 0;
  }
}

void HashStream::consumed(size_t bytes) {
  drop_front(bytes);
  if (padded_ && first_.empty()) done_ = true;
}

// The padding of both: a one bit, zeros, the length in bits; it is the last run.
void HashStream::put_padding() {
  padded_ = true;
  const size_t size = partial_bytes_ + 9 <= kHashBlockBytes ? kHashBlockBytes : 2 * kHashBlockBytes;
  std::memcpy(padding_.data(), partial_.data(), partial_bytes_);
  padding_[partial_bytes_] = 0x80;
  std::memset(padding_.data() + partial_bytes_ + 1, 0, size - partial_bytes_ - 1);
  const uint64_t bits = added_ * 8;
  for (size_t i = 0; i < 8; ++i) {
    const size_t shift = hash_ == LaneHash::kMd5 ? 8 * i : 56 - 8 * i;
    padding_[size - 8 + i] = static_cast<uint8_t>(bits >> shift);
  }
  partial_bytes_ = 0;
  first_ = Bytes(padding_.data(), size);
}

void HashStream::wait(HashWait& call, uint64_t position) {
  BASALT_CHECK(station_ != nullptr && waiter_ == nullptr && position <= added_);
  waiter_ = &call;
  wait_position_ = position;
  station_->urgency_changed(*this);
  answer();
}

void HashStream::answer() {
  if (waiter_ == nullptr) return;
  // A tail of less than a block would wait for its next bytes, and its memory is wanted back.
  if (!queued_ && !lent_ && !finished_ && hashed_ < wait_position_) take_tail();
  if (finished_ ? !done_ : hashed_ < wait_position_) return;
  station_->run_queue_.post(*std::exchange(waiter_, nullptr));
  station_->urgency_changed(*this);
}

Digest HashStream::digest() const {
  BASALT_CHECK(done_);
  Digest out;
  out.size = hash_ == LaneHash::kMd5 ? 16 : 32;
  for (size_t i = 0; i < out.size; ++i) {
    const size_t shift = hash_ == LaneHash::kMd5 ? 8 * (i % 4) : 24 - 8 * (i % 4);
    out.bytes[i] = static_cast<uint8_t>(state_[i / 4] >> shift);
  }
  return out;
}

}  // namespace basalt::auth
