// Damaged LMDB files: the checked walks (storage/index_tree, storage/index_pages) neither leave the
// file nor go round in it, what they show is in order, and where nothing is damaged all is found.
// The input is a script of changes to the pages of a real file: bytes, whole pages, zeros.
#include <fcntl.h>
#include <lmdb.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "storage/index_pages.h"
#include "storage/index_tree.h"

using namespace basalt;
using namespace basalt::storage;

namespace {

constexpr size_t kPage = 4096;

void must(bool good) {
  if (!good) __builtin_trap();
}

std::string key_of(unsigned i) {
  return std::to_string(i * 7919 % 1009) + std::string(i % 4 == 0 ? 440 : i % 23, 'k');
}

// A file with free pages, large values, a table of integers, three levels, and its rows.
struct Sound {
  std::vector<uint8_t> bytes;
  std::map<std::string, std::string> rows;
  int fd = -1;
  std::string path;

  Sound() {
    const auto folder =
        std::filesystem::temp_directory_path() / ("index-tree-fuzz-" + std::to_string(getpid()));
    std::filesystem::create_directories(folder);
    MDB_env* environment = nullptr;
    must(mdb_env_create(&environment) == 0);
    mdb_env_set_maxdbs(environment, 4);
    mdb_env_set_mapsize(environment, 64 << 20);
    must(mdb_env_open(environment, folder.c_str(), MDB_NOSYNC, 0600) == 0);
    for (unsigned round = 0; round < 4; ++round) {
      MDB_txn* txn = nullptr;
      MDB_dbi names = 0, numbers = 0;
      must(mdb_txn_begin(environment, nullptr, 0, &txn) == 0);
      must(mdb_dbi_open(txn, "names", MDB_CREATE, &names) == 0);
      must(mdb_dbi_open(txn, "numbers", MDB_CREATE | MDB_INTEGERKEY, &numbers) == 0);
      for (unsigned i = round; i < 700; i += 2) {
        const std::string text = key_of(i);
        MDB_val key{text.size(), const_cast<char*>(text.data())};
        if (round == 3 && i % 3 == 0) {
          must(mdb_del(txn, names, &key, nullptr) == 0 || !rows.contains(text));
          rows.erase(text);
          continue;
        }
        const std::string content(i % 60 == 0 ? 9000 : 20 + i % 200,
                                  static_cast<char>('a' + round));
        MDB_val value{content.size(), const_cast<char*>(content.data())};
        must(mdb_put(txn, names, &key, &value, 0) == 0);
        rows[text] = content;
        uint64_t number = i;
        MDB_val small{sizeof number, &number};
        must(mdb_put(txn, numbers, &small, &small, 0) == 0);
      }
      MDB_stat stat{};
      must(mdb_stat(txn, names, &stat) == 0 && (round < 3 || stat.ms_depth >= 3));
      must(mdb_txn_commit(txn) == 0);
    }
    mdb_env_close(environment);
    FILE* file = std::fopen((folder / "data.mdb").c_str(), "rb");
    must(file != nullptr);
    bytes.resize(std::filesystem::file_size(folder / "data.mdb"));
    must(std::fread(bytes.data(), 1, bytes.size(), file) == bytes.size());
    std::fclose(file);
    std::filesystem::remove_all(folder);
    fd = memfd_create("index-tree-fuzz", MFD_CLOEXEC);
    must(fd >= 0 && ftruncate(fd, static_cast<off_t>(bytes.size())) == 0);
    write(bytes);
    path = "/proc/self/fd/" + std::to_string(fd);
  }
  void write(const std::vector<uint8_t>& content) const {
    must(pwrite(fd, content.data(), content.size(), 0) == static_cast<ssize_t>(content.size()));
  }
  void write_page(const std::vector<uint8_t>& content, size_t page) const {
    const auto at = static_cast<off_t>(page * kPage);
    must(pwrite(fd, &content[page * kPage], kPage, at) == static_cast<ssize_t>(kPage));
  }
};

const Sound& sound() {
  static const Sound one;
  return one;
}

// All rows from the front; false: it met damage.
bool walk(const TreeState& state, const TreeHead& head, std::map<std::string, std::string>* rows) {
  TreeCursor cursor;
  cursor.reset(state, head);
  std::string last;
  size_t count = 0;
  TreeCursor::Step step = cursor.first();
  for (; step == TreeCursor::Step::kYes; step = cursor.next()) {
    const std::string key(as_text(cursor.key()));
    const bool integers = (head.flags & lmdb::kIntegerKey) != 0;
    if (count++ > 0) must(lmdb::compare(as_bytes(last), as_bytes(key), integers) < 0);
    must(count <= (state.last_page + 1) * (kPage / 2));
    last = key;
    std::string value(as_text(cursor.value()));  // reads all of it
    if (rows != nullptr) (*rows)[key] = std::move(value);
    if (count % 16 == 0) {
      TreeCursor::Row row;
      (void)cursor.before(row);
      (void)cursor.at(row);
      (void)cursor.visit_beside();
    }
  }
  return step == TreeCursor::Step::kNo;
}

void check(const Sound& base, bool untouched) {
  uint64_t findings = 0;
  const auto damaged = [&](const PageDamage&) { ++findings; };
  std::map<std::string, std::string> seen;
  if (auto file = IndexPages::open(base.path); !file || !(*file)->select(std::nullopt, damaged)) {
    ++findings;
  } else {
    const auto visit = [&](std::string_view table) -> IndexPages::Visit {
      return [&, names = table == "names"](Bytes key, Bytes value, uint64_t) {
        if (names) seen[std::string(as_text(key))] = as_text(value);
        return true;
      };
    };
    if (!(*file)->check(visit, damaged)) ++findings;
  }

  auto map = IndexMap::open(base.path);
  must(map.has_value());
  (void)(*map)->check_heads();
  const auto state = (*map)->state(std::nullopt);
  if (!state) {
    must(findings > 0);
    return;
  }
  bool good = walk(*state, state->free, nullptr);
  for (const std::string_view name : {"names", "numbers", "absent"}) {
    TreeHead head;
    TreeCursor cursor;
    const auto found = find_table(*state, name, head, cursor);
    if (found != TreeCursor::Step::kYes) {
      good &= found == TreeCursor::Step::kNo;
      if (name != "absent") must(findings > 0);
      continue;
    }
    std::map<std::string, std::string> rows;
    const bool names = name == "names";
    const bool whole = walk(*state, head, names ? &rows : nullptr);
    good &= whole;
    if (names && whole && findings == 0) must(rows == seen);
    for (unsigned i = 0; i < 40; ++i) {
      const std::string key = key_of(i * 19);
      if (!names) continue;
      cursor.reset(*state, head);
      const auto step = cursor.find(as_bytes(key));
      if (step == TreeCursor::Step::kDamaged) {
        must(findings > 0);
      } else if (findings == 0) {
        must((step == TreeCursor::Step::kYes) == seen.contains(key));
      }
      (void)cursor.visit_beside();
    }
  }
  if (!good) must(findings > 0);
  if (untouched) must(good && findings == 0 && seen == base.rows);

  TreeGuard guard;
  if (guard.begin(*state, {"names", "numbers"}) && guard.has_all_tables()) {
    for (unsigned i = 0; i < 20; ++i) {
      const std::string key = key_of(i * 37);
      (void)guard.cover(0, as_bytes(key), i % 2 == 0);
    }
    (void)guard.cover_all(1);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const Sound& base = sound();
  std::vector<uint8_t> bytes = base.bytes;
  const size_t pages = bytes.size() / kPage;
  size_t at = 0;
  std::vector<size_t> touched;
  const auto byte = [&]() -> size_t { return at < size ? data[at++] : 0; };
  while (at < size) {
    const size_t page = byte() % pages;
    touched.push_back(page);
    switch (byte() % 5) {
      case 0:  // a header or a pointer
        bytes[page * kPage + byte() % 80] = static_cast<uint8_t>(byte());
        break;
      case 1:
        bytes[page * kPage + (byte() << 8 | byte()) % kPage] ^= static_cast<uint8_t>(byte());
        break;
      case 2:
        std::memcpy(&bytes[page * kPage], &base.bytes[(byte() << 8 | byte()) % pages * kPage],
                    kPage);
        break;
      case 3:
        std::memset(&bytes[page * kPage], 0, kPage);
        break;
      default: {  // two bytes, as offsets and sizes are
        const size_t place = page * kPage + (byte() << 8 | byte()) % (kPage - 1);
        bytes[place] = static_cast<uint8_t>(byte());
        bytes[place + 1] = static_cast<uint8_t>(byte());
      }
    }
  }
  for (const size_t page : touched) base.write_page(bytes, page);
  check(base, bytes == base.bytes);
  for (const size_t page : touched) base.write_page(base.bytes, page);
  return 0;
}
