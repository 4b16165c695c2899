// The overlay: look-ups and order agree, replacing keeps one entry, memory is accounted.
#include "storage/overlay.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>

namespace basalt::storage {
namespace {

ValueBuffer value_of(std::string_view text) {
  ValueBuffer value;
  value.bytes = std::make_unique<uint8_t[]>(text.size());
  std::copy(text.begin(), text.end(), value.bytes.get());
  value.size = static_cast<uint32_t>(text.size());
  return value;
}

TEST(Overlay, AgainstMap) {
  std::mt19937 random(7);
  Overlay overlay;
  std::map<std::string, std::string> model;
  size_t value_bytes = 0, key_bytes = 0;
  for (int i = 0; i < 20'000; ++i) {
    const std::string name = std::to_string(random() % 3000) + std::string(random() % 3, '\xff');
    const KeyView key{static_cast<Table>(random() % 3), random() % 4, name};
    const std::string value = random() % 4 == 0 ? "" : std::to_string(i);
    overlay.put(key, value_of(value));
    model[std::string(FullKey(key).view())] = value;
  }
  ASSERT_EQ(overlay.entries(), model.size());
  auto at = overlay.begin();
  for (const auto& [key, value] : model) {
    EXPECT_EQ((*at)->full_key(), key);
    EXPECT_EQ((*at)->tombstone(), value.empty());
    EXPECT_EQ(as_text((*at)->value()), value);
    const Overlay::Entry* found = overlay.find(key);
    EXPECT_EQ(found, *at);
    value_bytes += value.size();
    key_bytes += key.size();
    ++at;
  }
  EXPECT_EQ(at, overlay.end());
  EXPECT_EQ(overlay.find("nothing"), nullptr);
  EXPECT_EQ(overlay.bytes(), value_bytes + key_bytes + model.size() * 200);
  EXPECT_EQ((*overlay.lower_bound(model.rbegin()->first))->full_key(), model.rbegin()->first);
}

}  // namespace
}  // namespace basalt::storage
