# shellcheck shell=bash
# Sourced by every client script here. What the environment holds: tests/harness/server.py, Server.env().
# A script makes its own bucket, compares bytes, and ends with a status other than 0 at the first difference;
# status 77 with a reason on the last line means skipped.
set -euo pipefail
cd "$SCRATCH"
trap 'echo "$0: line $LINENO failed: $BASH_COMMAND" >&2' ERR

fail() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }
skip() { printf '%s\n' "skipped: $*"; exit 77; }
# same A B: the two files are equal, byte for byte.
same() { cmp "$1" "$2" || fail "$1 and $2 differ"; }
# equal A B WHAT
equal() { [ "$1" = "$2" ] || fail "$3: '$1' is not '$2'"; }
# random BYTES FILE
random() { head -c "$1" /dev/urandom >"$2"; }
bucket() { printf '%s-%s' "$(basename "$0" .sh)" "$(od -An -N6 -tx1 /dev/urandom | tr -d ' \n')"; }
# tree DIR: a small real tree: nested folders, an empty file, names with blanks, plus signs and letters beyond ASCII.
tree() {
  mkdir -p "$1/a/b c/d" "$1/naïve+plus" "$1/many"
  : >"$1/empty"
  random 1 "$1/a/one byte"
  random 70000 "$1/a/b c/d/middle"
  random 6000000 "$1/a/b c/large"
  printf 'text\n' >"$1/naïve+plus/ümlaut & ampersand.txt"
  for i in $(seq 40); do random $((i * 37)) "$1/many/$i"; done
}
