// faultfs: a FUSE pass-through that fails on command, so that a server under test sees errors as
// the kernel gives them: to read(2) and write(2), to io_uring, to O_DIRECT and to the pages of a
// mapping (SIGBUS) alike.
//
//   faultfs BACKING MOUNTPOINT      stays in the foreground; ends when it is unmounted
//
// The file MOUNTPOINT/.faults is the control. Written to, it takes one command a line; read, it
// gives counts, one "name value" a line: how many calls of each kind came, and "fired", how often a
// rule struck, with "last", what the last one hit.
//
//   fail KIND N COUNT ERRNO [TEXT]  the N-th call of KIND from now (1 is the next) and the COUNT -
//   1 behind it fail with ERRNO (a
//                                   number); COUNT 0: all from the N-th on. TEXT: only calls on
//                                   paths that hold it count. KIND: read, write, fsync, space
//                                   (fallocate), meta (create, unlink, mkdir, rename, truncate)
//   range KIND FROM TO ERRNO TEXT   every call of KIND that touches bytes [FROM, TO) of a path that
//   holds TEXT short N [TEXT]                  the N-th write from now writes half (at least a
//   block where it has two) space BYTES                     after so many more bytes written or
//   allocated: ENOSPC delay KIND MS [TEXT]            every such call takes MS longer clear forgets
//   all rules; the counts go on
//
// Reads of cached pages never come here: a mount begins with an empty cache, and opening a file
// again drops its pages.
#define FUSE_USE_VERSION 35
#include <dirent.h>
#include <fcntl.h>
#include <fuse.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr const char* kControl = "/.faults";

struct Rule {
  std::string kind;
  uint64_t first = 0;  // calls to let pass, then
  uint64_t count = 0;  // as many fail; 0: all
  int error = 0;
  uint64_t from = 0, to = UINT64_MAX;
  uint64_t delay_ms = 0;
  bool half = false;
  std::string text;
  uint64_t seen = 0;
};

int backing = -1;
std::mutex mutex;  // guards everything below
std::vector<Rule> rules;
std::map<std::string, uint64_t> calls;
uint64_t fired = 0;
std::string last = "-";
bool space_limited = false;
uint64_t space_left = 0;

struct Verdict {
  int error = 0;
  bool half = false;
};

// Counts a call and says what shall become of it. `grows` are bytes that it takes of the space.
Verdict judge(const std::string& kind, const char* path, uint64_t offset, uint64_t length,
              uint64_t grows = 0) {
  Verdict verdict;
  uint64_t delay_ms = 0;
  {
    const std::lock_guard lock(mutex);
    const uint64_t number = ++calls[kind];
    for (Rule& rule : rules) {
      if (rule.kind != kind || std::strstr(path, rule.text.c_str()) == nullptr) continue;
      if (offset >= rule.to || offset + std::max<uint64_t>(length, 1) <= rule.from) continue;
      if (rule.delay_ms != 0) {
        delay_ms += rule.delay_ms;
        continue;
      }
      const uint64_t at = ++rule.seen;
      if (at <= rule.first || (rule.count != 0 && at > rule.first + rule.count)) continue;
      ++fired;
      std::ostringstream text;
      text << kind << " " << number << " " << path << " at " << offset << " length " << length;
      last = text.str();
      verdict.error = rule.error;
      verdict.half = rule.half;
      break;
    }
    if (verdict.error == 0 && space_limited && grows != 0) {
      if (grows > space_left) {
        ++fired;
        last = kind + " " + path + " (no space)";
        verdict.error = ENOSPC;
      } else {
        space_left -= grows;
      }
    }
  }
  if (delay_ms != 0) std::this_thread::sleep_for(std::chrono::milliseconds(delay_ms));
  return verdict;
}

int command(const std::string& line) {
  std::istringstream in(line);
  std::string verb;
  if (!(in >> verb)) return 0;
  Rule rule;
  const std::lock_guard lock(mutex);
  if (verb == "clear") {
    rules.clear();
    space_limited = false;
    return 0;
  }
  if (verb == "space") {
    if (!(in >> space_left)) return -EINVAL;
    space_limited = true;
    return 0;
  }
  if (verb == "fail") {
    if (!(in >> rule.kind >> rule.first >> rule.count >> rule.error) || rule.first == 0)
      return -EINVAL;
    --rule.first;
  } else if (verb == "range") {
    if (!(in >> rule.kind >> rule.from >> rule.to >> rule.error)) return -EINVAL;
  } else if (verb == "short") {
    if (!(in >> rule.first) || rule.first == 0) return -EINVAL;
    --rule.first;
    rule.kind = "write";
    rule.count = 1;
    rule.half = true;
  } else if (verb == "delay") {
    if (!(in >> rule.kind >> rule.delay_ms)) return -EINVAL;
  } else {
    return -EINVAL;
  }
  in >> rule.text;
  rules.push_back(rule);
  return 0;
}

std::string report() {
  const std::lock_guard lock(mutex);
  std::ostringstream out;
  for (const auto& [kind, count] : calls) out << kind << " " << count << "\n";
  out << "fired " << fired << "\nlast " << last << "\n";
  return out.str();
}

bool is_control(const char* path) { return std::strcmp(path, kControl) == 0; }
const char* below(const char* path) { return path[1] == '\0' ? "." : path + 1; }
int outcome(int result) { return result < 0 ? -errno : 0; }

int fs_getattr(const char* path, struct stat* info, fuse_file_info* file) {
  if (is_control(path)) {
    *info = {};
    info->st_mode = S_IFREG | 0600;
    info->st_nlink = 1;
    info->st_uid = getuid();
    return 0;
  }
  if (file != nullptr) return outcome(::fstat(static_cast<int>(file->fh), info));
  return outcome(::fstatat(backing, below(path), info, AT_SYMLINK_NOFOLLOW));
}

int fs_mkdir(const char* path, mode_t mode) {
  if (auto verdict = judge("meta", path, 0, 0, 4096); verdict.error != 0) return -verdict.error;
  return outcome(::mkdirat(backing, below(path), mode));
}

int fs_unlink(const char* path) {
  if (auto verdict = judge("meta", path, 0, 0); verdict.error != 0) return -verdict.error;
  return outcome(::unlinkat(backing, below(path), 0));
}

int fs_rmdir(const char* path) { return outcome(::unlinkat(backing, below(path), AT_REMOVEDIR)); }

int fs_rename(const char* from, const char* to, unsigned flags) {
  if (flags != 0) return -EINVAL;
  if (auto verdict = judge("meta", to, 0, 0); verdict.error != 0) return -verdict.error;
  return outcome(::renameat(backing, below(from), backing, below(to)));
}

int fs_mknod(const char* path, mode_t mode, dev_t device) {  // the admin socket
  return outcome(::mknodat(backing, below(path), mode, device));
}

int fs_chmod(const char* path, mode_t mode, fuse_file_info*) {
  return outcome(::fchmodat(backing, below(path), mode, 0));
}

int fs_utimens(const char* path, const timespec times[2], fuse_file_info*) {
  return outcome(::utimensat(backing, below(path), times, AT_SYMLINK_NOFOLLOW));
}

int fs_truncate(const char* path, off_t size, fuse_file_info* file) {
  if (is_control(path)) return 0;
  if (auto verdict = judge("meta", path, 0, 0); verdict.error != 0) return -verdict.error;
  if (file != nullptr) return outcome(::ftruncate(static_cast<int>(file->fh), size));
  const int fd = ::openat(backing, below(path), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return -errno;
  const int result = outcome(::ftruncate(fd, size));
  ::close(fd);
  return result;
}

// The backing file goes through its own page cache: O_DIRECT would want the alignment of buffers
// that are not ours. O_DSYNC stays; the kernel sends an fsync of its own for it as well.
int open_backing(const char* path, int flags, mode_t mode, fuse_file_info* file) {
  const int fd = ::openat(backing, below(path), (flags & ~(O_DIRECT | O_APPEND)) | O_CLOEXEC, mode);
  if (fd < 0) return -errno;
  file->fh = static_cast<uint64_t>(fd);
  return 0;
}

int fs_open(const char* path, fuse_file_info* file) {
  if (is_control(path)) {
    file->direct_io = 1;
    return 0;
  }
  int flags = file->flags;
  // The kernel reads around partial pages of files that are only written.
  if ((flags & O_ACCMODE) == O_WRONLY) flags = (flags & ~O_ACCMODE) | O_RDWR;
  return open_backing(path, flags & ~(O_CREAT | O_EXCL), 0, file);
}

int fs_create(const char* path, mode_t mode, fuse_file_info* file) {
  if (auto verdict = judge("meta", path, 0, 0, 4096); verdict.error != 0) return -verdict.error;
  int flags = file->flags;
  if ((flags & O_ACCMODE) == O_WRONLY) flags = (flags & ~O_ACCMODE) | O_RDWR;
  return open_backing(path, flags | O_CREAT, mode, file);
}

int fs_read(const char* path, char* buffer, size_t size, off_t offset, fuse_file_info* file) {
  if (is_control(path)) {
    const std::string text = report();
    if (static_cast<size_t>(offset) >= text.size()) return 0;
    const size_t count = std::min(size, text.size() - static_cast<size_t>(offset));
    std::memcpy(buffer, text.data() + offset, count);
    return static_cast<int>(count);
  }
  if (auto verdict = judge("read", path, static_cast<uint64_t>(offset), size); verdict.error != 0)
    return -verdict.error;
  const ssize_t got = ::pread(static_cast<int>(file->fh), buffer, size, offset);
  return got < 0 ? -errno : static_cast<int>(got);
}

int fs_write(const char* path, const char* buffer, size_t size, off_t offset,
             fuse_file_info* file) {
  if (is_control(path)) {
    std::istringstream lines(std::string(buffer, size));
    for (std::string line; std::getline(lines, line);) {
      if (const int result = command(line); result != 0) return result;
    }
    return static_cast<int>(size);
  }
  const int fd = static_cast<int>(file->fh);
  struct stat info{};
  uint64_t grows = 0;
  if (::fstat(fd, &info) == 0 &&
      static_cast<uint64_t>(offset) + size > static_cast<uint64_t>(info.st_size)) {
    grows = static_cast<uint64_t>(offset) + size - static_cast<uint64_t>(info.st_size);
  }
  const Verdict verdict = judge("write", path, static_cast<uint64_t>(offset), size, grows);
  if (verdict.error != 0) return -verdict.error;
  if (verdict.half && size > 1) size = size >= 8192 ? size / 8192 * 4096 : size / 2;
  const ssize_t put = ::pwrite(fd, buffer, size, offset);
  return put < 0 ? -errno : static_cast<int>(put);
}

int fs_statfs(const char*, struct statvfs* info) { return outcome(::fstatvfs(backing, info)); }

int fs_release(const char* path, fuse_file_info* file) {
  return is_control(path) ? 0 : outcome(::close(static_cast<int>(file->fh)));
}

// No real flush: what these tests lose is never the page cache of the machine.
int fs_fsync(const char* path, int, fuse_file_info*) {
  if (is_control(path)) return 0;
  return -judge("fsync", path, 0, 0).error;
}

int fs_fsyncdir(const char* path, int, fuse_file_info*) {
  return -judge("fsync", path, 0, 0).error;
}

int fs_readdir(const char* path, void* buffer, fuse_fill_dir_t fill, off_t, fuse_file_info*,
               fuse_readdir_flags) {
  const int fd = ::openat(backing, below(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -errno;
  DIR* directory = ::fdopendir(fd);
  if (directory == nullptr) return -errno;
  while (const dirent* entry = ::readdir(directory)) {
    struct stat info{};
    info.st_ino = entry->d_ino;
    info.st_mode = static_cast<mode_t>(DTTOIF(entry->d_type));
    if (fill(buffer, entry->d_name, &info, 0, static_cast<fuse_fill_dir_flags>(0)) != 0) break;
  }
  ::closedir(directory);
  return 0;
}

int fs_fallocate(const char* path, int mode, off_t offset, off_t length, fuse_file_info* file) {
  const int fd = static_cast<int>(file->fh);
  struct stat info{};
  uint64_t grows = 0;
  if (::fstat(fd, &info) == 0 && offset + length > info.st_size)
    grows = static_cast<uint64_t>(offset + length - info.st_size);
  const Verdict verdict =
      judge("space", path, static_cast<uint64_t>(offset), static_cast<uint64_t>(length), grows);
  if (verdict.error != 0) return -verdict.error;
  return outcome(::fallocate(fd, mode, offset, length));
}

off_t fs_lseek(const char*, off_t offset, int whence, fuse_file_info* file) {
  const off_t at = ::lseek(static_cast<int>(file->fh), offset, whence);
  return at < 0 ? -errno : at;
}

void* fs_init(fuse_conn_info*, fuse_config* config) {
  config->use_ino = 1;
  config->nullpath_ok = 0;
  // Attributes may be cached: nobody but the mount changes the files.
  config->attr_timeout = config->entry_timeout = 3600;
  config->negative_timeout = 0;
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: faultfs BACKING MOUNTPOINT\n");
    return 2;
  }
  backing = ::open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (backing < 0) {
    std::perror(argv[1]);
    return 1;
  }
  ::umask(0);
  fuse_operations operations{};
  operations.getattr = fs_getattr;
  operations.mkdir = fs_mkdir;
  operations.unlink = fs_unlink;
  operations.rmdir = fs_rmdir;
  operations.rename = fs_rename;
  operations.mknod = fs_mknod;
  operations.chmod = fs_chmod;
  operations.utimens = fs_utimens;
  operations.truncate = fs_truncate;
  operations.open = fs_open;
  operations.create = fs_create;
  operations.read = fs_read;
  operations.write = fs_write;
  operations.statfs = fs_statfs;
  operations.release = fs_release;
  operations.fsync = fs_fsync;
  operations.fsyncdir = fs_fsyncdir;
  operations.readdir = fs_readdir;
  operations.fallocate = fs_fallocate;
  operations.lseek = fs_lseek;
  operations.init = fs_init;
  char name[] = "faultfs", foreground[] = "-f", options[] = "-ofsname=faultfs";
  char* arguments[] = {name, foreground, options, argv[2], nullptr};
  return fuse_main(4, arguments, &operations, nullptr);
}
