#include "storage/write_pace.h"

#include <gtest/gtest.h>

#include <deque>
#include <optional>

namespace basalt::storage {
namespace {

constexpr WritePace::View kAmple{};
constexpr WritePace::View kBelow{.paced = true, .below = true};

WritePace::View paced(uint64_t credit) { return {.paced = true, .credit_bytes = credit}; }

TEST(WritePaceTest, NobodyAsksWhereSpaceIsAmple) {
  WritePace pace;
  RoomTicket ticket(1u << 30, 1);
  EXPECT_EQ(pace.ask(ticket, 0), Room::kYes);
  EXPECT_EQ(pace.waiting(), 0u);
}

TEST(WritePaceTest, CreditIsHandedOutInOrder) {
  WritePace pace;
  pace.look(paced(100));
  RoomTicket large(5000, 1), first(60, 1), second(60, 1), third(60, 1);
  // More than there is: it would wait for ever otherwise.
  EXPECT_EQ(pace.ask(large, 0), Room::kYes);
  EXPECT_EQ(pace.ask(first, 0), Room::kWait);
  EXPECT_EQ(pace.ask(second, 0), Room::kWait);
  EXPECT_EQ(pace.ask(third, 0), Room::kWait);
  EXPECT_EQ(pace.waiting(), 3u);
  pace.look(paced(100));
  // Whoever comes now does not go before those that wait.
  RoomTicket late(1, 1);
  EXPECT_EQ(pace.ask(late, 0), Room::kWait);
  EXPECT_EQ(pace.ask(third, 0), Room::kWait);
  EXPECT_EQ(pace.ask(second, 0), Room::kYes);
  EXPECT_EQ(pace.ask(first, 0), Room::kYes);
  EXPECT_EQ(pace.ask(first, kRoomWaitNs * 2), Room::kYes);
  pace.look(kAmple);
  EXPECT_EQ(pace.ask(third, 0), Room::kYes);
  EXPECT_EQ(pace.ask(late, 0), Room::kYes);
  EXPECT_EQ(pace.waiting(), 0u);
}

TEST(WritePaceTest, AWaitEndsInTime) {
  WritePace pace;
  pace.look(kBelow);
  RoomTicket ticket(1, 1);
  EXPECT_EQ(pace.ask(ticket, 5), Room::kWait);
  EXPECT_EQ(pace.ask(ticket, 4 + kRoomWaitNs), Room::kWait);
  EXPECT_EQ(pace.ask(ticket, 5 + kRoomWaitNs), Room::kNone);
  EXPECT_EQ(pace.waiting(), 0u);
}

TEST(WritePaceTest, NobodyWaitsWhereNothingCanBeCollected) {
  WritePace pace;
  pace.look(kBelow);
  RoomTicket waiting(1, 1), late(1, 1);
  EXPECT_EQ(pace.ask(waiting, 0), Room::kWait);
  pace.set_collectable(false);
  EXPECT_EQ(pace.ask(waiting, 0), Room::kNone);
  EXPECT_EQ(pace.ask(late, 0), Room::kNone);
  // Above the mark there is some credit each time.
  pace.look(paced(1));
  EXPECT_EQ(pace.ask(late, 0), Room::kYes);
  pace.look(kBelow);
  EXPECT_EQ(pace.ask(waiting, 0), Room::kWait);  // and hope
}

TEST(WritePaceTest, TheCrowdIsBounded) {
  WritePace pace;
  pace.look(kBelow);
  std::deque<RoomTicket> tickets;
  for (size_t i = 0; i < kRoomWaitsMax; ++i) {
    EXPECT_EQ(pace.ask(tickets.emplace_back(1, 1), 0), Room::kWait);
  }
  RoomTicket over(1, 1);
  EXPECT_EQ(pace.ask(over, 0), Room::kCrowd);
  tickets.pop_front();  // whoever goes gives its place up
  EXPECT_EQ(pace.ask(over, 0), Room::kWait);
  tickets.clear();

  std::optional<RoomTicket> half(std::in_place, 1, kRoomWaitBytesMax / 2);
  RoomTicket more(1, kRoomWaitBytesMax / 2);
  EXPECT_EQ(pace.ask(*half, 0), Room::kWait);
  EXPECT_EQ(pace.ask(more, 0), Room::kCrowd);
  half.reset();
  EXPECT_EQ(pace.ask(more, 0), Room::kWait);
}

TEST(WritePaceTest, AStopEndsAllWaits) {
  WritePace pace;
  pace.look(kBelow);
  RoomTicket ticket(1, 1);
  EXPECT_EQ(pace.ask(ticket, 0), Room::kWait);
  pace.end_waits(true);
  EXPECT_EQ(pace.ask(ticket, 0), Room::kEnded);
  EXPECT_EQ(pace.ask(ticket, 0), Room::kEnded);
  pace.end_waits(false);
  EXPECT_EQ(pace.ask(ticket, 0), Room::kWait);
}

}  // namespace
}  // namespace basalt::storage
