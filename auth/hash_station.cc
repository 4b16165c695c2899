#include "auth/hash_station.h"

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

HashPlan::Entry measured(LaneHash hash, const LaneKernel& kernel) {
  constexpr size_t kBlocks = 64;
  constexpr int kRounds = 8;  // the best counts: a busy machine only makes it slower
  const std::vector<uint8_t> data(kBlocks * kHashBlockBytes, 0x5a);
  std::array<std::array<uint32_t, 8>, kHashLanesMax> states;
  states.fill(start_of(hash));
  std::array<HashLane, kHashLanesMax> lanes;
  for (size_t i = 0; i < lanes.size(); ++i) lanes[i] = {states[i].data(), data.data()};
  double best_ns = 1e9;
  for (int round = 0; round < kRounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    kernel.compress(lanes.data(), kBlocks);
    const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - start;
    best_ns = std::min(best_ns, took.count() / kBlocks);
  }
  return {kernel, std::max(best_ns, 1.0)};
}

}  // namespace

// --- The plan

HashPlan::HashPlan(std::span<const Entry> md5, std::span<const Entry> sha256)
    : tables_{make_table(md5), make_table(sha256)} {}

HashPlan HashPlan::measure() {
  std::array<std::vector<Entry>, kLaneHashCount> entries;
  for (const LaneHash hash : {LaneHash::kMd5, LaneHash::kSha256}) {
    for (const LaneKernel& kernel : lane_kernels(hash)) {
      entries[static_cast<size_t>(hash)].push_back(measured(hash, kernel));
    }
  }
  return HashPlan(entries[0], entries[1]);
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

// --- The station

HashStation::~HashStation() { BASALT_CHECK(streams_ == 0); }

void HashStation::enqueue(HashStream& stream) {
  Queue& in = queue(stream.hash_);
  stream.queued_ = true;
  stream.next_ = nullptr;
  stream.previous_ = in.tail;
  (in.tail == nullptr ? in.head : in.tail->next_) = &stream;
  in.tail = &stream;
  ++in.count;
}

void HashStation::remove(HashStream& stream) {
  Queue& in = queue(stream.hash_);
  stream.queued_ = false;
  (stream.previous_ == nullptr ? in.head : stream.previous_->next_) = stream.next_;
  (stream.next_ == nullptr ? in.tail : stream.next_->previous_) = stream.previous_;
  --in.count;
}

void HashStation::run(LaneHash hash, double ns_max) {
  Queue& in = queue(hash);
  std::array<HashLane, kHashLanesMax> lanes;
  std::array<HashStream*, kHashLanesMax> streams;
  std::array<std::array<uint32_t, 8>, kHashLanesMax> nobody;
  double ns = 0;
  while (in.count > 0 && ns < ns_max) {
    const HashPlan::Entry& choice = plan_.best(hash, in.count);
    const size_t width = choice.kernel.lanes;
    size_t blocks = std::max<size_t>(1, static_cast<size_t>((ns_max - ns) / choice.ns_per_block));
    size_t filled = 0;
    for (HashStream* stream = in.head; stream != nullptr && filled < width;
         stream = stream->next_) {
      const Bytes run = stream->next_blocks();  // not empty: it is queued
      blocks = std::min(blocks, run.size() / kHashBlockBytes);
      streams[filled] = stream;
      lanes[filled++] = {stream->state_.data(), run.data()};
    }
    for (size_t i = filled; i < width; ++i) lanes[i] = {nobody[i].data(), lanes[0].data};
    choice.kernel.compress(lanes.data(), blocks);
    ns += static_cast<double>(blocks) * choice.ns_per_block;
    HashStationStats::PerHash& counters = stats_.hashes[static_cast<size_t>(hash)];
    bump(counters.bytes, filled * blocks * kHashBlockBytes);
    bump(counters.lane_blocks, filled * blocks);
    bump(counters.run_blocks, blocks);
    for (size_t i = 0; i < filled; ++i) {
      HashStream& stream = *streams[i];
      // To the back: with more streams than lanes each gets its turn.
      remove(stream);
      stream.consumed(blocks * kHashBlockBytes);
      stream.pull();
      stream.answer();
    }
  }
}

bool HashStation::poll() {
  bool any = false;
  bool skipped = false;
  const bool late = polls_skipped_ >= kPollsSkippedMax;
  for (const LaneHash hash : {LaneHash::kMd5, LaneHash::kSha256}) {
    if (queue(hash).count == 0) continue;
    if (queue(hash).count >= plan_.enough(hash) || late) {
      run(hash, kRunNsMax);
      any = true;
    } else {
      skipped = true;
    }
  }
  polls_skipped_ = skipped ? polls_skipped_ + 1 : 0;
  return any;
}

bool HashStation::prepare_sleep() {
  bool any = false;
  for (const LaneHash hash : {LaneHash::kMd5, LaneHash::kSha256}) {
    const size_t count = queue(hash).count;
    if (count == 0) continue;
    run(hash, count >= plan_.enough(hash) ? kRunNsMax : kFewLanesRunNsMax);
    any = true;
  }
  polls_skipped_ = 0;
  return !any;
}

// --- A stream

HashStream::HashStream(HashStation* station, LaneHash hash)
    : station_(station), hash_(hash), state_(start_of(hash)) {
  if (station_ != nullptr) ++station_->streams_;
}

HashStream::~HashStream() {
  clear();
  if (station_ != nullptr) --station_->streams_;
}

void HashStream::clear() {
  BASALT_CHECK(waiter_ == nullptr);
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
  if (queued_) return;
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
  answer();
}

void HashStream::answer() {
  if (waiter_ == nullptr) return;
  // A tail of less than a block would wait for its next bytes, and its memory is wanted back.
  if (!queued_ && !finished_ && hashed_ < wait_position_) take_tail();
  if (finished_ ? !done_ : hashed_ < wait_position_) return;
  station_->run_queue_.post(*std::exchange(waiter_, nullptr));
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
