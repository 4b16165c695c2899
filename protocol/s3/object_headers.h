// What a request says about the object it makes (PutObject, CopyObject, CreateMultipartUpload):
// system headers, user metadata, storage class, tags; and the refusal of what we do not do
// (encryption, object lock, ACLs).
#pragma once

#include "protocol/s3/error.h"
#include "protocol/s3/object_meta.h"
#include "protocol/s3/op.h"

namespace basalt::s3 {

constexpr std::string_view kDefaultContentType = "binary/octet-stream";

// Fills everything but modified_ms, checksum and parts. Errors:
//   MetadataTooLarge        names and values of x-amz-meta-* above kUserMetadataBytesMax
//   InvalidStorageClass     not a storage class of S3 (all of them are stored alike)
//   InvalidTag, InvalidArgument   x-amz-tagging, x-amz-website-redirect-location, x-amz-acl
//   AccessControlListNotSupported  an ACL other than the owner's (ACLs are disabled:
//   BucketOwnerEnforced) NotImplemented          server-side encryption, offset appends; the header
//   is named InvalidRequest          object lock headers on a bucket without object lock
S3Result<ObjectFields> object_headers(const Op& op);

// GetObject and HeadObject: encryption headers make no sense for what is stored in the clear.
// InvalidRequest / InvalidArgument as S3 answers them.
S3Result<> check_read_headers(const S3Request& request);

}  // namespace basalt::s3
