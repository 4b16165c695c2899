#include "reactor/lingerer.h"

#include <event2/event.h>
#include <event2/event_struct.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace basalt::reactor {

struct Lingerer::Entry {
  Entry(Lingerer& l, int descriptor)
      : lingerer(l), fd(descriptor), timer(l.loop_, &Entry::expired, this) {
    event_assign(&readable, l.loop_.base(), fd, EV_READ | EV_PERSIST, &Entry::on_readable, this);
  }
  ~Entry() {
    event_del(&readable);
    close(fd);
  }

  static void expired(void* self) {
    auto& entry = *static_cast<Entry*>(self);
    entry.lingerer.finish(entry);
  }
  static void on_readable(evutil_socket_t, short, void* self) {
    auto& entry = *static_cast<Entry*>(self);
    std::array<uint8_t, 16384> dropped;
    for (int round = 0; round < 8; ++round) {  // the loop's other sockets want their turn
      const ssize_t size = recv(entry.fd, dropped.data(), dropped.size(), MSG_DONTWAIT);
      if (size > 0) continue;
      if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
      // The end. The entry is not freed inside its event's own callback; its timer does it, in this
      // turn.
      event_del(&entry.readable);
      entry.timer.arm(0);
      return;
    }
  }

  Lingerer& lingerer;
  int fd;
  event readable;
  Timer timer;
  Entry* next = nullptr;
  Entry** link = nullptr;
};

Lingerer::~Lingerer() {
  while (first_ != nullptr) finish(*first_);
}

void Lingerer::add(int fd, uint64_t linger_ms) {
  if (count_ >= kSocketsMax || linger_ms == 0) {
    close(fd);
    return;
  }
  auto* entry = new Entry(*this, fd);
  if (event_add(&entry->readable, nullptr) != 0) {
    delete entry;
    return;
  }
  entry->next = first_;
  if (first_ != nullptr) first_->link = &entry->next;
  first_ = entry;
  entry->link = &first_;
  ++count_;
  entry->timer.arm(linger_ms);
}

void Lingerer::finish(Entry& entry) {
  *entry.link = entry.next;
  if (entry.next != nullptr) entry.next->link = entry.link;
  --count_;
  delete &entry;
}

}  // namespace basalt::reactor
