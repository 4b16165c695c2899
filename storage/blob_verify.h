// BlobVerifier: reads blobs from the disk, not from the page cache (O_DIRECT where that works), and
// checks every byte against the checksums. For helper threads and tools; one thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "storage/files.h"
#include "storage/files_posix.h"
#include "storage/findings.h"
#include "storage/types.h"

namespace basalt::storage {

FileKind file_kind_of(BlobKind kind);

class BlobVerifier {
 public:
  using Pace = std::function<Status(size_t bytes)>;
  // `directory`: of the data; the descriptor outlives the verifier.
  BlobVerifier(int directory, Pace pace);
  ~BlobVerifier();

  struct Damage {
    Finding::Kind kind;
    std::string file;
    uint64_t offset;
    std::string what;
  };
  // Nothing: all bytes are right. `read_until`: offset in the same file up to which the caller will
  // ask for more, so that one read serves small neighbours. Errors: kCancelled only (by the pace).
  Result<std::optional<Damage>> verify(const BlobRef& blob, uint64_t read_until = 0);
  // Whether the blob can be there at all: kind, length, its file, the file's length.
  std::optional<Damage> look(const BlobRef& blob);
  // Forgets what was read (files may have changed since).
  void forget();

  uint64_t bytes_read() const { return bytes_read_; }

 private:
  struct Freer {
    void operator()(uint8_t* memory) const;
  };
  std::optional<Damage> open(const BlobRef& blob);
  // The bytes [offset, offset + length) of the open file; fewer at its end.
  Result<Bytes> read(uint64_t offset, size_t length, uint64_t read_until);

  const int directory_;
  const Pace pace_;
  UniqueFd fd_;
  std::string path_;
  uint64_t file_bytes_ = 0;
  std::unique_ptr<uint8_t, Freer> window_;
  uint64_t window_start_ = 0;
  size_t window_bytes_ = 0;
  std::vector<uint32_t> table_;
  uint64_t bytes_read_ = 0;
};

}  // namespace basalt::storage
