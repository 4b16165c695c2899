#include "storage/record_codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/flat_view.h"
#include "storage/generated/record_generated.h"

namespace basalt::storage {

static_assert(std::endian::native == std::endian::little,
              "values are written as they lie in memory");
static_assert(sizeof(fb::BlobRef) == sizeof(BlobRef));

namespace {

template <class T>
void store(uint8_t* out, T value) {
  std::memcpy(out, &value, sizeof value);
}
template <class T>
T load(const uint8_t* in) {
  T value;
  std::memcpy(&value, in, sizeof value);
  return value;
}

constexpr size_t kMetaAlignment = 8;
constexpr size_t kOffsetBody = 8;
constexpr size_t kOffsetInlineBytes = 40;
constexpr size_t kOffsetFlags = 44;

bool aligned8(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 8 == 0; }

Bytes bytes_of(const flatbuffers::Vector<uint8_t>* vector) {
  if (vector == nullptr) return {};
  return {vector->Data(), vector->size()};
}

}  // namespace

void store_be64(uint8_t* out, uint64_t value) { store(out, std::byteswap(value)); }
uint64_t load_be64(const uint8_t* in) { return std::byteswap(load<uint64_t>(in)); }
void store_be32(uint8_t* out, uint32_t value) { store(out, std::byteswap(value)); }
uint32_t load_be32(const uint8_t* in) { return std::byteswap(load<uint32_t>(in)); }
void store_le32(uint8_t* out, uint32_t value) { store(out, value); }
uint32_t load_le32(const uint8_t* in) { return load<uint32_t>(in); }
void store_le64(uint8_t* out, uint64_t value) { store(out, value); }
uint64_t load_le64(const uint8_t* in) { return load<uint64_t>(in); }

FullKey::FullKey(const KeyView& key) {
  bytes_[0] = static_cast<char>(key.table);
  store_be64(reinterpret_cast<uint8_t*>(bytes_) + 1, key.space);
  const size_t name_bytes = std::min(key.name.size(), sizeof bytes_ - kFullKeyPrefixBytes);
  if (name_bytes != 0) std::memcpy(bytes_ + kFullKeyPrefixBytes, key.name.data(), name_bytes);
  size_ = kFullKeyPrefixBytes + name_bytes;
}

KeyView parse_full_key(std::string_view full_key) {
  BASALT_CHECK(full_key.size() >= kFullKeyPrefixBytes);
  return {static_cast<Table>(full_key[0]),
          load_be64(reinterpret_cast<const uint8_t*>(full_key.data()) + 1),
          full_key.substr(kFullKeyPrefixBytes)};
}

uint32_t key_crc(const KeyView& key) { return SpaceCrc(key.table, key.space).of(key.name); }

SpaceCrc::SpaceCrc(Table table, uint64_t space) {
  uint8_t prefix[kFullKeyPrefixBytes];
  prefix[0] = static_cast<uint8_t>(table);
  store_be64(prefix + 1, space);
  seed_ = crc32c(prefix);
}

uint32_t SpaceCrc::of(std::string_view name) const { return crc32c(as_bytes(name), seed_); }

RecordEncoder::RecordEncoder() : builder_(1024) {}

ValueBuffer RecordEncoder::encode(const KeyView& key, uint64_t seq, const fb::Record& record,
                                  const BlobRef& body, Bytes inline_body) {
  builder_.Clear();
  flatbuffers::Offset<flatbuffers::Vector<uint8_t>> tag, meta;
  flatbuffers::Offset<flatbuffers::Vector<const fb::BlobRef*>> blobs;
  if (const Bytes bytes = bytes_of(record.tag()); !bytes.empty()) {
    tag = builder_.CreateVector(bytes.data(), bytes.size());
  }
  if (const Bytes bytes = bytes_of(record.meta()); !bytes.empty()) {
    // A flatbuffer of the caller's: aligned, it is read in place.
    builder_.ForceVectorAlignment(bytes.size(), 1, kMetaAlignment);
    meta = builder_.CreateVector(bytes.data(), bytes.size());
  }
  if (const size_t count = blob_count(record); count != 0) {
    fb::BlobRef* out = nullptr;
    blobs = builder_.CreateUninitializedVectorOfStructs<fb::BlobRef>(count, &out);
    std::memcpy(static_cast<void*>(out), record.blobs()->Data(), count * sizeof(BlobRef));
  }
  builder_.Finish(fb::CreateRecord(builder_, record.size(), tag, meta, blobs));

  ValueBuffer value;
  const size_t size =
      kIndexHeaderBytes + builder_.GetSize() + inline_body.size() + kIndexTrailerBytes;
  value.bytes = std::make_unique_for_overwrite<uint8_t[]>(size);
  value.size = static_cast<uint32_t>(size);
  uint8_t* at = value.bytes.get();
  store(at, seq);
  store(at + kOffsetBody, body);
  store(at + kOffsetInlineBytes, static_cast<uint32_t>(inline_body.size()));
  store(at + kOffsetFlags, uint32_t{0});
  at += kIndexHeaderBytes;
  std::memcpy(at, builder_.GetBufferPointer(), builder_.GetSize());
  at += builder_.GetSize();
  if (!inline_body.empty()) std::memcpy(at, inline_body.data(), inline_body.size());
  at += inline_body.size();
  store(at, crc32c({value.bytes.get(), size - kIndexTrailerBytes}, key_crc(key)));
  return value;
}

Result<RecordView> decode_record(const KeyView& key, Bytes value) {
  return decode_value(key_crc(key), value);
}

Result<RecordView> decode_value(uint32_t key_checksum, Bytes value) {
  BASALT_CHECK(aligned8(value.data()));
  if (value.size() < kIndexHeaderBytes + sizeof(flatbuffers::uoffset_t) + kIndexTrailerBytes ||
      value.size() >= FLATBUFFERS_MAX_BUFFER_SIZE) {
    return fail(Code::kCorrupt, "index value has an impossible length");
  }
  const size_t checked_bytes = value.size() - kIndexTrailerBytes;
  if (crc32c(value.first(checked_bytes), key_checksum) !=
      load<uint32_t>(value.data() + checked_bytes)) {
    return fail(Code::kCorrupt, "index value fails its checksum");
  }
  RecordView view;
  view.seq = load<uint64_t>(value.data());
  std::memcpy(&view.body, value.data() + kOffsetBody, sizeof view.body);
  const size_t inline_bytes = load<uint32_t>(value.data() + kOffsetInlineBytes);
  if (load<uint32_t>(value.data() + kOffsetFlags) != 0) {
    return fail(Code::kCorrupt, "index value has unknown flags");
  }
  const size_t payload_bytes = checked_bytes - kIndexHeaderBytes;
  if (inline_bytes > payload_bytes || inline_bytes > kIndexBodyBytesMax) {
    return fail(Code::kCorrupt, "index value has an impossible inline length");
  }
  switch (static_cast<BlobKind>(view.body.kind)) {
    case BlobKind::kIndex:
      if (view.body.length != inline_bytes) return fail(Code::kCorrupt, "inline length differs");
      break;
    case BlobKind::kNone:
    case BlobKind::kLog:
      if (inline_bytes != 0) return fail(Code::kCorrupt, "inline bytes without an inline body");
      break;
    default:
      return fail(Code::kCorrupt, "index value has an unknown kind of body");
  }
  const uint8_t* buffer = value.data() + kIndexHeaderBytes;
  const size_t buffer_bytes = payload_bytes - inline_bytes;
  // The checksum has vouched for the bytes, so what is wrong here was written wrong: each field is
  // checked as it is read, and nothing else is.
  FlatView record(Bytes(buffer, buffer_bytes));
  view.size = record.scalar<uint64_t>(fb::Record::VT_SIZE);
  view.tag = as_text(record.bytes(fb::Record::VT_TAG));
  view.meta = record.bytes(fb::Record::VT_META);
  const Bytes blobs = record.bytes(fb::Record::VT_BLOBS, sizeof(BlobRef));
  if (!record.good()) return fail(Code::kCorrupt, "index record has a damaged structure");
  if (view.tag.size() > kTagBytesMax)
    return fail(Code::kCorrupt, "index record has too long a tag");
  if (!blobs.empty()) {
    if (!aligned8(blobs.data())) return fail(Code::kCorrupt, "index record has misaligned blobs");
    view.blobs = {reinterpret_cast<const BlobRef*>(blobs.data()), blobs.size() / sizeof(BlobRef)};
  }
  view.inline_body = {buffer + buffer_bytes, inline_bytes};
  return view;
}

Result<const fb::MutationBatch*> verify_batch(Bytes bytes, size_t body_bytes) {
  BASALT_CHECK(aligned8(bytes.data()));
  if (bytes.size() >= FLATBUFFERS_MAX_BUFFER_SIZE) return fail(Code::kInvalid, "batch too large");
  flatbuffers::Verifier verifier(bytes.data(), bytes.size());
  if (!verifier.VerifyBuffer<fb::MutationBatch>(nullptr)) {
    return fail(Code::kInvalid, "batch has a damaged structure");
  }
  const auto* batch = flatbuffers::GetRoot<fb::MutationBatch>(bytes.data());
  if (batch->mutations() == nullptr || batch->mutations()->size() == 0) {
    return fail(Code::kInvalid, "batch is empty");
  }
  if (batch->mutations()->size() > kMutationsPerBatchMax) {
    return fail(Code::kInvalid, "batch has too many mutations");
  }
  if (body_bytes > kInlineBodyBytesMax) return fail(Code::kInvalid, "body too large for a batch");
  size_t bodies = 0;
  for (const fb::Mutation* mutation : *batch->mutations()) {
    const KeyView key = key_of(*mutation);
    if (static_cast<size_t>(key.table) >= kTableCount) return fail(Code::kInvalid, "no such table");
    if (key.space >> 63 != 0) return fail(Code::kInvalid, "no such space");
    if (key.name.empty() || key.name.size() > kNameBytesMax) {
      return fail(Code::kInvalid, "name length out of range");
    }
    switch (mutation->action()) {
      case fb::Action::Put:
        if (mutation->record() == nullptr) return fail(Code::kInvalid, "put without a record");
        if (tag_of(*mutation->record()).size() > kTagBytesMax) {
          return fail(Code::kInvalid, "tag too long");
        }
        if (mutation->has_body()) ++bodies;
        break;
      case fb::Action::Erase:
        if (mutation->has_body()) return fail(Code::kInvalid, "erase with a body");
        break;
      default:
        return fail(Code::kInvalid, "no such action");
    }
  }
  if (bodies > 1) return fail(Code::kInvalid, "more than one owner of the body");
  if (bodies == 0 && body_bytes != 0) return fail(Code::kInvalid, "body without an owner");
  return batch;
}

KeyView key_of(const fb::Mutation& mutation) {
  return {static_cast<Table>(mutation.table()), mutation.space(),
          as_text(bytes_of(mutation.name()))};
}

std::string_view tag_of(const fb::Record& record) { return as_text(bytes_of(record.tag())); }

size_t blob_count(const fb::Record& record) {
  return record.blobs() == nullptr ? 0 : record.blobs()->size();
}

BlobRef blob_at(const fb::Record& record, size_t index) {
  BlobRef blob;
  std::memcpy(&blob, record.blobs()->Data() + index * sizeof blob, sizeof blob);
  return blob;
}

AlignedBytes::AlignedBytes(Bytes bytes) : view_(bytes) {
  if (aligned8(bytes.data())) return;
  copy_ = std::make_unique_for_overwrite<uint8_t[]>(bytes.size());
  std::memcpy(copy_.get(), bytes.data(), bytes.size());
  view_ = {copy_.get(), bytes.size()};
}

size_t BlobRefHash::operator()(const BlobRef& blob) const {
  // Place identifies a blob; 64-bit multiplicative mixing is enough for a table that nobody
  // attacks.
  return (blob.offset ^ (uint64_t{blob.file} << 40) ^ blob.generation) * 0x9E3779B97F4A7C15ull;
}

std::string printable(const KeyView& key) {
  constexpr size_t kShownBytesMax = 200;
  std::string out = fmt::format("{}/{}/", static_cast<unsigned>(key.table), key.space);
  for (const char c : key.name.substr(0, kShownBytesMax)) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte >= 0x20 && byte < 0x7f && c != '\\') {
      out.push_back(c);
    } else {
      fmt::format_to(std::back_inserter(out), "\\x{:02x}", byte);
    }
  }
  if (key.name.size() > kShownBytesMax) out += "...";
  return out;
}

}  // namespace basalt::storage
