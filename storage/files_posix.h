// Small wrappers of blocking file calls, for helper threads and start-up; never for a loop thread.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <string_view>
#include <utility>

#include "base/bytes.h"
#include "base/result.h"
#include "storage/seeded_bugs.h"

namespace basalt::storage {

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  ~UniqueFd() { reset(); }

  explicit operator bool() const { return fd_ >= 0; }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }
  void reset() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_ = -1;
};

// A lack of descriptors passes (kBusy), unlike an error of the device.
inline std::unexpected<Error> fail_open(int error, const std::string& path) {
  if (error == EMFILE || error == ENFILE || error == ENOMEM) return fail(Code::kBusy, "open " + path);
  return fail_errno(error, "open " + path);
}

// Bytes read: fewer than wanted only at the end of the file.
inline Result<size_t> read_at(int fd, MutableBytes out, uint64_t offset) {
  size_t done = 0;
  while (done < out.size()) {
    ssize_t got = ::pread(fd, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno(errno, "read");
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

inline Status write_at(int fd, Bytes bytes, uint64_t offset, std::string_view what) {
  size_t done = 0;
  while (done < bytes.size()) {
    ssize_t put = ::pwrite(fd, bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return fail_errno(errno, what);
    if (put == 0) return fail(Code::kIo, std::string(what) + ": wrote nothing");
    done += static_cast<size_t>(put);
  }
  return {};
}

inline Status sync_file(int fd, std::string_view what) {
  while (::fsync(fd) != 0) {
    if (errno != EINTR) return fail_errno(errno, what);
  }
  return {};
}

// What a directory names survives power loss only after this, however well the files themselves were synced.
inline Status sync_directory(int fd, std::string_view what) {
  if constexpr (seeded::kDirectoryNotSynced) return {};
  return sync_file(fd, what);
}

// A directory below `at`, made if it is missing; the entry is synced.
inline Status make_directory(int at, const char* name) {
  if (::mkdirat(at, name, 0700) != 0) {
    if (errno == EEXIST) return {};
    return fail_errno(errno, std::string("make directory ") + name);
  }
  return sync_directory(at, "sync directory");
}

}  // namespace basalt::storage
