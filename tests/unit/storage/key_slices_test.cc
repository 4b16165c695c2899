// Layered slices behave like one ordered map of whole names: against std::map, at all edge lengths,
// with the bytes that could confuse links (0x00, 0xFF).
#include "storage/key_slices.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <vector>

#include "tests/unit/storage/map_slice_store.h"

namespace basalt::storage {
namespace {

using test::MapSliceStore;
using Model = std::map<std::string, std::string>;

constexpr size_t kEdgeLengths[] = {1,   2,   479, 480, 481,  511,  512,
                                   513, 959, 960, 961, 1023, 1024, 1041};

std::vector<std::pair<std::string, std::string>> walk(SliceStore& store, uint64_t space,
                                                      std::string_view from) {
  std::vector<std::pair<std::string, std::string>> out;
  SliceCursor cursor(store, space);
  EXPECT_TRUE(cursor.seek(from).has_value());
  while (cursor.valid()) {
    out.emplace_back(cursor.name(), as_text(cursor.value()));
    EXPECT_TRUE(cursor.next().has_value());
  }
  return out;
}

void expect_same(SliceStore& store, uint64_t space, const Model& model, std::string_view from) {
  const std::vector<std::pair<std::string, std::string>> expected(
      model.lower_bound(std::string(from)), model.end());
  ASSERT_EQ(walk(store, space, from), expected);
}

TEST(KeySlices, EdgeLengthsOfEveryFill) {
  MapSliceStore store;
  Model model;
  for (const char fill : {'\0', 'a', '\x7f', '\xff'}) {
    for (const size_t length : kEdgeLengths) {
      std::string name(length, fill);
      const std::string value = std::to_string(length);
      ASSERT_TRUE(slices_put(store, 9, name, as_bytes(value)).has_value());
      model[name] = value;
      // One that differs in the last byte only.
      name.back() = 'm';
      ASSERT_TRUE(slices_put(store, 9, name, as_bytes(value)).has_value());
      model[name] = value;
    }
  }
  // Neighbouring spaces must not leak in.
  ASSERT_TRUE(slices_put(store, 8, "\xff", as_bytes("low")).has_value());
  ASSERT_TRUE(slices_put(store, 10, std::string(1041, '\0'), as_bytes("high")).has_value());

  expect_same(store, 9, model, "");
  for (const auto& [name, value] : model) {
    expect_same(store, 9, model, name);
    expect_same(store, 9, model, name + std::string(1, '\0'));
    const auto got = slices_get(store, 9, name);
    ASSERT_TRUE(got.has_value());
    EXPECT_EQ(as_text(*got), value);
  }
  for (const auto& [name, value] : model) ASSERT_TRUE(slices_erase(store, 9, name).has_value());
  EXPECT_EQ(walk(store, 9, "").size(), 0u);
  // Only the neighbours are left: one plain entry, and one of three layers.
  EXPECT_EQ(store.map.size(), 1u + 3u);
}

TEST(KeySlices, LinkSortsBetweenItsSliceAndTheNext) {
  MapSliceStore store;
  const std::string slice(kSliceBytes, 's');
  std::string next = slice;
  next.back() = 't';
  Model model;
  for (const std::string& name :
       {next, slice + "\xff\xff", slice + std::string(1, '\0'), slice, slice.substr(0, 479)}) {
    ASSERT_TRUE(slices_put(store, 1, name, as_bytes("v")).has_value());
    model[name] = "v";
  }
  expect_same(store, 1, model, "");
  EXPECT_EQ(slices_erase(store, 1, slice + "q").error().code, Code::kNotFound);
  ASSERT_TRUE(slices_erase(store, 1, slice + "\xff\xff").has_value());
  ASSERT_TRUE(slices_erase(store, 1, slice + std::string(1, '\0')).has_value());
  EXPECT_EQ(store.map.size(), 3u);  // the empty layer and its link are gone
}

TEST(KeySlices, RandomAgainstModel) {
  std::mt19937 random(20260101);
  MapSliceStore store;
  Model model;
  const auto random_name = [&] {
    // Few distinct bytes and lengths near the edges, so that names share slices.
    const size_t edge = kEdgeLengths[random() % std::size(kEdgeLengths)];
    const size_t length = std::clamp<size_t>(edge + random() % 3 - 1, 1, kNameBytesMax);
    std::string name(length, "\x00\xff"[random() % 2]);
    for (int i = 0; i < 2; ++i) name[random() % length] = "\x00\x61\xff"[random() % 3];
    return name;
  };
  for (int step = 0; step < 20'000; ++step) {
    std::string name = random_name();
    if (!model.empty() && random() % 2 == 0) {
      auto at = model.lower_bound(name);
      if (at != model.end()) name = at->first;
    }
    if (random() % 3 == 0) {
      const bool erased = slices_erase(store, 5, name).has_value();
      ASSERT_EQ(erased, model.erase(name) == 1);
    } else {
      const std::string value = std::to_string(step);
      ASSERT_TRUE(slices_put(store, 5, name, as_bytes(value)).has_value());
      model[name] = value;
    }
    if (step % 500 == 0) {
      expect_same(store, 5, model, "");
      expect_same(store, 5, model, random_name());
    }
  }
  while (!model.empty()) {
    ASSERT_TRUE(slices_erase(store, 5, model.begin()->first).has_value());
    model.erase(model.begin());
  }
  EXPECT_TRUE(store.map.empty());
}

TEST(KeySlices, DamagedLinkIsCorruptNotAnotherName) {
  MapSliceStore store;
  const std::string name(1000, 'x');
  ASSERT_TRUE(slices_put(store, 1, name, as_bytes("v")).has_value());
  for (auto& [key, value] : store.map) {
    if (key.size() != kLinkKeyBytes) continue;
    value[7] ^= 1;
    EXPECT_EQ(slices_get(store, 1, name).error().code, Code::kCorrupt);
    SliceCursor cursor(store, 1);
    EXPECT_EQ(cursor.seek("").error().code, Code::kCorrupt);
    value[7] ^= 1;
  }
  EXPECT_TRUE(slices_get(store, 1, name).has_value());
}

TEST(KeySlices, TargetsLongerThanAnyName) {
  MapSliceStore store;
  const std::string longest(kNameBytesMax, 'k');
  ASSERT_TRUE(slices_put(store, 1, longest, as_bytes("v")).has_value());
  EXPECT_EQ(walk(store, 1, longest + "k").size(), 0u);
  EXPECT_EQ(walk(store, 1, longest + std::string(5000, 'k')).size(), 0u);
  EXPECT_EQ(walk(store, 1, std::string(3000, 'a')).size(), 1u);
}

}  // namespace
}  // namespace basalt::storage
