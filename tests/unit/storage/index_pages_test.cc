// The page reader knows every page of what LMDB wrote, and no flipped bit or lost page goes past it
// that changes what the index says. Random bits of a real index are flipped one at a time: either
// damage is reported, or every row is as it was (the bit lay in dead space).
#include "storage/index_pages.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "storage/index_audit.h"
#include "tests/unit/storage/driver.h"

namespace basalt::storage {
namespace {

using test::LocalDriver;

struct Seen {
  uint64_t rows = 0;
  uint64_t hash = 0;
  std::vector<std::string> damage;
};

Seen look(const std::string& path) {
  Seen seen;
  const auto damaged = [&](const PageDamage& one) {
    seen.damage.push_back(one.table + ": " + one.what);
  };
  auto pages = IndexPages::open(path);
  EXPECT_TRUE(pages.has_value());
  if (const auto selected = (*pages)->select(std::nullopt, damaged); !selected) {
    seen.damage.push_back(selected.error().detail);
    return seen;
  }
  const auto visit = [&](std::string_view table) -> IndexPages::Visit {
    return [&seen, name = std::string(table)](Bytes key, Bytes value, uint64_t) {
      ++seen.rows;
      seen.hash = seen.hash * 31 + std::hash<std::string_view>()(as_text(key)) +
                  7 * std::hash<std::string_view>()(as_text(value)) +
                  std::hash<std::string>()(name);
      return true;
    };
  };
  EXPECT_TRUE((*pages)->check(visit, damaged).has_value());
  return seen;
}

std::vector<char> bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class IndexPagesTest : public ::testing::Test {
 protected:
  // Long names (layers), large values (overflow pages), churn (a free list).
  void fill(LocalDriver& driver) {
    std::mt19937_64 random(5);
    std::vector<BlobRef> blobs(400);
    for (BlobRef& blob : blobs) {
      blob.kind = 0;
    }
    for (int round = 0; round < 4; ++round) {
      for (int i = 0; i < 600; ++i) {
        const std::string name =
            "key " + std::to_string(random() % 1500) + std::string(random() % 200, 'x');
        const KeyView key{Table::kCurrent, 1 + random() % 3, name};
        if (random() % 4 == 0) {
          ASSERT_TRUE(driver.erase(0, key).has_value());
        } else {
          const std::string meta(random() % 400, 'm');
          ASSERT_TRUE(
              driver.put(0, key, {.size = 1, .tag = "t", .meta = as_bytes(meta)}, as_bytes("b"))
                  .has_value());
        }
      }
      for (int i = 0; i < 10; ++i) {
        const std::string name = std::string(480 + 30 * i, 'l') + std::to_string(round);
        ASSERT_TRUE(driver.put(0, {Table::kCurrent, 9, name}, {.size = 1}).has_value());
      }
      ASSERT_TRUE(driver
                      .put(0, {Table::kPart, 9, "large" + std::to_string(round % 2)},
                           {.size = 1, .blobs = blobs})
                      .has_value());
      driver.checkpoint();
    }
  }
};

TEST_F(IndexPagesTest, KnowsEveryPageAndMissesNoBit) {
  LocalDriver driver(1);
  fill(driver);
  driver.close(true);
  const std::string path = driver.options().directory + "/shard/00/data.mdb";
  const Seen good = look(path);
  EXPECT_EQ(good.damage, std::vector<std::string>());
  ASSERT_GT(good.rows, 500u);

  test::TemporaryDirectory temporary;
  const std::string copy = temporary.path() + "/data.mdb";
  std::vector<char> bytes = bytes_of(path);
  ASSERT_GT(bytes.size(), 100'000u);
  std::mt19937_64 random(77);
  const auto write = [&](const std::vector<char>& content) {
    std::ofstream(copy, std::ios::binary | std::ios::trunc)
        .write(content.data(), static_cast<std::streamsize>(content.size()));
  };
  int found = 0, harmless = 0;
  for (int i = 0; i < 150; ++i) {
    // A third of them in the meta pages and in page headers, where a bit does most.
    size_t at = random() % bytes.size();
    if (i % 3 == 0) at = at / 4096 * 4096 + random() % 16;
    if (i % 10 == 0) at = random() % 2 * 4096 + random() % 160;
    const char mask = static_cast<char>(1 << random() % 8);
    bytes[at] = static_cast<char>(bytes[at] ^ mask);
    write(bytes);
    bytes[at] = static_cast<char>(bytes[at] ^ mask);
    const Seen seen = look(copy);
    if (!seen.damage.empty()) {
      ++found;
    } else {
      ++harmless;
      // Values carry checksums of their own, and the audit looks at those: here the shape must
      // hold.
      EXPECT_EQ(seen.rows, good.rows) << "bit at " << at;
    }
  }
  EXPECT_GT(found, 5);  // much of the file is free or reserved pages
  EXPECT_GT(harmless, 10);

  for (int i = 0; i < 30; ++i) {
    const size_t page = 2 + random() % (bytes.size() / 4096 - 2);
    std::vector<char> content = bytes;
    const size_t other = 2 + random() % (bytes.size() / 4096 - 2);
    if (i % 2 == 0) {
      std::fill_n(content.begin() + static_cast<long>(page * 4096), 4096, 0);
    } else {
      std::copy_n(bytes.begin() + static_cast<long>(other * 4096), 4096,
                  content.begin() + static_cast<long>(page * 4096));
    }
    write(content);
    const Seen seen = look(copy);
    if (seen.damage.empty()) {
      EXPECT_EQ(seen.rows, good.rows) << "page " << page;
    }
  }
}

// With the checksums of the rows nothing at all goes past.
TEST_F(IndexPagesTest, TheAuditMissesNothing) {
  LocalDriver driver(1);
  fill(driver);
  driver.close(true);
  const std::string path = driver.options().directory + "/shard/00/data.mdb";
  struct Audited {
    size_t findings = 0;
    uint64_t hash = 0;
    uint64_t records = 0;
  };
  const auto audit = [](const std::string& file) {
    Audited result;
    auto pages = IndexPages::open(file);
    if (!pages) return result;
    std::vector<PageDamage> early;
    if (!(*pages)->select(std::nullopt, [&](const PageDamage& one) { early.push_back(one); })) {
      result.findings = 1;
      return result;
    }
    const auto done = audit_index(
        **pages, 0, "data.mdb",
        [&](const KeyView& key, const RecordView&, Bytes value) {
          result.hash = result.hash * 31 + std::hash<std::string_view>()(key.name) +
                        7 * std::hash<std::string_view>()(as_text(value));
        },
        [&](Finding) { ++result.findings; });
    result.findings += early.size();
    EXPECT_TRUE(done.has_value());
    if (done) result.records = done->records;
    return result;
  };
  const Audited good = audit(path);
  EXPECT_EQ(good.findings, 0u);
  EXPECT_GT(good.records, 500u);
  std::vector<char> bytes = bytes_of(path);
  test::TemporaryDirectory temporary;
  const std::string copy = temporary.path() + "/data.mdb";
  std::mt19937_64 random(78);
  int found = 0;
  for (int i = 0; i < 150; ++i) {
    const size_t at = random() % bytes.size();
    const char mask = static_cast<char>(1 << random() % 8);
    bytes[at] = static_cast<char>(bytes[at] ^ mask);
    std::ofstream(copy, std::ios::binary | std::ios::trunc)
        .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    bytes[at] = static_cast<char>(bytes[at] ^ mask);
    const Audited seen = audit(copy);
    if (seen.findings != 0) {
      ++found;
      continue;
    }
    EXPECT_EQ(seen.hash, good.hash) << "bit at " << at;
    EXPECT_EQ(seen.records, good.records);
  }
  EXPECT_GT(found, 5);  // much of the file is free or reserved pages
}

}  // namespace
}  // namespace basalt::storage
