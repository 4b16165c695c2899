#!/bin/bash
# s3fs: the bucket as a file system: write, read back after a fresh mount, list, rename, append, remove.
source "$(dirname "$0")/common.sh"
{ [ -c /dev/fuse ] && { exec 9<>/dev/fuse; } 2>/dev/null; } || skip "s3fs needs /dev/fuse, which is absent or closed here"
exec 9<&-
b=$(bucket)
mkdir mnt
/usr/bin/aws --endpoint-url "$BASALT_ENDPOINT" s3 mb "s3://$b"
printf '%s:%s\n' "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY" >passwd
chmod 600 passwd
mounted=
mount_bucket() {
  s3fs "$b" mnt -o "url=$BASALT_ENDPOINT,use_path_request_style,passwd_file=$SCRATCH/passwd,endpoint=us-east-1,retries=1" \
    2>mount.log || skip "this machine does not let s3fs mount: $(tail -n 1 mount.log)"
  for _ in $(seq 50); do
    if mountpoint -q mnt; then mounted=1; return 0; fi
    sleep 0.1
  done
  fail "s3fs did not mount"
}
unmount() { [ -z "$mounted" ] || fusermount3 -u mnt 2>/dev/null || fusermount -u mnt || umount mnt; mounted=; }
trap unmount EXIT
tree src
random $((12 * 1024 * 1024)) src/multipart

mount_bucket
cp -r src mnt/tree
unmount
mount_bucket
diff -r src mnt/tree
equal "$(find mnt/tree -type f | wc -l)" "$(find src -type f | wc -l)" "files in the listing"
mv mnt/tree/many/1 mnt/renamed
same src/many/1 mnt/renamed
printf 'more' >>mnt/renamed
cat src/many/1 <(printf 'more') | cmp - mnt/renamed
rm -r mnt/tree/many
[ ! -e mnt/tree/many ] || fail "a removed folder is there"
unmount
equal "$(/usr/bin/aws --endpoint-url "$BASALT_ENDPOINT" s3 ls --recursive "s3://$b/tree/many/" | wc -l)" 0 "objects below the removed folder"
echo "s3fs: all as expected"
