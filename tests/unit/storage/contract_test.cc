// The contract of MetaShard and BlobStore, against the memory model and the local engine alike;
// then long random histories in which the local engine must answer exactly as the model, through
// checkpoints, restarts and crashes.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "storage/engine.h"
#include "tests/unit/storage/driver.h"

namespace basalt::storage {
namespace {

using test::Driver;
using test::LocalDriver;
using test::MemoryDriver;

struct Backend {
  const char* name;
  std::unique_ptr<Driver> (*make)(unsigned shards);
};
void PrintTo(const Backend& backend, std::ostream* out) { *out << backend.name; }

class Contract : public ::testing::TestWithParam<Backend> {
 protected:
  Contract() : driver_(GetParam().make(2)) {}
  void TearDown() override { driver_.reset(); }

  // The same check on the overlay, on the index, and after a restart.
  template <class Check>
  void in_every_state(Check&& check) {
    check();
    driver_->checkpoint();
    check();
    driver_->reopen();
    check();
  }
  std::vector<std::string> names(const ScanOptions& options, bool* more = nullptr) {
    const auto page = driver_->scan(0, options);
    EXPECT_TRUE(page.has_value());
    std::vector<std::string> out;
    for (const auto& entry : page->entries)
      out.push_back((entry.common_prefix ? "+" : "") + std::string(entry.name));
    if (more != nullptr) *more = page->more;
    return out;
  }
  Code code_of(const Result<Applied>& result) { return result ? Code{0xFF} : result.error().code; }
  static constexpr Code kGood{0xFF};

  std::unique_ptr<Driver> driver_;
};

INSTANTIATE_TEST_SUITE_P(Backends, Contract,
                         ::testing::Values(Backend{"memory",
                                                   [](unsigned shards) -> std::unique_ptr<Driver> {
                                                     return std::make_unique<MemoryDriver>(shards);
                                                   }},
                                           Backend{"local",
                                                   [](unsigned shards) -> std::unique_ptr<Driver> {
                                                     return std::make_unique<LocalDriver>(shards);
                                                   }}),
                         [](const auto& info) { return info.param.name; });

TEST_P(Contract, PutGetErase) {
  const KeyView key{Table::kCurrent, 9, "k"};
  EXPECT_EQ(driver_->core().shard(0).get_now(key).error().code, Code::kNotFound);
  const auto applied =
      driver_->put(0, key, {.size = 5, .tag = "tag", .meta = as_bytes("meta")}, as_bytes("inner"));
  ASSERT_TRUE(applied.has_value()) << applied.error().detail;
  in_every_state([&] {
    const auto record = driver_->core().shard(0).get_now(key);
    ASSERT_TRUE(record.has_value());
    EXPECT_EQ(record->view().seq, applied->seq);
    EXPECT_EQ(record->view().size, 5u);
    EXPECT_EQ(record->view().tag, "tag");
    EXPECT_EQ(as_text(record->view().meta), "meta");
    EXPECT_EQ(record->view().body.kind, static_cast<uint8_t>(BlobKind::kIndex));
    EXPECT_EQ(as_text(record->view().inline_body), "inner");
    EXPECT_EQ(driver_->core().shard(1).get_now(key).error().code, Code::kNotFound);
    EXPECT_EQ(driver_->core().shard(0).get_now({Table::kUpload, 9, "k"}).error().code,
              Code::kNotFound);
    test::Tracked<GetRequest> request(key);
    driver_->core().shard(0).get(request);
    EXPECT_FALSE(request.done);  // never from inside the call
    EXPECT_TRUE(driver_->spin([&] { return request.done; }));
    EXPECT_TRUE(request.result.has_value());
  });
  const auto erased = driver_->erase(0, key);
  ASSERT_TRUE(erased.has_value());
  EXPECT_GT(erased->seq, applied->seq);
  in_every_state(
      [&] { EXPECT_EQ(driver_->core().shard(0).get_now(key).error().code, Code::kNotFound); });
}

TEST_P(Contract, BodiesOfAllSizes) {
  std::mt19937_64 random(5);
  std::vector<std::pair<std::string, std::string>> written;
  for (const size_t size : {size_t{1}, kIndexBodyBytesMax, kIndexBodyBytesMax + 1, size_t{4096},
                            size_t{65536}, size_t{65537}, kInlineBodyBytesMax}) {
    std::string body(size, 0);
    for (char& c : body) c = static_cast<char>(random());
    const std::string name = std::to_string(size);
    ASSERT_TRUE(
        driver_->put(0, {Table::kCurrent, 1, name}, {.size = size}, as_bytes(body)).has_value());
    written.emplace_back(name, body);
  }
  in_every_state([&] {
    for (const auto& [name, body] : written) {
      const auto content = driver_->content(0, {Table::kCurrent, 1, name});
      ASSERT_TRUE(content.has_value()) << name << " " << content.error().detail;
      EXPECT_TRUE(*content == body) << name;
    }
  });
}

TEST_P(Contract, BlobsThroughTheStore) {
  std::mt19937_64 random(6);
  std::vector<BlobRef> blobs;
  std::string all;
  for (const size_t size :
       {size_t{200'000}, size_t{1} << 20, (size_t{1} << 20) + 1, size_t{5} << 20}) {
    std::string bytes(size, 0);
    for (size_t i = 0; i + 8 <= size; i += 8) {
      const uint64_t word = random();
      std::memcpy(bytes.data() + i, &word, 8);
    }
    const auto blob = driver_->write_blob(as_bytes(bytes));
    ASSERT_TRUE(blob.has_value()) << blob.error().detail;
    EXPECT_EQ(blob->length, size);
    blobs.push_back(*blob);
    all += bytes;
  }
  const KeyView key{Table::kCurrent, 1, "big"};
  ASSERT_TRUE(driver_->put(0, key, {.size = all.size(), .blobs = blobs}).has_value());
  in_every_state([&] {
    const auto content = driver_->content(0, key);
    ASSERT_TRUE(content.has_value()) << content.error().detail;
    EXPECT_TRUE(*content == all);
  });
}

TEST_P(Contract, BatchesAreAllOrNothing) {
  MutationBuilder builder;
  builder.put({Table::kCurrent, 1, "a"}, {.tag = "1"});
  builder.put({Table::kCurrent, 1, "b"}, {.tag = "1"});
  builder.put({Table::kUpload, 1, "u"}, {.tag = "1"});
  const auto first = driver_->apply(0, builder);
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(driver_->core().shard(0).get_now({Table::kCurrent, 1, "a"})->view().seq, first->seq);
  EXPECT_EQ(driver_->core().shard(0).get_now({Table::kUpload, 1, "u"})->view().seq, first->seq);

  const KeyView a{Table::kCurrent, 1, "a"}, c{Table::kCurrent, 1, "c"};
  const Precondition conditions[] = {{Precondition::Kind::kExists, a},
                                     {Precondition::Kind::kExists, c}};
  builder.erase(a);
  builder.put(c, {.tag = "2"});
  uint32_t failed = 99;
  EXPECT_EQ(code_of(driver_->apply(0, builder, {}, conditions, &failed)), Code::kNotFound);
  EXPECT_EQ(failed, 1u);
  EXPECT_TRUE(driver_->core().shard(0).get_now(a).has_value());
  EXPECT_FALSE(driver_->core().shard(0).get_now(c).has_value());
}

TEST_P(Contract, Preconditions) {
  const KeyView key{Table::kCurrent, 1, "k"};
  using Kind = Precondition::Kind;
  const auto attempt = [&](Kind kind, std::string_view tag = {}, uint64_t seq = 0) {
    MutationBuilder builder;
    builder.put({Table::kCurrent, 1, "other"}, {});
    const Precondition condition{kind, key, tag, seq};
    return code_of(driver_->apply(0, builder, {}, {&condition, 1}));
  };
  EXPECT_EQ(attempt(Kind::kAbsent), kGood);
  EXPECT_EQ(attempt(Kind::kExists), Code::kNotFound);
  EXPECT_EQ(attempt(Kind::kTagEquals, "t"), Code::kNotFound);
  EXPECT_EQ(attempt(Kind::kTagDiffers, "t"), kGood);
  EXPECT_EQ(attempt(Kind::kSeqEquals, {}, 1), Code::kNotFound);
  const uint64_t seq = driver_->put(0, key, {.tag = "t"})->seq;
  in_every_state([&] {
    EXPECT_EQ(attempt(Kind::kAbsent), Code::kPreconditionFailed);
    EXPECT_EQ(attempt(Kind::kExists), kGood);
    EXPECT_EQ(attempt(Kind::kTagEquals, "t"), kGood);
    EXPECT_EQ(attempt(Kind::kTagEquals, "u"), Code::kPreconditionFailed);
    EXPECT_EQ(attempt(Kind::kTagDiffers, "t"), Code::kPreconditionFailed);
    EXPECT_EQ(attempt(Kind::kTagDiffers, "u"), kGood);
    EXPECT_EQ(attempt(Kind::kSeqEquals, {}, seq), kGood);
    EXPECT_EQ(attempt(Kind::kSeqEquals, {}, seq + 1000), Code::kPreconditionFailed);
  });
}

TEST_P(Contract, OfConcurrentWritersOneWins) {
  const KeyView key{Table::kCurrent, 1, "k"};
  const Precondition absent{Precondition::Kind::kAbsent, key};
  MutationBuilder builders[8];
  std::vector<std::unique_ptr<test::Tracked<ApplyRequest>>> requests;
  for (auto& builder : builders) {
    builder.put(key, {});
    requests.push_back(std::make_unique<test::Tracked<ApplyRequest>>(
        std::span<const Precondition>(&absent, 1), builder.finish(), Bytes()));
    driver_->core().shard(0).apply(*requests.back());
  }
  int won = 0;
  for (auto& request : requests) {
    ASSERT_TRUE(driver_->spin([&] { return request->done; }));
    won += request->result.has_value();
    if (!request->result) EXPECT_EQ(request->result.error().code, Code::kPreconditionFailed);
  }
  EXPECT_EQ(won, 1);
}

TEST_P(Contract, MalformedBatchesAreInvalid) {
  const uint8_t garbage[32] = {1, 2, 3};
  for (const Bytes bytes : {Bytes(garbage), Bytes(garbage, 3)}) {
    test::Tracked<ApplyRequest> request(std::span<const Precondition>(), bytes, Bytes());
    driver_->core().shard(0).apply(request);
    ASSERT_TRUE(driver_->spin([&] { return request.done; }));
    EXPECT_EQ(request.result.error().code, Code::kInvalid);
  }
}

TEST_P(Contract, ScanEdgeLengthsInByteOrder) {
  std::vector<std::string> expected;
  for (const size_t length : {1, 479, 480, 481, 511, 512, 513, 959, 960, 961, 1023, 1024, 1041}) {
    for (const char fill : {'\0', 'a', '\xff'}) {
      expected.push_back(std::string(length, fill));
      ASSERT_TRUE(
          driver_->put(0, {Table::kCurrent, 1, expected.back()}, {.size = length}).has_value());
    }
  }
  std::sort(expected.begin(), expected.end());
  in_every_state([&] {
    EXPECT_EQ(names({.space = 1}), expected);
    // Pages of one.
    std::string after;
    for (size_t i = 0; i < expected.size(); ++i) {
      bool more = false;
      const auto page = names({.space = 1, .after = after, .limit = 1}, &more);
      ASSERT_EQ(page.size(), 1u);
      EXPECT_EQ(page[0], expected[i]);
      EXPECT_EQ(more, i + 1 < expected.size());
      after = page[0];
    }
    for (const std::string& name : expected)
      EXPECT_TRUE(driver_->core().shard(0).get_now({Table::kCurrent, 1, name}).has_value());
  });
  for (const std::string& name : expected)
    ASSERT_TRUE(driver_->erase(0, {Table::kCurrent, 1, name}).has_value());
  in_every_state([&] { EXPECT_TRUE(names({.space = 1}).empty()); });
}

TEST_P(Contract, ScanDelimiter) {
  for (const char* name : {"a", "a/1", "a/2", "a/b/3", "b", "c//x", "c/y", "d", "e/"}) {
    ASSERT_TRUE(driver_->put(0, {Table::kCurrent, 1, name}, {}).has_value());
  }
  using V = std::vector<std::string>;
  in_every_state([&] {
    bool more = true;
    EXPECT_EQ(names({.space = 1, .delimiter = "/"}, &more),
              (V{"a", "+a/", "b", "+c/", "d", "+e/"}));
    EXPECT_FALSE(more);
    EXPECT_EQ(names({.space = 1, .prefix = "a/", .delimiter = "/"}), (V{"a/1", "a/2", "+a/b/"}));
    EXPECT_EQ(names({.space = 1, .prefix = "c", .delimiter = "//"}), (V{"+c//", "c/y"}));
    EXPECT_EQ(names({.space = 1, .delimiter = "/", .limit = 2}, &more), (V{"a", "+a/"}));
    EXPECT_TRUE(more);
    EXPECT_EQ(names({.space = 1, .after = "a/", .delimiter = "/", .limit = 2}, &more),
              (V{"b", "+c/"}));
    EXPECT_TRUE(more);
    EXPECT_EQ(names({.space = 1, .after = "c/", .delimiter = "/"}, &more), (V{"d", "+e/"}));
    EXPECT_FALSE(more);
    // Exactly full, nothing behind the last common prefix.
    EXPECT_EQ(names({.space = 1, .after = "c/", .delimiter = "/", .limit = 2}, &more),
              (V{"d", "+e/"}));
    EXPECT_FALSE(more);
    EXPECT_EQ(names({.space = 1, .after = "a/1", .delimiter = "/", .limit = 1}), (V{"b"}));
    EXPECT_EQ(names({.space = 1, .prefix = "b", .after = "a"}), (V{"b"}));
    EXPECT_EQ(names({.space = 1, .prefix = "b", .after = "c"}), V{});
    EXPECT_EQ(names({.table = Table::kVersion, .space = 1}), V{});
  });
  EXPECT_EQ(driver_->scan(0, {.space = 1, .limit = 0}).error().code, Code::kInvalid);
}

TEST_P(Contract, ScanOfAllShardsOfACore) {
  // Neighbours in different shards, empty runs of one shard, names that are prefixes of others.
  std::vector<std::string> expected;
  for (unsigned i = 0; i < 200; ++i) {
    const std::string name = fmt::format("k{:03}{}", i / 3, std::string(i % 3, 'x'));
    expected.push_back(name);
    const unsigned shard = i < 40 ? 0 : i < 80 ? 1 : i % 2;
    ASSERT_TRUE(driver_->put(shard, {Table::kCurrent, 1, name}, {.size = i, .tag = "t"}));
  }
  ASSERT_TRUE(driver_->put(1, {Table::kCurrent, 2, "other"}, {}).has_value());
  const auto all = [&](ScanOptions options) {
    std::vector<std::string> out;
    std::string after(options.after);
    for (;;) {
      options.after = after;
      const auto page = driver_->core().scan(options);
      EXPECT_TRUE(page.has_value());
      EXPECT_LE(page->entries.size(), options.limit);
      for (const auto& entry : page->entries) out.emplace_back(entry.name);
      if (!page->more) return out;
      EXPECT_EQ(page->entries.size(), options.limit);
      after = out.back();
    }
  };
  in_every_state([&] {
    for (const uint32_t limit : {1u, 7u, 199u, 200u, 1000u}) {
      EXPECT_EQ(all({.space = 1, .limit = limit}), expected);
    }
    EXPECT_EQ(all({.space = 1, .prefix = "k00", .delimiter = "x", .limit = 5}).size(), 20u);
    EXPECT_EQ(all({.space = 1, .after = "k066x"}), std::vector<std::string>());
    EXPECT_EQ(all({.space = 3}), std::vector<std::string>());
  });
  EXPECT_EQ(driver_->core().scan({.space = 1, .limit = 0}).error().code, Code::kInvalid);
}

TEST_P(Contract, ScansKeepWhatIsSelected) {
  const std::string big(2 * kIndexBodyBytesMax, 'b');
  ASSERT_TRUE(driver_->put(0, {Table::kCurrent, 1, "a"},
                           {.size = 5, .tag = "tag", .meta = as_bytes("metadata")},
                           as_bytes("small")));
  ASSERT_TRUE(driver_->put(0, {Table::kCurrent, 1, "b"}, {.size = big.size()}, as_bytes(big)));
  // The first letter, three times.
  const SelectMeta select = [](Bytes meta, uint8_t* out) -> size_t {
    if (meta.empty()) return 0;
    std::memset(out, meta[0], 3);
    return 3;
  };
  in_every_state([&] {
    const auto page = driver_->scan(0, {.space = 1, .select = select});
    ASSERT_TRUE(page.has_value());
    ASSERT_EQ(page->entries.size(), 2u);
    const auto& first = page->entries[0];
    EXPECT_EQ(first.name, "a");
    EXPECT_EQ(first.record.size, 5u);
    EXPECT_EQ(first.record.tag, "tag");
    EXPECT_EQ(as_text(first.record.meta), "mmm");
    EXPECT_NE(first.record.seq, 0u);
    EXPECT_EQ(page->entries[1].record.size, big.size());
    EXPECT_TRUE(page->entries[1].record.meta.empty());
    for (const auto& entry : page->entries) {
      EXPECT_EQ(entry.record.body.kind, 0);
      EXPECT_TRUE(entry.record.inline_body.empty());
      EXPECT_TRUE(entry.record.blobs.empty());
    }
  });
}

TEST_P(Contract, Sealing) {
  const KeyView key{Table::kCurrent, 3, "k"}, upload{Table::kUpload, 3, "u"};
  using Action = SealRequest::Action;
  ASSERT_TRUE(driver_->put(0, key, {}).has_value());
  ASSERT_TRUE(driver_->put(0, upload, {}).has_value());
  in_every_state(
      [&] { EXPECT_EQ(driver_->seal(0, Action::kSeal, 3).error().code, Code::kNotEmpty); });
  ASSERT_TRUE(driver_->erase(0, key).has_value());
  EXPECT_TRUE(driver_->seal(0, Action::kSeal, 3));
  EXPECT_EQ(code_of(driver_->put(0, key, {})), Code::kSealed);
  EXPECT_EQ(code_of(driver_->put(0, upload, {})), Code::kSealed);
  EXPECT_EQ(code_of(driver_->erase(0, {Table::kUpload, 3, "none"})), kGood);
  EXPECT_EQ(code_of(driver_->put(0, {Table::kCurrent, 4, "k"}, {})), kGood);
  EXPECT_TRUE(driver_->seal(0, Action::kPurge, 3));
  EXPECT_FALSE(driver_->core().shard(0).get_now(upload).has_value());
  EXPECT_TRUE(driver_->seal(0, Action::kUnseal, 3));
  EXPECT_EQ(code_of(driver_->put(0, key, {})), kGood);
}

TEST_P(Contract, StopRefusesNewWrites) {
  test::Tracked<SealRequest> dummy(SealRequest::Action::kUnseal, 1u);
  if (driver_->durable()) return;  // the local driver stops in its own close(); see engine_test
  struct Stopped : Completion {
    bool done = false;
  } stopped;
  stopped.fn = [](Completion& completion) { static_cast<Stopped&>(completion).done = true; };
  driver_->core().stop(stopped);
  ASSERT_TRUE(driver_->spin([&] { return stopped.done; }));
  EXPECT_EQ(code_of(driver_->put(0, {Table::kCurrent, 1, "k"}, {})), Code::kCancelled);
}

// --- Random histories

class History {
 public:
  explicit History(uint32_t seed)
      : random_(seed), local_(make_options(seed), seed % 2 == 0), model_(2) {}

  void run(int steps) {
    for (int step = 0; step < steps && !::testing::Test::HasFatalFailure(); ++step) {
      switch (random_() % 100) {
        case 0:
          local_.checkpoint();
          break;
        case 1:
          if (random_() % 4 == 0) local_.reopen();
          break;
        case 2:
          if (random_() % 4 == 0) local_.crash();
          break;
        case 3:
        case 4:
        case 5:
        case 6:
          compare_scan();
          break;
        case 7:
        case 8:
          compare_get();
          break;
        default:
          write();
      }
    }
    for (unsigned shard = 0; shard < 2; ++shard) {
      for (uint64_t space = 1; space <= 2; ++space) {
        for (const Table table : {Table::kCurrent, Table::kPart})
          compare(shard, {.table = table, .space = space, .limit = 10'000});
      }
    }
    // What the indexes count is what the model holds.
    local_.reopen();
    for (uint64_t space = 1; space <= 2; ++space) {
      uint64_t objects = 0, bytes = 0;
      for (unsigned shard = 0; shard < 2; ++shard) {
        const auto page = model_.scan(shard, {.space = space, .limit = 10'000});
        for (const auto& entry : page->entries) {
          ++objects;
          bytes += entry.record.size;
        }
      }
      EXPECT_EQ(local_.engine().space_objects(space), objects);
      EXPECT_EQ(local_.engine().space_bytes(space), bytes);
    }
  }

 private:
  static EngineOptions make_options(uint32_t seed) {
    EngineOptions options = LocalDriver::default_options(2);
    options.checkpoint_entries = seed % 3 == 0 ? 50 : 100'000;
    return options;
  }
  std::string random_name() {
    static constexpr size_t kLengths[] = {1, 2, 3, 8, 480, 481, 960, 961, 1041};
    std::string name(kLengths[random_() % std::size(kLengths)], "/a\xff"[random_() % 3]);
    for (int i = 0; i < 3; ++i) name[random_() % name.size()] = "\0/ab\xff"[random_() % 5];
    return name;
  }
  // A name is in one shard only, as placement by its hash has it.
  KeyView random_key(std::string& memory, unsigned shard) {
    do {
      memory = random_name();
    } while (std::hash<std::string>()(memory) % 2 != shard);
    return {random_() % 4 == 0 ? Table::kPart : Table::kCurrent, 1 + random_() % 2, memory};
  }
  void write() {
    const unsigned shard = random_() % 2;
    const size_t mutations = random_() % 5 == 0 ? 1 + random_() % 8 : 1;
    MutationBuilder to_local, to_model;
    std::deque<std::string> names;
    bool with_body = random_() % 3 == 0;
    std::string body;
    if (with_body)
      body.assign(random_() % 2 == 0 ? random_() % 600 : random_() % 9000,
                  static_cast<char>('a' + random_() % 26));
    bool owner = false;
    for (size_t i = 0; i < mutations; ++i) {
      const KeyView key = random_key(names.emplace_back(), shard);
      if (random_() % 3 == 0 && !(with_body && !owner && i + 1 == mutations)) {
        to_local.erase(key);
        to_model.erase(key);
        continue;
      }
      const bool has_body = with_body && !owner;
      owner |= has_body;
      const std::string tag = std::to_string(random_() % 3), meta(random_() % 300, 'm');
      const NewRecord record{
          .size = has_body ? body.size() : random_() % 100, .tag = tag, .meta = as_bytes(meta)};
      to_local.put(key, record, has_body);
      to_model.put(key, record, has_body);
    }
    std::vector<Precondition> conditions;
    std::string condition_name, tag;
    if (random_() % 3 == 0) {
      tag = std::to_string(random_() % 3);
      conditions.push_back(
          {static_cast<Precondition::Kind>(random_() % 4), random_key(condition_name, shard), tag});
    }
    uint32_t index_local = 0, index_model = 0;
    const auto local = local_.apply(shard, to_local, as_bytes(body), conditions, &index_local);
    const auto model = model_.apply(shard, to_model, as_bytes(body), conditions, &index_model);
    ASSERT_EQ(local.has_value(), model.has_value()) << (local ? "" : local.error().detail);
    if (!local) {
      ASSERT_EQ(local.error().code, model.error().code);
      ASSERT_EQ(index_local, index_model);
    }
  }
  void compare_get() {
    std::string memory;
    const unsigned shard = random_() % 2;
    const KeyView key = random_key(memory, shard);
    const auto local = local_.content(shard, key), model = model_.content(shard, key);
    ASSERT_EQ(local.has_value(), model.has_value()) << (local ? "" : local.error().detail);
    if (local) {
      ASSERT_TRUE(*local == *model);
    } else {
      ASSERT_EQ(local.error().code, Code::kNotFound);
    }
  }
  void compare_scan() {
    std::string prefix, after;
    if (random_() % 2 == 0) prefix = random_name().substr(0, random_() % 2 == 0 ? 1 : 490);
    if (random_() % 2 == 0) after = random_name();
    if (random_() % 4 == 0) after = prefix + after;
    static constexpr std::string_view kDelimiters[] = {"", "/", "/a", "\xff", "a"};
    compare(random_() % 3,
            {.table = random_() % 4 == 0 ? Table::kPart : Table::kCurrent,
             .space = 1 + random_() % 2,
             .prefix = prefix,
             .after = after,
             .delimiter = kDelimiters[random_() % std::size(kDelimiters)],
             .limit = random_() % 3 == 0 ? 1000 : 1 + static_cast<uint32_t>(random_() % 20),
             .select = random_() % 2 == 0 ? &select_some : nullptr});
  }
  static size_t select_some(Bytes meta, uint8_t* out) {
    const size_t size = std::min<size_t>(meta.size(), 5);
    if (size != 0) std::memcpy(out, meta.data(), size);
    return size;
  }
  static Result<ScanPage> scan(Driver& driver, unsigned shard, const ScanOptions& options) {
    return shard < 2 ? driver.scan(shard, options) : driver.core().scan(options);
  }
  // Of a shard, or (2) of both together.
  void compare(unsigned shard, const ScanOptions& options) {
    const auto local = scan(local_, shard, options), model = scan(model_, shard, options);
    ASSERT_TRUE(local.has_value() && model.has_value());
    ASSERT_EQ(local->entries.size(), model->entries.size());
    ASSERT_EQ(local->more, model->more);
    for (size_t i = 0; i < local->entries.size(); ++i) {
      const auto& l = local->entries[i];
      const auto& m = model->entries[i];
      ASSERT_EQ(l.name, m.name);
      ASSERT_EQ(l.common_prefix, m.common_prefix);
      ASSERT_EQ(l.record.tag, m.record.tag);
      ASSERT_EQ(l.record.size, m.record.size);
      ASSERT_EQ(as_text(l.record.meta), as_text(m.record.meta));
      ASSERT_EQ(as_text(l.record.inline_body), as_text(m.record.inline_body));
    }
  }

  std::mt19937 random_;
  LocalDriver local_;
  MemoryDriver model_;
};

class RandomHistory : public ::testing::TestWithParam<uint32_t> {};
INSTANTIATE_TEST_SUITE_P(Seeds, RandomHistory, ::testing::Values(1, 2, 3, 4));
TEST_P(RandomHistory, LocalEngineAnswersAsTheModel) { History(GetParam()).run(2500); }

}  // namespace
}  // namespace basalt::storage
