// A machine turned by hand: the real disk, which fails where the test says; I/O that ends when the
// test says; helper threads whose work the test calls.
#pragma once

#include <cerrno>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "storage/io_backends.h"
#include "storage/platform.h"
#include "tests/unit/storage/storage_fixture.h"

namespace basalt::storage {

class HandDisk final : public Disk {
 public:
  int allocations_interrupted = 0;  // so many calls of allocate() end with EINTR
  bool full = false;                // allocate() ends with ENOSPC
  std::string sync_fails_once;      // the next sync of a file whose path holds this
  int sync_error = EIO;             // then

  int open(int at, const char* path, int flags) override {
    const int fd = disk_.open(at, path, flags);
    if (fd >= 0) paths_[fd] = path;
    return fd;
  }
  void close(int fd) override { disk_.close(fd); }
  int64_t read(int fd, MutableBytes out, uint64_t offset) override {
    return disk_.read(fd, out, offset);
  }
  int64_t write(int fd, Bytes bytes, uint64_t offset) override {
    return disk_.write(fd, bytes, offset);
  }
  int sync(int fd) override { return fails(fd) ? -sync_error : disk_.sync(fd); }
  int data_sync(int fd) override { return fails(fd) ? -sync_error : disk_.data_sync(fd); }
  int allocate(int fd, uint64_t size) override {
    if (full) return -ENOSPC;
    if (allocations_interrupted == 0) return disk_.allocate(fd, size);
    --allocations_interrupted;
    return -EINTR;
  }
  int truncate(int fd, uint64_t size) override { return disk_.truncate(fd, size); }
  int64_t seek(int fd, uint64_t offset, int whence) override {
    return disk_.seek(fd, offset, whence);
  }
  int64_t size(int fd) override { return disk_.size(fd); }
  int advise(int fd, int advice) override { return disk_.advise(fd, advice); }
  int lock(int fd) override { return disk_.lock(fd); }
  int make_directory(int at, const char* path) override { return disk_.make_directory(at, path); }
  int rename(int at, const char* from, const char* to) override {
    return disk_.rename(at, from, to);
  }
  int unlink(int at, const char* path) override { return disk_.unlink(at, path); }
  Status list(int at, const char* path,
              const std::function<Status(const std::string&, unsigned char)>& visit) override {
    return disk_.list(at, path, visit);
  }
  int space(int fd, Space& space) override { return disk_.space(fd, space); }
  int64_t read_resident(int fd, MutableBytes out, uint64_t offset) override {
    return disk_.read_resident(fd, out, offset);
  }
  int64_t resident_pages(int fd, uint64_t offset, uint64_t length) override {
    return disk_.resident_pages(fd, offset, length);
  }

 private:
  bool fails(int fd) {
    if (sync_fails_once.empty() || !paths_[fd].contains(sync_fails_once)) return false;
    sync_fails_once.clear();
    return true;
  }
  Disk& disk_ = system_disk();
  std::map<int, std::string> paths_;
};

class HandHelpers final : public Helpers {
 public:
  Result<std::unique_ptr<Helper>> start(const char*, std::function<uint32_t()> work) override {
    auto helper = std::make_unique<One>(*this, std::move(work));
    all_.push_back(helper.get());
    return helper;
  }
  unsigned parallel() const override { return 1; }
  void run() {  // a unit of work of each
    for (size_t i = 0; i < all_.size(); ++i) all_[i]->work_();
  }

 private:
  struct One final : Helper {
    One(HandHelpers& owner, std::function<uint32_t()> work)
        : owner_(owner), work_(std::move(work)) {}
    ~One() override { std::erase(owner_.all_, this); }
    void kick() override {}
    HandHelpers& owner_;
    const std::function<uint32_t()> work_;
  };
  std::vector<One*> all_;
};

class HandIo final : public Io {
 public:
  HandIo(Disk& disk, RunQueue& run_queue) : disk_(disk), run_queue_(run_queue) {}
  ~HandIo() override { end_all(); }

  std::vector<IoOp*> waiting;
  bool hold = false;  // poll() ends nothing

  void submit(IoOp& op) override {
    op.done_bytes = 0;
    waiting.push_back(&op);
  }
  bool poll() override {
    const bool did = drain_posted(run_queue_);
    if (did) clear_wake();
    return hold ? did : end_all() || did;
  }
  size_t in_flight() const override { return waiting.size(); }
  size_t at_once_max() const override { return SIZE_MAX; }
  std::string_view name() const override { return "by hand"; }

  // Carries out waiting[at]; with `error` not 0 that is what it says afterwards.
  void end(size_t at, int error = 0) {
    IoOp& op = *waiting[at];
    waiting.erase(waiting.begin() + static_cast<ptrdiff_t>(at));
    op.result = carry_out(disk_, op);
    if (error != 0) op.result = -error;
    run_queue_.post(op);
  }

 private:
  bool end_all() {
    const bool any = !waiting.empty();
    while (!waiting.empty()) end(0);
    return any;
  }
  Disk& disk_;
  RunQueue& run_queue_;
};

struct HandMachine {
  HandMachine() { platform.disk = &disk; }
  HandDisk disk;
  HandHelpers helpers;
  RunQueue run_queue;
  HandIo io{disk, run_queue};
  Platform platform{&disk, system_platform().clock, system_platform().random, &helpers};

  // Turns of everything; false: `done` did not become true.
  bool turn_until(const std::function<bool()>& done, const std::function<void()>& also = {}) {
    for (int turns = 0; turns < 10'000; ++turns) {
      if (done()) return true;
      helpers.run();
      io.poll();
      run_queue.run();
      if (also) also();
    }
    return done();
  }
};

}  // namespace basalt::storage
