// Finding an object's record.
#pragma once

#include <string_view>

#include "base/task.h"
#include "protocol/s3/bucket_registry.h"
#include "protocol/s3/error.h"
#include "protocol/s3/op.h"
#include "storage/record.h"

namespace basalt::s3 {

// The record of `key` in `bucket`; both outlive the task. NoSuchKey if there is none. To read
// content too, take a ReadGuard first.
Task<S3Result<storage::Record>> find_object(Op& op, const Bucket& bucket, std::string_view key);

}  // namespace basalt::s3
