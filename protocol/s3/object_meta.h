// Metadata of objects, uploads and parts: protocol/s3/object.fbs in a Record's meta.
//
// Reading is by views: MetaView checks the bytes with the FlatBuffers Verifier once and gives the
// generated accessors; no field is copied. Writing is from plain structs.
#pragma once

#include <flatbuffers/flatbuffers.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "auth/digest.h"
#include "base/bytes.h"
#include "base/result.h"
#include "protocol/s3/generated/object_generated.h"

namespace basalt::s3 {

// Owns the meaning of a verified flatbuffer. Borrows the bytes where they are aligned (then they
// must outlive the view), else keeps a copy: records give no alignment to their metadata.
template <class Table>
class MetaView {
 public:
  // kCorrupt if the bytes are not such a table.
  static Result<MetaView> open(Bytes meta) {
    MetaView view;
    view.size_ = meta.size();
    if (reinterpret_cast<uintptr_t>(meta.data()) % kAlignment == 0) {
      view.borrowed_ = meta.data();
    } else if (meta.size() <= kSmallBytes) {
      std::memcpy(view.small_.data(), meta.data(), meta.size());
    } else {
      view.large_ = std::make_unique_for_overwrite<uint64_t[]>((meta.size() + 7) / 8);
      std::memcpy(view.large_.get(), meta.data(), meta.size());
    }
    flatbuffers::Verifier verifier(view.data(), view.size_);
    if (!verifier.VerifyBuffer<Table>(nullptr))
      return fail(Code::kCorrupt, "object metadata is malformed");
    return view;
  }

  const Table* get() const { return flatbuffers::GetRoot<Table>(data()); }
  const Table* operator->() const { return get(); }
  const Table& operator*() const { return *get(); }

 private:
  static constexpr size_t kAlignment = 8;
  static constexpr size_t kSmallBytes = 512;

  const uint8_t* data() const {
    if (borrowed_ != nullptr) return borrowed_;
    if (large_ != nullptr) return reinterpret_cast<const uint8_t*>(large_.get());
    return small_.data();
  }

  const uint8_t* borrowed_ = nullptr;
  size_t size_ = 0;
  std::unique_ptr<uint64_t[]> large_;
  alignas(8) std::array<uint8_t, kSmallBytes> small_;  // left uninitialised; only size_ bytes are
                                                       // ever looked at

  MetaView() {}
};

using ObjectView = MetaView<fb::Object>;
using UploadView = MetaView<fb::Upload>;
using PartView = MetaView<fb::UploadedPart>;

// What a listing shows of an object. Only these fields are looked at and checked: a page has a
// thousand of them.
struct ListedObject {
  int64_t modified_ms = 0;
  std::string_view owner;          // as in ObjectFields
  std::string_view storage_class;  // as in ObjectFields
  std::optional<auth::Algorithm> checksum;
  bool checksum_full_object = false;

  // From an Object's metadata. kCorrupt if the fields are damaged. The views point into `meta`.
  static Result<ListedObject> open(Bytes meta);
  // What pages of a scan keep of it (storage::SelectMeta): nothing if open() would fail.
  static size_t select(Bytes meta, uint8_t* out);
  // From what select() kept. kCorrupt if that is nothing.
  static Result<ListedObject> selected(Bytes kept);
};

inline std::string_view text_of(const flatbuffers::String* text) {
  return text == nullptr ? std::string_view() : std::string_view(text->c_str(), text->size());
}
template <class Vector>
size_t count_of(const Vector* vector) {
  return vector == nullptr ? 0 : vector->size();
}

struct NameValue {
  std::string name;
  std::string value;
};

// x-amz-checksum-* of an object. Not full_object: COMPOSITE, the digest of the parts' digests.
struct StoredChecksum {
  auth::Algorithm algorithm = auth::Algorithm::kCrc64Nvme;
  bool full_object = true;
  auth::Digest value;
};

struct StoredPart {
  uint16_t number = 0;
  uint64_t size = 0;
  auth::Digest checksum;  // size 0: none
};

// What fb::Object carries; names of `headers` and `user` in lower case.
struct ObjectFields {
  int64_t modified_ms = 0;
  std::string owner;          // "" for the owner of the bucket
  std::string storage_class;  // "" for STANDARD
  std::vector<NameValue> headers;
  std::vector<NameValue> user;
  std::optional<StoredChecksum> checksum;
  std::vector<StoredPart>
      parts;  // their ETags are not kept: nothing shows them after the completion
  std::string website_redirect;
  std::vector<NameValue> tags;
};

struct UploadFields {
  ObjectFields object;
  std::string initiator;
  int64_t initiated_ms = 0;
  std::optional<auth::Algorithm> checksum_algorithm;
  bool checksum_full_object = false;
};

// Finished flatbuffer bytes.
class EncodedMeta {
 public:
  explicit EncodedMeta(flatbuffers::DetachedBuffer buffer) : buffer_(std::move(buffer)) {}
  Bytes bytes() const { return {buffer_.data(), buffer_.size()}; }

 private:
  flatbuffers::DetachedBuffer buffer_;
};

EncodedMeta encode_object(const ObjectFields& object);
EncodedMeta encode_upload(const UploadFields& upload);
EncodedMeta encode_part(int64_t modified_ms, const std::optional<auth::Digest>& checksum);

// Everything but modified_ms, checksum and parts: what CopyObject and CompleteMultipartUpload
// carry over.
ObjectFields carried_fields(const fb::Object& object);

// Everything: to change one field and write the rest back.
ObjectFields all_fields(const fb::Object& object);

std::optional<StoredChecksum> checksum_of(const fb::Object& object);
auth::Digest digest_of(const flatbuffers::Vector<uint8_t>* bytes);

}  // namespace basalt::s3
