#include "storage/index.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <mutex>

#include "base/check.h"
#include "base/log.h"
#include "storage/index_rows.h"
#include "storage/seeded_bugs.h"

namespace basalt::storage {

namespace {

constexpr uint32_t kIndexFormatVersion = 1;
constexpr off_t kLockFileBytes = 64 << 10;  // kIndexReadersMax slots of 64 bytes, and the head
constexpr uint64_t kFullDiskBytes = 256 << 10;
constexpr unsigned kForbiddenFlags =
    MDB_NOSYNC | MDB_NOMETASYNC | MDB_WRITEMAP | MDB_MAPASYNC | MDB_NOLOCK | MDB_NOMEMINIT;

Status sync_directory_at(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return fail_errno(errno, "open " + path);
  const int result = seeded::kDirectoryNotSynced ? 0 : ::fsync(fd);
  const int error = errno;
  ::close(fd);
  if (result != 0) return fail_errno(error, "fsync " + path);
  return {};
}

const SystemClock kSystemClock;

constexpr const char* kMend =
    "what is behind it cannot be read and a checkpoint of it stops all writes; stop the server and "
    "run basaltd rebuild-index";

// What liblmdb says last before it ends the process.
void lmdb_asserted(MDB_env* env, const char* text) {
  const auto* shard = static_cast<const unsigned*>(mdb_env_get_userctx(env));
  log_error("liblmdb found an index damaged and ends the process; run basaltd rebuild-index",
            {{"shard", shard == nullptr ? 0u : *shard}, {"error", text}});
}

}  // namespace

Index::Index(const Options& options)
    : options_(options), clock_(options.clock != nullptr ? *options.clock : kSystemClock) {}

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
  measure();
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
    size.used_pages += head.pages();
    size.used_bytes += head.pages() * state->page_bytes;
  }
  size_ = size;
}

uint64_t Index::oldest_walk_ms() const {
  const uint64_t began_ns = oldest_walk_ns_.load(std::memory_order_relaxed);
  return began_ns == 0 ? 0 : (clock_.monotonic_ns() - began_ns) / 1'000'000;
}

IndexWalk::IndexWalk(Index& index) : index_(index), began_ns_(index.clock_.monotonic_ns()) {
  const std::lock_guard lock(index_.walks_mutex_);
  index_.walks_.insert(began_ns_);
  index_.oldest_walk_ns_.store(*index_.walks_.begin(), std::memory_order_relaxed);
}

IndexWalk::~IndexWalk() {
  {
    const std::lock_guard lock(index_.walks_mutex_);
    index_.walks_.erase(index_.walks_.find(began_ns_));
    index_.oldest_walk_ns_.store(index_.walks_.empty() ? 0 : *index_.walks_.begin(),
                                 std::memory_order_relaxed);
  }
  if (overdue()) {
    log_warn("an index was read for long in one transaction; its file may have grown meanwhile",
             {{"shard", index_.shard()},
              {"ms", (index_.clock_.monotonic_ns() - began_ns_) / 1'000'000}});
  }
}

bool IndexWalk::overdue() const {
  return index_.clock_.monotonic_ns() - began_ns_ > kPacedWalkMsMax * 1'000'000;
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

}  // namespace basalt::storage
