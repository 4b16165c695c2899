// World: one simulated run. Builds an engine and the mailboxes of its cores on a simulated machine,
// lets tasks loose on it, lets it crash, stop and come back with another number of cores, and
// compares all it shows with the model.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "shards/core.h"
#include "shards/fabric.h"
#include "storage/core_engine.h"
#include "storage/engine.h"
#include "tests/sim/judge.h"
#include "tests/sim/model.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_machine.h"

namespace basalt::sim {

class World;

// Something that a client does, over several turns.
class Task {
 public:
  explicit Task(World& world) : world_(world) {}
  virtual ~Task() = default;
  virtual void go_on() {}  // called now and then
  // The engine is about to go: takes its hands off what belongs to it as soon as nothing is under
  // way.
  virtual void cancel() = 0;
  bool done() const { return done_; }
  // Holds on to a writer with a call under way: its core may not go yet.
  virtual bool pinned() const { return false; }

 protected:
  World& world_;
  bool done_ = false;
};

// What is under way ends within so many turns, or never.
constexpr size_t kTurnsToEndMax = 50'000;

enum class Profile : uint8_t { kCrash, kWriteErrors, kBadSectors, kFullDisk, kCount };

// How often what happens; drawn anew for each run, so that runs differ in kind and not only in
// order.
struct Mix {
  double put, erase, batch, rewrite, compose, read, scan, list, seal, control, blob, abandon,
      conditional, long_meta;
  uint64_t body_bytes_max, blob_bytes_max, meta_bytes_max;
};

struct Damage {
  uint32_t file, generation;
  uint64_t offset, length;
  bool certain;  // a read of all of the blob must fail
};

struct Outcome {
  std::string error;  // empty: good
  uint64_t trace_hash = 0;
  uint64_t events = 0;
};

class World {
 public:
  World(uint64_t seed, std::string directory, bool verbose);
  ~World();
  Outcome run();
  Trace& trace() { return trace_; }

  // --- For tasks.
  struct Core {
    RunQueue run_queue;
    BufferPool buffers;
    std::unique_ptr<SimIo> io;
    std::unique_ptr<storage::CoreEngine> engine;
    std::unique_ptr<storage::CoreEngine> judged;  // the same, as the mailbox sees it
    std::unique_ptr<Mirror> mirror;
    std::unique_ptr<shards::CoreShards> client;
    bool idle = false;    // found nothing to do; sleeps at its next turn if that is still so
    bool asleep = false;  // until a doorbell, I/O, or a task of its own
    struct Stopped : Completion {
      bool done = false;
    } stopped;
    storage::LocalCore& local() { return static_cast<storage::LocalCore&>(*engine); }
  };
  Core& core(unsigned number) { return *cores_[number]; }
  // What a task needs of its core; wakes it.
  Core& awake(unsigned number);
  unsigned pick_core() { return static_cast<unsigned>(chance_.below(core_count())); }
  unsigned core_count_of_run() const { return options_.core_count; }
  unsigned core_count() const { return static_cast<unsigned>(cores_.size()); }
  unsigned core_of(unsigned shard) const { return shard % core_count(); }
  // As its own core sees it, without a mailbox.
  storage::MetaShard& shard(unsigned number) { return core(core_of(number)).judged->shard(number); }
  // Asked at the shard itself, not through a mailbox.
  Result<storage::Record> look_up(unsigned number, const storage::KeyView& key);
  void settle_gate(unsigned shard);
  Chance& chance() { return chance_; }
  Model& model() { return model_; }
  Judge& judge() { return judge_; }
  const Mix& mix() const { return mix_; }
  void fail(std::string what);
  bool failed() const { return !error_.empty(); }
  bool stopping() const { return stopping_; }
  bool dead() const { return disk_->dead(); }

  struct Place {
    unsigned shard = 0;
    Key key;
  };
  Place pick_place();
  // Where a name that tasks write is; shards() if it is none of them.
  unsigned shard_of(std::string_view name) const;
  Place pick_existing();
  std::shared_ptr<Value> make_value();
  void remember(const ValuePtr& value) { values_[value->id] = value; }
  ValuePtr value_of(uint64_t id) const;
  uint64_t next_value_id() { return next_value_++; }
  const std::vector<uint64_t>& spaces() const { return spaces_; }
  std::set<std::pair<unsigned, uint64_t>>& sealed() { return sealed_; }    // (shard, space)
  std::set<std::pair<unsigned, uint64_t>>& sealing() { return sealing_; }  // a task is about it
  unsigned shards() const { return shard_count_; }

  // Is this answer one that the engine may give now? Fails the run if not.
  void judge_refusal(const char* what, const Error& error);
  // Compares a record with the model; its value, or null.
  ValuePtr judge_record(unsigned shard, const Key& key, const storage::RecordView* record);
  bool is_damaged(const storage::BlobRef& blob) const;

 private:
  void open(bool may_crash);
  void attach();
  void load_control();
  bool wants_to_wake(Core& core) const;
  bool sleeps_on_mail(const Core& core, unsigned number) const;
  void check_sleep(const Core& core);
  void wake(Core& core);
  bool poll_engine(Core& core);
  void stop_engine(Core& core);
  bool deliver_all();
  void quiet();
  void judge_mail();
  void live(bool until_writing);
  void stall_cores(double probability);
  void turn();
  void turn_of(unsigned number);
  void new_task();
  void end_by_crash(bool power_fails);
  void end_by_stop();
  void let_go();
  void verify();
  void verify_accounts();
  std::string compare_accounts();
  void read_content(unsigned core, const Key& key, const storage::RecordView& record,
                    const Value& value);
  // What is there, per shard: value ids. Keeps the places of the blobs in `blobs_`.
  std::vector<std::map<Key, uint64_t>> find_all();
  void damage(const storage::BlobRef& blob);
  void misdirect(const storage::BlobRef& from, const storage::BlobRef& to);
  bool must_be_noticed(const storage::BlobRef& blob) const;
  std::optional<storage::BlobRef> pick_blob();
  void choose_faults();
  void choose_faults_of_open();
  void no_faults();

  const uint64_t seed_;
  const std::string directory_;
  Chance chance_;
  Trace trace_;
  SimClock clock_;
  SimRandom random_;
  SimChaos chaos_;
  SimHelpers helpers_;
  std::unique_ptr<SimDisk> disk_;
  storage::Platform platform_;
  storage::EngineOptions options_;
  Profile profile_;
  Mix mix_{};

  unsigned shard_count_;
  std::vector<std::string> names_;
  std::map<std::string, unsigned, std::less<>> shard_of_name_;
  std::vector<uint64_t> spaces_;
  Model model_;
  Judge judge_;
  std::map<uint64_t, ValuePtr> values_;
  uint64_t next_value_ = 1;
  std::set<std::pair<unsigned, uint64_t>> sealed_, sealing_;
  std::vector<Damage> damages_;
  std::vector<storage::BlobRef> blobs_;

  std::unique_ptr<storage::Engine> engine_;
  std::unique_ptr<shards::Fabric> fabric_;
  std::vector<std::unique_ptr<Core>> cores_;
  std::vector<std::unique_ptr<Task>> tasks_;
  // A run with long names, small rings and many look-ups: four of them fill a ring, and answers
  // find no room.
  bool crowded_ = false;
  unsigned stalled_core_ = 0;
  uint64_t stalled_turns_ = 0;
  bool stalled_before_ = false;
  bool stopping_ = false;
  std::string error_;
};

// --- tests/sim/tasks.cc, tasks_more.cc
std::unique_ptr<Task> make_write(World& world);
std::unique_ptr<Task> make_read(World& world);
std::unique_ptr<Task> make_scan(World& world);
std::unique_ptr<Task> make_list(World& world);
std::unique_ptr<Task> make_seal(World& world);
std::unique_ptr<Task> make_control(World& world);

}  // namespace basalt::sim
