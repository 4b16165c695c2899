// lmdb-scan, lmdb-seek: what LMDB alone takes for what a listing needs, on the index files of a
// running server (read only; LMDB lets several processes read). Nothing is decoded, copied or
// merged.
#include <fmt/format.h>
#include <lmdb.h>

#include <cstring>
#include <filesystem>
#include <memory>
#include <random>
#include <string_view>

#include "bench/yardstick/common.h"

namespace basalt::bench::yardstick {
namespace {

constexpr const char* kTable = "cur";  // docs/on-disk-format.md, "Index"
constexpr size_t kLayerBytes = 8;      // in front of a name in a key

struct Environment {
  MDB_env* env = nullptr;
  MDB_txn* txn = nullptr;
  MDB_dbi dbi = 0;
  MDB_cursor* cursor = nullptr;

  int open(const std::string& directory) {
    int code = mdb_env_create(&env);
    if (code == 0) code = mdb_env_set_mapsize(env, size_t{1} << 40);
    if (code == 0) code = mdb_env_set_maxdbs(env, 16);
    if (code == 0) code = mdb_env_open(env, directory.c_str(), MDB_RDONLY, 0600);
    if (code == 0) code = mdb_txn_begin(env, nullptr, MDB_RDONLY, &txn);
    if (code == 0) code = mdb_dbi_open(txn, kTable, 0, &dbi);
    if (code == 0) code = mdb_cursor_open(txn, dbi, &cursor);
    return code;
  }
  // A new snapshot, as a request takes one.
  void renew() {
    mdb_txn_reset(txn);
    mdb_txn_renew(txn);
    mdb_cursor_renew(txn, cursor);
  }
  ~Environment() {
    if (cursor != nullptr) mdb_cursor_close(cursor);
    if (txn != nullptr) mdb_txn_abort(txn);
    if (env != nullptr) mdb_env_close(env);
  }
};

std::string_view view(const MDB_val& value) {
  return {static_cast<const char*>(value.mv_data), value.mv_size};
}
MDB_val value_of(std::string& text) { return {text.size(), text.data()}; }

std::vector<std::unique_ptr<Environment>> open_shards(const Options& options) {
  std::vector<std::unique_ptr<Environment>> all;
  for (const auto& entry : std::filesystem::directory_iterator(options.directory + "/shard")) {
    all.push_back(std::make_unique<Environment>());
    if (const int code = all.back()->open(entry.path().string()); code != 0) {
      fmt::print(stderr, "{}: {}\n", entry.path().string(), mdb_strerror(code));
      return {};
    }
  }
  return all;
}

// The space (the first 8 bytes of a key) with the wanted prefix; "" if there is none.
std::string layer_with(Environment& shard, std::string_view prefix) {
  MDB_val key{}, value{};
  std::string at;
  int code = mdb_cursor_get(shard.cursor, &key, &value, MDB_FIRST);
  while (code == 0) {
    const std::string layer(view(key).substr(0, kLayerBytes));
    at = layer + std::string(prefix);
    key = value_of(at);
    code = mdb_cursor_get(shard.cursor, &key, &value, MDB_SET_RANGE);
    if (code == 0 && view(key).starts_with(at)) return layer;
    // The next space.
    at = layer + std::string(503, '\xff');
    key = value_of(at);
    code = mdb_cursor_get(shard.cursor, &key, &value, MDB_SET_RANGE);
  }
  return {};
}

}  // namespace

int lmdb_scan(const Options& options) {
  auto shards = open_shards(options);
  if (shards.empty()) return 1;
  Environment& shard = *shards.front();
  const std::string layer = layer_with(shard, options.prefix);
  if (layer.empty()) {
    fmt::print(stderr, "no key with the prefix '{}'\n", options.prefix);
    return 1;
  }
  std::mt19937_64 random(1);
  std::vector<uint64_t> took;
  uint64_t sum = 0, seen = 0;
  const uint64_t end = wall_ns() + static_cast<uint64_t>(options.seconds * 1e9);
  while (wall_ns() < end) {
    // A page starts anywhere; where the names end it goes on from their start.
    std::string at = fmt::format("{}{}{:016x}", layer, options.prefix, random());
    const uint64_t begin = thread_cpu_ns();
    shard.renew();
    MDB_val key = value_of(at), value{};
    int code = mdb_cursor_get(shard.cursor, &key, &value, MDB_SET_RANGE);
    for (uint64_t i = 0; i < options.records; ++i) {
      if (code != 0 || !view(key).starts_with(layer)) {
        at = layer + options.prefix;
        key = value_of(at);
        code = mdb_cursor_get(shard.cursor, &key, &value, MDB_SET_RANGE);
      }
      // The bytes of both are looked at, or the pages of the values would never be touched.
      sum += static_cast<unsigned char>(view(key).back()) +
             static_cast<unsigned char>(view(value).back());
      ++seen;
      code = mdb_cursor_get(shard.cursor, &key, &value, MDB_NEXT);
    }
    took.push_back(thread_cpu_ns() - begin);
  }
  fmt::print("{{\"scans\": {}, \"records\": {}, \"cpu_us\": {:.2f}, \"check\": {}}}\n", took.size(),
             seen, quantile_us(took, 0.5), sum);
  return 0;
}

int lmdb_seek(const Options& options) {
  auto shards = open_shards(options);
  if (shards.empty()) return 1;
  std::vector<std::string> layers;
  for (auto& shard : shards) layers.push_back(layer_with(*shard, options.prefix));
  std::vector<uint64_t> took;
  uint64_t seeks = 0;
  const uint64_t end = wall_ns() + static_cast<uint64_t>(options.seconds * 1e9);
  do {
    const uint64_t begin = thread_cpu_ns();
    seeks = 0;
    for (size_t i = 0; i < shards.size(); ++i) {
      if (layers[i].empty()) continue;
      Environment& shard = *shards[i];
      shard.renew();
      const std::string start = layers[i] + options.prefix;
      std::string at = start;
      for (uint64_t folder = 0; folder < options.records; ++folder) {
        MDB_val key = value_of(at), value{};
        ++seeks;
        if (mdb_cursor_get(shard.cursor, &key, &value, MDB_SET_RANGE) != 0 ||
            !view(key).starts_with(start))
          break;
        const size_t slash = view(key).find('/', start.size());
        if (slash == std::string_view::npos) break;
        at.assign(view(key).substr(0, slash)).push_back('/' + 1);
      }
    }
    took.push_back(thread_cpu_ns() - begin);
  } while (wall_ns() < end);
  fmt::print("{{\"rounds\": {}, \"seeks\": {}, \"cpu_us\": {:.2f}}}\n", took.size(), seeks,
             quantile_us(took, 0.5));
  return 0;
}

}  // namespace basalt::bench::yardstick
