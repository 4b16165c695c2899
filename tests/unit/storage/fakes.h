// A lane and a data directory of the imagination, for tests of what lies above them: appends become
// durable when the test says so, live bytes are counted per blob.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <filesystem>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "base/random.h"
#include "storage/files.h"
#include "storage/lane.h"
#include "storage/record_codec.h"

namespace basalt::storage::test {

class TemporaryDirectory {
 public:
  TemporaryDirectory()
      : path_(std::filesystem::temp_directory_path() / ("basalt-test-" + random_alphanumeric(12))) {
    std::filesystem::create_directories(path_);
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

class FakeFiles final : public Files {
 public:
  const Superblock& superblock() const override { return superblock_; }
  std::string shard_directory(unsigned) const override { return {}; }
  void set_live(uint32_t file, int64_t bytes) override { live[file] = bytes; }
  void add_live(const BlobRef& blob) override {
    live[blob.file] += static_cast<int64_t>(blob.length);
  }
  void release(std::span<const BlobRef> blobs) override {
    for (const BlobRef& blob : blobs) {
      live[blob.file] -= static_cast<int64_t>(blob.length);
      released.push_back(blob);
    }
  }
  void drop_orphans() override {}
  std::unique_ptr<ReadGuard> guard(unsigned) override { return std::make_unique<ReadGuard>(); }
  void checkpointed(unsigned, uint64_t) override {}
  std::vector<Victim> victims(double, uint32_t, size_t) override { return victims_now; }
  SpaceUse space_use() const override { return {}; }
  bool below_low_water() const override { return low_water; }
  Room take_room(RoomTicket& ticket) override {
    ++rooms_asked;
    return room.value_or(Files::take_room(ticket));
  }
  void poison(std::string why) override { poisoned = std::move(why); }
  bool healthy() const override { return poisoned.empty(); }
  std::string health_text() const override { return poisoned; }

  Superblock superblock_;
  std::map<uint32_t, int64_t> live;
  std::vector<BlobRef> released;
  std::vector<Victim> victims_now;
  bool low_water = false;
  std::optional<Room> room;
  size_t rooms_asked = 0;
  std::string poisoned;
};

// Durable when flush() is called.
class FakeLane final : public Lane {
 public:
  explicit FakeLane(RunQueue& run_queue) : run_queue_(run_queue) {}
  void append(Append& append) override {
    if (!refuse.has_value()) {
      append.result = refuse;
      append.lsn = 0;
      run_queue_.post(append);
      return;
    }
    append.lsn = ++lsn;
    waiting.push_back(&append);
  }
  void flush(Status status = {}) {
    while (!waiting.empty()) {
      Append& append = *waiting.front();
      waiting.pop_front();
      append.result = status;
      if (append.body.size() > kIndexBodyBytesMax) {
        append.body_ref.kind = static_cast<uint8_t>(BlobKind::kLog);
        append.body_ref.length = append.body.size();
        append.body_ref.offset = append.lsn * 4096;
        append.body_ref.file = 1;
      }
      run_queue_.post(append);
    }
  }
  LogPosition durable_position() const override { return {.epoch = 0, .lsn = lsn}; }
  uint64_t bytes_since_checkpoint() const override { return 0; }
  size_t queued() const override { return waiting.size(); }
  bool poll() override { return false; }
  void hold(bool) override {}

  uint64_t lsn = 0;
  Status refuse;
  std::deque<Append*> waiting;

 private:
  RunQueue& run_queue_;
};

// A request that remembers whether it completed.
template <class Request>
struct Tracked : Request {
  template <class... Args>
  explicit Tracked(Args&&... args) : Request(std::forward<Args>(args)...) {
    this->fn = [](Completion& completion) {
      static_cast<Tracked&>(static_cast<Request&>(completion)).done = true;
    };
  }
  bool done = false;
};

inline BlobRef bulk_blob(uint32_t file, uint64_t offset, uint64_t length) {
  BlobRef blob;
  blob.file = file;
  blob.offset = offset;
  blob.length = length;
  blob.kind = static_cast<uint8_t>(BlobKind::kBulk);
  return blob;
}

inline std::string text_of(std::string_view view) { return std::string(view); }

}  // namespace basalt::storage::test
