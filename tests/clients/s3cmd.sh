#!/bin/bash
# s3cmd: buckets, put and get (simple and multipart), ls, sync both ways, info, cp, del. It signs in its own way.
source "$(dirname "$0")/common.sh"
cat >s3cfg <<TEXT
[default]
access_key = $AWS_ACCESS_KEY_ID
secret_key = $AWS_SECRET_ACCESS_KEY
host_base = $BASALT_HOST
host_bucket = $BASALT_HOST
bucket_location = us-east-1
use_https = False
signature_v2 = False
max_retries = 1
TEXT
s3cmd=(s3cmd -c "$SCRATCH/s3cfg" --no-progress)
b=$(bucket)
random 3000 small
random $((17 * 1024 * 1024)) large
tree src

"${s3cmd[@]}" mb "s3://$b"
"${s3cmd[@]}" ls | grep -q "s3://$b\$" || fail "the bucket is not listed"
"${s3cmd[@]}" put small "s3://$b/dir/small"
"${s3cmd[@]}" put --multipart-chunk-size-mb=5 large "s3://$b/large"
"${s3cmd[@]}" get "s3://$b/dir/small" small.back
"${s3cmd[@]}" get "s3://$b/large" large.back
same small small.back
same large large.back
"${s3cmd[@]}" info "s3://$b/dir/small" >info
grep -q 'File size: *3000' info || fail "info: $(cat info)"
grep -q "MD5 sum: *$(md5sum <small | cut -d' ' -f1)" info || fail "info: $(cat info)"
"${s3cmd[@]}" sync src/ "s3://$b/tree/" >/dev/null
"${s3cmd[@]}" sync "s3://$b/tree/" back/ >/dev/null
diff -r src back
equal "$("${s3cmd[@]}" ls --recursive "s3://$b/tree/many/" | wc -l)" 40 "ls --recursive"
"${s3cmd[@]}" cp "s3://$b/dir/small" "s3://$b/copied"
"${s3cmd[@]}" get "s3://$b/copied" copied
same small copied
"${s3cmd[@]}" mv "s3://$b/copied" "s3://$b/moved"
"${s3cmd[@]}" del "s3://$b/moved"
"${s3cmd[@]}" ls "s3://$b/" | grep -q moved && fail "a deleted object is listed"
"${s3cmd[@]}" del --recursive --force "s3://$b/" >/dev/null
"${s3cmd[@]}" rb "s3://$b"
echo "s3cmd: all as expected"
