#!/bin/bash
# curl with its own SigV4: the requests that tools/dev run prints, and the plain HTTP a user would try by hand.
source "$(dirname "$0")/common.sh"
signed=(curl -sS --aws-sigv4 aws:amz:us-east-1:s3 --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY"
  -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD')
b=$(bucket)
url=$BASALT_ENDPOINT/$b
random 100000 file
# status EXPECTED CURL-ARGUMENTS...
status() {
  local expected=$1 got
  shift
  got=$("${signed[@]}" -o body -w '%{http_code}' "$@")
  equal "$got" "$expected" "$* answered $(head -c 400 body | tr -d '\0'); status"
}

status 200 -X PUT "$url"
status 200 -T file "$url/dir/file"
status 200 "$url/dir/file"
same file body
status 206 -r 100-199 "$url/dir/file"
same body <(tail -c +101 file | head -c 100)
status 416 -r 200000- "$url/dir/file"
equal "$("${signed[@]}" -I "$url/dir/file" | tr -d '\r' | awk 'tolower($1) == "content-length:" { print $2 }')" 100000 "HEAD"
status 200 "$url/"
grep -q '<Key>dir/file</Key>' body || fail "the listing: $(cat body)"
status 404 "$url/absent"
grep -q '<Code>NoSuchKey</Code>' body || fail "an absent key: $(cat body)"
equal "$(curl -sS -o body -w '%{http_code}' "$url/dir/file")" 403 "a request without a signature"
grep -q '<Code>AccessDenied</Code>' body || fail "a request without a signature: $(cat body)"
equal "$(curl -sS -o body -w '%{http_code}' --aws-sigv4 aws:amz:us-east-1:s3 --user "$AWS_ACCESS_KEY_ID:wrong" \
  -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' "$url/dir/file")" 403 "a wrong secret"
grep -q '<Code>SignatureDoesNotMatch</Code>' body || fail "a wrong secret: $(cat body)"
status 204 -X DELETE "$url/dir/file"
status 404 -I "$url/dir/file"
status 204 -X DELETE "$url"
equal "$(curl -sS -o /dev/null -w '%{http_code}' "http://$BASALT_ADMIN/-/healthy")" 200 "/-/healthy"
equal "$(curl -sS -o /dev/null -w '%{http_code}' "http://$BASALT_ADMIN/-/ready")" 200 "/-/ready"
echo "curl: all as expected"
