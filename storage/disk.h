// Disk: the file calls of the engine, as an interface, so that the simulation (tests/sim) can put a
// disk of its own below the unmodified engine. The real one is system_disk(): each call is the
// system call of its name.
//
// What goes through Io (storage/io.h) does not come here: an implementation of Io takes the same
// descriptors. Descriptors belong to the disk that opened them. Errors are returned as -errno. Any
// thread. All but read_resident() and resident_pages() may block: for helper threads and start-up.
#pragma once

#include <fcntl.h>
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/result.h"

namespace basalt::storage {

class Disk {
 public:
  virtual ~Disk() = default;

  // `at`: a directory's descriptor, or AT_FDCWD. A new file has mode 0600.
  virtual int open(int at, const char* path, int flags) = 0;
  virtual void close(int fd) = 0;
  virtual int64_t read(int fd, MutableBytes out, uint64_t offset) = 0;
  virtual int64_t write(int fd, Bytes bytes, uint64_t offset) = 0;
  virtual int sync(int fd) = 0;                     // fsync(2)
  virtual int data_sync(int fd) = 0;                // fdatasync(2)
  virtual int allocate(int fd, uint64_t size) = 0;  // fallocate(2) from the start
  virtual int truncate(int fd, uint64_t size) = 0;
  virtual int64_t seek(int fd, uint64_t offset, int whence) = 0;  // SEEK_DATA, SEEK_HOLE
  virtual int64_t size(int fd) = 0;
  virtual int advise(int fd, int advice) = 0;  // posix_fadvise(2), whole file
  virtual int lock(int fd) = 0;                // flock(2), exclusive, without waiting

  virtual int make_directory(int at, const char* path) = 0;  // mode 0700
  virtual int rename(int at, const char* from, const char* to) = 0;
  virtual int unlink(int at, const char* path) = 0;
  // Calls `visit(name, type)` for each entry but "." and ".."; type as in dirent (DT_DIR, DT_REG,
  // ...).
  virtual Status list(int at, const char* path,
                      const std::function<Status(const std::string&, unsigned char)>& visit) = 0;

  struct Space {
    uint64_t bytes = 0;
    uint64_t free_bytes = 0;  // for unprivileged users
    uint64_t type = 0;        // f_type of statfs(2)
  };
  virtual int space(int fd, Space& space) = 0;

  // What is in the page cache: preadv2(2) with RWF_NOWAIT, and cachestat(2) (-ENOSYS where the
  // kernel has none).
  virtual int64_t read_resident(int fd, MutableBytes out, uint64_t offset) = 0;
  virtual int64_t resident_pages(int fd, uint64_t offset, uint64_t length) = 0;
};

Disk& system_disk();

// Owns a descriptor of a disk.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : UniqueFd(system_disk(), fd) {}
  UniqueFd(Disk& disk, int fd) : disk_(&disk), fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : disk_(other.disk_), fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) {
      reset();
      disk_ = other.disk_;
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  ~UniqueFd() { reset(); }

  explicit operator bool() const { return fd_ >= 0; }
  int get() const { return fd_; }
  Disk& disk() const { return *disk_; }
  int release() { return std::exchange(fd_, -1); }
  void reset() {
    if (fd_ >= 0) disk_->close(fd_);
    fd_ = -1;
  }

 private:
  Disk* disk_ = nullptr;
  int fd_ = -1;
};

// --- Small wrappers. Blocking.

// Fails as fail_open() in files_posix.h says; kNotFound: there is no such file.
Result<UniqueFd> open_at(Disk& disk, int at, const std::string& path, int flags);

// Bytes read: fewer than wanted only at the end of the file.
Result<size_t> read_at(Disk& disk, int fd, MutableBytes out, uint64_t offset);
inline Result<size_t> read_at(const UniqueFd& fd, MutableBytes out, uint64_t offset) {
  return read_at(fd.disk(), fd.get(), out, offset);
}
Status write_at(Disk& disk, int fd, Bytes bytes, uint64_t offset, std::string_view what);
inline Status write_at(const UniqueFd& fd, Bytes bytes, uint64_t offset, std::string_view what) {
  return write_at(fd.disk(), fd.get(), bytes, offset, what);
}
// kIo, also where the system calls it a full disk: not to be tried again.
Status sync_file(Disk& disk, int fd, std::string_view what);
inline Status sync_file(const UniqueFd& fd, std::string_view what) {
  return sync_file(fd.disk(), fd.get(), what);
}
// What a directory names survives power loss only after this, however well the files themselves
// were synced.
Status sync_directory(Disk& disk, int fd, std::string_view what);
inline Status sync_directory(const UniqueFd& fd, std::string_view what) {
  return sync_directory(fd.disk(), fd.get(), what);
}
// Waits for what an earlier process left under way to the file: what io_uring had handed to the
// disk when its process was killed goes on after the process is gone and its lock is free, and
// would fall upon what is written there since. fallocate(2), asked for the first block, which is
// there already, waits for direct I/O (ext4 and xfs do; seen with a stopped disk:
// docs/reliability.md).
void wait_for_earlier_writes(const UniqueFd& fd);
// A directory below `at`, made if it is missing; the entry is synced.
Status make_directory(Disk& disk, int at, const char* name);

}  // namespace basalt::storage
