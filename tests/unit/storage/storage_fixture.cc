#include "tests/unit/storage/storage_fixture.h"

#include <fcntl.h>
#include <unistd.h>

namespace basalt::storage {

void overwrite(const std::string& path, uint64_t offset, Bytes bytes) {
  int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_GE(fd, 0) << path;
  ASSERT_EQ(::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset)),
            static_cast<ssize_t>(bytes.size()));
  ASSERT_EQ(::fsync(fd), 0);
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  ::close(fd);
}

void flip_bit(const std::string& path, uint64_t offset) {
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0) << path;
  uint8_t byte = 0;
  ASSERT_EQ(::pread(fd, &byte, 1, static_cast<off_t>(offset)), 1);
  ::close(fd);
  byte ^= 0x10;
  overwrite(path, offset, Bytes(&byte, 1));
}

}  // namespace basalt::storage
