#!/bin/bash
# restic: a repository, two backups of a real tree, check with all data read, restore and compare, forget and prune.
source "$(dirname "$0")/common.sh"
b=$(bucket)
export RESTIC_REPOSITORY="s3:$BASALT_ENDPOINT/$b/repo" RESTIC_PASSWORD=test RESTIC_CACHE_DIR="$SCRATCH/cache"
tree src

restic init -q
restic backup -q src
random 123456 src/later
restic backup -q src
equal "$(restic snapshots --json | grep -o '"short_id"' | wc -l)" 2 "snapshots"
restic check -q --read-data
restic restore -q latest --target back
diff -r src back/src
restic forget -q --keep-last 1 --prune
restic check -q --read-data
restic restore -q latest --target again
diff -r src again/src
echo "restic: all as expected"
