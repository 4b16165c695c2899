// scan_all: one listing page over all shards, merged in byte order.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "shards/client.h"

namespace basalt::shards {

namespace {

struct ShardCursor {
  storage::ScanPage page;
  size_t next = 0;    // entry of `page` that is not merged yet
  std::string after;  // where the next page starts
  bool more = true;   // the shard has names after `page`
  std::unique_ptr<Call<ScanRequest>> refill;

  bool dry() const { return next == page.entries.size(); }
  std::string_view head() const { return page.entries[next].name; }
};

}  // namespace

Task<Result<storage::ScanPage>> scan_all(Client& client, storage::ScanOptions options) {
  const unsigned shard_count = client.shard_count();
  const uint32_t limit = options.limit;
  // A roll-up is present on nearly every shard, so each must be able to name all of them; plain
  // names spread evenly.
  const uint32_t share = options.delimiter.empty()
                             ? std::min(limit, limit / shard_count + limit / (4 * shard_count) + 16)
                             : limit;
  storage::ScanPage merged;
  std::vector<ShardCursor> cursors(shard_count);
  for (ShardCursor& cursor : cursors) cursor.after = std::string(options.after);
  std::vector<ShardCursor*> order;  // those with an entry, by its name
  order.reserve(shard_count);
  const auto by_head = [](const ShardCursor* a, const ShardCursor* b) {
    return a->head() < b->head();
  };
  merged.entries.reserve(limit);

  while (true) {
    // Every shard that ran dry is asked at once, then each answer is awaited, also after an error:
    // a frame must not die while its calls are in flight.
    for (unsigned shard = 0; shard < shard_count; ++shard) {
      ShardCursor& cursor = cursors[shard];
      if (!cursor.dry() || !cursor.more) continue;
      storage::ScanOptions ask = options;
      ask.after = cursor.after;
      ask.limit = share;
      cursor.refill = std::make_unique<Call<ScanRequest>>(
          [&](ScanRequest& request) { client.start(shard, request); }, ask);
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
      for (auto& memory : cursor.page.memory) merged.memory.push_back(std::move(memory));
      cursor.page = std::move(*answer);
      cursor.next = 0;
      cursor.more = cursor.page.more && !cursor.page.entries.empty();
      if (!cursor.page.entries.empty()) cursor.after = std::string(cursor.page.entries.back().name);
    }
    if (failed) co_return std::unexpected(std::move(error));

    order.clear();
    for (ShardCursor& cursor : cursors) {
      if (!cursor.dry()) order.push_back(&cursor);
    }
    std::sort(order.begin(), order.end(), by_head);
    bool refill = false;
    while (!refill) {
      if (order.empty()) {
        merged.more = false;
        for (ShardCursor& cursor : cursors) {
          for (auto& memory : cursor.page.memory) merged.memory.push_back(std::move(memory));
        }
        co_return merged;
      }
      ShardCursor* smallest = order.front();
      const auto& entry = smallest->page.entries[smallest->next];
      const bool folded = entry.common_prefix && !merged.entries.empty() &&
                          merged.entries.back().common_prefix &&
                          merged.entries.back().name == entry.name;
      if (!folded) {
        if (merged.entries.size() == limit) {
          merged.more = true;
          for (ShardCursor& cursor : cursors) {
            for (auto& memory : cursor.page.memory) merged.memory.push_back(std::move(memory));
          }
          co_return merged;
        }
        merged.entries.push_back(entry);
      }
      ++smallest->next;
      if (smallest->dry()) {
        order.erase(order.begin());
        refill = smallest->more;
        continue;
      }
      // To its new place among the others: log2 comparisons, and the pointers are a few words.
      const auto place = std::upper_bound(order.begin() + 1, order.end(), smallest, by_head);
      std::rotate(order.begin(), order.begin() + 1, place);
    }
  }
}

}  // namespace basalt::shards
