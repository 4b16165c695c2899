// Every operation's handler, one line each: the list that routes.cc draws its rows from.
//
// A handler is a coroutine that gets an authenticated, authorised request (op.h says what is ready
// when it runs) and gives back a Reply or an S3Error. protocol/s3/ops/<name>.cc holds everything
// that is particular to <name>.
#pragma once

#include "base/task.h"
#include "protocol/s3/error.h"
#include "protocol/s3/op.h"

namespace basalt::s3 {

// Answers 501 NotImplemented: the handler of every row that names an operation we lack.
Task<S3Result<Reply>> not_implemented(Op& op);

// Service and buckets.
Task<S3Result<Reply>> list_buckets(Op& op);
Task<S3Result<Reply>> create_bucket(Op& op);
Task<S3Result<Reply>> head_bucket(Op& op);
Task<S3Result<Reply>> delete_bucket(Op& op);
Task<S3Result<Reply>> get_bucket_location(Op& op);
Task<S3Result<Reply>> list_objects(Op& op);
Task<S3Result<Reply>> list_objects_v2(Op& op);
Task<S3Result<Reply>> delete_objects(Op& op);
Task<S3Result<Reply>> list_multipart_uploads(Op& op);

// Objects.
Task<S3Result<Reply>> put_object(Op& op);
Task<S3Result<Reply>> get_object(Op& op);
Task<S3Result<Reply>> head_object(Op& op);
Task<S3Result<Reply>> get_object_attributes(Op& op);
Task<S3Result<Reply>> delete_object(Op& op);
Task<S3Result<Reply>> copy_object(Op& op);
Task<S3Result<Reply>> get_object_tagging(Op& op);
Task<S3Result<Reply>> put_object_tagging(Op& op);
Task<S3Result<Reply>> delete_object_tagging(Op& op);

// Multipart uploads.
Task<S3Result<Reply>> create_multipart_upload(Op& op);
Task<S3Result<Reply>> upload_part(Op& op);
Task<S3Result<Reply>> upload_part_copy(Op& op);
Task<S3Result<Reply>> complete_multipart_upload(Op& op);
Task<S3Result<Reply>> abort_multipart_upload(Op& op);
Task<S3Result<Reply>> list_parts(Op& op);

}  // namespace basalt::s3
