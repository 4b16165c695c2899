#include "base/check.h"
#include "base/log.h"
#include "storage/index_rows.h"

namespace basalt::storage {

namespace {

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
