// What the multipart operations share: upload ids, row names, look-up of uploads, removal of their
// parts.
//
// Rows (shards/client.h: all on the shard of the object's key):
//   kUpload  name = key, 0x00, upload id (16 bytes)              meta fb::Upload
//   kPart    name = upload id (16 bytes), big-endian part number  meta fb::UploadedPart, tag =
//   ETag, blobs
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/task.h"
#include "protocol/s3/checksum_model.h"
#include "protocol/s3/error.h"
#include "protocol/s3/object_meta.h"
#include "protocol/s3/op.h"
#include "storage/meta_shard.h"
#include "storage/mutation_builder.h"
#include "storage/record.h"

namespace basalt::s3 {

// Random, 16 bytes; clients see 32 lower-case hex digits.
class UploadId {
 public:
  static UploadId random();
  static std::optional<UploadId> parse(std::string_view text);
  static UploadId from_bytes(Bytes bytes);  // exactly 16
  std::string text() const;
  std::string_view raw() const { return {bytes_.data(), bytes_.size()}; }

  // Row names.
  std::string upload_name(std::string_view key) const;
  std::string part_name(unsigned number) const;

 private:
  std::array<char, 16> bytes_{};
};

// The request's upload: its id and row. Lives in the handler's frame (views into it are passed to
// the shard).
struct Upload {
  UploadId id;
  std::string name;  // of the row
  storage::Record record;
};

// By the request's uploadId. NoSuchUpload if it is malformed, unknown or belongs to another key.
Task<S3Result<Upload>> find_upload(Op& op);

storage::KeyView upload_key(const Op& op, const Upload& upload);
S3Error no_such_upload(const Op& op);

// What the parts of this upload carry as checksum: what was asked for, or the default.
UploadChecksum checksum_kind(const fb::Upload& upload);
bool checksum_asked(const fb::Upload& upload);

// One page of an upload's parts with a number above `after`, in order.
Task<Result<storage::ScanPage>> scan_parts(Op& op, const UploadId& id, unsigned after,
                                           uint32_t limit);
unsigned part_number_of(std::string_view part_name);

// Erases what parts are left of an upload whose row is gone. A part whose write overtook the scan
// of a completion or an abort may be among them; after the row went, no further one can appear.
Task<S3Result<>> erase_left_parts(Op& op, const UploadId& id);

}  // namespace basalt::s3
