// engine-put: the storage engine by itself, as fast as it takes durable puts: one core, its loop
// and io_uring as in the server, so many puts always under way. No HTTP, no signatures, no digests.
#include <fmt/format.h>

#include <memory>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "bench/yardstick/common.h"
#include "reactor/loop.h"
#include "storage/engine.h"
#include "storage/io.h"
#include "storage/mutation_builder.h"

namespace basalt::bench::yardstick {
namespace {

constexpr uint64_t kKeys = 20'000;
constexpr size_t kMetaBytes = 200;  // about what an object's metadata takes

struct Run;

struct Put {
  Run* run = nullptr;
  storage::MutationBuilder builder;
  std::string name;
  struct Request : storage::ApplyRequest {
    Put* put;
    Request(Put* owner, Bytes mutations, Bytes body)
        : ApplyRequest({}, mutations, body), put(owner) {}
  };
  std::optional<Request> request;
  uint64_t begun_ns = 0;
  void start();
};

struct Run {
  storage::Engine& engine;
  storage::CoreEngine& core;
  reactor::Loop& loop;
  std::vector<uint8_t> body, meta;
  std::vector<std::unique_ptr<Put>> puts;
  std::vector<uint64_t> took;
  uint64_t number = 0, measure_from_ns = 0, end_ns = 0;
  size_t under_way = 0;
  bool failed = false;
};

void Put::start() {
  const uint64_t number = run->number++;
  name = fmt::format("bench/{:016x}", (number % kKeys) * 0x9e3779b97f4a7c15);
  builder.clear();
  builder.put({storage::Table::kCurrent, 1, name},
              {.size = run->body.size(), .tag = "0123456789abcdef", .meta = run->meta}, true);
  request.emplace(this, builder.finish(), Bytes(run->body));
  request->fn = [](Completion& completion) {
    Put& put = *static_cast<Request&>(completion).put;
    Run& all = *put.run;
    const uint64_t now = wall_ns();
    all.failed |= !put.request->result;
    if (put.begun_ns >= all.measure_from_ns && now < all.end_ns)
      all.took.push_back(now - put.begun_ns);
    if (now < all.end_ns && !all.failed) return put.start();
    if (--all.under_way == 0) all.loop.stop();
  };
  begun_ns = wall_ns();
  run->core.shard(static_cast<unsigned>((number * 0x9e3779b9) % run->engine.shard_count()))
      .apply(*request);
}

int complain(const Error& error) {
  fmt::print(stderr, "engine-put: {}\n", error.detail);
  return 1;
}

}  // namespace

int engine_put(const Options& options) {
  SystemClock clock;
  storage::EngineOptions engine_options;
  engine_options.directory = options.directory;
  auto engine = storage::Engine::open(engine_options, clock);
  if (!engine) return complain(engine.error());
  auto loop = reactor::Loop::create();
  if (!loop) return complain(loop.error());
  auto io = storage::make_io((*loop)->run_queue(), false);
  if (!io) return complain(io.error());
  BufferPool buffers;
  auto core = (*engine)->attach(0, **io, (*loop)->run_queue(), buffers);
  (*loop)->add_poller(*core);
  (*loop)->add_poller(**io);

  Run run{.engine = **engine, .core = *core, .loop = **loop};
  run.body.assign(options.size, 'b');
  run.meta.assign(kMetaBytes, 'm');
  constexpr uint64_t kWarmUpNs = 200'000'000;
  run.measure_from_ns = wall_ns() + kWarmUpNs;
  run.end_ns = run.measure_from_ns + static_cast<uint64_t>(options.seconds * 1e9);
  uint64_t cpu_before = 0;
  uint64_t batches_before = 0, flushes_before = 0, records_before = 0;
  const storage::EngineStats& stats = core->stats();
  struct Begin {
    uint64_t &cpu, &batches, &flushes, &records;
    const storage::EngineStats& stats;
  } begin{cpu_before, batches_before, flushes_before, records_before, stats};
  reactor::Timer at_begin(
      **loop,
      [](void* argument) {
        Begin& b = *static_cast<Begin*>(argument);
        b.cpu = process_cpu_ns();
        b.batches = b.stats.log_batches;
        b.flushes = b.stats.device_flushes;
        b.records = b.stats.log_records;
      },
      &begin);
  at_begin.arm(kWarmUpNs / 1'000'000);
  for (uint32_t i = 0; i < options.in_flight; ++i) {
    run.puts.push_back(std::make_unique<Put>());
    run.puts.back()->run = &run;
    ++run.under_way;
    run.puts.back()->start();
  }
  (*loop)->run();
  const double records = static_cast<double>(stats.log_records - records_before);
  const double count = static_cast<double>(run.took.size());
  fmt::print(
      "{{\"operations\": {}, \"rate\": {:.1f}, \"cpu_us\": {:.2f}, \"p50_us\": {:.1f}, \"p99_us\": "
      "{:.1f}, "
      "\"batches\": {}, \"flushes\": {}, \"records_a_batch\": {:.1f}}}\n",
      run.took.size(), count / options.seconds,
      static_cast<double>(process_cpu_ns() - cpu_before) / 1e3 / records,
      quantile_us(run.took, 0.5), quantile_us(run.took, 0.99), stats.log_batches - batches_before,
      stats.device_flushes - flushes_before,
      records / std::max(1.0, static_cast<double>(stats.log_batches - batches_before)));

  struct Stopped : Completion {
    reactor::Loop* loop = nullptr;
    bool done = false;
  } stopped;
  stopped.fn = [](Completion& completion) { static_cast<Stopped&>(completion).done = true; };
  core->stop(stopped);
  while (!stopped.done) {
    core->poll();
    (*io)->poll();
    (*loop)->run_queue().run();
  }
  (*loop)->remove_pollers();
  core.reset();
  io->reset();
  return run.failed ? 1 : 0;
}

}  // namespace basalt::bench::yardstick
