#!/bin/bash
# rclone: copy, check, sync (with a changed, a removed and an added file), multipart, server-side copy, cat, purge.
source "$(dirname "$0")/common.sh"
export RCLONE_CONFIG="$SCRATCH/none" RCLONE_RETRIES=1 RCLONE_LOW_LEVEL_RETRIES=1
export RCLONE_CONFIG_B_TYPE=s3 RCLONE_CONFIG_B_PROVIDER=Other RCLONE_CONFIG_B_ENDPOINT=$BASALT_ENDPOINT \
  RCLONE_CONFIG_B_ACCESS_KEY_ID=$AWS_ACCESS_KEY_ID RCLONE_CONFIG_B_SECRET_ACCESS_KEY=$AWS_SECRET_ACCESS_KEY \
  RCLONE_CONFIG_B_REGION=us-east-1 RCLONE_CONFIG_B_FORCE_PATH_STYLE=true
touch "$RCLONE_CONFIG"
b=$(bucket)
tree src
random $((20 * 1024 * 1024)) src/multipart

rclone mkdir "b:$b"
rclone lsd b: | grep -q " $b\$" || fail "the bucket is not listed"
rclone copy --s3-upload-cutoff 8M --s3-chunk-size 5M src "b:$b/tree"
rclone check --download src "b:$b/tree"
rclone check src "b:$b/tree"
rclone copy "b:$b/tree" back
diff -r src back
random 999 src/many/1
rm src/many/2
random 10 src/new
rclone sync src "b:$b/tree"
rclone check --download src "b:$b/tree"
equal "$(rclone sync --dry-run src "b:$b/tree" 2>&1 | grep -c -E 'NOTICE.*Skipped (copy|delete)')" 0 "a second sync has nothing to do"
equal "$(rclone size --json "b:$b/tree" | sed 's/.*"bytes":\([0-9]*\).*/\1/')" \
  "$(find src -type f -printf '%s\n' | awk '{ s += $1 } END { print s }')" "rclone size"
rclone copyto "b:$b/tree/multipart" "b:$b/copied"
rclone cat "b:$b/copied" | cmp - src/multipart
rclone cat --offset 1000 --count 50 "b:$b/copied" | cmp - <(tail -c +1001 src/multipart | head -c 50)
rclone purge "b:$b"
rclone lsd b: | grep -q " $b\$" && fail "the purged bucket is listed"
echo "rclone: all as expected"
