// Checked reads of blobs on one core: descriptors, chunk tables, verification, the fast path
// through the page cache.
#pragma once

#include <list>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/buffer.h"
#include "storage/blob_store.h"
#include "storage/files_local.h"
#include "storage/io.h"

namespace basalt::storage {

// Descriptors kept open for reading, per core.
constexpr size_t kReadFdsMax = 512;
// Chunk tables kept, per core (a 1 GiB blob's takes 64 KiB).
constexpr size_t kTableCacheBytesMax = 8u << 20;
// Windows larger than this are not looked up in the page cache (9 us a MiB).
constexpr uint64_t kFileRangeBytesMax = 1u << 20;

class BlobReader {
 public:
  BlobReader(LocalFiles& files, Io& io, RunQueue& run_queue, BufferPool& buffers,
             EngineStats& stats);
  ~BlobReader();

  void read(ReadBlob& request);
  std::optional<FileRange> file_range(const BlobRef& blob, uint64_t offset, uint64_t length);
  bool busy() const { return in_flight_ > 0; }

 private:
  struct OpenFile {
    uint32_t number = 0;
    UniqueFd fd;
    size_t users = 0;
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
  };
  struct Read {
    ReadBlob* request = nullptr;
    OpenFile* file = nullptr;
    Buffer data;
    Buffer table_buffer;
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
  // Reads what is in the page cache; the rest goes through `op`.
  void start(Read& read, Op& op, uint8_t* data, uint32_t length, uint64_t offset);
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
  bool residency_known_ = true;  // the kernel has cachestat(2)
};

}  // namespace basalt::storage
