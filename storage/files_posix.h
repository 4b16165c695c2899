// The wrappers of storage/disk.h for a plain descriptor of the real disk: tools and tests.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"
#include "storage/disk.h"

namespace basalt::storage {

// A lack of descriptors passes (kBusy), unlike an error of the device.
inline std::unexpected<Error> fail_open(int error, const std::string& path) {
  if (error == EMFILE || error == ENFILE || error == ENOMEM)
    return fail(Code::kBusy, "open " + path);
  return fail_errno(error, "open " + path);
}

inline Result<size_t> read_at(int fd, MutableBytes out, uint64_t offset) {
  return read_at(system_disk(), fd, out, offset);
}

inline Status write_at(int fd, Bytes bytes, uint64_t offset, std::string_view what) {
  return write_at(system_disk(), fd, bytes, offset, what);
}

inline Status sync_file(int fd, std::string_view what) {
  return sync_file(system_disk(), fd, what);
}

inline Status sync_directory(int fd, std::string_view what) {
  return sync_directory(system_disk(), fd, what);
}

inline Status make_directory(int at, const char* name) {
  return make_directory(system_disk(), at, name);
}

}  // namespace basalt::storage
