#define FUSE_USE_VERSION 31
#include "tests/crash/fuse_disk.h"

#include <fuse.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>

namespace basalt::crash {
namespace {

constexpr std::string_view kDiskPath = "/disk";
constexpr unsigned kWriteBytesMax = 1u << 20;
constexpr off_t kTextBytes = 4096;  // what stat says; direct I/O reads what there is

FuseDisk& disk() { return *static_cast<FuseDisk*>(fuse_get_context()->private_data); }
bool is_text(std::string_view path) {
  return path.size() > 1 && path.substr(1) == disk().text_name();
}

void* on_init(fuse_conn_info* connection, fuse_config* config) {
  connection->max_write = kWriteBytesMax;
  if (connection->capable & FUSE_CAP_ASYNC_DIO) connection->want |= FUSE_CAP_ASYNC_DIO;
  config->kernel_cache = 0;
  config->direct_io = 1;
  return fuse_get_context()->private_data;
}

int on_getattr(const char* path, struct stat* out, fuse_file_info*) {
  std::memset(out, 0, sizeof *out);
  if (std::string_view(path) == "/") {
    out->st_mode = S_IFDIR | 0700;
    out->st_nlink = 2;
    return 0;
  }
  out->st_mode = S_IFREG | 0600;
  out->st_nlink = 1;
  if (path == kDiskPath) {
    out->st_size = static_cast<off_t>(disk().size());
  } else if (is_text(path)) {
    out->st_size = kTextBytes;
  } else {
    return -ENOENT;
  }
  return 0;
}

int on_readdir(const char*, void* buffer, fuse_fill_dir_t fill, off_t, fuse_file_info*,
               fuse_readdir_flags) {
  for (const char* name : {".", "..", "disk", disk().text_name()})
    fill(buffer, name, nullptr, 0, fuse_fill_dir_flags{});
  return 0;
}

int on_open(const char* path, fuse_file_info* info) {
  if (path != kDiskPath && !is_text(path)) return -ENOENT;
  info->direct_io = 1;  // every request comes here, in the size that was asked for
  return 0;
}

int on_read(const char* path, char* out, size_t length, off_t offset, fuse_file_info*) {
  if (path == kDiskPath)
    return disk().read(reinterpret_cast<uint8_t*>(out), length, static_cast<uint64_t>(offset));
  const std::string text = disk().text();
  if (offset < 0 || static_cast<size_t>(offset) >= text.size()) return 0;
  const size_t count = std::min(length, text.size() - static_cast<size_t>(offset));
  std::memcpy(out, text.data() + offset, count);
  return static_cast<int>(count);
}

int on_write(const char* path, const char* data, size_t length, off_t offset, fuse_file_info*) {
  if (path == kDiskPath) {
    return disk().write(reinterpret_cast<const uint8_t*>(data), length,
                        static_cast<uint64_t>(offset));
  }
  const int error = disk().command(std::string(data, length));
  return error != 0 ? error : static_cast<int>(length);
}

int on_truncate(const char* path, off_t, fuse_file_info*) { return is_text(path) ? 0 : -EPERM; }
int on_fsync(const char* path, int, fuse_file_info*) {
  return path == kDiskPath ? disk().flush() : 0;
}
// Loop devices discard and zero by this call where it exists; refused, the kernel writes zeros,
// which we see.
int on_fallocate(const char*, int, off_t, off_t, fuse_file_info*) { return -EOPNOTSUPP; }

}  // namespace

int serve(FuseDisk& served, const char* program, const char* directory) {
  fuse_operations operations{};
  operations.init = on_init;
  operations.getattr = on_getattr;
  operations.readdir = on_readdir;
  operations.open = on_open;
  operations.read = on_read;
  operations.write = on_write;
  operations.truncate = on_truncate;
  operations.fsync = on_fsync;
  operations.fallocate = on_fallocate;
  const char* arguments[] = {program, "-f", directory};
  return fuse_main(3, const_cast<char**>(arguments), &operations, &served);
}

}  // namespace basalt::crash
