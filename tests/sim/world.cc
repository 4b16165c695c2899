#include "tests/sim/world.h"

#include <fmt/core.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "base/check.h"
#include "storage/files_local.h"
#include "storage/record_codec.h"

namespace basalt::sim {

using storage::BlobKind;
using storage::BlobRef;
using storage::Chaos;
using storage::Table;

namespace {

constexpr uint64_t kMiB = 1u << 20;

std::string path_of(const BlobRef& blob) {
  const auto kind = static_cast<BlobKind>(blob.kind);
  return storage::LocalFiles::path_of(kind == BlobKind::kLog    ? storage::FileKind::kLog
                                      : kind == BlobKind::kBulk ? storage::FileKind::kBulk
                                                                : storage::FileKind::kOwn,
                                      blob.file);
}

}  // namespace

World::World(uint64_t seed, std::string directory, bool verbose)
    : seed_(seed),
      directory_(std::move(directory)),
      chance_(seed),
      random_(chance_),
      chaos_(chance_, trace_),
      helpers_(chance_, trace_, clock_),
      shard_count_(1u << chance_.below(3)),
      model_(shard_count_),
      judge_(*this) {
  trace_.set_echo(verbose);
  const uint64_t kind = chance_.below(100);
  profile_ = kind < 50   ? Profile::kCrash
             : kind < 68 ? Profile::kWriteErrors
             : kind < 84 ? Profile::kBadSectors
                         : Profile::kFullDisk;
  const uint64_t capacity =
      profile_ == Profile::kFullDisk ? chance_.between(8, 24) * kMiB : 1024 * kMiB;
  disk_ = std::make_unique<SimDisk>(chance_, trace_, directory_, capacity);
  disk_->direct_io = !chance_.happens(0.1);
  disk_->in_flight = [this](std::vector<SimDisk::InFlight>& writes) {
    for (const auto& core : cores_) core->io->unwritten(writes);
  };
  platform_ = {disk_.get(), &clock_, &random_, &helpers_, &chaos_};

  options_.platform = &platform_;
  options_.directory = directory_;
  options_.shard_count_at_format = shard_count_;
  options_.log_segment_bytes = kMiB;
  options_.bulk_segment_bytes = kMiB;
  options_.lmdb_map_bytes = chance_.happens(0.2) ? kMiB : 64 * kMiB;
  options_.checkpoint_entries = static_cast<uint32_t>(chance_.between(4, 200));
  options_.checkpoint_log_bytes = chance_.between(1, 16) * 256 * 1024;
  options_.checkpoint_interval_ms = static_cast<uint32_t>(chance_.between(50, 20'000));
  options_.overlay_bytes_max = chance_.happens(0.3) ? chance_.between(8, 64) * 1024 : 64 * kMiB;
  options_.own_file_bytes_min = chance_.between(16, 400) * 1024;
  options_.gc_live_ratio_max = static_cast<double>(chance_.between(2, 10)) / 10;
  options_.gc_sealed_age_ms = 0;
  options_.gc_interval_ms = 1000;

  const auto often = [&](uint64_t low, uint64_t high) {
    return static_cast<double>(chance_.between(low, high)) / 100;
  };
  mix_.erase = often(5, 40);
  mix_.batch = often(0, 40);
  mix_.rewrite = often(0, 15);
  mix_.compose = often(0, 15);
  mix_.read = often(5, 40);
  mix_.scan = often(0, 15);
  mix_.list = often(0, 8);
  mix_.seal = often(0, 3);
  mix_.control = often(0, 8);
  mix_.blob = often(0, 50);
  mix_.abandon = often(0, 20);
  mix_.conditional = often(0, 40);
  mix_.body_bytes_max = chance_.happens(0.3) ? storage::kInlineBodyBytesMax : 20'000;
  mix_.blob_bytes_max = chance_.between(10, 500) * 1024;

  mix_.meta_bytes_max = 3000;
  mix_.long_meta = 0.1;
  if (chance_.happens(0.25)) {
    // Log segments that hold records only: nothing but the checkpoint keeps them from reuse. Either
    // that comes late, or so often that a segment has several lives in one run of the engine.
    mix_.body_bytes_max = storage::kIndexBodyBytesMax;
    mix_.meta_bytes_max = 100'000;
    mix_.long_meta = 0.5;
    options_.overlay_bytes_max = 64 * kMiB;
    const bool late = chance_.happens(0.5);
    options_.checkpoint_entries = late ? 100'000 : 30;
    options_.checkpoint_log_bytes = late ? 64 * kMiB : kMiB / 2;
    options_.checkpoint_interval_ms = 600'000;
  }

  for (const Chaos::Point point :
       {Chaos::Point::kLaneQueueFull, Chaos::Point::kShardQueueFull, Chaos::Point::kNoBuffer}) {
    if (chance_.happens(0.5)) chaos_.probability[static_cast<size_t>(point)] = often(0, 10);
  }
  for (const Chaos::Point point : {Chaos::Point::kLaneWaits, Chaos::Point::kSegmentNotReady,
                                   Chaos::Point::kLateCheckpoint, Chaos::Point::kRelocationsFull}) {
    if (chance_.happens(0.5)) chaos_.probability[static_cast<size_t>(point)] = often(0, 90);
  }

  spaces_ = {3, 77, (uint64_t{1} << 62) + 9};
  const uint64_t names = chance_.between(4, 60);
  crowded_ = chance_.happens(0.15);
  if (crowded_) mix_.read = 0.6;
  for (uint64_t i = 0; i < names; ++i) {
    std::string name = fmt::format("{}{}", static_cast<char>('a' + chance_.below(4)), i);
    if (chance_.happens(0.3)) name += "/x/" + std::to_string(chance_.below(3));
    // Around the lengths at which the index cuts names.
    if (chance_.happens(0.1)) name.resize(chance_.between(478, 484), 'n');
    if (chance_.happens(0.05)) name.resize(chance_.between(956, storage::kNameBytesMax), 'm');
    if (crowded_) name.resize(chance_.between(900, storage::kNameBytesMax), 'l');
    shard_of_name_.emplace(name, static_cast<unsigned>(i % shard_count_));
    names_.push_back(std::move(name));
  }
}

World::~World() {
  tasks_.clear();
  cores_.clear();
  engine_.reset();
}

void World::fail(std::string what) {
  if (!error_.empty()) return;
  error_ = std::move(what);
  trace_.event("FAILED");
}

// --- For tasks

unsigned World::shard_of(std::string_view name) const {
  const auto found = shard_of_name_.find(name);
  return found == shard_of_name_.end() ? shard_count_ : found->second;
}

World::Place World::pick_place() {
  const uint64_t index = chance_.below(names_.size());
  Place place;
  place.shard = static_cast<unsigned>(index % shard_count_);
  place.key.name = names_[index];
  const uint64_t kind = chance_.below(100);
  place.key.table = kind < 68   ? Table::kCurrent
                    : kind < 72 ? Table::kVersion
                    : kind < 78 ? Table::kUpload
                    : kind < 94 ? Table::kPart
                                : Table::kBucket;
  place.key.space = place.key.table == Table::kBucket
                        ? storage::kControlSpace
                        : spaces_[chance_.happens(0.8) ? 0 : chance_.below(spaces_.size())];
  return place;
}

World::Place World::pick_existing() {
  const auto shard = static_cast<unsigned>(chance_.below(shard_count_));
  const State& state = model_.acknowledged(shard);
  if (state.empty() || chance_.happens(0.1)) return pick_place();
  auto at = state.begin();
  std::advance(at, chance_.below(state.size()));
  return {shard, at->first};
}

std::shared_ptr<Value> World::make_value() {
  auto value = std::make_shared<Value>();
  value->id = next_value_++;
  value->tag = std::to_string(chance_.below(4));
  value->meta.resize(8 + (chance_.happens(mix_.long_meta) ? chance_.below(mix_.meta_bytes_max)
                                                          : chance_.below(64)));
  std::memcpy(value->meta.data(), &value->id, 8);
  values_[value->id] = value;
  return value;
}

ValuePtr World::value_of(uint64_t id) const {
  const auto found = values_.find(id);
  return found == values_.end() ? nullptr : found->second;
}

void World::judge_refusal(const char* what, const Error& error) {
  bool legal = false;
  switch (error.code) {
    case Code::kBusy:
      legal = true;
      break;
    case Code::kNoSpace:
      legal = profile_ == Profile::kFullDisk;
      break;
    case Code::kReadOnly:
    case Code::kIo:
      legal = disk_->dead() || disk_->failed_write() || disk_->injected_read_errors() > 0;
      break;
    case Code::kCancelled:
      legal = stopping_;
      break;
    default:
      break;
  }
  if (!legal) fail(fmt::format("{}: {} ({})", what, code_name(error.code), error.detail));
}

ValuePtr World::judge_record(unsigned shard, const Key& key, const storage::RecordView* record) {
  uint64_t id = 0;
  ValuePtr value;
  if (record != nullptr) {
    if (record->meta.size() >= 8) std::memcpy(&id, record->meta.data(), 8);
    value = value_of(id);
    if (value == nullptr || record->size != value->size || record->tag != value->tag ||
        as_text(record->meta) != value->meta) {
      fail(fmt::format("shard {}: a record of '{}' is none that was written", shard,
                       key.name.substr(0, 40)));
      return nullptr;
    }
  }
  const std::string wrong = model_.observed(core_of(shard), shard, key, id);
  if (!wrong.empty()) {
    fail(wrong);
    return nullptr;
  }
  return value;
}

bool World::is_damaged(const BlobRef& blob) const {
  return std::ranges::any_of(damages_, [&](const Damage& damage) {
    return damage.file == blob.file && damage.generation == blob.generation &&
           damage.offset < blob.offset + blob.length + 2 * 4096 + 4096 &&
           blob.offset < damage.offset + damage.length;
  });
}

// --- Faults

void World::choose_faults() {
  disk_->faults = {};
  if (chance_.happens(0.5)) disk_->faults.short_transfer = 0.1;
  if (chance_.happens(0.5)) disk_->faults.interrupted = 0.1;
  if (chance_.happens(0.2)) disk_->faults.allocate_unsupported = 0.5;
  if (profile_ == Profile::kWriteErrors && chance_.happens(0.7)) {
    const double often = 1.0 / static_cast<double>(chance_.between(20, 400));
    if (chance_.happens(0.7)) disk_->faults.sync_error = often;
    if (chance_.happens(0.5)) disk_->faults.write_error = often;
  }
  if (profile_ == Profile::kBadSectors && chance_.happens(0.5)) disk_->faults.read_error = 0.02;
  disk_->resident = static_cast<double>(chance_.below(5)) / 4;
  for (const auto& core : cores_) {
    core->io->step_probability = chance_.happens(0.5) ? 0.8 : 0.3;
    core->io->flush_probability = chance_.happens(0.5) ? 1.0 : 0.1;
  }
  chaos_.enabled = chance_.happens(0.7);
}

// A recovery writes: the superblock, segments it ends, files it removes.
void World::choose_faults_of_open() {
  if (chance_.happens(0.3)) disk_->faults.short_transfer = 0.1;
  if (chance_.happens(0.3)) disk_->faults.interrupted = 0.1;
  if (profile_ == Profile::kWriteErrors && chance_.happens(0.5)) {
    const double often = 1.0 / static_cast<double>(chance_.between(3, 60));
    if (chance_.happens(0.7)) disk_->faults.sync_error = often;
    if (chance_.happens(0.5)) disk_->faults.write_error = often;
  }
  if (profile_ == Profile::kBadSectors && chance_.happens(0.3)) disk_->faults.read_error = 0.01;
}

void World::no_faults() {
  disk_->faults = {};
  chaos_.enabled = false;
  for (const auto& core : cores_) core->io->flush_probability = 1.0;
}

// Changes stored bytes of a blob; what reads them must say so from now on.
void World::damage(const BlobRef& blob) {
  const uint64_t at = blob.offset + chance_.below(blob.length);
  const uint64_t length = chance_.between(1, blob.offset + blob.length - at);
  if (disk_->damage(path_of(blob), at, length)) {
    damages_.push_back({.file = blob.file,
                        .generation = blob.generation,
                        .offset = at / 4096 * 4096,
                        .length = round_up(length + 4096, 4096),
                        .certain = false});
  }
}

// A page of one blob was written to the place of another. Bytes beside the blobs stay as they are:
// there may be records.
void World::misdirect(const BlobRef& from, const BlobRef& to) {
  if (is_damaged(from) || is_damaged(to)) return;  // it could be mended by this
  const auto part_of = [this](const BlobRef& blob) -> SimDisk::Part {
    const uint64_t page = (blob.offset + chance_.below(blob.length)) / 4096 * 4096;
    const uint64_t begin = std::max(page, blob.offset);
    const uint64_t end = std::min(page + 4096, blob.offset + blob.length);
    return {path_of(blob), begin, end - begin};
  };
  const SimDisk::Part source = part_of(from), target = part_of(to);
  if (!disk_->misdirect(source, target)) return;
  damages_.push_back({from.file, from.generation, source.offset, source.length, true});
  damages_.push_back({to.file, to.generation, target.offset, target.length, true});
}

// Damage in the bytes of this blob, and not only near them, that a read of all of it meets.
bool World::must_be_noticed(const BlobRef& blob) const {
  return std::ranges::any_of(damages_, [&](const Damage& damage) {
    return damage.certain && damage.file == blob.file && damage.generation == blob.generation &&
           damage.offset >= blob.offset && damage.offset < blob.offset + blob.length;
  });
}

// --- The engine comes and goes

void World::open(bool may_crash) {
  for (int attempt = 0; !failed(); ++attempt) {
    if (attempt == 12) return fail("the engine does not open in twelve attempts");
    no_faults();
    options_.core_count = static_cast<unsigned>(chance_.between(1, 3));
    if (profile_ == Profile::kBadSectors && chance_.happens(0.3)) {
      const auto logs = disk_->files("log");
      if (!logs.empty()) {
        disk_->make_unreadable(logs[chance_.below(logs.size())], chance_.below(64) * 4096);
      }
    }
    if (may_crash && chance_.happens(0.3)) disk_->crash_after(chance_.below(80));
    if (may_crash && attempt < 6) choose_faults_of_open();
    const uint64_t read_errors = disk_->injected_read_errors();
    auto opened = storage::Engine::open(options_, clock_);
    no_faults();
    trace_.event("open", options_.core_count,
                 opened ? 0 : 1 + static_cast<uint64_t>(opened.error().code));
    if (disk_->dead()) {
      if (opened) opened->reset();
      disk_->restart();
      continue;
    }
    disk_->cancel_crash();
    if (!opened || !(*opened)->healthy()) {
      const std::string why = opened ? (*opened)->health_text() : opened.error().detail;
      if (opened) opened->reset();
      const bool read_failed = disk_->injected_read_errors() != read_errors;
      if ((!read_failed && !disk_->failed_write()) || why.empty()) {
        return fail("the engine does not open whole: " + why);
      }
      trace_.event("open failed", disk_->failed_write(), read_failed);
      // The disk was replaced by a copy that can be read.
      disk_->heal();
      // What a failed write left behind nobody knows: the machine restarts, too.
      if (disk_->failed_write()) {
        disk_->crash();
        disk_->restart();
      } else {
        disk_->close_all();
      }
      continue;
    }
    engine_ = std::move(*opened);
    disk_->heal();
    return;
  }
}

void World::attach() {
  stopping_ = false;
  sealed_.clear();
  sealing_.clear();
  model_.begin_run(options_.core_count);
  judge_.begin_run();
  // Mostly so small that they are full now and then.
  auto fabric =
      shards::Fabric::create(options_.core_count, crowded_               ? 4096u
                                                  : chance_.happens(0.7) ? 4096u << chance_.below(2)
                                                                         : shards::kRingBytes);
  if (!fabric) return fail("no rings: " + fabric.error().detail);
  fabric_ = std::move(*fabric);
  const auto calls_max = static_cast<uint32_t>(
      crowded_ ? chance_.between(8, 64) : chance_.between(1, chance_.happens(0.6) ? 6 : 64));
  for (unsigned number = 0; number < options_.core_count; ++number) {
    auto core = std::make_unique<Core>();
    core->io = std::make_unique<SimIo>(chance_, trace_, *disk_, core->run_queue);
    core->stopped.fn = [](Completion& completion) {
      static_cast<Core::Stopped&>(completion).done = true;
    };
    core->engine = engine_->attach(number, *core->io, core->run_queue, core->buffers);
    core->judged = judge_.between(*core->engine, number);
    core->mirror = std::make_unique<Mirror>(*this);
    core->client = std::make_unique<shards::CoreShards>(
        shards::CoreShards::Parts{*fabric_, number, *engine_, *core->judged, core->run_queue,
                                  core->buffers, *core->mirror, calls_max});
    cores_.push_back(std::move(core));
  }
}

// Each core reads the control tables, as a server does at start.
void World::load_control() {
  for (const auto& core : cores_) {
    auto loading = shards::load_control(*core->client, *core->mirror);
    loading.start();
    for (size_t turns = 0; !loading.done(); ++turns) {
      if (turns == kTurnsToEndMax) return fail("the control state is never loaded");
      deliver_all();
    }
    if (!loading.result()) {
      return fail("the control state is not loaded: " + loading.result().error().detail);
    }
    core->mirror->loading = false;
  }
  judge_mail();
}

// --- Cores sleep and wake

bool World::wants_to_wake(Core& core) const {
  if (core.io->in_flight() != 0 || !core.run_queue.empty()) return true;
  pollfd bells[] = {{core.client->wake_fd(), POLLIN, 0},
                    {core.engine->wake_fd(), POLLIN, 0},
                    {core.io->wake_fd(), POLLIN, 0}};
  return ::poll(bells, std::size(bells), 0) > 0;
}

Result<storage::Record> World::look_up(unsigned number, const storage::KeyView& key) {
  auto result = shard(number).get_now(key);
  judge_.came(name_of_get(number, key), answer_of(result));
  return result;
}

void World::settle_gate(unsigned number) {
  auto& local = static_cast<storage::LocalShard&>(core(core_of(number)).engine->shard(number));
  judge_.settle_gate(number, local.waiting_for_room());
}

// Lets batches go on that waited for room: in the order of the core's shards.
bool World::poll_engine(Core& core) {
  const bool did = core.engine->poll();
  for (unsigned number = core.client->core(); number < shard_count_; number += core_count())
    settle_gate(number);
  return did;
}

void World::stop_engine(Core& core) {
  core.engine->stop(core.stopped);
  for (unsigned number = core.client->core(); number < shard_count_; number += core_count())
    settle_gate(number);
}

// All cores are turned on this thread: between two turns a push and its bell are one step.
bool World::sleeps_on_mail(const Core& core, unsigned number) const {
  if (!core.asleep) return false;
  pollfd bell{core.client->wake_fd(), POLLIN, 0};
  if (::poll(&bell, 1, 0) > 0) return false;
  for (unsigned from = 0; from < core_count(); ++from) {
    if (from != number && !fabric_->ring(from, number).empty()) return true;
  }
  return false;
}

// Before anything else wakes it, which would hide that nobody did.
void World::check_sleep(const Core& core) {
  const unsigned number = core.client->core();
  if (sleeps_on_mail(core, number)) {
    fail(fmt::format("core {} sleeps on a message: nobody rang its bell", number));
  } else if (core.asleep && core.client->backlog_frames() > 0) {
    fail(fmt::format("core {} sleeps on answers that it has not sent", number));
  }
}

void World::wake(Core& core) {
  if (!core.asleep) return;
  check_sleep(core);
  trace_.event("wakes");
  core.asleep = false;
  core.client->woke();
}

World::Core& World::awake(unsigned number) {
  Core& core = *cores_[number];
  core.idle = false;
  wake(core);
  return core;
}

// One turn of each core's mailbox and run queue, whether it sleeps or not.
bool World::deliver_all() {
  bool any = false;
  for (const auto& core : cores_) {
    wake(*core);
    any |= core->client->poll();
    any |= core->run_queue.run() != 0;
  }
  return any;
}

// Lets go of everything, as the end of a process does; the engine is not asked.
void World::let_go() {
  for (const auto& core : cores_) {
    trace_.add("batches", core->engine->stats().log_batches);
    trace_.add("checkpoints written", core->engine->stats().checkpoints);
    trace_.add("blobs written", core->engine->stats().blob_writes);
    trace_.add("damage detected", core->engine->stats().corrupt_reads);
  }
  if (engine_ != nullptr) {
    trace_.add("records moved", engine_->space_use().records_moved);
    trace_.add("segments reused", engine_->space_use().segments_reused);
  }
  for (const auto& core : cores_) {
    trace_.add("calls to other cores", core->client->stats().remote_calls);
    trace_.add("calls refused by a full ring", core->client->stats().refused_full);
    trace_.add("answers kept for a full ring", core->client->stats().answers_kept);
  }
  if (fabric_ != nullptr) trace_.add("doorbells rung", fabric_->doorbells_rung());
  for (auto& core : cores_) {
    core->engine.reset();
    while (core->run_queue.run() != 0) {
    }
    core->io.reset();
  }
  // What the engines said at their end goes its way.
  while (deliver_all()) {
  }
  for (const auto& task : tasks_) {
    if (!task->done()) fail("a call was never completed");
  }
  for (const auto& core : cores_) {
    if (core->client->calls_in_flight() != 0) fail("a slot of the mailbox was never given back");
  }
  judge_mail();
  if (failed()) return;
  tasks_.clear();
  cores_.clear();
  fabric_.reset();
  engine_.reset();
}

void World::end_by_crash(bool power_fails) {
  power_fails ? disk_->crash() : disk_->kill();
  chaos_.enabled = false;
  for (auto& core : cores_) {
    if (!stopping_) stop_engine(*core);
  }
  stopping_ = true;
  // What was under way fails on the dead disk. No checkpoint is made any more, unless something
  // waits for one.
  const auto quiet = [&] {
    return std::ranges::none_of(tasks_, [](const auto& task) { return task->pinned(); }) &&
           std::ranges::all_of(cores_, [](const auto& core) {
             return core->local().relocations_outstanding() == 0;
           });
  };
  // Letters go on until none is on its way to a shard.
  size_t turns = 0;
  for (bool moved = true; moved || !quiet(); ++turns) {
    if (turns == kTurnsToEndMax) return fail("after a crash something never ends");
    for (const auto& task : tasks_) task->cancel();
    for (auto& core : cores_) {
      core->io->poll();
      poll_engine(*core);
    }
    moved = deliver_all();
    clock_.advance_ns(1'000'000);
    helpers_.run_one(turns < 300 ? "checkpoints" : "", false);
  }
  let_go();
  if (!failed()) disk_->restart();
}

void World::end_by_stop() {
  stopping_ = true;
  no_faults();
  for (auto& core : cores_) stop_engine(*core);
  const auto over = [&] {
    return std::ranges::all_of(tasks_, [](const auto& task) { return task->done(); }) &&
           std::ranges::all_of(cores_, [](const auto& core) { return core->stopped.done; });
  };
  for (size_t turns = 0; !over(); ++turns) {
    if (turns == kTurnsToEndMax) return fail("a stop never ends");
    for (const auto& task : tasks_) {
      task->cancel();
      task->go_on();
    }
    turn();
    if (failed()) return;
    if (disk_->dead()) return end_by_crash(true);
  }
  const bool healthy = engine_->healthy();
  if (profile_ == Profile::kBadSectors && chance_.happens(0.5)) {
    find_all();
    std::erase_if(blobs_, [&](const BlobRef& blob) { return !in_file(blob); });
    if (!blobs_.empty()) {
      const BlobRef& blob = blobs_[chance_.below(blobs_.size())];
      if (chance_.happens(0.5)) {
        damage(blob);
      } else {
        misdirect(blob, blobs_[chance_.below(blobs_.size())]);
      }
    }
  }
  let_go();
  if (failed()) return;
  // After a failed write nobody knows what the disk has: the machine restarts.
  if (!healthy) disk_->crash();
  disk_->dead() ? disk_->restart() : disk_->close_all();
}

// --- Life: the turns are in world_turns.cc

Outcome World::run() {
  std::filesystem::remove_all(directory_);
  std::filesystem::create_directories(directory_ + "/shard");
  const uint64_t lives = chance_.between(2, 5);
  for (uint64_t i = 0; i < lives && !failed(); ++i) {
    open(true);
    if (failed()) break;
    attach();
    verify();
    if (!failed() && disk_->writes_come_late() && chance_.happens(0.5)) {
      // Killed again before it could change much. What was under way at the first kill has come.
      disk_->land_late_writes();
      end_by_crash(false);
      continue;
    }
    if (!failed()) load_control();
    if (failed()) break;
    const bool kill = chance_.happens(0.2);  // while something is on its way to the disk
    live(kill);
    if (!failed() && !kill && !disk_->dead() && chance_.happens(0.4)) quiet();
    if (failed()) break;
    const uint64_t end = chance_.below(100);
    if (disk_->dead() || (!kill && end < 50)) {
      end_by_crash(true);
    } else if (kill || end < 65) {
      end_by_crash(false);
    } else {
      end_by_stop();
    }
  }
  if (!failed()) open(false);
  if (!failed()) {
    attach();
    verify_accounts();
  }
  if (failed()) {
    // Whatever state it is in: nothing of it is used again.
    if (!disk_->dead()) disk_->kill();
    for (auto& task : tasks_) (void)task.release();
    for (auto& core : cores_) (void)core.release();
    (void)engine_.release();
    cores_.clear();
    tasks_.clear();
  }
  Outcome outcome{error_, trace_.hash(), trace_.count()};
  std::filesystem::remove_all(directory_);
  return outcome;
}

}  // namespace basalt::sim
