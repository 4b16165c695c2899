#include "tests/sim/model.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "base/check.h"

namespace basalt::sim {
namespace {

uint64_t word(uint64_t seed, uint64_t index) {
  uint64_t value = seed * 0x9e3779b97f4a7c15u + index * 0xd1342543de82ef95u;
  value = (value ^ (value >> 32)) * 0xbf58476d1ce4e5b9u;
  return value ^ (value >> 29);
}

std::string text_of(const Key& key) {
  return fmt::format("table {} space {} name of {} bytes '{}'", static_cast<int>(key.table),
                     key.space, key.name.size(), key.name.substr(0, 40));
}

}  // namespace

std::string pattern(const Piece& piece) {
  std::string text((piece.length + 7) / 8 * 8, '\0');
  for (uint64_t i = 0; i < text.size() / 8; ++i) {
    const uint64_t value = word(piece.seed, i);
    std::memcpy(text.data() + i * 8, &value, 8);
  }
  text.resize(piece.length);
  return text;
}

bool matches(const Piece& piece, uint64_t offset, Bytes bytes) {
  if (offset + bytes.size() > piece.length) return false;
  for (size_t done = 0; done < bytes.size();) {
    const uint64_t at = offset + done;
    const uint64_t value = word(piece.seed, at / 8);
    uint8_t expected[8];
    std::memcpy(expected, &value, 8);
    const size_t length = std::min<size_t>(8 - at % 8, bytes.size() - done);
    if (std::memcmp(bytes.data() + done, expected + at % 8, length) != 0) return false;
    done += length;
  }
  return true;
}

void Model::apply(State& state, const BatchFate& fate) {
  for (const auto& [key, value] : fate.changes) {
    if (value == nullptr) {
      state.erase(key);
    } else {
      state[key] = value;
    }
  }
}

void Model::begin_run(unsigned cores) {
  for (Lane& lane : lanes_) {
    auto open = std::move(lane.lost);
    open.insert(open.end(), lane.waiting.begin(), lane.waiting.end());
    std::ranges::sort(open, {}, [](const FatePtr& fate) { return fate->id; });
    if (!open.empty()) unsettled_.push_back(std::move(open));
  }
  lanes_.assign(cores, {});
}

bool Model::open_batches() const { return !unsettled_.empty(); }

FatePtr Model::submitted(unsigned core, unsigned shard,
                         std::vector<std::pair<Key, ValuePtr>> changes, bool purge) {
  auto fate = std::make_shared<BatchFate>();
  fate->id = next_id_++;
  fate->shard = shard;
  fate->changes = std::move(changes);
  fate->purge = purge;
  lanes_[core].waiting.push_back(fate);
  return fate;
}

std::string Model::succeeded(unsigned core, const FatePtr& fate) {
  Lane& lane = lanes_[core];
  for (const FatePtr& other : lane.waiting) {
    if (other == fate) break;
    if (!other->purge && !fate->purge) {
      return fmt::format("batch {} was acknowledged before batch {} of the same lane", fate->id,
                         other->id);
    }
  }
  if (!fate->purge &&
      std::ranges::any_of(lane.lost, [](const FatePtr& lost) { return !lost->purge; })) {
    return fmt::format("batch {} was acknowledged after a failed write", fate->id);
  }
  std::erase(lane.waiting, fate);
  apply(acknowledged_[fate->shard], *fate);
  return {};
}

void Model::refused(unsigned core, const FatePtr& fate) { std::erase(lanes_[core].waiting, fate); }

void Model::unknown(unsigned core, const FatePtr& fate) {
  std::erase(lanes_[core].waiting, fate);
  lanes_[core].lost.push_back(fate);
}

std::vector<ValuePtr> Model::candidates(unsigned core, unsigned shard, const Key& key) const {
  const auto found = acknowledged_[shard].find(key);
  std::vector<ValuePtr> list{found == acknowledged_[shard].end() ? nullptr : found->second};
  for (const FatePtr& fate : lanes_[core].waiting) {
    if (fate->shard != shard) continue;
    for (const auto& [changed, value] : fate->changes) {
      if (changed != key) continue;
      if (fate->observed) list.clear();
      list.push_back(value);
    }
  }
  return list;
}

bool Model::busy(unsigned core, unsigned shard, const Key& key) const {
  return candidates(core, shard, key).size() > 1;
}

bool Model::busy_space(unsigned core, unsigned shard, uint64_t space) const {
  for (const FatePtr& fate : lanes_[core].waiting) {
    if (fate->shard != shard) continue;
    for (const auto& [key, value] : fate->changes) {
      if (key.space == space) return true;
    }
  }
  return false;
}

std::string Model::observed(unsigned core, unsigned shard, const Key& key, uint64_t value_id) {
  const auto list = candidates(core, shard, key);
  const auto legal = std::ranges::any_of(
      list, [&](const ValuePtr& value) { return value_id == (value == nullptr ? 0 : value->id); });
  if (!legal) {
    return fmt::format("shard {}, {}: found value {}, expected {}{}", shard, text_of(key), value_id,
                       list.front() == nullptr ? 0 : list.front()->id,
                       list.size() > 1 ? " or a later one under way" : "");
  }
  const ValuePtr& oldest = list.front();
  if (value_id == 0 || (oldest != nullptr && oldest->id == value_id)) return {};
  for (const FatePtr& fate : lanes_[core].waiting) {
    if (fate->shard != shard) continue;
    for (const auto& [changed, value] : fate->changes) {
      if (changed == key && value != nullptr && value->id == value_id) fate->observed = true;
    }
  }
  return {};
}

std::string Model::settle(const std::vector<std::map<Key, uint64_t>>& found) {
  const auto found_id = [&](unsigned shard, const Key& key) -> uint64_t {
    const auto at = found[shard].find(key);
    return at == found[shard].end() ? 0 : at->second;
  };
  const auto id_in = [](const State& state, const Key& key) -> uint64_t {
    const auto at = state.find(key);
    return at == state.end() ? 0 : at->second->id;
  };
  for (const auto& batches : unsettled_) {
    // The longest prefix that agrees with what is there, on every key that the batches touch. A
    // batch that may have been refused took place if its changes are there, where no later batch
    // changed the same key again.
    std::optional<std::vector<bool>> fits;
    for (size_t length = batches.size() + 1; length-- > 0 && !fits;) {
      std::vector<bool> taken(batches.size());
      std::set<std::pair<unsigned, Key>> covered;
      for (size_t i = std::min(length, batches.size()); i-- > 0;) {
        const BatchFate& fate = *batches[i];
        taken[i] =
            !fate.maybe_refused || std::ranges::all_of(fate.changes, [&](const auto& change) {
              return covered.contains({fate.shard, change.first}) ||
                     found_id(fate.shard, change.first) ==
                         (change.second == nullptr ? 0 : change.second->id);
            });
        if (!taken[i]) continue;
        for (const auto& [key, value] : fate.changes) covered.insert({fate.shard, key});
      }
      std::vector<State> states = acknowledged_;
      bool legal = true;
      for (size_t i = 0; i < batches.size(); ++i) {
        if (taken[i]) {
          apply(states[batches[i]->shard], *batches[i]);
        } else if (batches[i]->observed) {
          legal = false;
        }
      }
      for (const FatePtr& fate : batches) {
        for (const auto& [key, value] : fate->changes) {
          legal = legal && id_in(states[fate->shard], key) == found_id(fate->shard, key);
        }
      }
      if (legal) fits = std::move(taken);
    }
    if (!fits) {
      std::string text = "after recovery no prefix of the unacknowledged batches fits:";
      for (const FatePtr& fate : batches) {
        text += fmt::format("\n  batch {}{}:", fate->id, fate->observed ? " (was read)" : "");
        for (const auto& [key, value] : fate->changes) {
          text += fmt::format(" [shard {}, {}: wrote {}, found {}, before {}]", fate->shard,
                              text_of(key), value == nullptr ? 0 : value->id,
                              found_id(fate->shard, key), id_in(acknowledged_[fate->shard], key));
        }
      }
      return text;
    }
    for (size_t i = 0; i < batches.size(); ++i) {
      if ((*fits)[i]) apply(acknowledged_[batches[i]->shard], *batches[i]);
    }
  }
  unsettled_.clear();
  for (unsigned shard = 0; shard < acknowledged_.size(); ++shard) {
    for (const auto& [key, value] : acknowledged_[shard]) {
      if (found_id(shard, key) != value->id) {
        return fmt::format("after recovery shard {}, {}: acknowledged value {}, found {}", shard,
                           text_of(key), value->id, found_id(shard, key));
      }
    }
    for (const auto& [key, id] : found[shard]) {
      if (!acknowledged_[shard].contains(key)) {
        return fmt::format("after recovery shard {}, {}: found value {} where nothing should be",
                           shard, text_of(key), id);
      }
    }
  }
  return {};
}

}  // namespace basalt::sim
