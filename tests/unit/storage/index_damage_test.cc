// A damaged index answers right or with an error, and the process lives. Copies of a real index are
// damaged, a page at a time (bits flipped, zeroed, replaced by another page), before it is opened
// or while it is in use; then every key and many absent ones are asked for, all is listed, and a
// checkpoint puts and erases. Whatever went wrong the audit must name, too.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <random>

#include "storage/checkpointer.h"
#include "storage/generated/record_generated.h"
#include "storage/index_audit.h"
#include "storage/mutation_builder.h"
#include "tests/unit/storage/fakes.h"

namespace basalt::storage {
namespace {

using test::TemporaryDirectory;
using Model = std::map<std::pair<uint64_t, std::string>, std::string>;  // meta by space, name

ValueBuffer encode(const KeyView& key, std::string_view meta,
                   const std::vector<BlobRef>& blobs = {}) {
  MutationBuilder builder;
  builder.put(key, {.size = 1, .meta = as_bytes(meta), .blobs = blobs});
  RecordEncoder encoder;
  const auto batch = verify_batch(builder.finish(), 0);
  return encoder.encode(key, 1, *(*batch)->mutations()->Get(0)->record(), {}, {});
}

class IndexDamage : public ::testing::Test {
 protected:
  static constexpr uint64_t kSpaces = 3;

  std::string name_of(uint64_t number) {
    std::string name = "name" + std::to_string(number * 7919 % 10007);
    if (number % 50 == 0) name.insert(0, 485, 'l');  // below a layer
    return name;
  }

  void change(Overlay& overlay, Model& model, std::mt19937_64& random, int changes) {
    const std::vector<BlobRef> many(300);  // a value of several pages
    for (int i = 0; i < changes; ++i) {
      const uint64_t space = 1 + random() % kSpaces;
      const std::string name = name_of(random() % 1200);
      const KeyView key{Table::kCurrent, space, name};
      if (random() % 3 == 0) {
        overlay.put(key, {});
        model.erase({space, name});
      } else {
        const std::string meta = std::to_string(random()) + std::string(random() % 300, 'm');
        overlay.put(key, encode(key, meta, random() % 40 == 0 ? many : std::vector<BlobRef>()));
        model[{space, name}] = meta;
      }
    }
  }

  void SetUp() override {
    auto index = Index::open({.directory = home_ + "/00", .shard = 0, .map_bytes = 1 << 28});
    ASSERT_TRUE(index.has_value());
    std::mt19937_64 random(11);
    SpaceTotals totals;
    for (uint64_t round = 0; round < 6; ++round) {
      Overlay overlay;
      change(overlay, model_, random, 700);
      const LogPosition position{.epoch = 1, .lsn = round};
      ASSERT_TRUE(checkpoint_overlay(**index, overlay, &position, totals));
    }
    index->reset();
    std::ifstream file(home_ + "/00/data.mdb", std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
    ASSERT_GT(bytes_.size(), 300'000u);
  }

  // Writes one damaged page in place; false if that changed nothing.
  bool damage(const std::string& path, std::mt19937_64& random) {
    const size_t pages = bytes_.size() / 4096;
    const size_t page = random() % 8 == 0 ? random() % 2 : 2 + random() % (pages - 2);
    std::string content(bytes_, page * 4096, 4096);
    const std::string before = content;
    switch (random() % 4) {
      case 0:
        content.assign(4096, '\0');
        break;
      case 1:
        content.assign(bytes_, random() % pages * 4096, 4096);
        break;
      case 2:  // header, pointers, or (of a meta page) all that there is
        content[random() % 80] ^= static_cast<char>(1 << random() % 8);
        break;
      default:
        content[random() % 4096] ^= static_cast<char>(1 << random() % 8);
    }
    what_ = "page " + std::to_string(page);
    for (size_t i = 0; i < 4096; ++i) {
      if (content[i] != before[i]) {
        what_ += " from byte " + std::to_string(i);
        break;
      }
    }
    const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    EXPECT_EQ(::pwrite(fd, content.data(), 4096, static_cast<off_t>(page * 4096)), 4096);
    ::close(fd);
    return content != before;
  }

  void see(const Error& error) {
    EXPECT_EQ(error.code, Code::kCorrupt) << what_ << ": " << error.detail;
    ++errors_;
  }

  // What one record says; kCorrupt is legal.
  void check_record(const KeyView& key, Bytes value, const Model& model) {
    std::vector<uint64_t> copy(value.size() / 8 + 1);
    std::memcpy(copy.data(), value.data(), value.size());
    const auto record =
        decode_record(key, {reinterpret_cast<const uint8_t*>(copy.data()), value.size()});
    if (!record) return see(record.error());
    const auto known = model.find({key.space, std::string(key.name)});
    if (const auto written = partly_.find({key.space, std::string(key.name)});
        written != partly_.end() && as_text(record->meta) == written->second)
      return;
    ASSERT_NE(known, model.end()) << what_ << ": " << printable(key) << " is there";
    EXPECT_EQ(as_text(record->meta), known->second) << what_ << ": " << printable(key);
  }

  void ask(IndexReader& reader, const Model& model) {
    auto snapshot = reader.begin();
    if (!snapshot) return see(snapshot.error());
    for (uint64_t space = 1; space <= kSpaces; ++space) {
      for (uint64_t number = 0; number < 1400; ++number) {
        const std::string name = name_of(number);
        const KeyView key{Table::kCurrent, space, name};
        const auto value = snapshot->get(key);
        if (value) {
          check_record(key, *value, model);
        } else if (value.error().code == Code::kNotFound) {
          EXPECT_FALSE(model.contains({space, name}) &&
                       (partly_.empty() || partly_.contains({space, name})))
              << what_ << ": lost " << printable(key);
        } else {
          see(value.error());
        }
      }
      list(*snapshot, space, model);
    }
  }

  void list(IndexReader::Snapshot& snapshot, uint64_t space, const Model& model) {
    SliceCursor cursor(snapshot.source(Table::kCurrent), space);
    uint64_t seen = 0, damaged = errors_;
    Status status = cursor.seek("");
    if (status) status = cursor.check_gap();
    while (status && cursor.valid()) {
      ++seen;
      check_record({Table::kCurrent, space, cursor.name()}, cursor.value(), model);
      status = cursor.next();
    }
    if (!status) return see(status.error());
    if (errors_ != damaged || !partly_.empty()) return;
    const auto names = std::count_if(model.begin(), model.end(),
                                     [&](const auto& one) { return one.first.first == space; });
    EXPECT_EQ(seen, static_cast<uint64_t>(names)) << what_;
  }

  uint64_t audit(const std::string& path) {
    uint64_t findings = 0;
    auto pages = IndexPages::open(path);
    if (!pages) return 1;
    if (!(*pages)->select(std::nullopt, [&](const PageDamage&) { ++findings; })) return 1;
    const auto done = audit_index(
        **pages, 0, "data.mdb", [](const KeyView&, const RecordView&, Bytes) {},
        [&](Finding) { ++findings; });
    return findings + !done;
  }

  void run(uint64_t seed, bool live) {
    std::mt19937_64 random(seed);
    const TemporaryDirectory copy;
    std::filesystem::create_directory(copy.path() + "/00");
    const std::string path = copy.path() + "/00/data.mdb";
    std::ofstream(path, std::ios::binary)
        .write(bytes_.data(), static_cast<std::streamsize>(bytes_.size()));
    errors_ = 0;
    partly_.clear();
    Model model = model_;
    const auto open = [&] {
      return Index::open({.directory = copy.path() + "/00", .shard = 0, .map_bytes = 1 << 28});
    };
    std::unique_ptr<Index> index;
    std::unique_ptr<IndexReader> reader;
    if (live) {
      index = std::move(*open());
      reader = std::make_unique<IndexReader>(*index);
      if (seed % 2 == 0) ask(*reader, model);
      ASSERT_EQ(errors_, 0u);
    }
    if (!damage(path, random)) return;
    const uint64_t found = audit(path);
    if (!live) {
      auto opened = open();
      if (!opened) {
        EXPECT_GT(found, 0u) << what_ << ": " << opened.error().detail;
        return;
      }
      index = std::move(*opened);
      reader = std::make_unique<IndexReader>(*index);
    }
    ask(*reader, model);
    if (errors_ != 0) EXPECT_GT(found, 0u) << what_;
    SpaceTotals totals;
    for (uint64_t round = 0; round < 3; ++round) {
      Overlay overlay;
      Model after = model;
      change(overlay, after, random, 400);
      const LogPosition position{.epoch = 1, .lsn = 10 + round};
      if (const auto status = checkpoint_overlay(*index, overlay, &position, totals); !status) {
        EXPECT_EQ(status.error().code, Code::kCorrupt) << what_ << ": " << status.error().detail;
        EXPECT_GT(found, 0u) << what_ << ": " << status.error().detail;
        ++refused_;
        // The parts before the refused one are written (in the engine the overlay lies over them).
        partly_ = std::move(after);
        break;
      }
      model = std::move(after);
    }
    ask(*reader, model);
    damaged_ += errors_ != 0;
  }

  const TemporaryDirectory directory_;
  const std::string home_ = directory_.path();
  Model model_;
  Model partly_;  // what a checkpoint that was refused would have led to
  std::string bytes_, what_;
  uint64_t errors_ = 0;
  int damaged_ = 0, refused_ = 0;
};

// BASALT_INDEX_DAMAGE_SEEDS: more of them, by hand, from BASALT_INDEX_DAMAGE_FIRST on.
uint64_t first_seed() {
  const char* text = std::getenv("BASALT_INDEX_DAMAGE_FIRST");
  return text == nullptr ? 1 : std::strtoull(text, nullptr, 10);
}
uint64_t seeds() {
  const char* text = std::getenv("BASALT_INDEX_DAMAGE_SEEDS");
  return text == nullptr ? 60 : std::strtoull(text, nullptr, 10);
}

TEST_F(IndexDamage, BelowARunningIndex) {
  for (uint64_t seed = first_seed(); seed < first_seed() + seeds() && !HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    run(seed, true);
  }
  EXPECT_GT(damaged_, 5);
  EXPECT_GT(refused_, 5);
}

TEST_F(IndexDamage, AtRest) {
  for (uint64_t seed = 1'000'000 + first_seed();
       seed < 1'000'000 + first_seed() + seeds() && !HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    if (std::getenv("BASALT_INDEX_DAMAGE_FIRST")) fprintf(stderr, "seed %lu\n", seed);
    run(seed, false);
  }
  EXPECT_GT(damaged_, 5);
}

}  // namespace
}  // namespace basalt::storage
