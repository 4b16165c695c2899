#include "auth/hash_exchange.h"

#include <unistd.h>

#include <algorithm>

#include "auth/hash_station.h"
#include "base/check.h"

namespace basalt::auth {
namespace {

constexpr std::array<LaneHash, kLaneHashCount> kBoth = {LaneHash::kMd5, LaneHash::kSha256};

}  // namespace

size_t HashStation::long_open_elsewhere(LaneHash hash) const {
  return exchange_->open_[static_cast<size_t>(hash)].load() - queue(hash).long_open;
}

// Takes note of what others did with what is lent, takes it back while nobody runs, and counts what
// there is to borrow.
void HashStation::look_around() {
  if (exchange_ == nullptr) return;
  foreign_ = {};
  if (exchange_->lent_count_.load() == 0) return;
  const std::lock_guard lock(exchange_->mutex_);
  const bool idle = exchange_->runner_ == nullptr;
  for (size_t i = 0; i < lent_.size();) {
    HashStream& stream = *lent_[i];
    HashLoan& loan = stream.loan_;
    if (!loan.borrowed) take_note_locked(stream);
    if (!loan.borrowed && (idle || loan.blocks == 0)) {
      unlend_locked(stream);  // the last of lent_ is now here
      stream.pull();
      if (stream.queued_ && stream.padded_ && stream.first_.size() <= 2 * kHashBlockBytes) {
        // The padding is all that is left: not worth a run.
        const Bytes blocks = stream.first_;
        const HashLane lane{stream.state_.data(), blocks.data()};
        remove(stream);
        lane_kernels(stream.hash_).front().compress(&lane, blocks.size() / kHashBlockBytes);
        stream.consumed(blocks.size());
      }
      stream.answer();
      continue;
    }
    stream.answer();
    const uint64_t missing =
        stream.wait_position_ > stream.hashed_ ? stream.wait_position_ - stream.hashed_ : 0;
    loan.urgent = overdue_ || stream.waiter_ != nullptr;
    loan.wake_at =
        stream.waiter_ != nullptr && !stream.finished_ ? missing / kHashBlockBytes + 1 : SIZE_MAX;
    ++i;
  }
  count_foreign_locked();
}

void HashStation::count_foreign_locked() {
  foreign_ = {};
  for (const LaneHash hash : kBoth) {
    for (const HashStream* stream : exchange_->lent_[static_cast<size_t>(hash)]) {
      if (stream->station_ == this || stream->loan_.borrowed || stream->loan_.blocks == 0) continue;
      ++foreign(hash).count;
      if (stream->loan_.urgent) ++foreign(hash).urgent;
    }
  }
}

void HashStation::take_note_locked(HashStream& stream) {
  if (const size_t done = std::exchange(stream.loan_.done, 0); done > 0) {
    stream.consumed(done * kHashBlockBytes);
  }
}

// Lends the long messages that are queued, if there is somebody who may have others.
void HashStation::lend_locked(LaneHash hash) {
  if (queue(hash).long_count == 0 || long_open_elsewhere(hash) == 0) return;
  for (const List* list : {&queue(hash).urgent, &queue(hash).patient}) {
    for (HashStream *next = nullptr, *stream = list->head; stream != nullptr; stream = next) {
      next = stream->next_;
      if (!stream->long_) continue;
      const Bytes run = stream->next_blocks();
      remove(*stream);
      stream->lent_ = true;
      HashLoan loan;
      loan.data = run.data();
      loan.blocks = run.size() / kHashBlockBytes;
      loan.urgent = overdue_ || stream->waiter_ != nullptr;
      loan.wake_at = SIZE_MAX;
      if (stream->waiter_ != nullptr && !stream->finished_) {
        loan.wake_at = (stream->wait_position_ - stream->hashed_) / kHashBlockBytes + 1;
      }
      stream->loan_ = loan;
      lent_.push_back(stream);
      exchange_->lent_[static_cast<size_t>(hash)].push_back(stream);
      exchange_->lent_count_.fetch_add(1);
    }
  }
}

void HashStation::unlend_locked(HashStream& stream) {
  const auto drop = [&](std::vector<HashStream*>& list) {
    const auto found = std::find(list.begin(), list.end(), &stream);
    BASALT_CHECK(found != list.end());
    *found = list.back();
    list.pop_back();
  };
  drop(lent_);
  drop(exchange_->lent_[static_cast<size_t>(stream.hash_)]);
  exchange_->lent_count_.fetch_sub(1);
  stream.lent_ = false;
}

void HashStation::borrow_locked(LaneHash hash) {
  std::vector<Guest>& guests = guests_[static_cast<size_t>(hash)];
  for (HashStream* stream : exchange_->lent_[static_cast<size_t>(hash)]) {
    if (guests.size() == kHashLanesMax) return;
    HashLoan& loan = stream->loan_;
    if (stream->station_ == this || loan.blocks == 0) continue;
    BASALT_CHECK(!loan.borrowed);  // only the runner borrows
    loan.borrowed = true;
    guests.push_back({stream, loan.urgent});
    ++foreign(hash).count;
    if (loan.urgent) ++foreign(hash).urgent;
  }
}

// How a run is to be made. kLent: another station makes it.
HashStation::Slice HashStation::begin_slice(bool md5, bool sha256) {
  const auto wanted = [&](LaneHash hash) { return hash == LaneHash::kMd5 ? md5 : sha256; };
  bool alone = true;
  for (const LaneHash hash : kBoth) {
    alone &= !wanted(hash) || (enough(hash) && foreign(hash).urgent == 0);
  }
  foreign_ = {};
  if (alone) return Slice::kAlone;
  const std::lock_guard lock(exchange_->mutex_);
  if (exchange_->runner_ != nullptr) {
    for (const LaneHash hash : kBoth) {
      if (wanted(hash) && !enough(hash)) lend_locked(hash);
    }
    return (md5 && due(LaneHash::kMd5)) || (sha256 && due(LaneHash::kSha256)) ? Slice::kAlone
                                                                              : Slice::kLent;
  }
  exchange_->runner_ = this;
  for (const LaneHash hash : kBoth) {
    if (wanted(hash)) borrow_locked(hash);
  }
  return Slice::kRunner;
}

void HashStation::enter_guests(LaneHash hash, bool urgent, size_t width, Filling& filling,
                               size_t& blocks) {
  for (const Guest& guest : guests_[static_cast<size_t>(hash)]) {
    if (filling.filled == width) return;
    const HashLoan& loan = guest.stream->loan_;
    if (guest.urgent != urgent || loan.blocks == 0) continue;
    blocks = std::min(blocks, loan.blocks);
    filling.streams[filling.filled] = guest.stream;
    filling.lanes[filling.filled++] = {guest.stream->state_.data(), loan.data};
  }
}

void HashStation::guest_hashed(HashStream& stream, size_t blocks) {
  HashLoan& loan = stream.loan_;
  loan.data += blocks * kHashBlockBytes;
  loan.blocks -= blocks;
  loan.done += blocks;
  if (loan.blocks > 0) return;
  --foreign(stream.hash_).count;
  for (const Guest& guest : guests_[static_cast<size_t>(stream.hash_)]) {
    if (guest.stream == &stream && guest.urgent) --foreign(stream.hash_).urgent;
  }
}

void HashStation::end_slice() {
  {
    const std::lock_guard lock(exchange_->mutex_);
    for (std::vector<Guest>& guests : guests_) {
      for (const Guest& guest : guests) {
        HashLoan& loan = guest.stream->loan_;
        loan.borrowed = false;
        if (loan.blocks == 0 || loan.done >= loan.wake_at) guest.stream->station_->wake_locked();
      }
      guests.clear();
    }
    exchange_->runner_ = nullptr;
  }
  exchange_->returned_.notify_all();
  foreign_ = {};
}

void HashStation::wake_locked() {
  if (!asleep_ || rung_) return;
  rung_ = true;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t wrote = write(wake_fd_, &one, sizeof one);
}

// Before the loop sleeps: others may have what is queued here. False: there is something to do.
bool HashStation::lend_and_doze() {
  if (exchange_ == nullptr) return true;
  size_t lendable = lent_.size();
  for (const LaneHash hash : kBoth) {
    if (long_open_elsewhere(hash) > 0) lendable += queue(hash).long_count;
  }
  if (lendable == 0) return true;
  const std::lock_guard lock(exchange_->mutex_);
  // Since look_around() others may have lent what completes a run, and gone to sleep themselves; or
  // who ran has ended, and will not look at what is lent here again.
  if (exchange_->runner_ == nullptr) {
    count_foreign_locked();
    if (!lent_.empty() || due(LaneHash::kMd5) || due(LaneHash::kSha256)) return false;
  }
  for (const HashStream* stream : lent_) {
    const HashLoan& loan = stream->loan_;
    if (!loan.borrowed && (loan.blocks == 0 || loan.done >= loan.wake_at)) return false;
  }
  for (const LaneHash hash : kBoth) lend_locked(hash);
  dozing_ = asleep_ = true;
  return true;
}

void HashStation::woke() {
  if (!dozing_) return;
  dozing_ = false;
  const std::lock_guard lock(exchange_->mutex_);
  asleep_ = false;
  if (!std::exchange(rung_, false)) return;
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = read(wake_fd_, &count, sizeof count);
}

// The stream is about to be dropped: it comes back at once, or after the slice it is part of.
void HashStation::recall(HashStream& stream) {
  std::unique_lock lock(exchange_->mutex_);
  while (stream.loan_.borrowed) exchange_->returned_.wait(lock);
  unlend_locked(stream);
}

}  // namespace basalt::auth
