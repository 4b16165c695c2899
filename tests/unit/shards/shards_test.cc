// shards/: calls between cores on real threads (get, apply, scan, seal, change), a ring that is
// full, and the merged listing against a plain sorted set. The engine below is the memory model.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <atomic>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "shards/core.h"
#include "storage/memory_engine.h"
#include "storage/mutation_builder.h"

namespace basalt::shards {
namespace {

using storage::KeyView;
using storage::Table;

class ModelEngine final : public storage::Engine {
 public:
  explicit ModelEngine(unsigned shards) : shards_(shards) {}
  unsigned shard_count() const override { return shards_; }
  uint64_t hash_seed() const override { return 42; }
  std::unique_ptr<storage::CoreEngine> attach(unsigned, storage::Io&, RunQueue&,
                                              BufferPool&) override {
    return nullptr;
  }
  bool healthy() const override { return true; }
  std::string health_text() const override { return "ok"; }
  storage::SpaceUse space_use() const override { return {}; }
  uint64_t space_bytes(uint64_t) const override { return 0; }
  uint64_t space_objects(uint64_t) const override { return 0; }

 private:
  const unsigned shards_;
};

struct Mirror final : ControlListener {
  std::map<std::string, std::string, std::less<>> rows;
  void on_change(Table, std::string_view name, std::optional<Bytes> meta, uint64_t) override {
    if (meta) {
      rows[std::string(name)] = std::string(as_text(*meta));
    } else {
      rows.erase(std::string(name));
    }
  }
};

// One core as the server builds it, without sockets.
struct TestCore {
  RunQueue run_queue;
  BufferPool buffers;
  Mirror mirror;
  std::unique_ptr<storage::CoreEngine> engine;
  std::unique_ptr<CoreShards> shards;

  TestCore(Fabric& fabric, ModelEngine& model, std::shared_ptr<storage::MemoryBlobs> blobs,
           unsigned core) {
    engine = storage::make_memory_core({core, fabric.core_count(), model.shard_count()},
                                       std::move(blobs), run_queue, buffers);
    shards = std::make_unique<CoreShards>(
        CoreShards::Parts{fabric, core, model, *engine, run_queue, buffers, mirror});
  }
  // One turn; sleeps on the doorbell when there is nothing to do.
  void turn(bool may_sleep) {
    bool any = shards->poll();
    any |= engine->poll();
    any |= run_queue.run() > 0;
    if (any || !may_sleep || !run_queue.empty()) return;
    if (!shards->prepare_sleep()) return;
    pollfd bell{shards->wake_fd(), POLLIN, 0};
    poll(&bell, 1, 5);
    shards->woke();
  }
};

struct World {
  ModelEngine model;
  std::unique_ptr<Fabric> fabric;
  std::shared_ptr<storage::MemoryBlobs> blobs = std::make_shared<storage::MemoryBlobs>();
  std::vector<std::unique_ptr<TestCore>> cores;
  World(unsigned core_count, unsigned shard_count)
      : model(shard_count), fabric(std::move(*Fabric::create(core_count))) {
    for (unsigned core = 0; core < core_count; ++core) {
      cores.push_back(std::make_unique<TestCore>(*fabric, model, blobs, core));
    }
  }
  // All cores on this thread until the task is done.
  template <class T>
  T run(Task<T> task) {
    task.start();
    while (!task.done()) {
      for (auto& core : cores) core->turn(false);
    }
    return std::move(task.result());
  }
};

Task<Status> put(Client& client, uint64_t space, std::string key, std::string meta) {
  storage::MutationBuilder builder;
  builder.put({Table::kCurrent, space, key},
              {.size = meta.size(), .tag = "t", .meta = as_bytes(meta)});
  auto call = client.apply(client.shard_of(space, key), {}, builder.finish());
  CO_CHECK(call);
  co_return Status();
}

Task<Result<std::string>> get(Client& client, uint64_t space, std::string key) {
  auto call = client.get(client.shard_of(space, key), {Table::kCurrent, space, key});
  CO_TRY(record, call);
  co_return std::string(as_text(record->meta));
}

TEST(CoreShards, CallsReachEveryShardFromEveryCore) {
  World world(2, 8);
  for (unsigned i = 0; i < 200; ++i) {
    Client& writer = *world.cores[i % 2]->shards;
    Client& reader = *world.cores[(i + 1) % 2]->shards;
    const std::string key = fmt::format("key-{}", i);
    ASSERT_TRUE(world.run(put(writer, 7, key, key)));
    auto got = world.run(get(reader, 7, key));
    ASSERT_TRUE(got);
    EXPECT_EQ(*got, key);
  }
  auto missing = world.run(get(*world.cores[0]->shards, 8, "key-1"));
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, Code::kNotFound);
  EXPECT_GT(world.cores[0]->shards->stats().remote_calls.load(), 0u);
  EXPECT_GT(world.cores[0]->shards->stats().local_calls.load(), 0u);
}

TEST(CoreShards, FailedPreconditionsTellWhichOverTheRing) {
  World world(2, 8);
  for (unsigned core = 0; core < 2; ++core) {
    Client& client = *world.cores[core]->shards;
    auto attempt = [](Client& c) -> Task<std::pair<Code, uint32_t>> {
      storage::MutationBuilder builder;
      const KeyView key{Table::kCurrent, 1, "x"};
      builder.put(key, {.tag = "t"});
      const storage::Precondition wanted[] = {
          {storage::Precondition::Kind::kAbsent, {Table::kCurrent, 1, "other"}},
          {storage::Precondition::Kind::kExists, key}};
      auto call = c.apply(c.shard_of(1, "x"), wanted, builder.finish());
      auto result = co_await call;
      co_return std::pair(result ? Code::kInvalid : result.error().code, call.failed_index);
    };
    EXPECT_EQ(world.run(attempt(client)), std::pair(Code::kNotFound, 1u));
  }
}

TEST(CoreShards, AChangeIsSeenByEveryCoreBeforeItAnswers) {
  World world(3, 8);
  auto change = [](Client& client, std::string name, std::string value,
                   bool erase) -> Task<Status> {
    storage::MutationBuilder builder;
    const KeyView key{Table::kBucket, storage::kControlSpace, name};
    if (erase) {
      builder.erase(key);
    } else {
      builder.put(key, {.meta = as_bytes(value)});
    }
    const storage::Precondition absent{storage::Precondition::Kind::kAbsent, key};
    std::span<const storage::Precondition> preconditions;
    if (!erase) preconditions = {&absent, 1};
    auto call = client.change(preconditions, builder.finish());
    CO_CHECK(call);
    co_return Status();
  };
  for (unsigned core = 0; core < 3; ++core) {
    const std::string name = fmt::format("bucket-{}", core);
    ASSERT_TRUE(world.run(change(*world.cores[core]->shards, name, "v", false)));
    for (auto& other : world.cores) EXPECT_EQ(other->mirror.rows[name], "v");
    auto again = world.run(change(*world.cores[core]->shards, name, "w", false));
    ASSERT_FALSE(again);
    EXPECT_EQ(again.error().code, Code::kPreconditionFailed);
  }
  ASSERT_TRUE(world.run(change(*world.cores[2]->shards, "bucket-0", "", true)));
  for (auto& other : world.cores) EXPECT_FALSE(other->mirror.rows.contains("bucket-0"));

  Mirror fresh;
  ASSERT_TRUE(world.run(load_control(*world.cores[1]->shards, fresh)));
  EXPECT_EQ(fresh.rows.size(), 2u);
}

TEST(CoreShards, AFullRingAnswersBusyAtOnce) {
  World world(2, 2);
  Client& client = *world.cores[0]->shards;
  unsigned remote = client.shard_of(1, "k") % 2 == 1 ? client.shard_of(1, "k") : 1;
  const std::string name(1000, 'n');
  std::vector<std::unique_ptr<Call<GetRequest>>> calls;
  bool busy = false;
  for (int i = 0; i < 2000 && !busy; ++i) {
    calls.push_back(std::make_unique<Call<GetRequest>>(
        [&](GetRequest& request) { client.start(remote, request); },
        KeyView{Table::kCurrent, 1, name}));
    world.cores[0]->run_queue.run();
    busy = calls.back()->await_ready() && calls.back()->result.error().code == Code::kBusy;
  }
  EXPECT_TRUE(busy);
  for (int i = 0; i < 100; ++i) {
    for (auto& core : world.cores) core->turn(false);
  }
  for (auto& call : calls) EXPECT_TRUE(call->await_ready());  // every accepted call was completed
}

TEST(CoreShards, ThreadsTalkWithoutLosingACall) {
  World world(2, 8);
  constexpr int kCalls = 3000;
  std::atomic<int> finished{0};
  auto worker = [&](unsigned index) {
    TestCore& core = *world.cores[index];
    auto work = [](Client& client, unsigned seed) -> Task<int> {
      int good = 0;
      for (int i = 0; i < kCalls; ++i) {
        const std::string key = fmt::format("{}-{}", seed, i % 50);
        const std::string value = fmt::format("{}", i);
        if (!co_await put(client, 3, key, value)) continue;
        auto got = co_await get(client, 3, key);
        if (got && *got == value) ++good;
      }
      co_return good;
    };
    auto task = work(*core.shards, index);
    task.start();
    while (!task.done()) core.turn(true);
    EXPECT_EQ(task.result(), kCalls);
    finished.fetch_add(1);
    while (finished.load() < 2) core.turn(true);
  };
  std::thread other(worker, 1);
  worker(0);
  other.join();
}

struct ListingCase {
  std::string prefix, after, delimiter;
  uint32_t limit;
};

// What scan_all must give, from the sorted names.
std::pair<std::vector<std::string>, bool> expected(const std::set<std::string>& names,
                                                   const ListingCase& c) {
  std::vector<std::string> out;
  for (const std::string& name : names) {
    if (!name.starts_with(c.prefix) || name <= c.after) continue;
    std::string shown = name;
    if (!c.delimiter.empty()) {
      const size_t at = name.find(c.delimiter, c.prefix.size());
      if (at != std::string::npos) shown = name.substr(0, at + c.delimiter.size());
      if (shown != name || at != std::string::npos) {
        if (!c.after.empty() && c.after.starts_with(shown)) continue;
      }
    }
    if (!out.empty() && out.back() == shown) continue;
    if (out.size() == c.limit) return {out, true};
    out.push_back(shown);
  }
  return {out, false};
}

TEST(ScanAll, MergesPagesInByteOrder) {
  World world(2, 8);
  Client& client = *world.cores[0]->shards;
  std::mt19937 random(1);
  std::set<std::string> names;
  while (names.size() < 1500) {
    std::string name;
    const unsigned depth = 1 + random() % 3;
    for (unsigned d = 0; d < depth; ++d)
      name += fmt::format("{}{}", d == 0 ? "" : "/", random() % 20);
    if (random() % 4 == 0) name += "/";
    if (random() % 3 == 0) name += fmt::format("-{}", random() % 1000);
    if (names.insert(name).second) ASSERT_TRUE(world.run(put(client, 5, name, name)));
  }
  for (const std::string& delimiter : {std::string(), std::string("/"), std::string("/1")}) {
    for (const uint32_t limit : {1u, 2u, 7u, 100u, 1000u}) {
      for (const std::string& prefix :
           {std::string(), std::string("1"), std::string("3/"), std::string("zz")}) {
        std::string after;
        for (int page_number = 0; page_number < 6; ++page_number) {
          auto page = world.run(scan_all(client, {.space = 5,
                                                  .prefix = prefix,
                                                  .after = after,
                                                  .delimiter = delimiter,
                                                  .limit = limit}));
          ASSERT_TRUE(page);
          std::vector<std::string> got;
          for (const auto& entry : page->entries) {
            got.emplace_back(entry.name);
            if (!entry.common_prefix) {
              EXPECT_EQ(as_text(entry.record.meta), entry.name);
            }
          }
          const auto [want, more] = expected(names, {prefix, after, delimiter, limit});
          ASSERT_EQ(got, want) << "prefix " << prefix << " after " << after << " delimiter "
                               << delimiter;
          ASSERT_EQ(page->more, more);
          if (!page->more) break;
          after = got.back();
        }
      }
    }
  }
}

}  // namespace
}  // namespace basalt::shards
