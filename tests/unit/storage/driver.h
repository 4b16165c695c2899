// Runs one core of an engine on the test's thread: run queue, I/O, engine, turned by hand until
// something is true.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "base/buffer.h"
#include "base/clock.h"
#include "storage/core_engine.h"
#include "storage/engine.h"
#include "storage/io.h"
#include "storage/memory_engine.h"
#include "storage/mutation_builder.h"
#include "tests/unit/storage/fakes.h"

namespace basalt::storage::test {

class Driver {
 public:
  virtual ~Driver() = default;
  virtual CoreEngine& core() = 0;
  virtual void turn() = 0;
  virtual void checkpoint() = 0;  // everything that is durable now is in the index afterwards
  virtual void reopen() = 0;      // as after a clean stop
  virtual bool durable() const = 0;

  [[nodiscard]] bool spin(const std::function<bool()>& until, int seconds = 60) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
    while (!until()) {
      turn();
      if (std::chrono::steady_clock::now() > deadline) return false;
    }
    return true;
  }

  Result<Applied> apply(unsigned shard, MutationBuilder& builder, Bytes body = {},
                        std::span<const Precondition> conditions = {},
                        uint32_t* failed_index = nullptr) {
    Tracked<ApplyRequest> request(conditions, builder.finish(), body);
    core().shard(shard).apply(request);
    EXPECT_TRUE(spin([&] { return request.done; }));
    if (failed_index != nullptr) *failed_index = request.failed_index;
    builder.clear();
    if (request.result) {
      for (auto& writer : unrecorded_) writer->recorded();
      unrecorded_.clear();
    }
    return std::move(request.result);
  }
  Result<Applied> put(unsigned shard, const KeyView& key, const NewRecord& record,
                      Bytes body = {}) {
    MutationBuilder builder;
    builder.put(key, record, !body.empty());
    return apply(shard, builder, body);
  }
  Result<Applied> erase(unsigned shard, const KeyView& key) {
    MutationBuilder builder;
    builder.erase(key);
    return apply(shard, builder);
  }
  Result<ScanPage> scan(unsigned shard, const ScanOptions& options) {
    Tracked<ScanRequest> request(options);
    core().shard(shard).scan(request);
    EXPECT_TRUE(spin([&] { return request.done; }));
    return std::move(request.result);
  }
  Status seal(unsigned shard, SealRequest::Action action, uint64_t space) {
    Tracked<SealRequest> request(action, space);
    core().shard(shard).seal(request);
    EXPECT_TRUE(spin([&] { return request.done; }));
    return request.result;
  }
  // Belongs to the record of the next successful apply(), or to nobody if the caller keeps the
  // writer.
  Result<BlobRef> write_blob(Bytes bytes, std::unique_ptr<BlobWriter>* keep = nullptr) {
    BASALT_TRY(writer, core().blobs().create(bytes.size()));
    while (!bytes.empty()) {
      const MutableBytes room = writer->room();
      if (room.empty()) {
        Tracked<WriterReady> ready;
        writer->wait(ready);
        EXPECT_TRUE(spin([&] { return ready.done; }));
        BASALT_CHECK_OK(ready.result);
        continue;
      }
      const size_t count = std::min(room.size(), bytes.size());
      std::memcpy(room.data(), bytes.data(), count);
      writer->advance(count);
      bytes = bytes.subspan(count);
    }
    Tracked<SealBlob> seal;
    writer->seal(seal);
    EXPECT_TRUE(spin([&] { return seal.done; }));
    if (!seal.result) return std::unexpected(seal.result.error());
    if (keep != nullptr) {
      *keep = std::move(writer);
    } else {
      unrecorded_.push_back(std::move(writer));
    }
    return seal.result->ref;
  }
  Result<std::string> read_blob(const BlobRef& blob) {
    std::string out;
    while (out.size() < blob.length) {
      Tracked<ReadBlob> read(
          blob, out.size(),
          static_cast<uint32_t>(std::min<uint64_t>(blob.length - out.size(), 300'000)));
      core().blobs().read(read);
      EXPECT_TRUE(spin([&] { return read.done; }));
      if (!read.result) return std::unexpected(read.result.error());
      out += as_text(read.result->data);
    }
    return out;
  }
  // The content of a record: its body, then its blobs.
  Result<std::string> content(unsigned shard, const KeyView& key) {
    BASALT_TRY(record, core().shard(shard).get_now(key));
    std::string out(as_text(record->inline_body));
    if (in_file(record->body)) {
      BASALT_TRY(text, read_blob(record->body));
      out += text;
    }
    for (const BlobRef& blob : record->blobs) {
      BASALT_TRY(text, read_blob(blob));
      out += text;
    }
    return out;
  }

 protected:
  std::vector<std::unique_ptr<BlobWriter>> unrecorded_;
};

class MemoryDriver final : public Driver {
 public:
  ~MemoryDriver() override { unrecorded_.clear(); }
  explicit MemoryDriver(unsigned shards)
      : blobs_(std::make_shared<MemoryBlobs>()),
        core_(make_memory_core({.shard_count = shards}, blobs_, run_queue_, buffers_)) {}
  CoreEngine& core() override { return *core_; }
  void turn() override { run_queue_.run(); }
  void checkpoint() override {}
  void reopen() override {}
  bool durable() const override { return false; }
  MemoryBlobs& blobs() { return *blobs_; }

 private:
  RunQueue run_queue_;
  BufferPool buffers_;
  std::shared_ptr<MemoryBlobs> blobs_;
  std::unique_ptr<CoreEngine> core_;
};

class LocalDriver final : public Driver {
 public:
  explicit LocalDriver(unsigned shards) : LocalDriver(default_options(shards)) {}
  explicit LocalDriver(EngineOptions options, bool force_threads = false)
      : options_(std::move(options)), force_threads_(force_threads) {
    if (options_.directory.empty()) {
      temporary_ = std::make_unique<TemporaryDirectory>();
      options_.directory = temporary_->path() + "/data";
    }
    const auto opened = open();
    EXPECT_TRUE(opened.has_value()) << (opened ? "" : opened.error().detail);
  }
  ~LocalDriver() override { close(true); }

  static EngineOptions default_options(unsigned shards) {
    EngineOptions options;
    options.shard_count_at_format = shards;
    options.log_segment_bytes = 8u << 20;
    options.bulk_segment_bytes = 8u << 20;
    options.lmdb_map_bytes = 1u << 30;
    options.gc_sealed_age_ms = 0;
    return options;
  }

  Status open() {
    BASALT_TRY(engine, Engine::open(options_, clock_));
    engine_ = std::move(engine);
    BASALT_TRY(io, make_io(run_queue_, force_threads_));
    io_ = std::move(io);
    core_ = engine_->attach(0, *io_, run_queue_, buffers_);
    return {};
  }
  // clean: stop() with its last checkpoint. Otherwise only what is needed to take the parts down;
  // the log keeps the rest.
  void close(bool clean) {
    if (core_ == nullptr) return;
    if (clean) {
      struct Stopped : Completion {
        bool done = false;
      } stopped;
      stopped.fn = [](Completion& completion) { static_cast<Stopped&>(completion).done = true; };
      core_->stop(stopped);
      EXPECT_TRUE(spin([&] { return stopped.done; }));
    } else {
      // A core does not go while it moves something.
      EXPECT_TRUE(spin([&] { return local().relocations_outstanding() == 0; }));
    }
    unrecorded_.clear();
    core_.reset();
    while (run_queue_.run() != 0) {
    }
    io_.reset();
    engine_.reset();
  }
  CoreEngine& core() override { return *core_; }
  LocalCore& local() { return static_cast<LocalCore&>(*core_); }
  Engine& engine() { return *engine_; }
  EngineOptions& options() { return options_; }
  void turn() override {
    bool did = io_->poll();
    did |= core_->poll();
    did |= run_queue_.run() != 0;
    did |= io_->poll();
    if (!did) ::usleep(20);
  }
  void checkpoint() override {
    const uint64_t before = core_->stats().checkpoints.load();
    local().request_checkpoint();
    EXPECT_TRUE(spin([&] {
      return core_->stats().checkpoints.load() > before &&
             core_->stats().overlay_entries.load() == 0;
    }));
  }
  void reopen() override {
    close(true);
    const auto opened = open();
    ASSERT_TRUE(opened.has_value()) << opened.error().detail;
  }
  // Without the last checkpoint: what was acknowledged must come back from the log.
  void crash() {
    close(false);
    const auto opened = open();
    ASSERT_TRUE(opened.has_value()) << opened.error().detail;
  }
  bool durable() const override { return true; }

 private:
  std::unique_ptr<TemporaryDirectory> temporary_;
  EngineOptions options_;
  bool force_threads_;
  SystemClock clock_;
  RunQueue run_queue_;
  BufferPool buffers_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Io> io_;
  std::unique_ptr<CoreEngine> core_;
};

}  // namespace basalt::storage::test
