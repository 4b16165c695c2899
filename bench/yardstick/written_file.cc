#include "bench/yardstick/written_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace basalt::bench::yardstick {
namespace {

constexpr size_t kFileBytes = 64u << 20;
constexpr size_t kMemoryBytes = 1u << 20;

}  // namespace

std::unique_ptr<WrittenFile> WrittenFile::open(const std::string& directory,
                                               const std::string& name) {
  std::unique_ptr<WrittenFile> file(new WrittenFile());
  file->path_ = directory + "/" + name;
  file->memory_ = static_cast<uint8_t*>(std::aligned_alloc(4096, kMemoryBytes));
  if (file->memory_ == nullptr) return nullptr;
  std::memset(file->memory_, 'x', kMemoryBytes);
  // O_DIRECT, as the log writes: the page cache would only add to it.
  file->fd_ = ::open(file->path_.c_str(), O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
  bool good = file->fd_ >= 0;
  if (good && ::lseek(file->fd_, 0, SEEK_END) < static_cast<off_t>(kFileBytes)) {
    for (size_t at = 0; good && at < kFileBytes; at += kMemoryBytes) {
      good = ::pwrite(file->fd_, file->memory_, kMemoryBytes, static_cast<off_t>(at)) ==
             static_cast<ssize_t>(kMemoryBytes);
    }
    good = good && ::fsync(file->fd_) == 0;
  }
  if (good) return file;
  fmt::print(stderr, "{}: {}\n", file->path_, std::strerror(errno));
  return nullptr;
}

WrittenFile::~WrittenFile() {
  if (fd_ >= 0) ::close(fd_);
  std::free(memory_);
}

bool WrittenFile::write(size_t size) {
  const bool good =
      ::pwrite(fd_, memory_, size, static_cast<off_t>(at_)) == static_cast<ssize_t>(size) &&
      ::fdatasync(fd_) == 0;
  at_ = (at_ + size) % (kFileBytes - size);
  if (!good) fmt::print(stderr, "{}: a write or flush failed\n", path_);
  return good;
}

}  // namespace basalt::bench::yardstick
