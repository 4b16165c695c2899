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
// Those of records by their number, then three of our own.
const std::vector<std::string_view> kTableList = {"cur", "ver", "mpu", "part", "bkt",
                                                  "iam", "out", "sys", "seg",  "cnt"};
constexpr size_t kSysTable = kTableCount, kSegTable = kTableCount + 1, kCntTable = kTableCount + 2;
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

// A row of a table of records: whether it is what was written under its key. Of a row in a layer
// the name is not known here, and it passes.
bool row_sound(Table table, const TreeCursor::Row& row) {
  if (row.key.size() <= kLayerBytes) return false;
  if (row.key.size() == kLinkKeyBytes) return decode_link(row.key, row.value).has_value();
  const uint64_t space = load_be64(row.key.data());
  if ((space & kLayerBit) != 0) return true;
  if (row.value.size() < 4 || row.value.size() > kValueBytesMax) return false;
  const size_t payload = row.value.size() - 4;
  const uint32_t seed = key_crc({table, space, as_text(row.key.subspan(kLayerBytes))});
  return load_le32(row.value.data() + payload) == crc32c(row.value.first(payload), seed);
}

std::string printable_row(Table table, Bytes key) {
  if (key.size() < kLayerBytes) return "?";
  return printable({table, load_be64(key.data()), as_text(key.subspan(kLayerBytes))});
}

constexpr const char* kMend =
    "what is behind it cannot be read and a checkpoint of it stops all writes; stop the server and "
    "run basaltd rebuild-index";

// What liblmdb says last before it ends the process.
void lmdb_asserted(MDB_env* env, const char* text) {
  const auto* shard = static_cast<const unsigned*>(mdb_env_get_userctx(env));
  log_error("liblmdb found an index damaged and ends the process; run basaltd rebuild-index",
            {{"shard", shard == nullptr ? 0u : *shard}, {"error", text}});
}

// A cursor over one table within one write transaction.
class CursorSource {
 public:
  ~CursorSource() { close(); }
  Result<bool> seek(MDB_txn* txn, MDB_dbi dbi, Bytes key) {
    if (cursor_ == nullptr) {
      if (const int code = mdb_cursor_open(txn, dbi, &cursor_); code != 0)
        return lmdb_error(code, "cursor");
    }
    key_ = to_val(key);
    return result(mdb_cursor_get(cursor_, &key_, &value_, MDB_SET_RANGE));
  }
  Bytes key() const { return to_bytes(key_); }
  Bytes value() const { return to_bytes(value_); }
  void close() {
    if (cursor_ != nullptr) mdb_cursor_close(cursor_);
    cursor_ = nullptr;
  }

 private:
  static Result<bool> result(int code) {
    if (code == 0) return true;
    if (code == MDB_NOTFOUND) return false;
    return lmdb_error(code, "read");
  }
  MDB_cursor* cursor_ = nullptr;
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
  const std::string data_file = options_.directory + "/data.mdb";
  if (struct stat info{}; ::stat(data_file.c_str(), &info) == 0 && info.st_size != 0) {
    BASALT_TRY(map, IndexMap::open(data_file));
    map_ = std::move(map);
    if (auto heads = map_->check_heads(); !heads) return damaged(heads.error().detail);
  }
  uint64_t map_bytes = std::max(options_.map_bytes, kIndexMapBytesMin / 64);
  for (;;) {
    if (const int code = mdb_env_create(&env_); code != 0) return lmdb_error(code, "create");
    mdb_env_set_maxdbs(env_, kTableCount + 3);
    mdb_env_set_maxreaders(env_, kIndexReadersMax);
    mdb_env_set_mapsize(env_, map_bytes);
    mdb_env_set_userctx(env_, &options_.shard);
    mdb_env_set_assert(env_, &lmdb_asserted);
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
  if (map_ != nullptr) return {};
  BASALT_TRY(map, IndexMap::open(data_file));
  map_ = std::move(map);
  return {};
}

std::unexpected<Error> Index::damaged(std::string_view what) {
  damage_met_.fetch_add(1, std::memory_order_relaxed);
  std::string text = fmt::format("index of shard {:02} is damaged: {}", options_.shard, what);
  constexpr size_t kLoggedMax = 100;
  {
    const std::lock_guard lock(logged_mutex_);
    if (logged_.size() < kLoggedMax && logged_.emplace(what).second) {
      log_error("an index is damaged",
                {{"shard", options_.shard}, {"error", what}, {"advice", kMend}});
    }
  }
  return fail(Code::kCorrupt, std::move(text));
}

std::unexpected<Error> Index::damaged(const TreeCursor& cursor, std::string_view table) {
  return damaged(fmt::format("page {} ({}): {}", cursor.damaged_page(), table, cursor.damage()));
}

Status Index::create(MDB_txn* txn) {
  Row<kFormatBytes> row;
  store_le32(row.bytes, kIndexFormatVersion);
  store_le32(row.bytes + 4, options_.shard);
  if (const int code = put_row(txn, sys_, as_bytes(kFormatKey), row); code != 0) {
    return lmdb_error(code, "write format");
  }
  return {};
}

Status Index::load() {
  // What liblmdb is about to use, and all rows of the small tables, before it does.
  BASALT_TRY(state, map_->state(std::nullopt));
  const bool fresh = state.main.root == lmdb::kNoPage && state.main.entries == 0;
  if (auto looked = guard_.look(state, kTableList); !looked) return damaged(looked.error().detail);
  if (!fresh && !guard_.has_all_tables()) return damaged("a table is missing");

  const auto rows = [&](size_t table, auto&& take) -> Status {
    TreeCursor cursor;
    cursor.reset(state, guard_.head(table));
    auto step = cursor.first();
    for (; step == TreeCursor::Step::kYes; step = cursor.next()) {
      if (!take(cursor.key(), cursor.value())) {
        return damaged(fmt::format("a row of {} fails its checksum", kTableList[table]));
      }
    }
    if (step == TreeCursor::Step::kDamaged) return damaged(cursor, kTableList[table]);
    return {};
  };
  bool format_seen = false;
  uint32_t version = 0, shard = 0;
  BASALT_CHECK_OK(rows(kSysTable, [&](Bytes key, Bytes value) {
    if (as_text(key) == kFormatKey) {
      if (!Row<kFormatBytes>::check(key, value)) return false;
      format_seen = true;
      version = load_le32(value.data());
      shard = load_le32(value.data() + 4);
      return true;
    }
    if (as_text(key) == kAppliedKey) {
      if (!Row<kAppliedBytes>::check(key, value)) return false;
      applied_ = {load_le64(value.data()), load_le64(value.data() + 8),
                  load_le32(value.data() + 24), load_le64(value.data() + 16)};
      return true;
    }
    return as_text(key) == kNextLayerKey && Row<8>::check(key, value);
  }));
  if (!fresh && !format_seen) return damaged("the format row is missing");
  if (!fresh && (version != kIndexFormatVersion || shard != options_.shard)) {
    return fail(
        Code::kCorrupt,
        fmt::format("index {}: version {} shard {}, expected version {} shard {}",
                    options_.directory, version, shard, kIndexFormatVersion, options_.shard));
  }
  const auto sums = [&](size_t table, size_t key_bytes, auto&& add) {
    return rows(table, [&](Bytes key, Bytes value) {
      if (key.size() != key_bytes || !Row<kSumBytes>::check(key, value)) return false;
      add(key.data(), static_cast<int64_t>(load_le64(value.data())),
          static_cast<int64_t>(load_le64(value.data() + 8)));
      return true;
    });
  };
  BASALT_CHECK_OK(sums(kSegTable, 4, [&](const uint8_t* k, int64_t bytes, int64_t blobs) {
    file_sums_[load_be32(k)] = {bytes, blobs};
  }));
  BASALT_CHECK_OK(sums(kCntTable, 8, [&](const uint8_t* k, int64_t objects, int64_t bytes) {
    space_sums_[load_be64(k)] = {objects, bytes};
  }));

  MDB_txn* txn = nullptr;
  if (const int code = mdb_txn_begin(env_, nullptr, 0, &txn); code != 0)
    return lmdb_error(code, "begin");
  struct Abort {
    MDB_txn*& txn;
    ~Abort() {
      if (txn != nullptr) mdb_txn_abort(txn);
    }
  } abort{txn};
  for (size_t table = 0; table < kTableList.size(); ++table) {
    MDB_dbi& dbi = table < kTableCount  ? tables_[table]
                   : table == kSysTable ? sys_
                   : table == kSegTable ? seg_
                                        : cnt_;
    const std::string name(kTableList[table]);
    if (const int code = mdb_dbi_open(txn, name.c_str(), fresh ? MDB_CREATE : 0, &dbi); code != 0) {
      return lmdb_error(code, "open table");
    }
  }
  if (fresh) BASALT_CHECK_OK(create(txn));
  // Table handles outlive the transaction only if it commits; with nothing written that costs no
  // I/O.
  if (const int code = mdb_txn_commit(std::exchange(txn, nullptr)); code != 0) {
    return lmdb_error(code, "commit of the tables");
  }
  if (fresh) {
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
  const auto state = map_->state(std::nullopt);
  if (!state) return;
  TreeCursor cursor;
  for (const std::string_view name : kTableList) {
    TreeHead head;
    if (find_table(*state, name, head, cursor) != TreeCursor::Step::kYes) return;
    size.used_bytes += head.pages() * state->page_bytes;
  }
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

// --- IndexReader

class IndexReader::TableSource final : public SliceSource {
 public:
  TableSource(IndexReader& reader, Table table) : reader_(reader), table_(table) {}
  Result<bool> seek(Bytes key) override {
    if (!bound_) BASALT_CHECK_OK(reader_.bind(cursor_, table_));
    bound_ = true;
    return result(cursor_.seek(key));
  }
  Result<bool> next() override { return result(cursor_.next()); }
  Bytes key() const override { return cursor_.key(); }
  Bytes value() const override {
    return cursor_.value().size() > kValueBytesMax ? Bytes() : cursor_.value();
  }
  Status check_row() override {
    return row_sound(table_, {cursor_.key(), cursor_.value()}) ? Status() : bad_row(cursor_.key());
  }
  Status check_row_before() override {
    if (!bound_) return {};
    TreeCursor::Row row;
    const TreeCursor::Step step = cursor_.before(row);
    if (step == TreeCursor::Step::kYes && !row_sound(table_, row)) return bad_row(row.key);
    if (step == TreeCursor::Step::kDamaged) return reader_.index_.damaged(cursor_, name());
    return {};
  }
  void unbind() { bound_ = false; }

 private:
  std::string_view name() const { return kTableList[static_cast<size_t>(table_)]; }
  Result<bool> result(TreeCursor::Step step) {
    if (step == TreeCursor::Step::kDamaged) return reader_.index_.damaged(cursor_, name());
    return step == TreeCursor::Step::kYes;
  }
  Status bad_row(Bytes key) {
    return reader_.index_.damaged(
        fmt::format("a row of {} fails its checksum: {}", name(), printable_row(table_, key)));
  }

  IndexReader& reader_;
  Table table_;
  TreeCursor cursor_;
  bool bound_ = false;
};

IndexReader::IndexReader(Index& index) : index_(index) {}

IndexReader::~IndexReader() {
  for (auto& source : sources_) source.reset();
  if (txn_ != nullptr) mdb_txn_abort(txn_);
}

int IndexReader::renew() {
  int code = txn_ == nullptr ? mdb_txn_begin(index_.env_, nullptr, MDB_RDONLY, &txn_)
                             : mdb_txn_renew(txn_);
  if (code != 0 && txn_ != nullptr) mdb_txn_reset(txn_);
  active_ = code == 0;
  return code;
}

// A transaction, and the state that it sees.
Status IndexReader::see() {
  std::optional<TreeState> fresh;
  std::optional<uint64_t> replaced;
  for (;;) {
    if (index_.writes_ended_.load(std::memory_order_acquire)) {
      if (frozen_) return {};
      BASALT_TRY(state, index_.map_->state(std::nullopt));
      state_ = state;
      head_known_.fill(false);
      frozen_ = true;
      return {};
    }
    if (const int code = renew(); code == MDB_PANIC) {
      if (!index_.writes_ended_.exchange(true)) {
        log_warn("the index goes on for reading only", {{"shard", index_.shard()}});
      }
      continue;
    } else if (code == MDB_MAP_RESIZED) {
      return index_.damaged("the meta page names pages behind the map");
    } else if (code != 0) {
      return lmdb_error(code, "begin read");
    }
    const uint64_t id = mdb_txn_id(txn_);
    if (id == state_.transaction && state_.base != nullptr) return {};
    if (fresh && fresh->transaction == id) {
      // Still the newest: its meta page has not been written over while it was read.
      state_ = *fresh;
      head_known_.fill(false);
      return {};
    }
    auto state = index_.map_->state(id);
    mdb_txn_reset(txn_);
    active_ = false;
    if (state) {
      fresh = *state;
    } else if (state.error().code != Code::kNotFound || replaced == id) {
      // What replaces a meta page is written after the commit before it was published, so a second
      // look does not meet the same transaction.
      return index_.damaged(state.error().detail);
    } else {
      replaced = id;
    }
  }
}

Result<IndexReader::Snapshot> IndexReader::begin() {
  std::shared_lock lock(index_.map_mutex_);
  BASALT_CHECK_OK(see());
  return Snapshot(this, std::move(lock));
}

Status IndexReader::bind(TreeCursor& cursor, Table table) {
  const auto at = static_cast<size_t>(table);
  if (!head_known_[at]) {
    const TreeCursor::Step step = find_table(state_, kTableList[at], heads_[at], cursor);
    if (step == TreeCursor::Step::kDamaged) return index_.damaged(cursor, "table of tables");
    // Every index has every table.
    if (step == TreeCursor::Step::kNo) return index_.damaged("a table is missing");
    head_known_[at] = true;
  }
  cursor.reset(state_, heads_[at]);
  return {};
}

IndexReader::Snapshot::~Snapshot() {
  if (reader_ == nullptr) return;
  for (auto& source : reader_->sources_) {
    if (source != nullptr) source->unbind();
  }
  if (std::exchange(reader_->active_, false)) mdb_txn_reset(reader_->txn_);
}

SliceSource& IndexReader::Snapshot::source(Table table) {
  auto& source = reader_->sources_[static_cast<size_t>(table)];
  if (source == nullptr) source = std::make_unique<TableSource>(*reader_, table);
  return *source;
}

Result<Bytes> IndexReader::Snapshot::get(const KeyView& key) {
  // slices_get wants a store for its get() only; a look-up writes nothing.
  class Lookup final : public SliceStore {
   public:
    Lookup(IndexReader& reader, Table table) : reader_(reader), table_(table) {}
    Result<Bytes> get(Bytes key) override {
      TreeCursor& cursor = reader_.cursor_;
      const TreeCursor::Step step = cursor.find(key);
      if (step == TreeCursor::Step::kYes) {
        return cursor.value().size() > kValueBytesMax ? Bytes() : cursor.value();
      }
      const std::string_view name = kTableList[static_cast<size_t>(table_)];
      if (step == TreeCursor::Step::kDamaged) return reader_.index_.damaged(cursor, name);
      // A bit that flipped in the row's key would have left the row beside the gap.
      for (const bool after : {false, true}) {
        TreeCursor::Row row;
        const TreeCursor::Step beside = after ? cursor.at(row) : cursor.before(row);
        if (beside == TreeCursor::Step::kDamaged) return reader_.index_.damaged(cursor, name);
        if (beside == TreeCursor::Step::kYes && !row_sound(table_, row)) {
          return reader_.index_.damaged(fmt::format("a row of {} fails its checksum: {}", name,
                                                    printable_row(table_, row.key)));
        }
      }
      return fail(Code::kNotFound);
    }
    Result<bool> seek(Bytes) override { BASALT_CHECK(false); }
    Result<bool> next() override { BASALT_CHECK(false); }
    Bytes key() const override { BASALT_CHECK(false); }
    Bytes value() const override { BASALT_CHECK(false); }
    Status put(Bytes, Bytes) override { BASALT_CHECK(false); }
    Status erase(Bytes) override { BASALT_CHECK(false); }
    Result<uint64_t> new_layer() override { BASALT_CHECK(false); }

   private:
    IndexReader& reader_;
    Table table_;
  };
  BASALT_CHECK_OK(reader_->bind(reader_->cursor_, key.table));
  Lookup lookup(*reader_, key.table);
  return slices_get(lookup, key.space, key.name);
}

// --- IndexWriter

class IndexWriter::Store final : public SliceStore {
 public:
  Store(IndexWriter& writer, size_t table, MDB_dbi dbi)
      : writer_(writer), table_(table), dbi_(dbi) {}
  Result<bool> seek(Bytes key) override {
    BASALT_CHECK_OK(writer_.cover(table_, key, true));
    return cursor_.seek(writer_.txn_, dbi_, key);
  }
  // Walks are for readers.
  Result<bool> next() override { BASALT_CHECK(false); }
  Bytes key() const override { return cursor_.key(); }
  Bytes value() const override { return cursor_.value(); }
  Result<Bytes> get(Bytes key) override {
    BASALT_CHECK_OK(writer_.cover(table_, key, false));
    MDB_val k = to_val(key), v{};
    if (const int code = mdb_get(writer_.txn_, dbi_, &k, &v); code != 0) {
      if (code == MDB_NOTFOUND) return fail(Code::kNotFound);
      return writer_.failed(code, "read");
    }
    return to_bytes(v);
  }
  Status put(Bytes key, Bytes value) override {
    BASALT_CHECK_OK(writer_.cover(table_, key, false));
    MDB_val k = to_val(key), v = to_val(value);
    if (const int code = mdb_put(writer_.txn_, dbi_, &k, &v, 0); code != 0)
      return writer_.failed(code, "put");
    return {};
  }
  Status erase(Bytes key) override {
    BASALT_CHECK_OK(writer_.cover(table_, key, true));
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
  size_t table_;
  MDB_dbi dbi_;
  CursorSource cursor_;
};

IndexWriter::IndexWriter(Index& index) : index_(index) {
  for (size_t table = 0; table < kTableCount; ++table) {
    stores_[table] = std::make_unique<Store>(*this, table, index_.tables_[table]);
  }
}

IndexWriter::~IndexWriter() { abort(); }

std::unexpected<Error> IndexWriter::failed(int code, const char* what) {
  if (code == MDB_MAP_FULL) map_full_ = true;
  if (code == EIO && index_.disk_is_full()) code = ENOSPC;
  if (code == MDB_CORRUPTED || code == MDB_PAGE_NOTFOUND || code == MDB_MAP_RESIZED)
    return index_.damaged(mdb_strerror(code));
  return lmdb_error(code, what);
}

Status IndexWriter::cover(size_t table, Bytes key, bool removal) {
  auto covered = index_.guard_.cover(table, key, removal);
  if (!covered) return index_.damaged(covered.error().detail);
  return {};
}

// The pages that liblmdb takes from the free list, and where the tables are.
Status IndexWriter::begin_checked() {
  auto state = index_.map_->state(mdb_txn_id(txn_) - 1);
  if (!state) return index_.damaged(state.error().detail);
  auto begun = index_.guard_.begin(*state, kTableList);
  if (begun && !index_.guard_.has_all_tables()) return index_.damaged("a table is missing");
  if (begun) begun = index_.guard_.cover_all(kSysTable);
  if (!begun) return index_.damaged(begun.error().detail);
  return {};
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
  BASALT_CHECK_OK(begin_checked());
  MDB_val key = to_val(as_bytes(kNextLayerKey)), value{};
  const int code = mdb_get(txn_, index_.sys_, &key, &value);
  if (code == MDB_NOTFOUND) {
    next_layer_ = 1;
  } else if (code != 0) {
    return failed(code, "read layer counter");
  } else if (!Row<8>::check(as_bytes(kNextLayerKey), to_bytes(value))) {
    return index_.damaged("the counter of layers fails its checksum");
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
  const auto write = [&](size_t table, MDB_dbi dbi, Bytes key, int64_t first,
                         int64_t second) -> Status {
    if (first == 0 && second == 0) return {};
    BASALT_CHECK_OK(cover(table, key, true));
    MDB_val k = to_val(key), v{};
    int code = mdb_get(txn_, dbi, &k, &v);
    if (code == 0) {
      if (!Row<kSumBytes>::check(key, to_bytes(v)))
        return index_.damaged("a sum fails its checksum");
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
    BASALT_CHECK_OK(write(kSegTable, index_.seg_, key, sum.bytes, sum.blobs));
  }
  for (const auto& [space, sum] : space_changes_) {
    uint8_t key[8];
    store_be64(key, space);
    BASALT_CHECK_OK(write(kCntTable, index_.cnt_, key, sum.objects, sum.bytes));
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
  const uint64_t id = mdb_txn_id(txn_);
  if (const int code = mdb_txn_commit(std::exchange(txn_, nullptr)); code != 0)
    return failed(code, "commit");
  // A transaction that changed nothing has not been committed.
  if (const auto state = index_.map_->state(id)) index_.guard_.committed(*state);
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
