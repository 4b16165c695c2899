// FlatView: what it reads of whole buffers, and that damage is found and never followed outside.
#include "base/flat_view.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

namespace basalt {
namespace {

// A table with a u64, a string, and a table that has a u8; written by hand, little-endian.
std::vector<uint8_t> sample() {
  std::vector<uint8_t> out(68);
  const auto put = [&out](size_t at, auto value) { std::memcpy(&out[at], &value, sizeof value); };
  put(0, uint32_t{20});  // the root table
  put(4, uint16_t{12});  // its vtable: bytes of itself and of the table, four fields
  put(6, uint16_t{24});
  put(8, uint16_t{8});    // u64
  put(10, uint16_t{16});  // string
  put(12, uint16_t{0});   // absent
  put(14, uint16_t{20});  // table
  put(20, int32_t{16});
  put(28, uint64_t{1234567890123});
  put(36, uint32_t{8});   // string at 44
  put(40, uint32_t{20});  // table at 60
  put(44, uint32_t{5});
  std::memcpy(&out[48], "hello", 6);
  put(54, uint16_t{6});  // vtable of the inner one
  put(56, uint16_t{5});
  put(58, uint16_t{4});
  put(60, int32_t{6});
  put(64, uint8_t{9});
  return out;
}
constexpr uint16_t kNumber = 4, kText = 6, kAbsent = 8, kInner = 10, kBeyond = 12;

// In memory of its own, so that a sanitizer sees each byte outside.
struct Exact {
  std::unique_ptr<uint8_t[]> memory;
  size_t size;
  Exact(const std::vector<uint8_t>& bytes, size_t count)
      : memory(std::make_unique<uint8_t[]>(count)), size(count) {
    std::memcpy(memory.get(), bytes.data(), count);
  }
  Bytes view() const { return {memory.get(), size}; }
};

TEST(FlatView, ReadsWhatIsThere) {
  const Exact bytes(sample(), sample().size());
  FlatView view(bytes.view());
  EXPECT_EQ(view.scalar<uint64_t>(kNumber), 1234567890123u);
  EXPECT_EQ(as_text(view.bytes(kText)), "hello");
  EXPECT_EQ(view.scalar<uint64_t>(kAbsent, 5), 5u);
  EXPECT_TRUE(view.bytes(kBeyond).empty());
  FlatView inner = view.table(kInner);
  EXPECT_TRUE(inner.exists());
  EXPECT_EQ(inner.scalar<uint8_t>(4), 9);
  EXPECT_FALSE(view.table(kAbsent).exists());
  EXPECT_TRUE(view.good());
  EXPECT_TRUE(inner.good());
}

TEST(FlatView, AVectorOfWideElementsIsBounded) {
  const Exact bytes(sample(), sample().size());
  FlatView view(bytes.view());
  EXPECT_EQ(view.bytes(kText, 4).size(), 20u);
  EXPECT_TRUE(view.bytes(kText, 5).empty());
  EXPECT_FALSE(view.good());
  EXPECT_EQ(view.scalar<uint64_t>(kNumber), 0u) << "bad once, bad for all";
}

TEST(FlatView, NothingOutsideIsReadWhateverTheBytesSay) {
  const auto read_all = [](Bytes bytes) {
    FlatView view(bytes);
    (void)view.scalar<uint64_t>(kNumber);
    size_t sum = 0;
    for (const uint8_t byte : view.bytes(kText)) sum += byte;
    FlatView inner = view.table(kInner);
    sum += inner.scalar<uint8_t>(4);
    return view.good() && inner.good() && sum > 0;
  };
  const std::vector<uint8_t> whole = sample();
  for (size_t size = 0; size < whole.size() - 3; ++size)
    EXPECT_FALSE(read_all(Exact(whole, size).view())) << size;
  for (size_t at = 0; at + 4 <= whole.size(); ++at) {
    for (const uint32_t value : {0u, 1u, 0x7fu, 0xffffu, 0x7fffffffu, 0x80000000u, 0xffffffffu}) {
      std::vector<uint8_t> damaged = whole;
      std::memcpy(&damaged[at], &value, sizeof value);
      (void)read_all(Exact(damaged, damaged.size()).view());
    }
  }
}

}  // namespace
}  // namespace basalt
