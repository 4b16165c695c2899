#include "storage/index.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <mutex>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "storage/seeded_bugs.h"

namespace basalt::storage {

namespace {

constexpr uint32_t kIndexFormatVersion = 1;
constexpr off_t kLockFileBytes = 64 << 10;  // kIndexReadersMax slots of 64 bytes, and the head
constexpr uint64_t kFullDiskBytes = 256 << 10;
constexpr const char* kTableNames[kTableCount] = {"cur", "ver", "mpu", "part", "bkt", "iam", "out"};
constexpr std::string_view kFormatKey = "format";
constexpr std::string_view kAppliedKey = "applied";
constexpr std::string_view kNextLayerKey = "next_layer";
constexpr unsigned kForbiddenFlags =
    MDB_NOSYNC | MDB_NOMETASYNC | MDB_WRITEMAP | MDB_MAPASYNC | MDB_NOLOCK | MDB_NOMEMINIT;

// Longest value there can be: a batch's mutations and its inline body, with room to spare. A longer
// one is a damaged length, and reading so far might leave the file; it is shown as empty, which
// fails every check.
constexpr size_t kValueBytesMax = 1u << 20;

MDB_val to_val(Bytes bytes) { return {bytes.size(), const_cast<uint8_t*>(bytes.data())}; }
Bytes to_bytes(const MDB_val& value) {
  if (value.mv_size > kValueBytesMax) {
    return {static_cast<const uint8_t*>(value.mv_data), size_t{0}};
  }
  return {static_cast<const uint8_t*>(value.mv_data), value.mv_size};
}

std::unexpected<Error> lmdb_error(int code, std::string_view what) {
  std::string text = fmt::format("index: {}: {}", what, mdb_strerror(code));
  switch (code) {
    case MDB_NOTFOUND:
      return fail(Code::kNotFound);
    case MDB_MAP_FULL:
    case ENOSPC:
    case EDQUOT:
      return fail(Code::kNoSpace, std::move(text));
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
      return fail(Code::kCorrupt, std::move(text));
    case MDB_READERS_FULL:
      return fail(Code::kBusy, std::move(text));
    default:
      return fail(Code::kIo, std::move(text));
  }
}

// Rows of sys, seg and cnt: payload + crc32c seeded with the key's CRC.
template <size_t kPayloadBytes>
struct Row {
  uint8_t bytes[kPayloadBytes + 4];

  void finish(Bytes key) {
    store_le32(bytes + kPayloadBytes, crc32c(Bytes(bytes, kPayloadBytes), crc32c(key)));
  }
  static bool check(Bytes key, Bytes value) {
    return value.size() == kPayloadBytes + 4 && load_le32(value.data() + kPayloadBytes) ==
                                                    crc32c(value.first(kPayloadBytes), crc32c(key));
  }
};
constexpr size_t kAppliedBytes = 32;  // epoch, lsn, offset (8 each), file (4), zero (4)
constexpr size_t kSumBytes = 16;      // two signed counts
constexpr size_t kFormatBytes = 8;    // version, shard

template <size_t kPayloadBytes>
int put_row(MDB_txn* txn, MDB_dbi dbi, Bytes key, Row<kPayloadBytes>& row) {
  row.finish(key);
  MDB_val k = to_val(key), v = to_val(row.bytes);
  return mdb_put(txn, dbi, &k, &v, 0);
}

Status sync_directory_at(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return fail_errno(errno, "open " + path);
  const int result = seeded::kDirectoryNotSynced ? 0 : ::fsync(fd);
  const int error = errno;
  ::close(fd);
  if (result != 0) return fail_errno(error, "fsync " + path);
  return {};
}

// A cursor over one table within a transaction that begin() and end() bracket.
class CursorSource {
 public:
  ~CursorSource() { close(); }
  Result<bool> seek(MDB_txn* txn, MDB_dbi dbi, Bytes key) {
    if (cursor_ == nullptr) {
      if (const int code = mdb_cursor_open(txn, dbi, &cursor_); code != 0)
        return lmdb_error(code, "cursor");
    } else if (!bound_) {
      if (const int code = mdb_cursor_renew(txn, cursor_); code != 0)
        return lmdb_error(code, "cursor");
    }
    bound_ = true;
    key_ = to_val(key);
    return result(mdb_cursor_get(cursor_, &key_, &value_, MDB_SET_RANGE));
  }
  Result<bool> next() { return result(mdb_cursor_get(cursor_, &key_, &value_, MDB_NEXT)); }
  Bytes key() const { return to_bytes(key_); }
  Bytes value() const { return to_bytes(value_); }
  void unbind() { bound_ = false; }  // a read transaction was reset
  void close() {
    if (cursor_ != nullptr) mdb_cursor_close(cursor_);
    cursor_ = nullptr;
    bound_ = false;
  }

 private:
  static Result<bool> result(int code) {
    if (code == 0) return true;
    if (code == MDB_NOTFOUND) return false;
    return lmdb_error(code, "read");
  }
  MDB_cursor* cursor_ = nullptr;
  bool bound_ = false;
  MDB_val key_{}, value_{};
};

}  // namespace

// --- Index

Result<std::unique_ptr<Index>> Index::open(const Options& options) {
  std::unique_ptr<Index> index(new Index(options));
  BASALT_CHECK_OK(index->open_environment());
  BASALT_CHECK_OK(index->load());
  return index;
}

Index::~Index() {
  if (read_env_ != nullptr) mdb_env_close(read_env_);
  if (env_ != nullptr) mdb_env_close(env_);
}

uint64_t Index::map_bytes() const {
  MDB_envinfo info;
  mdb_env_info(env_, &info);
  return info.me_mapsize;
}

Status Index::open_environment() {
  if (::mkdir(options_.directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return fail_errno(errno, "mkdir " + options_.directory);
  }
  // LMDB maps its lock file sparse: a reader slot first used on a full disk would end the process
  // with SIGBUS. Before LMDB opens it, because closing any descriptor of it later would drop LMDB's
  // lock. Best effort, like reserve().
  const std::string lock_file = options_.directory + "/lock.mdb";
  if (const int fd = ::open(lock_file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600); fd >= 0) {
    [[maybe_unused]] const int result = ::fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, kLockFileBytes);
    ::close(fd);
  }
  uint64_t map_bytes = std::max(options_.map_bytes, kIndexMapBytesMin / 64);
  for (;;) {
    if (const int code = mdb_env_create(&env_); code != 0) return lmdb_error(code, "create");
    mdb_env_set_maxdbs(env_, kTableCount + 3);
    mdb_env_set_maxreaders(env_, kIndexReadersMax);
    mdb_env_set_mapsize(env_, map_bytes);
    const int code =
        mdb_env_open(env_, options_.directory.c_str(),
                     MDB_NOTLS | MDB_NORDAHEAD | (seeded::kMdbNosync ? MDB_NOSYNC : 0), 0600);
    if (code == 0) break;
    mdb_env_close(env_);
    env_ = nullptr;
    // Address space may be limited (RLIMIT_AS, small machines): a smaller map does, and grow()
    // doubles it when full.
    if (code != ENOMEM || map_bytes <= kIndexMapBytesMin) {
      return lmdb_error(code, "open " + options_.directory);
    }
    map_bytes /= 4;
    log_warn("index map is smaller than asked for",
             {{"shard", options_.shard}, {"bytes", map_bytes}});
  }
  unsigned flags = 0;
  mdb_env_get_flags(env_, &flags);
  BASALT_CHECK((flags & kForbiddenFlags) == 0 || seeded::kMdbNosync);
  int dead = 0;
  mdb_reader_check(env_, &dead);
  return {};
}

Status Index::load() {
  MDB_txn* txn = nullptr;
  if (const int code = mdb_txn_begin(env_, nullptr, 0, &txn); code != 0)
    return lmdb_error(code, "begin");
  struct Abort {
    MDB_txn*& txn;
    ~Abort() {
      if (txn != nullptr) mdb_txn_abort(txn);
    }
  } abort{txn};
  bool all_there = true;
  const auto open_table = [&](const char* name, MDB_dbi& dbi) -> Status {
    int code = mdb_dbi_open(txn, name, 0, &dbi);
    if (code == MDB_NOTFOUND) {
      all_there = false;
      code = mdb_dbi_open(txn, name, MDB_CREATE, &dbi);
    }
    if (code != 0) return lmdb_error(code, "open table");
    return {};
  };
  for (size_t table = 0; table < kTableCount; ++table) {
    BASALT_CHECK_OK(open_table(kTableNames[table], tables_[table]));
  }
  BASALT_CHECK_OK(open_table("sys", sys_));
  BASALT_CHECK_OK(open_table("seg", seg_));
  BASALT_CHECK_OK(open_table("cnt", cnt_));

  MDB_val key = to_val(as_bytes(kFormatKey)), value{};
  int code = mdb_get(txn, sys_, &key, &value);
  if (code == MDB_NOTFOUND) {
    all_there = false;
    Row<kFormatBytes> row;
    store_le32(row.bytes, kIndexFormatVersion);
    store_le32(row.bytes + 4, options_.shard);
    code = put_row(txn, sys_, as_bytes(kFormatKey), row);
    if (code != 0) return lmdb_error(code, "write format");
  } else if (code != 0) {
    return lmdb_error(code, "read format");
  } else {
    const Bytes bytes = to_bytes(value);
    if (!Row<kFormatBytes>::check(as_bytes(kFormatKey), bytes)) {
      return fail(Code::kCorrupt,
                  fmt::format("index {}: format row is damaged", options_.directory));
    }
    if (load_le32(bytes.data()) != kIndexFormatVersion ||
        load_le32(bytes.data() + 4) != options_.shard) {
      return fail(Code::kCorrupt,
                  fmt::format("index {}: version {} shard {}, expected version {} shard {}",
                              options_.directory, load_le32(bytes.data()),
                              load_le32(bytes.data() + 4), kIndexFormatVersion, options_.shard));
    }
  }

  key = to_val(as_bytes(kAppliedKey));
  code = mdb_get(txn, sys_, &key, &value);
  if (code == 0) {
    const Bytes bytes = to_bytes(value);
    if (!Row<kAppliedBytes>::check(as_bytes(kAppliedKey), bytes)) {
      return fail(Code::kCorrupt,
                  fmt::format("index {}: applied row is damaged", options_.directory));
    }
    applied_ = {load_le64(bytes.data()), load_le64(bytes.data() + 8), load_le32(bytes.data() + 24),
                load_le64(bytes.data() + 16)};
  } else if (code != MDB_NOTFOUND) {
    return lmdb_error(code, "read applied");
  }

  const auto load_sums = [&](MDB_dbi dbi, const char* name, size_t key_bytes,
                             auto&& add) -> Status {
    CursorSource rows;
    auto found = rows.seek(txn, dbi, Bytes(reinterpret_cast<const uint8_t*>("\0"), 1));
    for (; found && *found; found = rows.next()) {
      if (rows.key().size() != key_bytes || !Row<kSumBytes>::check(rows.key(), rows.value())) {
        return fail(Code::kCorrupt,
                    fmt::format("index {}: a row of {} is damaged", options_.directory, name));
      }
      add(rows.key().data(), static_cast<int64_t>(load_le64(rows.value().data())),
          static_cast<int64_t>(load_le64(rows.value().data() + 8)));
    }
    if (!found) return std::unexpected(found.error());
    return {};
  };
  BASALT_CHECK_OK(load_sums(seg_, "seg", 4, [&](const uint8_t* k, int64_t bytes, int64_t blobs) {
    file_sums_[load_be32(k)] = {bytes, blobs};
  }));
  BASALT_CHECK_OK(load_sums(cnt_, "cnt", 8, [&](const uint8_t* k, int64_t objects, int64_t bytes) {
    space_sums_[load_be64(k)] = {objects, bytes};
  }));

  // Table handles outlive the transaction only if it commits; with nothing written that costs no
  // I/O.
  code = mdb_txn_commit(std::exchange(txn, nullptr));
  if (code != 0) return lmdb_error(code, "commit of the tables");
  if (!all_there) {
    BASALT_CHECK_OK(sync_directory_at(options_.directory));
    const size_t slash = options_.directory.find_last_of('/');
    if (slash != std::string::npos && slash != 0) {
      BASALT_CHECK_OK(sync_directory_at(options_.directory.substr(0, slash)));
    }
  }
  return {};
}

Status Index::reload() {
  applied_ = {};
  file_sums_.clear();
  space_sums_.clear();
  return load();
}

void Index::reserve() {
  if (options_.reserve_bytes == 0) return;
  MDB_envinfo info;
  MDB_stat stat;
  mdb_filehandle_t fd = -1;
  if (mdb_env_info(env_, &info) != 0 || mdb_env_stat(env_, &stat) != 0 ||
      mdb_env_get_fd(env_, &fd) != 0)
    return;
  const uint64_t end = (info.me_last_pgno + 1) * stat.ms_psize;
  if (end + options_.reserve_bytes / 2 <= reserved_to_) return;
  // Behind the end of the file, so that its size stays what LMDB made it.
  if (::fallocate(fd, FALLOC_FL_KEEP_SIZE, static_cast<off_t>(end),
                  static_cast<off_t>(options_.reserve_bytes)) == 0) {
    reserved_to_ = end + options_.reserve_bytes;
  }
}

void Index::measure() {
  MDB_envinfo info;
  MDB_stat stat;
  if (mdb_env_info(env_, &info) != 0 || mdb_env_stat(env_, &stat) != 0) return;
  Size size{.file_bytes = (info.me_last_pgno + 1) * stat.ms_psize};
  // LMDB tells of its readers as text only: "pid thread txnid", and "-" for a slot without a
  // transaction.
  struct Oldest {
    uint64_t txnid = UINT64_MAX;
  } oldest;
  mdb_reader_list(
      env_,
      [](const char* line, void* context) {
        unsigned long long pid, thread, txnid;
        auto& found = *static_cast<Oldest*>(context);
        if (std::sscanf(line, "%llu %llx %llu", &pid, &thread, &txnid) == 3)
          found.txnid = std::min<uint64_t>(found.txnid, txnid);
        return 0;
      },
      &oldest);
  if (oldest.txnid < info.me_last_txnid) size.reader_lag = info.me_last_txnid - oldest.txnid;
  MDB_txn* txn = nullptr;
  if (mdb_txn_begin(env_, nullptr, MDB_RDONLY, &txn) != 0) return;
  const auto add = [&](MDB_dbi dbi) {
    if (mdb_stat(txn, dbi, &stat) != 0) return;
    size.used_bytes +=
        (stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages) * stat.ms_psize;
  };
  for (const MDB_dbi dbi : tables_) add(dbi);
  for (const MDB_dbi dbi : {sys_, seg_, cnt_}) add(dbi);
  mdb_txn_abort(txn);
  size_ = size;
}

// LMDB takes the short write that a full disk gives for EIO. Doing such a transaction again is
// safe, unlike a failed flush: it was aborted, and a new one writes every page of its own.
bool Index::disk_is_full() const {
  mdb_filehandle_t fd = -1;
  struct statvfs info{};
  if (mdb_env_get_fd(env_, &fd) != 0 || ::fstatvfs(fd, &info) != 0) return false;
  return static_cast<uint64_t>(info.f_bavail) * info.f_frsize < kFullDiskBytes;
}

Status Index::copy_to(int fd) {
  const std::shared_lock lock(map_mutex_);
  if (const int code = mdb_env_copyfd2(env_, fd, MDB_CP_COMPACT); code != 0) {
    // LMDB says "incompatible" when it finds other pages than it counted.
    if (code == MDB_INCOMPATIBLE) {
      return fail(Code::kCorrupt,
                  fmt::format("index of shard {}: its pages do not add up", options_.shard));
    }
    return lmdb_error(code, "copy");
  }
  return {};
}

Status Index::grow() {
  growth_waits_ = true;
  const std::unique_lock lock(map_mutex_);
  growth_waits_ = false;
  const uint64_t wanted = map_bytes() * 2;
  if (const int code = mdb_env_set_mapsize(env_, wanted); code != 0) {
    return fail(Code::kNoSpace,
                fmt::format("index: the map of {} bytes is full and cannot grow: {}", wanted / 2,
                            mdb_strerror(code)));
  }
  log_info("index map grown", {{"shard", options_.shard}, {"bytes", wanted}});
  return {};
}

Status Index::open_for_reading() {
  const std::unique_lock lock(map_mutex_);
  if (read_env_ != nullptr) return {};
  MDB_env* env = nullptr;
  MDB_txn* txn = nullptr;
  const uint64_t bytes = map_bytes();
  // Without LMDB's lock file: nobody writes any more, and the data directory has a lock of its own.
  // (Closing a second descriptor of the lock file would drop the first one's lock.)
  int code = mdb_env_create(&env);
  if (code == 0) code = mdb_env_set_maxdbs(env, kTableCount + 3);
  if (code == 0) code = mdb_env_set_mapsize(env, bytes);
  if (code == 0) {
    code = mdb_env_open(env, options_.directory.c_str(),
                        MDB_RDONLY | MDB_NOLOCK | MDB_NOTLS | MDB_NORDAHEAD, 0600);
  }
  if (code == 0) code = mdb_txn_begin(env, nullptr, MDB_RDONLY, &txn);
  for (size_t table = 0; table < kTableCount && code == 0; ++table) {
    code = mdb_dbi_open(txn, kTableNames[table], 0, &read_tables_[table]);
  }
  if (code == 0) {
    code = mdb_txn_commit(txn);
  } else if (txn != nullptr) {
    mdb_txn_abort(txn);
  }
  if (code != 0) {
    if (env != nullptr) mdb_env_close(env);
    return lmdb_error(code, "open for reading only");
  }
  read_env_ = env;
  log_warn("the index goes on for reading only", {{"shard", options_.shard}});
  return {};
}

// --- IndexReader

class IndexReader::TableSource final : public SliceSource {
 public:
  TableSource(IndexReader& reader, MDB_dbi dbi) : reader_(reader), dbi_(dbi) {}
  Result<bool> seek(Bytes key) override { return cursor_.seek(reader_.txn_, dbi_, key); }
  Result<bool> next() override { return cursor_.next(); }
  Bytes key() const override { return cursor_.key(); }
  Bytes value() const override { return cursor_.value(); }
  void unbind() { cursor_.unbind(); }

 private:
  IndexReader& reader_;
  MDB_dbi dbi_;
  CursorSource cursor_;
};

IndexReader::IndexReader(Index& index) : index_(index) {}

IndexReader::~IndexReader() {
  for (auto& source : sources_) source.reset();
  if (txn_ != nullptr) mdb_txn_abort(txn_);
}

MDB_dbi IndexReader::table(Table table) const {
  const auto& tables = env_ == index_.env_ ? index_.tables_ : index_.read_tables_;
  return tables[static_cast<size_t>(table)];
}

int IndexReader::begin_transaction() {
  MDB_env* env = index_.read_env_ != nullptr ? index_.read_env_ : index_.env_;
  if (env != env_) {
    for (auto& source : sources_) source.reset();
    if (txn_ != nullptr) mdb_txn_abort(std::exchange(txn_, nullptr));
    env_ = env;
  }
  const int code =
      txn_ == nullptr ? mdb_txn_begin(env, nullptr, MDB_RDONLY, &txn_) : mdb_txn_renew(txn_);
  if (code != 0 && txn_ != nullptr) mdb_txn_reset(txn_);
  return code;
}

Result<IndexReader::Snapshot> IndexReader::begin() {
  std::shared_lock lock(index_.map_mutex_);
  int code = begin_transaction();
  if (code == MDB_PANIC && index_.read_env_ == nullptr) {
    lock.unlock();
    BASALT_CHECK_OK(index_.open_for_reading());
    lock.lock();
    code = begin_transaction();
  }
  if (code != 0) return lmdb_error(code, "begin read");
  return Snapshot(this, std::move(lock));
}

IndexReader::Snapshot::~Snapshot() {
  if (reader_ == nullptr) return;
  for (auto& source : reader_->sources_) {
    if (source != nullptr) source->unbind();
  }
  mdb_txn_reset(reader_->txn_);
}

uint64_t IndexReader::Snapshot::transaction() const { return mdb_txn_id(reader_->txn_); }

SliceSource& IndexReader::Snapshot::source(Table table) {
  auto& source = reader_->sources_[static_cast<size_t>(table)];
  if (source == nullptr) {
    source = std::make_unique<TableSource>(*reader_, reader_->table(table));
  }
  return *source;
}

Result<Bytes> IndexReader::Snapshot::get(const KeyView& key) {
  // slices_get wants a store for its get() only; a look-up writes nothing.
  class Lookup final : public SliceStore {
   public:
    Lookup(MDB_txn* txn, MDB_dbi dbi) : txn_(txn), dbi_(dbi) {}
    Result<Bytes> get(Bytes key) override {
      MDB_val k = to_val(key), v{};
      if (const int code = mdb_get(txn_, dbi_, &k, &v); code != 0) return lmdb_error(code, "read");
      return to_bytes(v);
    }
    Result<bool> seek(Bytes) override { BASALT_CHECK(false); }
    Result<bool> next() override { BASALT_CHECK(false); }
    Bytes key() const override { BASALT_CHECK(false); }
    Bytes value() const override { BASALT_CHECK(false); }
    Status put(Bytes, Bytes) override { BASALT_CHECK(false); }
    Status erase(Bytes) override { BASALT_CHECK(false); }
    Result<uint64_t> new_layer() override { BASALT_CHECK(false); }

   private:
    MDB_txn* txn_;
    MDB_dbi dbi_;
  };
  Lookup lookup(reader_->txn_, reader_->table(key.table));
  return slices_get(lookup, key.space, key.name);
}

// --- IndexWriter

class IndexWriter::Store final : public SliceStore {
 public:
  Store(IndexWriter& writer, MDB_dbi dbi) : writer_(writer), dbi_(dbi) {}
  Result<bool> seek(Bytes key) override { return cursor_.seek(writer_.txn_, dbi_, key); }
  Result<bool> next() override { return cursor_.next(); }
  Bytes key() const override { return cursor_.key(); }
  Bytes value() const override { return cursor_.value(); }
  Result<Bytes> get(Bytes key) override {
    MDB_val k = to_val(key), v{};
    if (const int code = mdb_get(writer_.txn_, dbi_, &k, &v); code != 0) {
      if (code == MDB_NOTFOUND) return fail(Code::kNotFound);
      return writer_.failed(code, "read");
    }
    return to_bytes(v);
  }
  Status put(Bytes key, Bytes value) override {
    MDB_val k = to_val(key), v = to_val(value);
    if (const int code = mdb_put(writer_.txn_, dbi_, &k, &v, 0); code != 0)
      return writer_.failed(code, "put");
    return {};
  }
  Status erase(Bytes key) override {
    // By key, never by cursor (RELIABILITY: ITS#9376 and its kin are in cursor deletes).
    MDB_val k = to_val(key);
    if (const int code = mdb_del(writer_.txn_, dbi_, &k, nullptr); code != 0) {
      if (code == MDB_NOTFOUND) return fail(Code::kNotFound);
      return writer_.failed(code, "erase");
    }
    return {};
  }
  Result<uint64_t> new_layer() override {
    writer_.layers_changed_ = true;
    return kLayerBit | writer_.next_layer_++;
  }
  void close() { cursor_.close(); }

 private:
  IndexWriter& writer_;
  MDB_dbi dbi_;
  CursorSource cursor_;
};

IndexWriter::IndexWriter(Index& index) : index_(index) {
  for (size_t table = 0; table < kTableCount; ++table) {
    stores_[table] = std::make_unique<Store>(*this, index_.tables_[table]);
  }
}

IndexWriter::~IndexWriter() { abort(); }

std::unexpected<Error> IndexWriter::failed(int code, const char* what) {
  if (code == MDB_MAP_FULL) map_full_ = true;
  if (code == EIO && index_.disk_is_full()) code = ENOSPC;
  return lmdb_error(code, what);
}

Status IndexWriter::begin() {
  BASALT_CHECK(txn_ == nullptr);
  file_changes_.clear();
  space_changes_.clear();
  layers_changed_ = false;
  map_full_ = false;
  if (const int code = mdb_txn_begin(index_.env_, nullptr, 0, &txn_); code != 0) {
    txn_ = nullptr;
    return failed(code, "begin");
  }
  MDB_val key = to_val(as_bytes(kNextLayerKey)), value{};
  const int code = mdb_get(txn_, index_.sys_, &key, &value);
  if (code == MDB_NOTFOUND) {
    next_layer_ = 1;
  } else if (code != 0) {
    return failed(code, "read layer counter");
  } else if (!Row<8>::check(as_bytes(kNextLayerKey), to_bytes(value))) {
    return fail(Code::kCorrupt, "index: layer counter is damaged");
  } else {
    next_layer_ = load_le64(to_bytes(value).data());
  }
  return {};
}

void IndexWriter::account(const KeyView& key, const RecordView& record, int64_t sign) {
  for_each_file_blob(record, [&](const BlobRef& blob) {
    FileSum& sum = file_changes_[blob.file];
    sum.bytes += sign * static_cast<int64_t>(blob.length);
    sum.blobs += sign;
  });
  if (key.table == Table::kCurrent) {
    SpaceSum& sum = space_changes_[key.space];
    sum.objects += sign;
    sum.bytes += sign * static_cast<int64_t>(record.size);
  }
}

Status IndexWriter::account_old(const KeyView& key) {
  auto old = slices_get(*stores_[static_cast<size_t>(key.table)], key.space, key.name);
  if (!old) {
    if (old.error().code == Code::kNotFound) return {};
    return std::unexpected(old.error());
  }
  scratch_.resize((old->size() + 7) / 8);
  std::memcpy(scratch_.data(), old->data(), old->size());
  const auto record =
      decode_record(key, {reinterpret_cast<const uint8_t*>(scratch_.data()), old->size()});
  if (!record) {
    // What it referred to is unknown: its space stays counted as live. Better a leak than
    // somebody's bytes.
    log_error(
        "a damaged record of the index is replaced; its space stays in use",
        {{"shard", index_.shard()}, {"key", printable(key)}, {"error", record.error().detail}});
    return {};
  }
  account(key, *record, -1);
  return {};
}

Status IndexWriter::put(const KeyView& key, Bytes value) {
  const auto record = decode_record(key, value);
  // Checked between memory and disk: a flipped bit in the overlay must not reach the index.
  if (!record) {
    return fail(Code::kCorrupt, fmt::format("a record in memory is damaged: {}", printable(key)));
  }
  BASALT_CHECK_OK(account_old(key));
  account(key, *record, +1);
  return slices_put(*stores_[static_cast<size_t>(key.table)], key.space, key.name, value);
}

Status IndexWriter::erase(const KeyView& key) {
  BASALT_CHECK_OK(account_old(key));
  auto erased = slices_erase(*stores_[static_cast<size_t>(key.table)], key.space, key.name);
  if (!erased && erased.error().code == Code::kNotFound) return {};
  return erased;
}

Status IndexWriter::set_applied(const LogPosition& position) {
  Row<kAppliedBytes> row;
  store_le64(row.bytes, position.epoch);
  store_le64(row.bytes + 8, position.lsn);
  store_le64(row.bytes + 16, position.offset);
  store_le32(row.bytes + 24, position.file);
  store_le32(row.bytes + 28, 0);
  if (const int code = put_row(txn_, index_.sys_, as_bytes(kAppliedKey), row); code != 0) {
    return failed(code, "write applied");
  }
  return {};
}

Status IndexWriter::write_sums() {
  const auto write = [&](MDB_dbi dbi, Bytes key, int64_t first, int64_t second) -> Status {
    if (first == 0 && second == 0) return {};
    MDB_val k = to_val(key), v{};
    int code = mdb_get(txn_, dbi, &k, &v);
    if (code == 0) {
      if (!Row<kSumBytes>::check(key, to_bytes(v)))
        return fail(Code::kCorrupt, "index: a sum is damaged");
      first += static_cast<int64_t>(load_le64(to_bytes(v).data()));
      second += static_cast<int64_t>(load_le64(to_bytes(v).data() + 8));
    } else if (code != MDB_NOTFOUND) {
      return failed(code, "read sum");
    }
    if (first == 0 && second == 0) {
      code = code == 0 ? mdb_del(txn_, dbi, &k, nullptr) : 0;
    } else {
      Row<kSumBytes> row;
      store_le64(row.bytes, static_cast<uint64_t>(first));
      store_le64(row.bytes + 8, static_cast<uint64_t>(second));
      code = put_row(txn_, dbi, key, row);
    }
    if (code != 0) return failed(code, "write sum");
    return {};
  };
  for (const auto& [file, sum] : file_changes_) {
    uint8_t key[4];
    store_be32(key, file);
    BASALT_CHECK_OK(write(index_.seg_, key, sum.bytes, sum.blobs));
  }
  for (const auto& [space, sum] : space_changes_) {
    uint8_t key[8];
    store_be64(key, space);
    BASALT_CHECK_OK(write(index_.cnt_, key, sum.objects, sum.bytes));
  }
  if (layers_changed_) {
    Row<8> row;
    store_le64(row.bytes, next_layer_);
    if (const int code = put_row(txn_, index_.sys_, as_bytes(kNextLayerKey), row); code != 0) {
      return failed(code, "write layer counter");
    }
  }
  return {};
}

Status IndexWriter::commit() {
  if (auto written = write_sums(); !written) {
    abort();
    return written;
  }
  for (auto& store : stores_) store->close();
  if (const int code = mdb_txn_commit(std::exchange(txn_, nullptr)); code != 0)
    return failed(code, "commit");
  return {};
}

void IndexWriter::abort() {
  for (auto& store : stores_) store->close();
  if (txn_ != nullptr) mdb_txn_abort(std::exchange(txn_, nullptr));
}

Status IndexWriter::grow_map() { return index_.grow(); }

void IndexWriter::settle() {
  index_.reserve();
  index_.measure();
}

}  // namespace basalt::storage
