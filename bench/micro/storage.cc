// What storage/ and shards/ cost by themselves: an index look-up, a record on its way into the log,
// a page of a listing merged from the shards. I/O is carried out in place and nothing is flushed
// (SyncIo): this is processor time only.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/log.h"
#include "bench/paths/world.h"
#include "shards/client.h"
#include "storage/mutation_builder.h"

namespace basalt::bench {
namespace {

constexpr uint64_t kSpace = 7;
constexpr int kKeys = 10'000;

std::string key_of(int number) { return fmt::format("bench/{:016x}", number * 0x9e3779b97f4a7c15); }

struct Put {
  storage::MutationBuilder builder;
  struct Request : storage::ApplyRequest {
    bool done = false;
    Request(Bytes mutations, Bytes body) : ApplyRequest({}, mutations, body) {
      fn = [](Completion& self) { static_cast<Request&>(self).done = true; };
    }
  };
  std::unique_ptr<Request> request;

  void start(World& world, std::string_view name, Bytes body) {
    static const std::vector<uint8_t> meta(200, 'm');
    builder.clear();
    builder.put({storage::Table::kCurrent, kSpace, name},
                {.size = body.size(), .tag = "0123456789abcdef", .meta = meta}, !body.empty());
    request = std::make_unique<Request>(builder.finish(), body);
    world.engine_core().shard(world.shards().shard_of(kSpace, name)).apply(*request);
  }
};

// kKeys records in the index, none in the overlay.
class Data {
 public:
  Data() {
    set_log_level(LogLevel::kWarn);
    const char* parent = std::getenv("TMPDIR");
    path_ =
        fmt::format("{}basalt-micro-XXXXXX", parent != nullptr ? std::string(parent) + "/" : "");
    BASALT_CHECK(::mkdtemp(path_.data()) != nullptr);
    open();
    Put put;
    for (int i = 0; i < kKeys; ++i) {
      put.start(*world_, key_of(i), {});
      while (!put.request->done) world_->turn();
      BASALT_CHECK(put.request->result.has_value());
    }
    world_.reset();
    open();
  }
  ~Data() {
    world_.reset();
    std::filesystem::remove_all(path_);
  }
  World& world() { return *world_; }

 private:
  void open() {
    auto world = World::open(path_ + "/data");
    BASALT_CHECK(world.has_value());
    world_ = std::move(*world);
  }
  std::string path_;
  std::unique_ptr<World> world_;
};

// Made once: benchmarks are called many times.
Data& shared_data() {
  static Data data;
  return data;
}

void index_look_up(benchmark::State& state) {
  Data& data = shared_data();
  int i = 0;
  for (auto _ : state) {
    const std::string name = key_of(i++ % kKeys);
    storage::MetaShard& shard =
        data.world().engine_core().shard(data.world().shards().shard_of(kSpace, name));
    BASALT_CHECK(shard.get_now({storage::Table::kCurrent, kSpace, name}).has_value());
  }
}
BENCHMARK(index_look_up);

// So many puts of 4 KiB in one batch of the log, from the mutation to the overlay.
void lane_batch(benchmark::State& state) {
  Data& data = shared_data();
  const auto batch = static_cast<size_t>(state.range(0));
  const std::vector<uint8_t> body(4096, 'b');
  std::vector<Put> puts(batch);
  int i = 0;
  for (auto _ : state) {
    for (Put& put : puts) put.start(data.world(), key_of(i++ % kKeys), body);
    for (Put& put : puts) {
      while (!put.request->done) data.world().turn();
      BASALT_CHECK(put.request->result.has_value());
    }
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(lane_batch)->Arg(1)->Arg(16)->Arg(64);

void merge_listing_of_1000(benchmark::State& state) {
  Data& data = shared_data();
  for (auto _ : state) {
    auto task = shards::scan_all(data.world().shards(),
                                 {.space = kSpace, .prefix = "bench/", .limit = 1000});
    data.world().drive(task);
    BASALT_CHECK(task.result().has_value() && task.result()->entries.size() == 1000);
  }
  state.SetItemsProcessed(state.iterations() * 1000);
}
BENCHMARK(merge_listing_of_1000);

}  // namespace
}  // namespace basalt::bench
