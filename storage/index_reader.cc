#include "base/check.h"
#include "base/log.h"
#include "storage/index_rows.h"

namespace basalt::storage {

namespace {

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

}  // namespace

class IndexReader::TableSource final : public SliceSource {
 public:
  TableSource(IndexReader& reader, Table table) : reader_(reader), table_(table) {}
  Result<bool> seek(Bytes key) override {
    if (!bound_) BASALT_CHECK_OK(reader_.bind(cursor_, table_));
    bound_ = true;
    return result(cursor_.seek(key));
  }
  Result<bool> next() override { return result(cursor_.next()); }
  bool step() override { return cursor_.step(); }
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

}  // namespace basalt::storage
