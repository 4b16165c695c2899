#include "protocol/s3/multipart.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/random.h"
#include "protocol/s3/failure.h"

namespace basalt::s3 {
namespace {

constexpr uint32_t kPartsPage = 1000;

}  // namespace

UploadId UploadId::random() {
  UploadId id;
  fill_random({reinterpret_cast<uint8_t*>(id.bytes_.data()), id.bytes_.size()});
  return id;
}

std::optional<UploadId> UploadId::parse(std::string_view text) {
  UploadId id;
  if (text.size() != 2 * id.bytes_.size()) return std::nullopt;
  // Only the form we give out: the same upload under two spellings would be confusing at best.
  const bool digits = std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
  });
  if (!digits) return std::nullopt;
  const auto bytes = auth::from_hex(text);
  if (!bytes || bytes->size() != id.bytes_.size()) return std::nullopt;
  std::copy(bytes->begin(), bytes->end(), id.bytes_.begin());
  return id;
}

UploadId UploadId::from_bytes(Bytes bytes) {
  UploadId id;
  BASALT_CHECK(bytes.size() == id.bytes_.size());
  std::memcpy(id.bytes_.data(), bytes.data(), bytes.size());
  return id;
}

std::string UploadId::text() const { return auth::to_hex(as_bytes(raw())); }

std::string UploadId::upload_name(std::string_view key) const {
  std::string name(key);
  name += '\0';
  name += raw();
  return name;
}

std::string UploadId::part_name(unsigned number) const {
  std::string name(raw());
  name += static_cast<char>(number >> 8);
  name += static_cast<char>(number & 0xFF);
  return name;
}

unsigned part_number_of(std::string_view part_name) {
  BASALT_CHECK(part_name.size() == 18);
  return static_cast<unsigned>(static_cast<uint8_t>(part_name[16])) << 8 |
         static_cast<uint8_t>(part_name[17]);
}

S3Error no_such_upload(const Op& op) {
  S3Error error(S3Code::kNoSuchUpload);
  if (const std::string* id = op.request.parameter("uploadId")) error.details = {{"UploadId", *id}};
  return error;
}

storage::KeyView upload_key(const Op& op, const Upload& upload) {
  return {storage::Table::kUpload, op.bucket->space, upload.name};
}

Task<S3Result<Upload>> find_upload(Op& op) {
  const std::string* text = op.request.parameter("uploadId");
  const auto id = UploadId::parse(text == nullptr ? std::string_view() : std::string_view(*text));
  if (!id) co_return std::unexpected(no_such_upload(op));
  Upload upload{*id, id->upload_name(op.request.key), {}};
  auto found = co_await op.shards().get(op.shard(), upload_key(op, upload));
  if (!found) {
    if (found.error().code == Code::kNotFound) co_return std::unexpected(no_such_upload(op));
    co_return std::unexpected(std::move(found).error());
  }
  upload.record = std::move(*found);
  co_return upload;
}

bool checksum_asked(const fb::Upload& upload) {
  return upload.checksum_algorithm() < auth::kAlgorithmCount;
}

UploadChecksum checksum_kind(const fb::Upload& upload) {
  if (!checksum_asked(upload)) return {};
  return {static_cast<auth::Algorithm>(upload.checksum_algorithm()), upload.checksum_full_object()};
}

Task<Result<storage::ScanPage>> scan_parts(Op& op, const UploadId& id, unsigned after,
                                           uint32_t limit) {
  const std::string after_name = after == 0 ? std::string() : id.part_name(after);
  const storage::ScanOptions options{.table = storage::Table::kPart,
                                     .space = op.bucket->space,
                                     .prefix = id.raw(),
                                     .after = after_name,
                                     .limit = limit};
  co_return co_await op.shards().scan(op.shard(), options);
}

Task<S3Result<>> erase_left_parts(Op& op, const UploadId& id) {
  while (true) {
    CO_TRY(page, scan_parts(op, id, 0, kPartsPage));
    if (page.entries.empty()) co_return S3Result<>();
    storage::MutationBuilder mutations;
    for (const auto& entry : page.entries) {
      mutations.erase({storage::Table::kPart, op.bucket->space, entry.name});
    }
    CO_CHECK(op.shards().apply(op.shard(), {}, mutations.finish(), {}, true));
  }
}

}  // namespace basalt::s3
