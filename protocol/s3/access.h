// The access decision: one place, after the gate and before any handler, driven by the row.
//
// Rules of this version: nobody anonymous; an account may act on its own buckets and their objects;
// root may on all; any account may list its buckets and create one. Policies come here later: the
// row's action and the bucket are what they need.
#pragma once

#include <string_view>

#include "auth/identity.h"
#include "protocol/s3/bucket_registry.h"
#include "protocol/s3/error.h"
#include "protocol/s3/op.h"

namespace basalt::s3 {

// `bucket` is null for service rows and CreateBucket. AccessDenied otherwise; says nothing about
// what exists.
S3Result<> check_access(const Route& route, const auth::Identity& identity, const Bucket* bucket);

// Whether the row works on an existing bucket.
bool needs_bucket(const Route& route);

// x-amz-expected-bucket-owner: AccessDenied if it names another account than the bucket's.
S3Result<> check_expected_owner(const S3Request& request, const Bucket& bucket);

// The gate's verdict in S3's words. `request` for the details S3 repeats (access key id,
// signature).
S3Error auth_error(const auth::AuthError& failure, const S3Request& request);

}  // namespace basalt::s3
