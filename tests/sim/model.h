// Model: what the engine must show. For every shard the acknowledged records; for every lane the
// batches whose fate is not known yet, in the order in which they were submitted.
//
// Rules. A batch is answered with success only after every earlier one of its lane. A look-up shows
// the acknowledged record, or that of a batch under way, which must then survive every crash. After
// a crash the batches of a lane whose fate was unknown are there up to some point and not beyond
// it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "storage/record.h"
#include "storage/types.h"

namespace basalt::sim {

struct Piece {  // of a record's content: `length` bytes of the pattern `seed`
  uint64_t seed = 0;
  uint64_t length = 0;
};

struct Value {
  uint64_t id = 0;  // unique; in the first eight bytes of `meta`
  uint64_t size = 0;
  std::string tag;
  std::string meta;
  std::vector<Piece> pieces;  // the body, if any, first
};
using ValuePtr = std::shared_ptr<const Value>;  // null: no record

std::string pattern(const Piece& piece);
// Whether `bytes` are those of the piece from `offset` on.
bool matches(const Piece& piece, uint64_t offset, Bytes bytes);

struct Key {
  storage::Table table = storage::Table::kCurrent;
  uint64_t space = 0;
  std::string name;
  auto operator<=>(const Key&) const = default;
  storage::KeyView view() const { return {table, space, name}; }
};

using State = std::map<Key, ValuePtr>;  // of a shard; no nulls

struct BatchFate {
  uint64_t id = 0;
  unsigned shard = 0;
  std::vector<std::pair<Key, ValuePtr>> changes;
  bool observed = false;  // somebody read it
  bool maybe_refused =
      false;           // it had conditions: its error may be that of the batch it failed for
  bool purge = false;  // of the engine's own making; in no order with the others
};
using FatePtr = std::shared_ptr<BatchFate>;

class Model {
 public:
  explicit Model(unsigned shards) : acknowledged_(shards) {}

  // The cores of this run of the engine; what an earlier run left open stays open until settle().
  void begin_run(unsigned cores);

  FatePtr submitted(unsigned core, unsigned shard, std::vector<std::pair<Key, ValuePtr>> changes,
                    bool purge = false);
  // Returns what is wrong, or nothing.
  std::string succeeded(unsigned core, const FatePtr& fate);
  void refused(unsigned core, const FatePtr& fate);  // certainly not applied
  void unknown(unsigned core, const FatePtr& fate);  // kIo: perhaps

  const State& acknowledged(unsigned shard) const { return acknowledged_[shard]; }
  // What a look-up may show now, oldest first.
  std::vector<ValuePtr> candidates(unsigned core, unsigned shard, const Key& key) const;
  bool busy(unsigned core, unsigned shard, const Key& key) const;
  bool busy_space(unsigned core, unsigned shard, uint64_t space) const;
  // A look-up showed this; what is wrong, or nothing.
  std::string observed(unsigned core, unsigned shard, const Key& key, uint64_t value_id);

  // After recovery: `found` per shard is what is there. Decides what became of the open batches.
  std::string settle(const std::vector<std::map<Key, uint64_t>>& found);
  bool open_batches() const;

 private:
  struct Lane {
    std::vector<FatePtr> waiting;  // in order of submission
    std::vector<FatePtr> lost;     // completed with an unknown fate, in order
  };
  static void apply(State& state, const BatchFate& fate);

  std::vector<State> acknowledged_;
  std::vector<Lane> lanes_;
  std::vector<std::vector<FatePtr>> unsettled_;  // by lane of an earlier run
  uint64_t next_id_ = 1;
};

}  // namespace basalt::sim
