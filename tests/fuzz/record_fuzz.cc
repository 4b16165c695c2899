// Index values and mutation batches from hostile bytes: refused, or every access stays inside.
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/crc32c.h"
#include "storage/generated/record_generated.h"
#include "storage/record_codec.h"

using namespace basalt;
using namespace basalt::storage;

namespace {

volatile uint64_t sink;

void touch(Bytes bytes) {
  for (const uint8_t byte : bytes) sink = sink + byte;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<uint64_t> aligned((size + 7) / 8 + 1);
  auto* copy = reinterpret_cast<uint8_t*>(aligned.data());
  if (size != 0) std::memcpy(copy, data, size);
  const KeyView key{Table::kCurrent, 1, "k"};

  // A value whose checksum is right, so that the fuzzer reaches the structure behind it.
  if (size >= kIndexHeaderBytes + kIndexTrailerBytes) {
    store_le32(copy + size - kIndexTrailerBytes,
               crc32c({copy, size - kIndexTrailerBytes}, key_crc(key)));
  }
  if (const auto view = decode_record(key, {copy, size})) {
    touch(view->meta);
    touch(view->inline_body);
    touch(as_bytes(view->tag));
    for (const BlobRef& blob : view->blobs) sink = sink + blob.length + blob.kind;
    const Record record(*view);
    touch(record->meta);
  }

  if (size != 0) std::memcpy(copy, data, size);
  if (const auto batch = verify_batch({copy, size}, 0)) {
    RecordEncoder encoder;
    for (const fb::Mutation* mutation : *(*batch)->mutations()) {
      const KeyView name = key_of(*mutation);
      touch(as_bytes(name.name));
      if (mutation->record() == nullptr || mutation->action() != fb::Action::Put) continue;
      const ValueBuffer value = encoder.encode(name, 1, *mutation->record(), {}, {});
      if (!decode_record(name, value.view())) __builtin_trap();
    }
  }
  return 0;
}
