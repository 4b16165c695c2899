// scan_all: one listing page over all shards, merged in byte order.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <optional>
#include <string_view>
#include <vector>

#include "shards/client.h"

namespace basalt::shards {

namespace {

struct ShardCursor {
  storage::ScanPage page;
  size_t next = 0;         // entry of `page` that is not merged yet
  std::string_view after;  // where the next page starts: the caller's, or in memory of the merge
  bool more = true;        // the shard has names after `page`
  std::optional<Call<ScanRequest>> refill;

  bool dry() const { return next == page.entries.size(); }
  std::string_view head() const { return page.entries[next].name; }
};

// A shard with an entry, by its name. The eight bytes behind the prefix, which all names have,
// decide nearly every comparison.
struct Head {
  uint64_t key;
  ShardCursor* cursor;

  Head(ShardCursor& of, size_t prefix_bytes) : key(0), cursor(&of) {
    const std::string_view rest = of.head().substr(std::min(prefix_bytes, of.head().size()));
    std::memcpy(&key, rest.data(), std::min(rest.size(), sizeof key));
    if constexpr (std::endian::native == std::endian::little) key = std::byteswap(key);
  }
  friend bool operator<(const Head& a, const Head& b) {
    return a.key != b.key ? a.key < b.key : a.cursor->head() < b.cursor->head();
  }
};

// What to ask of each shard when `limit` entries are wanted of all: names are spread by a hash, so
// a shard has limit / shards of them, give or take its square root. Two of those are added: a
// shard in fifty is asked again, and a page reads a quarter more than it shows.
uint32_t share_of(uint32_t limit, unsigned shard_count) {
  const double mean = static_cast<double>(limit) / shard_count;
  return std::min(limit, static_cast<uint32_t>(mean + 2 * std::sqrt(mean)) + 1);
}

}  // namespace

Task<Result<storage::ScanPage>> scan_all(Client& client, storage::ScanOptions options) {
  const unsigned shard_count = client.shard_count();
  const uint32_t limit = options.limit;
  storage::ScanPage merged;
  std::vector<ShardCursor> cursors(shard_count);
  for (ShardCursor& cursor : cursors) cursor.after = options.after;
  std::vector<Head> order;  // ascending
  order.reserve(shard_count);
  merged.entries.reserve(limit);
  const auto keep_memory = [&merged](ShardCursor& cursor) {
    for (auto& memory : cursor.page.memory) merged.memory.push_back(std::move(memory));
    cursor.page.memory.clear();
  };

  while (true) {
    // A roll-up is present on nearly every shard, so each must be able to name all of them.
    const auto left = static_cast<uint32_t>(limit - merged.entries.size());
    const uint32_t share =
        options.delimiter.empty() ? share_of(std::max(left, 1u), shard_count) : std::max(left, 1u);
    // Every shard that ran dry is asked at once, then each answer is awaited, also after an error:
    // a frame must not die while its calls are in flight.
    for (unsigned shard = 0; shard < shard_count; ++shard) {
      ShardCursor& cursor = cursors[shard];
      if (!cursor.dry() || !cursor.more) continue;
      storage::ScanOptions ask = options;
      ask.after = cursor.after;
      ask.limit = share;
      cursor.refill.emplace([&](ScanRequest& request) { client.start(shard, request); }, ask);
    }
    Error error{Code::kIo, {}};
    bool failed = false;
    for (ShardCursor& cursor : cursors) {
      if (!cursor.refill) continue;
      auto answer = co_await *cursor.refill;
      cursor.refill.reset();
      if (!answer) {
        error = std::move(answer).error();
        failed = true;
        continue;
      }
      keep_memory(cursor);
      cursor.page = std::move(*answer);
      cursor.next = 0;
      cursor.more = cursor.page.more && !cursor.page.entries.empty();
      if (!cursor.page.entries.empty()) cursor.after = cursor.page.entries.back().name;
    }
    if (failed) co_return std::unexpected(std::move(error));

    order.clear();
    for (ShardCursor& cursor : cursors) {
      if (!cursor.dry()) order.emplace_back(cursor, options.prefix.size());
    }
    std::sort(order.begin(), order.end());
    bool refill = false;
    while (!refill) {
      if (order.empty()) {
        merged.more = false;
        for (ShardCursor& cursor : cursors) keep_memory(cursor);
        co_return merged;
      }
      ShardCursor& smallest = *order.front().cursor;
      const auto& entry = smallest.page.entries[smallest.next];
      const bool folded = entry.common_prefix && !merged.entries.empty() &&
                          merged.entries.back().common_prefix &&
                          merged.entries.back().name == entry.name;
      if (!folded) {
        if (merged.entries.size() == limit) {
          merged.more = true;
          for (ShardCursor& cursor : cursors) keep_memory(cursor);
          co_return merged;
        }
        merged.entries.push_back(entry);
      }
      ++smallest.next;
      if (smallest.dry()) {
        order.erase(order.begin());
        refill = smallest.more;
        continue;
      }
      constexpr size_t kAhead = 3;
      if (smallest.next + kAhead < smallest.page.entries.size())
        __builtin_prefetch(smallest.page.entries[smallest.next + kAhead].name.data());
      // To its new place among the others.
      const Head head(smallest, options.prefix.size());
      const auto place = std::upper_bound(order.begin() + 1, order.end(), head);
      std::copy(order.begin() + 1, place, order.begin());
      *(place - 1) = head;
    }
  }
}

}  // namespace basalt::shards
