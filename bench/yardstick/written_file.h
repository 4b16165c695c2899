// A file that has been written before, so that writing to it again allocates nothing: what the
// yardsticks of durable writes write to, as the server's log does.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace basalt::bench::yardstick {

class WrittenFile {
 public:
  // Opens or makes `directory`/`name` with O_DIRECT and fills it. Null: it failed, the reason is on
  // stderr.
  static std::unique_ptr<WrittenFile> open(const std::string& directory, const std::string& name);
  ~WrittenFile();
  WrittenFile(const WrittenFile&) = delete;
  WrittenFile& operator=(const WrittenFile&) = delete;

  // pwrite of `size` bytes (a multiple of 4096, at most 1 MiB) to the next place, then fdatasync.
  // False: one of them failed.
  bool write(size_t size);
  uint8_t* data() const { return memory_; }  // what write() writes; 1 MiB, aligned

 private:
  WrittenFile() = default;
  std::string path_;
  int fd_ = -1;
  uint8_t* memory_ = nullptr;
  size_t at_ = 0;
};

}  // namespace basalt::bench::yardstick
