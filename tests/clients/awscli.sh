#!/bin/bash
# The AWS command line: the s3 commands (simple and multipart transfers, sync, presign) and the s3api calls below them.
source "$(dirname "$0")/common.sh"
# The bucket is on loopback: no pager, no retries that would hide an error.
export AWS_PAGER='' AWS_MAX_ATTEMPTS=1
aws=(/usr/bin/aws --endpoint-url "$BASALT_ENDPOINT")
b=$(bucket)
random 5000 small
random $((20 * 1024 * 1024)) large
tree src

"${aws[@]}" s3 mb "s3://$b"
"${aws[@]}" s3 ls | grep -q " $b\$" || fail "the bucket is not listed"
"${aws[@]}" s3 cp --no-progress small "s3://$b/dir/small"
"${aws[@]}" s3 cp --no-progress large "s3://$b/large"
"${aws[@]}" s3 cp --no-progress "s3://$b/dir/small" small.back
"${aws[@]}" s3 cp --no-progress "s3://$b/large" large.back
same small small.back
same large large.back
cat small | "${aws[@]}" s3 cp - "s3://$b/streamed"
"${aws[@]}" s3 cp "s3://$b/streamed" - | cmp - small
equal "$("${aws[@]}" s3 ls "s3://$b/" | awk '{ print $NF }' | sort | tr '\n' ' ')" "dir/ large streamed " "s3 ls"

"${aws[@]}" s3 sync --no-progress src "s3://$b/tree" >/dev/null
equal "$("${aws[@]}" s3 sync --no-progress src "s3://$b/tree")" "" "a second sync has nothing to do"
"${aws[@]}" s3 sync --no-progress "s3://$b/tree" tree.back >/dev/null
diff -r src tree.back
"${aws[@]}" s3 mv --no-progress "s3://$b/streamed" "s3://$b/moved" >/dev/null
# By UploadPartCopy; the command asks for the tags of the source too.
"${aws[@]}" s3 cp --no-progress "s3://$b/large" "s3://$b/large.copy" >/dev/null
"${aws[@]}" s3 cp --no-progress "s3://$b/large.copy" large.copied
same large large.copied

curl -sS --fail -o presigned "$("${aws[@]}" s3 presign --expires-in 60 "s3://$b/dir/small")"
same small presigned

api() { "${aws[@]}" --output text s3api "$@"; }
equal "$(api head-object --bucket "$b" --key dir/small --query ContentLength)" 5000 "head-object"
etag=$(api head-object --bucket "$b" --key dir/small --query ETag)
equal "$etag" "\"$(md5sum <small | cut -d' ' -f1)\"" "the ETag is the MD5"
api put-object --bucket "$b" --key meta --body small --content-type text/x-test --metadata colour=grey --content-md5 \
  "$(openssl md5 -binary small | base64)" >/dev/null
equal "$(api head-object --bucket "$b" --key meta --query '[ContentType,Metadata.colour]')" "$(printf 'text/x-test\tgrey')" "metadata"
api copy-object --bucket "$b" --key copied --copy-source "$b/meta" --copy-source-if-match "$etag" >/dev/null
equal "$(api head-object --bucket "$b" --key copied --query Metadata.colour)" grey "a copy keeps the metadata"
api get-object --bucket "$b" --key copied --range bytes=100-199 range >/dev/null
same range <(tail -c +101 small | head -c 100)
if api get-object --bucket "$b" --key copied --if-none-match "$etag" unchanged >error 2>&1; then fail "If-None-Match: expected 304"; fi
grep -q 304 error || fail "If-None-Match answered: $(cat error)"
if api get-object --bucket "$b" --key absent nothing >error 2>&1; then fail "an absent key was found"; fi
grep -q NoSuchKey error || fail "an absent key answered: $(cat error)"
equal "$(api list-objects-v2 --bucket "$b" --prefix tree/many/ --page-size 7 --query 'Contents[].Key' | wc -w)" 40 "list-objects-v2 in pages of 7"
equal "$(api list-objects-v2 --bucket "$b" --delimiter / --query 'CommonPrefixes[].Prefix')" "$(printf 'dir/\ttree/')" "common prefixes"
equal "$(api list-objects --bucket "$b" --prefix dir --query 'Contents[].Key')" dir/small "list-objects"

split -b $((6 * 1024 * 1024)) -d large part.
id=$(api create-multipart-upload --bucket "$b" --key assembled --query UploadId)
equal "$(api list-multipart-uploads --bucket "$b" --query 'Uploads[].UploadId')" "$id" "list-multipart-uploads"
n=0
: >parts
for part in part.*; do
  n=$((n + 1))
  tag=$(api upload-part --bucket "$b" --key assembled --upload-id "$id" --part-number $n --body "$part" --query ETag)
  printf '%s{"PartNumber":%d,"ETag":%s}' "$([ $n = 1 ] || echo ,)" $n "$tag" >>parts
done
equal "$(api list-parts --bucket "$b" --key assembled --upload-id "$id" --query 'length(Parts)')" "$n" "list-parts"
api complete-multipart-upload --bucket "$b" --key assembled --upload-id "$id" --multipart-upload "{\"Parts\":[$(cat parts)]}" >/dev/null
api get-object --bucket "$b" --key assembled assembled >/dev/null
same large assembled
id=$(api create-multipart-upload --bucket "$b" --key given-up --query UploadId)
api abort-multipart-upload --bucket "$b" --key given-up --upload-id "$id"
api delete-objects --bucket "$b" --delete 'Objects=[{Key=meta},{Key=copied},{Key=absent}]' >/dev/null

if "${aws[@]}" s3 rb "s3://$b" >error 2>&1; then fail "a bucket with objects was removed"; fi
grep -q BucketNotEmpty error || fail "rb answered: $(cat error)"
"${aws[@]}" s3 rm --recursive "s3://$b" >/dev/null
"${aws[@]}" s3 rb "s3://$b"
echo "awscli: all as expected"
