#include "storage/write_pace.h"

namespace basalt::storage {

RoomTicket::~RoomTicket() {
  if (pace_ != nullptr) pace_->leave(*this);
}

void WritePace::leave(RoomTicket& ticket) {
  const std::lock_guard lock(mutex_);
  if (ticket.state_ == RoomTicket::State::kWaiting) remove(ticket);
}

void WritePace::remove(RoomTicket& ticket) {
  std::erase(waiting_, &ticket);
  held_bytes_ -= ticket.held_bytes_;
  ticket.state_ = RoomTicket::State::kNew;
}

Room WritePace::ask(RoomTicket& ticket, uint64_t now_ns) {
  // `pace_` is of the ticket's own thread: set only where it has waited.
  if (ticket.pace_ == nullptr && !paced()) [[likely]]
    return Room::kYes;
  const std::lock_guard lock(mutex_);
  if (ticket.state_ == RoomTicket::State::kGranted) return Room::kYes;
  const bool waits = ticket.state_ == RoomTicket::State::kWaiting;
  Room answer = Room::kWait;
  if (ended_) {
    answer = Room::kEnded;
  } else if (!waits && (!paced() || (credit_ > 0 && waiting_.empty()))) {
    // The last one may take more than there is: a large body is not kept waiting by small ones.
    if (paced()) credit_ -= static_cast<int64_t>(ticket.bytes_);
    ticket.state_ = RoomTicket::State::kGranted;
    return Room::kYes;
  } else if ((below_ && !collectable_) || (waits && now_ns >= ticket.give_up_ns_)) {
    answer = Room::kNone;
  } else if (!waits && (waiting_.size() >= kRoomWaitsMax ||
                        held_bytes_ + ticket.held_bytes_ > kRoomWaitBytesMax)) {
    answer = Room::kCrowd;
  }
  if (answer != Room::kWait) {
    if (waits) remove(ticket);
    return answer;
  }
  if (waits) return answer;
  ticket.pace_ = this;
  ticket.state_ = RoomTicket::State::kWaiting;
  ticket.give_up_ns_ = now_ns + kRoomWaitNs;
  held_bytes_ += ticket.held_bytes_;
  waiting_.push_back(&ticket);
  return answer;
}

size_t WritePace::waiting() const {
  const std::lock_guard lock(mutex_);
  return waiting_.size();
}

void WritePace::look(const View& view) {
  const std::lock_guard lock(mutex_);
  paced_.store(view.paced, std::memory_order_relaxed);
  below_ = view.below;
  if (!below_) collectable_ = true;
  credit_ = static_cast<int64_t>(view.credit_bytes);
  while (!waiting_.empty() && (credit_ > 0 || !view.paced)) {
    RoomTicket& first = *waiting_.front();
    credit_ -= static_cast<int64_t>(first.bytes_);
    waiting_.pop_front();
    held_bytes_ -= first.held_bytes_;
    first.state_ = RoomTicket::State::kGranted;
  }
}

void WritePace::set_collectable(bool collectable) {
  const std::lock_guard lock(mutex_);
  collectable_ = collectable;
}

void WritePace::end_waits(bool ended) {
  const std::lock_guard lock(mutex_);
  ended_ = ended;
}

}  // namespace basalt::storage
