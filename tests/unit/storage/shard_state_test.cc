// The replay over an index that a crash left between two parts of a checkpoint, against a model:
// rows, and live bytes that match them, whatever was written ahead of the position.
#include "storage/shard_state.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "storage/checkpointer.h"
#include "storage/generated/record_generated.h"
#include "storage/mutation_builder.h"
#include "tests/unit/storage/fakes.h"

namespace basalt::storage {
namespace {

using test::FakeFiles;
using test::TemporaryDirectory;

constexpr uint64_t kKeys = 150;

struct Batch {
  std::vector<uint8_t> bytes;
  BlobRef body_ref;
};
struct Row {
  std::string tag;
  std::vector<BlobRef> blobs;
};
using Model = std::map<std::string, Row>;

class History {
 public:
  explicit History(uint64_t seed) : random_(seed) {}

  // Puts with and without blobs, erases, keys named twice in a batch, and batches in which one key
  // takes over the blobs of others, in any order.
  Batch next() {
    mutations_.clear();
    Batch batch;
    switch (random_() % 5) {
      case 0:
        mutations_.push_back({.name = some_key()});
        break;
      case 1:
        take_over();
        break;
      case 2:
        for (const std::string name = some_key(); mutations_.size() < 2;) {
          mutations_.push_back(random_() % 2 == 0 ? put(name) : Mutation{.name = name});
        }
        break;
      default:
        mutations_.push_back(put(some_key()));
        if (random_() % 3 == 0) {
          batch.body_ref = new_blob(BlobKind::kLog);
          mutations_.back().has_body = true;
        }
    }
    MutationBuilder builder;
    for (const Mutation& one : mutations_) {
      const KeyView key{Table::kCurrent, 1, one.name};
      if (one.row) {
        builder.put(key, {.size = 1, .tag = one.row->tag, .blobs = one.row->blobs}, one.has_body,
                    one.keep_blobs);
        Row& row = model[one.name] = *one.row;
        if (one.has_body) row.blobs.push_back(batch.body_ref);
      } else {
        builder.erase(key, one.keep_blobs);
        model.erase(one.name);
      }
    }
    const Bytes bytes = builder.finish();
    batch.bytes.assign(bytes.begin(), bytes.end());
    return batch;
  }

  std::map<uint32_t, int64_t> live() const {
    std::map<uint32_t, int64_t> sums;
    for (const auto& [name, row] : model) {
      for (const BlobRef& blob : row.blobs) sums[blob.file] += static_cast<int64_t>(blob.length);
    }
    return sums;
  }

  Model model;

 private:
  struct Mutation {
    std::string name;
    std::optional<Row> row;  // none: erase
    bool has_body = false;
    bool keep_blobs = false;
  };

  std::string some_key() { return "key-" + std::to_string(random_() % kKeys); }
  BlobRef new_blob(BlobKind kind) {
    BlobRef blob;
    blob.kind = static_cast<uint8_t>(kind);
    blob.file = kind == BlobKind::kLog ? 9 : static_cast<uint32_t>(1 + random_() % 3);
    blob.length = kIndexBodyBytesMax + 1 + random_() % 1000;
    blob.offset = ++blobs_ * 4096;
    return blob;
  }
  Mutation put(const std::string& name) {
    Mutation one{.name = name, .row = Row{.tag = std::to_string(random_()), .blobs = {}}};
    for (uint64_t i = random_() % 3; i != 0; --i)
      one.row->blobs.push_back(new_blob(BlobKind::kBulk));
    return one;
  }
  void take_over() {
    std::set<std::string> names;
    while (names.size() < 4) names.insert(some_key());
    const std::string to = *names.begin();
    Mutation taker = put(to);
    for (const std::string& name : names) {
      const auto found = model.find(name);
      if (found == model.end()) continue;
      for (const BlobRef& blob : found->second.blobs) taker.row->blobs.push_back(blob);
      if (name == to) {
        taker.keep_blobs = true;
      } else {
        mutations_.push_back({.name = name, .row = {}, .has_body = false, .keep_blobs = true});
      }
    }
    mutations_.push_back(taker);
    std::shuffle(mutations_.begin(), mutations_.end(), random_);
  }

  std::mt19937_64 random_;
  uint64_t blobs_ = 0;
  std::vector<Mutation> mutations_;
};

void insert(ShardState& state, const Batch& batch, uint64_t seq) {
  static const std::vector<uint8_t> body(kIndexBodyBytesMax + 2000);
  const AlignedBytes bytes(batch.bytes);
  const bool has_body = batch.body_ref.length != 0;
  const Bytes text = has_body ? Bytes(body).first(batch.body_ref.length) : Bytes();
  const auto verified = verify_batch(bytes.view(), text.size());
  ASSERT_TRUE(verified.has_value());
  state.insert(**verified, seq, text, batch.body_ref);
}

std::map<uint32_t, int64_t> nonzero(std::map<uint32_t, int64_t> sums) {
  std::erase_if(sums, [](const auto& one) { return one.second == 0; });
  return sums;
}

std::map<uint32_t, int64_t> sums_of(const Index& index) {
  std::map<uint32_t, int64_t> sums;
  for (const auto& [file, sum] : index.file_sums()) sums[file] = sum.bytes;
  return nonzero(sums);
}

class Replay {
 public:
  Replay(uint64_t seed, bool twice) : seed_(seed), twice_(twice) {
    auto index = Index::open({.directory = directory_.path() + "/00", .map_bytes = 1 << 28});
    EXPECT_TRUE(index.has_value());
    index_ = std::move(*index);
  }

  // What the index had already.
  uint64_t run() {
    std::mt19937_64 random(seed_);
    History history(seed_);
    std::vector<Batch> batches;
    {
      FakeFiles files;
      ShardState state(*index_, files);
      const uint64_t whole = random() % 100, frozen = whole + 50 + random() % 150;
      uint64_t lsn = 0;
      while (lsn < frozen) {
        batches.push_back(history.next());
        insert(state, batches.back(), ++lsn);
        if (lsn == whole) checkpoint(state, files, lsn);
      }
      write_some_parts(state, lsn, random);
    }
    for (uint64_t more = random() % 50; more != 0; --more) batches.push_back(history.next());
    uint64_t met = 0;
    if (twice_) {  // a second crash, in the checkpoint of what was replayed
      FakeFiles files;
      ShardState state(*index_, files);
      met += replay(state, files, batches);
      write_some_parts(state, batches.size(), random);
    }
    FakeFiles files;
    ShardState state(*index_, files);
    met += replay(state, files, batches);
    expect_rows(state, history.model);
    checkpoint(state, files, batches.size());
    expect_rows(state, history.model);
    EXPECT_TRUE(index_->reload());
    EXPECT_EQ(sums_of(*index_), history.live());
    EXPECT_EQ(nonzero(files.live), history.live());
    return met;
  }

 private:
  uint64_t replay(ShardState& state, FakeFiles& files, const std::vector<Batch>& batches) {
    EXPECT_TRUE(index_->reload());
    files.live = sums_of(*index_);
    for (uint64_t lsn = index_->applied().lsn + 1; lsn <= batches.size(); ++lsn) {
      insert(state, batches[lsn - 1], lsn);
    }
    return state.met_in_index();
  }

  void checkpoint(ShardState& state, FakeFiles& files, uint64_t lsn) {
    state.freeze();
    const LogPosition position{.epoch = 0, .lsn = lsn};
    EXPECT_TRUE(checkpoint_overlay(*index_, *state.frozen(), &position, totals_));
    std::vector<BlobRef> dropped;
    state.thaw(dropped);
    files.release(dropped);
  }

  void write_some_parts(ShardState& state, uint64_t lsn, std::mt19937_64& random) {
    state.freeze();
    const LogPosition position{.epoch = 0, .lsn = lsn};
    OverlayCheckpoint parts(*index_, *state.frozen(), &position, totals_);
    const uint64_t count =
        random() % (state.frozen()->entries() / kCheckpointEntriesPerPartMin + 1);
    for (uint64_t i = 0; i < count; ++i) {
      const auto last = parts.write_part();
      ASSERT_TRUE(last.has_value());
      if (*last) break;
    }
  }

  void expect_rows(ShardState& state, const Model& model) {
    for (uint64_t i = 0; i < kKeys; ++i) {
      const std::string name = "key-" + std::to_string(i);
      const auto record = state.get({Table::kCurrent, 1, name});
      const auto known = model.find(name);
      ASSERT_EQ(record.has_value(), known != model.end()) << name;
      if (record) EXPECT_EQ(record->view().tag, known->second.tag) << name;
    }
  }

  const TemporaryDirectory directory_;
  const uint64_t seed_;
  const bool twice_;
  std::unique_ptr<Index> index_;
  SpaceTotals totals_;
};

TEST(ShardState, ReplaysOverAnInterruptedCheckpoint) {
  uint64_t met = 0;
  for (uint64_t seed = 1; seed <= 60 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    met += Replay(seed, seed % 2 == 0).run();
  }
  EXPECT_GT(met, 1000u);
}

TEST(ShardState, WhatCouldNotBeWrittenIsThereAgain) {
  const TemporaryDirectory directory;
  auto index = Index::open({.directory = directory.path() + "/00", .map_bytes = 1 << 28});
  ASSERT_TRUE(index.has_value());
  FakeFiles files;
  ShardState state(**index, files);
  History history(1);
  for (uint64_t lsn = 1; lsn <= 200; ++lsn) insert(state, history.next(), lsn);
  const size_t entries = state.active_entries();
  state.freeze();
  EXPECT_EQ(state.active_entries(), 0u);
  state.unfreeze();
  EXPECT_EQ(state.active_entries(), entries);
  EXPECT_EQ(state.frozen(), nullptr);
  std::vector<BlobRef> dropped;
  state.freeze();
  state.thaw(dropped);
  EXPECT_FALSE(dropped.empty());
}

}  // namespace
}  // namespace basalt::storage
