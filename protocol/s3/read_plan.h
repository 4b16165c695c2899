// ReadPlan: what GetObject and HeadObject answer about an object before any byte is read:
// conditions, range, part.
#pragma once

#include <cstdint>

#include "protocol/s3/error.h"
#include "protocol/s3/object_meta.h"
#include "protocol/s3/op.h"
#include "storage/record.h"

namespace basalt::s3 {

struct ReadPlan {
  int status = 200;  // 200, 206 or 304
  uint64_t first = 0;
  uint64_t length = 0;
};

// Decides, and fills op.head() (status and every field but Content-Length) when the answer is a
// success or a 304. Errors: PreconditionFailed, InvalidRange (its ActualObjectSize becomes
// Content-Range), InvalidPartNumber, InvalidArgument (part number), InvalidRequest (part number
// together with Range; overrides of an anonymous request).
S3Result<ReadPlan> plan_read(Op& op, const storage::RecordView& record, const fb::Object& object);

// 1 to kPartNumberMax, digits only. InvalidArgument otherwise.
S3Result<unsigned> parse_part_number(std::string_view text);

}  // namespace basalt::s3
