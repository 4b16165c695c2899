// A FUSE file system with two files: `disk`, a block device's contents (a loop device with direct
// I/O sits on it), and a small text file by which a test talks to the program. Both mains of this
// folder are one of these.
#pragma once

#include <cstdint>
#include <string>

namespace basalt::crash {

class FuseDisk {
 public:
  virtual ~FuseDisk() = default;
  // Any number of threads at once. Results: bytes, 0, or -errno.
  virtual int read(uint8_t* out, uint64_t length, uint64_t offset) = 0;
  virtual int write(const uint8_t* data, uint64_t length, uint64_t offset) = 0;
  virtual int flush() = 0;
  virtual uint64_t size() const = 0;

  virtual const char* text_name() const = 0;
  virtual std::string text() = 0;                    // what a read of the text file gives
  virtual int command(const std::string& line) = 0;  // what was written to it; 0 or -errno
};

// Serves `disk` at the directory until SIGTERM or an unmount; the exit status of the program.
int serve(FuseDisk& disk, const char* program, const char* directory);

}  // namespace basalt::crash
