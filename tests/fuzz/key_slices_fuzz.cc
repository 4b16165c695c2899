// Layered key slices against std::map: the input is a script of puts, erases and walks with names
// built from few bytes.
#include <cstdint>
#include <map>
#include <string>

#include "storage/key_slices.h"
#include "tests/unit/storage/map_slice_store.h"

using namespace basalt;
using namespace basalt::storage;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  test::MapSliceStore store;
  std::map<std::string, std::string> model;
  size_t at = 0;
  const auto byte = [&]() -> uint8_t { return at < size ? data[at++] : 0; };
  constexpr size_t kLengths[] = {1, 2, 479, 480, 481, 482, 959, 960, 961, 962, 1024, 1041};
  const auto name = [&] {
    std::string out(kLengths[byte() % std::size(kLengths)], static_cast<char>(byte()));
    for (int edits = byte() % 3; edits > 0; --edits) {
      const size_t position = (size_t{byte()} << 8 | byte()) % out.size();
      out[position] = static_cast<char>(byte());
    }
    return out;
  };
  while (at < size) {
    switch (byte() % 4) {
      case 0:
      case 1: {
        const std::string key = name(), value = std::to_string(at);
        if (!slices_put(store, 5, key, as_bytes(value))) __builtin_trap();
        model[key] = value;
        break;
      }
      case 2: {
        const std::string key = name();
        if (slices_erase(store, 5, key).has_value() != (model.erase(key) == 1)) __builtin_trap();
        break;
      }
      case 3: {
        const std::string from = name();
        SliceCursor cursor(store, 5);
        if (!cursor.seek(from)) __builtin_trap();
        for (auto expected = model.lower_bound(from); expected != model.end(); ++expected) {
          if (!cursor.valid() || cursor.name() != expected->first ||
              as_text(cursor.value()) != expected->second) {
            __builtin_trap();
          }
          if (!cursor.next()) __builtin_trap();
        }
        if (cursor.valid()) __builtin_trap();
        break;
      }
    }
  }
  while (!model.empty()) {
    if (!slices_erase(store, 5, model.begin()->first)) __builtin_trap();
    model.erase(model.begin());
  }
  if (!store.map.empty()) __builtin_trap();
  return 0;
}
