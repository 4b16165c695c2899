// What happens in a life of the engine: new tasks, whose turn it is, stalls, damage.
#include "base/check.h"
#include "tests/sim/world.h"

namespace basalt::sim {

using storage::BlobKind;
using storage::BlobRef;

void World::new_task() {
  if (chance_.happens(mix_.read)) {
    tasks_.push_back(make_read(*this));
  } else if (chance_.happens(mix_.scan)) {
    tasks_.push_back(make_scan(*this));
  } else if (chance_.happens(mix_.list)) {
    tasks_.push_back(make_list(*this));
  } else if (chance_.happens(mix_.seal)) {
    tasks_.push_back(make_seal(*this));
  } else if (chance_.happens(mix_.control)) {
    tasks_.push_back(make_control(*this));
  } else {
    tasks_.push_back(make_write(*this));
  }
}

// A core that sleeps does nothing until something wakes it; only the engine has a clock that ticks.
// What a timer of the server's loop would find in the mailbox by chance is not looked for.
void World::turn_of(unsigned number) {
  Core& core = *cores_[number];
  check_sleep(core);
  if (failed()) return;
  if (core.asleep) {
    if (chance_.happens(0.05)) poll_engine(core);
    if (!wants_to_wake(core)) return;
    wake(core);
  }
  if (core.idle) {
    core.idle = false;
    core.asleep = core.run_queue.empty() && core.client->prepare_sleep();
    trace_.event("sleeps", core.client->core(), core.asleep);
    return;
  }
  switch (chance_.below(5)) {
    case 0:
      core.io->poll();
      break;
    case 1:
      poll_engine(core);
      break;
    case 2:
      core.run_queue.run();
      break;
    case 3:
      core.client->poll();
      break;
    default: {
      bool any = core.client->poll();
      any |= poll_engine(core);
      any |= core.io->poll();
      any |= core.run_queue.run() != 0;
      core.idle = !any && core.run_queue.empty() && chance_.happens(0.7);
      break;
    }
  }
}

// Nothing new is asked: everything under way ends, though nobody wakes a core but those it waits
// for.
void World::quiet() {
  for (size_t turns = 0; !tasks_.empty(); ++turns) {
    if (turns == kTurnsToEndMax) return fail("a call never ends");
    turn();
    for (const auto& task : tasks_) task->go_on();
    std::erase_if(tasks_, [](const auto& task) { return task->done(); });
    if (failed() || disk_->dead()) return;
  }
  judge_mail();
}

// A core that the system does not run for a while: what the others send it piles up. Then perhaps
// another: what piled up there waits although there is room again.
void World::stall_cores(double probability) {
  if (stalled_turns_ > 0) return;
  if (stalled_before_ && chance_.happens(0.5)) {
    stalled_core_ = (stalled_core_ + 1) % core_count();
  } else if (chance_.happens(probability)) {
    stalled_core_ = pick_core();
  } else {
    stalled_before_ = false;
    return;
  }
  stalled_before_ = true;
  stalled_turns_ = chance_.between(10, 300);
}

void World::turn() {
  const auto number = static_cast<unsigned>(chance_.below(cores_.size()));
  if (stalled_turns_ > 0) --stalled_turns_;
  if (stalled_turns_ == 0 || number != stalled_core_) turn_of(number);
  if (chance_.happens(0.3)) helpers_.run_one("", chance_.happens(0.05));
  if (chance_.happens(0.3)) clock_.advance_ns(chance_.below(20'000'000));
  if (chance_.happens(0.005)) clock_.advance_ns(chance_.below(60) * 1'000'000'000);
  if (chance_.happens(0.005))
    clock_.jump_wall(static_cast<int64_t>(chance_.below(200'000'000)) - 100'000'000);
}

// One to damage while it is in use. Log records are read again by a recovery: damage there is
// another story.
std::optional<BlobRef> World::pick_blob() {
  const Place place = pick_existing();
  const auto record = look_up(place.shard, place.key.view());
  if (!record || record->view().blobs.empty()) return std::nullopt;
  const BlobRef blob = record->view().blobs.front();
  if (static_cast<BlobKind>(blob.kind) == BlobKind::kLog || !in_file(blob)) return std::nullopt;
  return blob;
}

void World::live(bool until_writing) {
  choose_faults();
  const uint64_t turns = chance_.between(100, 3000);
  const uint64_t tasks_max = crowded_ ? 64 : chance_.between(1, 24);
  const double fresh = static_cast<double>(chance_.between(10, 60)) / 100;
  const double stalls = core_count() > 1 && (crowded_ || chance_.happens(0.4)) ? 0.01 : 0;
  if (!until_writing && chance_.happens(0.4))
    disk_->crash_after(chance_.below(chance_.happens(0.5) ? 200 : 3000));
  for (uint64_t i = 0; i < turns && !failed() && !disk_->dead(); ++i) {
    if (tasks_.size() < tasks_max && chance_.happens(fresh)) new_task();
    turn();
    stall_cores(stalls);
    if (!tasks_.empty()) tasks_[chance_.below(tasks_.size())]->go_on();
    std::erase_if(tasks_, [](const auto& task) { return task->done(); });
    if (chance_.happens(0.005)) cores_[chance_.below(cores_.size())]->local().request_checkpoint();
    if (profile_ == Profile::kBadSectors && chance_.happens(0.005)) {
      if (const auto blob = pick_blob()) {
        const auto other = chance_.happens(0.5) ? pick_blob() : std::nullopt;
        other ? misdirect(*blob, *other) : damage(*blob);
      }
    }
    if (!engine_->healthy() && !disk_->dead() && !disk_->failed_write() &&
        disk_->injected_read_errors() == 0) {
      fail("the engine stopped writing without a cause: " + engine_->health_text());
    }
    if (until_writing && i > turns / 2 && disk_->writing()) return;
  }
}

}  // namespace basalt::sim
