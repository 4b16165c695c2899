#include "storage/disk.h"

#include <dirent.h>
#include <fmt/core.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>

#include "base/log.h"
#include "storage/files_posix.h"
#include "storage/seeded_bugs.h"
#include "storage/segment_format.h"

namespace basalt::storage {
namespace {

// cachestat(2), Linux 6.5; the C library does not know it yet.
constexpr long kCachestatNumber = 451;
struct CachestatRange {
  uint64_t offset, length;
};
struct Cachestat {
  uint64_t cached, dirty, writeback, evicted, recently_evicted;
};

template <class T>
T or_errno(T result) {
  return result < 0 ? -static_cast<T>(errno) : result;
}

class SystemDisk final : public Disk {
 public:
  int open(int at, const char* path, int flags) override {
    return or_errno(::openat(at, path, flags | O_CLOEXEC, 0600));
  }
  void close(int fd) override { ::close(fd); }
  int64_t read(int fd, MutableBytes out, uint64_t offset) override {
    return or_errno<int64_t>(::pread(fd, out.data(), out.size(), static_cast<off_t>(offset)));
  }
  int64_t write(int fd, Bytes bytes, uint64_t offset) override {
    return or_errno<int64_t>(::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset)));
  }
  int sync(int fd) override { return or_errno(::fsync(fd)); }
  int data_sync(int fd) override { return or_errno(::fdatasync(fd)); }
  int allocate(int fd, uint64_t size) override {
    return or_errno(::fallocate(fd, 0, 0, static_cast<off_t>(size)));
  }
  int truncate(int fd, uint64_t size) override {
    return or_errno(::ftruncate(fd, static_cast<off_t>(size)));
  }
  int64_t seek(int fd, uint64_t offset, int whence) override {
    return or_errno<int64_t>(::lseek(fd, static_cast<off_t>(offset), whence));
  }
  int64_t size(int fd) override {
    struct stat info{};
    if (::fstat(fd, &info) != 0) return -errno;
    return info.st_size;
  }
  int advise(int fd, int advice) override { return -::posix_fadvise(fd, 0, 0, advice); }
  int lock(int fd) override { return or_errno(::flock(fd, LOCK_EX | LOCK_NB)); }
  int make_directory(int at, const char* path) override {
    return or_errno(::mkdirat(at, path, 0700));
  }
  int rename(int at, const char* from, const char* to) override {
    return or_errno(::renameat(at, from, at, to));
  }
  int unlink(int at, const char* path) override { return or_errno(::unlinkat(at, path, 0)); }
  Status list(int at, const char* path,
              const std::function<Status(const std::string&, unsigned char)>& visit) override;
  int space(int fd, Space& space) override {
    struct statfs info{};
    if (::fstatfs(fd, &info) != 0) return -errno;
    const auto block = static_cast<uint64_t>(info.f_bsize);
    space.bytes = info.f_blocks * block;
    space.free_bytes = info.f_bavail * block;
    space.type = static_cast<uint32_t>(info.f_type);
    return 0;
  }
  int64_t read_resident(int fd, MutableBytes out, uint64_t offset) override {
    iovec target{out.data(), out.size()};
    return or_errno<int64_t>(::preadv2(fd, &target, 1, static_cast<off_t>(offset), RWF_NOWAIT));
  }
  int64_t resident_pages(int fd, uint64_t offset, uint64_t length) override {
    CachestatRange range{offset, length};
    Cachestat state{};
    if (::syscall(kCachestatNumber, fd, &range, &state, 0u) != 0) return -errno;
    return static_cast<int64_t>(state.cached);
  }
};

struct OpenDirectory {
  DIR* handle = nullptr;
  ~OpenDirectory() {
    if (handle != nullptr) ::closedir(handle);
  }
};

Status SystemDisk::list(int at, const char* path,
                        const std::function<Status(const std::string&, unsigned char)>& visit) {
  UniqueFd fd(*this, open(at, path, O_RDONLY | O_DIRECTORY));
  if (!fd) return fail_errno(errno, std::string("open directory ") + path);
  OpenDirectory directory{::fdopendir(fd.get())};
  if (directory.handle == nullptr) {
    return fail_errno(errno, std::string("read directory ") + path);
  }
  fd.release();
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(directory.handle);
    if (entry == nullptr) {
      if (errno != 0) return fail_errno(errno, std::string("read directory ") + path);
      return {};
    }
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    unsigned char type = entry->d_type;
    if (type == DT_UNKNOWN) {
      struct stat info{};
      if (::fstatat(::dirfd(directory.handle), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0) {
        type = static_cast<unsigned char>(IFTODT(info.st_mode));
      }
    }
    BASALT_CHECK_OK(visit(name, type));
  }
}

}  // namespace

Disk& system_disk() {
  // Without state; a part of the program text, as the system calls are.
  static SystemDisk disk;
  return disk;
}

Result<UniqueFd> open_at(Disk& disk, int at, const std::string& path, int flags) {
  UniqueFd fd(disk, disk.open(at, path.c_str(), flags));
  if (fd) return fd;
  const int error = -fd.get();
  if (error == ENOENT) return fail(Code::kNotFound, "open " + path + ": it is not there");
  return fail_open(error, path);
}

Result<size_t> read_at(Disk& disk, int fd, MutableBytes out, uint64_t offset) {
  size_t done = 0;
  while (done < out.size()) {
    const int64_t got = disk.read(fd, out.subspan(done), offset + done);
    if (got == -EINTR) continue;
    if (got < 0) return fail_errno(static_cast<int>(-got), "read");
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

Status write_at(Disk& disk, int fd, Bytes bytes, uint64_t offset, std::string_view what) {
  size_t done = 0;
  while (done < bytes.size()) {
    const int64_t put = disk.write(fd, bytes.subspan(done), offset + done);
    if (put == -EINTR) continue;
    if (put < 0) return fail_errno(static_cast<int>(-put), what);
    if (put == 0) return fail(Code::kIo, std::string(what) + ": wrote nothing");
    done += static_cast<size_t>(put);
  }
  return {};
}

Status sync_file(Disk& disk, int fd, std::string_view what) {
  for (;;) {
    const int result = disk.sync(fd);
    if (result == 0) return {};
    // Whatever it says, a full disk too: what was written is perhaps lost, and the next sync would
    // not know.
    if (result != -EINTR)
      return fail(Code::kIo, fmt::format("{}: {}", what, std::strerror(-result)));
  }
}

void wait_for_earlier_writes(const UniqueFd& fd) {
  // Whatever it says of the space, it waited first.
  int result;
  do {
    result = fd.disk().allocate(fd.get(), kBlockBytes);
  } while (result == -EINTR);
  // There is nothing else to ask there.
  static std::atomic<bool> said{false};
  if (result == -EOPNOTSUPP && !said.exchange(true))
    log_warn("the file system has no fallocate: writes of a killed server cannot be waited for");
}

Status sync_directory(Disk& disk, int fd, std::string_view what) {
  if constexpr (seeded::kDirectoryNotSynced) return {};
  return sync_file(disk, fd, what);
}

Status make_directory(Disk& disk, int at, const char* name) {
  // Synced also where it is there already: whoever made it may have ended before he did so.
  const int result = disk.make_directory(at, name);
  if (result != 0 && result != -EEXIST)
    return fail_errno(-result, std::string("make directory ") + name);
  return sync_directory(disk, at, "sync directory");
}

}  // namespace basalt::storage
