// Checked reads of blobs on one core: descriptors, chunk tables, verification, and which way bytes
// come:
//
//   * from the page cache, without I/O, when they are there;
//   * past it (O_DIRECT) when they are not and were not asked for lately: nothing is evicted for
//     them, no page is allocated, and all reads of a turn go to the disk with one notification;
//   * through it when they are asked for a second time (storage/cold_reads.h).
//
// Where the kernel has no cachestat(2), or the file system no O_DIRECT, all reads go through it.
#pragma once

#include <list>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/buffer.h"
#include "storage/blob_store.h"
#include "storage/cold_reads.h"
#include "storage/files_local.h"
#include "storage/io.h"

namespace basalt::storage {

// Descriptors kept open for reading, per core.
constexpr size_t kReadFdsMax = 512;
// Chunk tables kept, per core (a 1 GiB blob's takes 64 KiB).
constexpr size_t kTableCacheBytesMax = 8u << 20;
// Windows larger than this are not looked up in the page cache (9 us a MiB).
constexpr uint64_t kFileRangeBytesMax = 1u << 20;
// Small reads try the page cache without asking first as long as fewer than one in so many fails:
// an attempt that fails has sent the disk a request of its own (6 us on a virtual disk), asking
// costs 0.4 us.
constexpr unsigned kReadsPerMiss = 16;

class BlobReader {
 public:
  BlobReader(LocalFiles& files, Io& io, RunQueue& run_queue, BufferPool& buffers,
             EngineStats& stats);
  ~BlobReader();

  void read(ReadBlob& request);
  std::optional<FileRange> file_range(const BlobRef& blob, uint64_t offset, uint64_t length);
  bool still_there(const FileRange& range, uint64_t offset, uint64_t length);
  bool busy() const { return in_flight_ > 0; }

 private:
  struct OpenFile {
    uint32_t number = 0;
    UniqueFd fd;
    UniqueFd direct;  // the same file with O_DIRECT, once it was wanted
    bool direct_refused = false;
    size_t users = 0;
  };
  enum class Way : uint8_t {
    kTry,     // from the page cache if it is there, else through it
    kCache,   // is not there: through the page cache
    kDirect,  // is not there: past the page cache
  };
  using FileList = std::list<OpenFile>;
  struct Closing {
    UniqueFd fd;
    uint64_t stamp;
  };
  using Table = std::vector<uint32_t>;
  struct Read;
  struct Op : IoOp {
    BlobReader* reader = nullptr;
    Read* read = nullptr;
    uint32_t skip = 0;    // a direct read begins so many bytes before what is wanted
    uint32_t wanted = 0;  // and ends behind it
  };
  struct Read {
    ReadBlob* request = nullptr;
    OpenFile* file = nullptr;
    Buffer data;
    Buffer table_buffer;
    const uint8_t* chunks = nullptr;  // in `data`: where the first chunk begins
    Way way = Way::kTry;
    uint64_t first_chunk = 0;
    uint64_t last_chunk = 0;
    std::shared_ptr<const Table> table;
    bool table_behind_data = false;  // log bodies: one read brings both
    uint64_t stamp = 0;              // of VerifiedChunks
    unsigned pending = 0;
    Op data_op;
    Op table_op;
  };
  struct RefHash {
    size_t operator()(const BlobRef& ref) const;
  };
  struct CachedTable {
    BlobRef ref;
    std::shared_ptr<const Table> table;
  };
  using TableList = std::list<CachedTable>;

  Result<OpenFile*> open_file(const BlobRef& blob);
  void close_evicted();
  std::unique_ptr<Read> take_read();
  Way choose_way(OpenFile& file, const BlobRef& blob, uint64_t begin, uint64_t length);
  bool open_direct(OpenFile& file, const BlobRef& blob);
  void count_miss();
  // Reads [offset, offset + length) of the file to `buffer`, behind skip_of(offset) bytes if the
  // read goes past the page cache.
  void start(Read& read, Op& op, Buffer& buffer, uint32_t length, uint64_t offset);
  void start_cached(Read& read, Op& op);
  // A file system may take the flag and refuse the read.
  bool retry_cached(Op& op);
  bool is_resident(int fd, uint64_t offset, uint64_t length);
  static void op_ended(Completion& completion);
  void finish(Read& read);
  Status verify(Read& read);
  Error corrupt(const BlobRef& blob, uint64_t offset, const char* what);
  void answer(Read& read, Status status);
  std::shared_ptr<const Table> cached_table(const BlobRef& blob);
  void cache_table(const BlobRef& blob, std::shared_ptr<const Table> table);

  LocalFiles& files_;
  Io& io_;
  RunQueue& run_queue_;
  BufferPool& buffers_;
  EngineStats& stats_;

  FileList open_;  // most recently used first
  std::unordered_map<uint32_t, FileList::iterator> open_by_number_;
  std::vector<Closing> closing_;
  TableList tables_;  // most recently used first
  std::unordered_map<BlobRef, TableList::iterator, RefHash> tables_by_ref_;
  size_t table_bytes_ = 0;
  std::vector<std::unique_ptr<Read>> free_reads_;
  size_t in_flight_ = 0;
  ColdReads cold_reads_;
  unsigned recent_misses_;  // up by kReadsPerMiss with each small read that missed, down by one
                            // with each that did not
  bool residency_known_ = true;  // the kernel has cachestat(2)
};

}  // namespace basalt::storage
