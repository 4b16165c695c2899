// The recording disk: crash_recorder IMAGE LOG DIRECTORY DELAY_US SEED
//
// DIRECTORY/disk is IMAGE; every write and flush that reaches it is appended to LOG (disk_log.h)
// before it is answered. DIRECTORY/seq reads as the number of entries so far, in decimal: read
// after an answer of the program under test, it is a bound behind everything that answer relied on.
// Each request waits a random time up to DELAY_US first, as requests to a disk with a queue do:
// those in flight together end in any order.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <random>
#include <string>

#include "tests/crash/disk_log.h"
#include "tests/crash/fuse_disk.h"

namespace basalt::crash {
namespace {

bool write_all(int fd, const void* data, size_t length) {
  const auto* at = static_cast<const uint8_t*>(data);
  while (length > 0) {
    const ssize_t put = ::write(fd, at, length);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    at += put;
    length -= static_cast<size_t>(put);
  }
  return true;
}

constexpr unsigned kLongDelays = 5;

class RecordingDisk final : public FuseDisk {
 public:
  RecordingDisk(int image, int log, unsigned delay_us, uint64_t seed)
      : image_(image), log_(log), delay_us_(delay_us), random_(seed) {
    size_ = static_cast<uint64_t>(::lseek(image_, 0, SEEK_END));
  }

  uint64_t size() const override { return size_; }

  int read(uint8_t* out, uint64_t length, uint64_t offset) override {
    const ssize_t got = ::pread(image_, out, length, static_cast<off_t>(offset));
    return got < 0 ? -errno : static_cast<int>(got);
  }

  int write(const uint8_t* data, uint64_t length, uint64_t offset) override {
    const uint64_t arrived = arrive();
    const bool zeros = data[0] == 0 && std::equal(data, data + length - 1, data + 1);
    const std::lock_guard lock(mutex_);
    if (::pwrite(image_, data, length, static_cast<off_t>(offset)) != static_cast<ssize_t>(length))
      return -EIO;
    const EntryHeader header{next_, arrived, offset, length,
                             zeros ? EntryType::kZeros : EntryType::kWrite};
    if (!write_all(log_, &header, sizeof header) || (!zeros && !write_all(log_, data, length)))
      return -EIO;
    ++next_;
    return static_cast<int>(length);
  }

  int flush() override {
    const uint64_t arrived = arrive();
    const std::lock_guard lock(mutex_);
    const EntryHeader header{next_, arrived, 0, 0, EntryType::kFlush};
    if (!write_all(log_, &header, sizeof header)) return -EIO;
    ++next_;
    return 0;
  }

  const char* text_name() const override { return "seq"; }
  std::string text() override {
    const std::lock_guard lock(mutex_);
    return std::to_string(next_) + "\n";
  }
  int command(const std::string&) override { return -EPERM; }

 private:
  uint64_t arrive() {
    unsigned wait_us = 0;
    uint64_t arrived = 0;
    {
      const std::lock_guard lock(mutex_);
      arrived = next_;
      // Mostly quick, as disks are: a fourth waits, and a few wait long (a retry in the drive).
      const uint64_t luck = random_() % 32;
      if (delay_us_ != 0 && luck < 8) {
        wait_us =
            static_cast<unsigned>(random_() % (luck == 0 ? kLongDelays * delay_us_ : delay_us_));
      }
    }
    if (wait_us != 0) ::usleep(wait_us);
    return arrived;
  }

  const int image_;
  const int log_;
  const unsigned delay_us_;
  uint64_t size_ = 0;
  std::mutex mutex_;
  uint64_t next_ = 0;
  std::mt19937_64 random_;
};

}  // namespace
}  // namespace basalt::crash

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fputs("crash_recorder IMAGE LOG DIRECTORY DELAY_US SEED\n", stderr);
    return 2;
  }
  const int image = ::open(argv[1], O_RDWR | O_CLOEXEC);
  const int log = ::open(argv[2], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (image < 0 || log < 0) {
    std::perror("crash_recorder");
    return 1;
  }
  basalt::crash::RecordingDisk disk(image, log, static_cast<unsigned>(std::atoi(argv[4])),
                                    std::strtoull(argv[5], nullptr, 10));
  return basalt::crash::serve(disk, argv[0], argv[3]);
}
