#!/bin/bash
# basaltctl over the admin socket: status, an account with a key of its own, the key disabled, enabled and removed.
source "$(dirname "$0")/common.sh"
ctl=("$BASALT_BUILD/bin/basaltctl" --socket "$BASALT_DATA/admin.sock")
"${ctl[@]}" status
"${ctl[@]}" --json status | /usr/bin/python3 -m json.tool >/dev/null
name=team-$(od -An -N3 -tx1 /dev/urandom | tr -d ' \n')
key=BASALT$(od -An -N7 -tx1 /dev/urandom | tr -d ' \n' | tr a-f A-F)
head -c 30 /dev/urandom | base64 -w0 >secret
"${ctl[@]}" account create "$name" --display-name "A team" --email "$name@example.com" --id "$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')"
"${ctl[@]}" --json account list | grep -q "\"$name\"" || fail "the account is not listed"
if "${ctl[@]}" account create "$name" >error 2>&1; then fail "an account was made twice"; fi
"${ctl[@]}" key create --account "$name" --access-key "$key" --secret-key-file secret >created
grep -q -F -f secret created && fail "a secret that came in a file was printed"
"${ctl[@]}" --json key list --account "$name" >keys
grep -q "$key" keys || fail "the key is not listed"
grep -q -F -f secret keys && fail "key list prints the secret"

b=$(bucket)
aws() { AWS_ACCESS_KEY_ID=$key AWS_SECRET_ACCESS_KEY=$(cat secret) /usr/bin/aws --endpoint-url "$BASALT_ENDPOINT" "$@"; }
aws s3 mb "s3://$b"
"${ctl[@]}" --json bucket list | grep -q "\"$b\"" || fail "bucket list lacks $b"
"${ctl[@]}" key disable "$key"
if aws s3 ls "s3://$b" >error 2>&1; then fail "a disabled key was accepted"; fi
"${ctl[@]}" key enable "$key"
aws s3 rb "s3://$b"
"${ctl[@]}" key remove "$key"
if aws s3 ls >error 2>&1; then fail "a removed key was accepted"; fi
grep -q InvalidAccessKeyId error || fail "a removed key answered: $(cat error)"
echo "basaltctl: all as expected"
