// scan_all: one listing page over all shards, merged in byte order.
#include <algorithm>
#include <cmath>
#include <optional>
#include <string_view>
#include <vector>

#include "base/name_merge.h"
#include "shards/client.h"

namespace basalt::shards {

namespace {

struct CoreCursor {
  storage::ScanPage page;
  size_t next = 0;         // entry of `page` that is not merged yet
  std::string_view after;  // where the next page starts: the caller's, or in memory of the merge
  bool more = true;        // the core has names after `page`
  std::optional<Call<ScanRequest>> refill;

  bool dry() const { return next == page.entries.size(); }
  std::string_view name() const { return page.entries[next].name; }
};

// What to ask of a core when `limit` entries are wanted of all: names are spread over the shards by
// a hash, so a core has its shards' part of them, give or take the square root. Two of those are
// added: a core in fifty is asked again.
uint32_t share_of(uint32_t limit, const Client& client, unsigned core) {
  const unsigned cores = client.core_count(), all = client.shard_count();
  const unsigned own = all / cores + (core < all % cores ? 1 : 0);
  const double mean = static_cast<double>(limit) * own / all;
  return std::min(limit, static_cast<uint32_t>(mean + 2 * std::sqrt(mean)) + 1);
}

}  // namespace

Task<Result<storage::ScanPage>> scan_all(Client& client, storage::ScanOptions options) {
  const uint32_t limit = options.limit;
  storage::ScanPage merged;
  std::vector<CoreCursor> cursors(std::min(client.core_count(), client.shard_count()));
  for (CoreCursor& cursor : cursors) cursor.after = options.after;
  NameMerge<CoreCursor> order(cursors.size(), options.prefix.size());
  const auto keep_memory = [&merged](CoreCursor& cursor) {
    for (auto& memory : cursor.page.memory) merged.memory.push_back(std::move(memory));
    cursor.page.memory.clear();
  };

  while (true) {
    // Every core that ran dry is asked at once, then each answer is awaited, also after an error: a
    // frame must not die while its calls are in flight.
    const auto left = std::max(limit - static_cast<uint32_t>(merged.entries.size()), 1u);
    for (unsigned core = 0; core < cursors.size(); ++core) {
      CoreCursor& cursor = cursors[core];
      if (!cursor.dry() || !cursor.more) continue;
      storage::ScanOptions ask = options;
      ask.after = cursor.after;
      // A roll-up is present on nearly every shard, so each core must be able to name all of them.
      ask.limit = options.delimiter.empty() ? share_of(left, client, core) : left;
      cursor.refill.emplace([&](ScanRequest& request) { client.start_on_core(core, request); },
                            ask);
    }
    Error error{Code::kIo, {}};
    bool failed = false;
    for (CoreCursor& cursor : cursors) {
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
    // One core has merged its shards itself.
    if (cursors.size() == 1 && merged.entries.empty()) {
      storage::ScanPage& page = cursors.front().page;
      if (!page.more || page.entries.size() == limit) co_return std::move(page);
    }
    merged.entries.reserve(limit);

    order.clear();
    for (CoreCursor& cursor : cursors) {
      if (!cursor.dry()) order.add(cursor);
    }
    bool refill = false;
    while (!refill) {
      if (!order.empty()) {
        const CoreCursor& first = order.first();
        const storage::ScanPage::Entry& entry = first.page.entries[first.next];
        const bool folded = entry.common_prefix && !merged.entries.empty() &&
                            merged.entries.back().common_prefix &&
                            merged.entries.back().name == entry.name;
        merged.more = !folded && merged.entries.size() == limit;
        if (!folded && !merged.more) merged.entries.push_back(entry);
      }
      if (order.empty() || merged.more) {
        for (CoreCursor& cursor : cursors) keep_memory(cursor);
        co_return merged;
      }
      CoreCursor& first = order.first();
      ++first.next;
      if (!first.dry()) {
        order.moved();
        continue;
      }
      order.drop();
      refill = first.more;
    }
  }
}

}  // namespace basalt::shards
