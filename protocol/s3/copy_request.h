// What CopyObject and UploadPartCopy share: resolving x-amz-copy-source, with access to it, and its
// conditions.
#pragma once

#include <memory>

#include "base/task.h"
#include "protocol/s3/bucket_registry.h"
#include "protocol/s3/copy_source.h"
#include "protocol/s3/error.h"
#include "protocol/s3/object_meta.h"
#include "protocol/s3/op.h"
#include "storage/blob_store.h"
#include "storage/record.h"

namespace basalt::s3 {

struct SourceObject {
  CopySource name;
  std::shared_ptr<const Bucket> bucket;
  std::unique_ptr<storage::ReadGuard> guard;  // keeps the content in place until the copy is made
  storage::Record record;
};

// Errors, in this order: malformed source, NoSuchBucket, AccessDenied (the caller may not read the
// source bucket; asked before the key is looked for, so that a refusal does not tell whether it
// exists), NoSuchVersion, NoSuchKey, PreconditionFailed (x-amz-copy-source-if-*).
Task<S3Result<SourceObject>> find_copy_source(Op& op);

}  // namespace basalt::s3
