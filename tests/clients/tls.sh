#!/bin/bash
# A server with a self-signed certificate (tests/run.py makes it): curl and boto3 verify it; others are refused; SIGHUP
# with a new certificate in place is served without a restart.
source "$(dirname "$0")/common.sh"
equal "${BASALT_ENDPOINT%%:*}" https "the endpoint's scheme"
signed=(curl -sS --cacert "$BASALT_CA" --aws-sigv4 aws:amz:us-east-1:s3 --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY"
  -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD')
b=$(bucket)
random 3000000 file
"${signed[@]}" --fail -X PUT "$BASALT_ENDPOINT/$b"
"${signed[@]}" --fail -T file "$BASALT_ENDPOINT/$b/file"
"${signed[@]}" --fail -o back "$BASALT_ENDPOINT/$b/file"
same file back
for version in 1.2 1.3; do
  "${signed[@]}" --fail -o back "--tlsv$version" --tls-max $version "$BASALT_ENDPOINT/$b/file"
  same file back
done
if "${signed[@]}" --tlsv1.0 --tls-max 1.1 --ciphers 'DEFAULT@SECLEVEL=0' -o /dev/null "$BASALT_ENDPOINT/$b/file" 2>error; then
  fail "TLS 1.1 was accepted"
fi
if curl -sS -o /dev/null "$BASALT_ENDPOINT/" 2>error; then fail "an unknown certificate was accepted"; fi
if curl -sS -o /dev/null -m 5 "http://$BASALT_HOST/" 2>error; then fail "plain HTTP was answered on the TLS port"; fi

/usr/bin/python3 - "$b" file <<'PY'
import os, sys
import boto3
s3 = boto3.client("s3", endpoint_url=os.environ["BASALT_ENDPOINT"], verify=os.environ["BASALT_CA"])
data = open(sys.argv[2], "rb").read()
s3.upload_file(sys.argv[2], sys.argv[1], "boto")  # over TLS boto3 signs UNSIGNED-PAYLOAD
assert s3.get_object(Bucket=sys.argv[1], Key="boto")["Body"].read() == data
assert s3.get_object(Bucket=sys.argv[1], Key="boto", Range="bytes=1000000-1999999")["Body"].read() == data[1000000:2000000]
PY

serial() { openssl s_client -connect "$BASALT_HOST" </dev/null 2>/dev/null | openssl x509 -noout -serial; }
before=$(serial)
folder=$(dirname "$BASALT_CA")
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
  -addext subjectAltName=IP:127.0.0.1,DNS:localhost -keyout new-key.pem -out new-cert.pem 2>/dev/null
mv new-key.pem "$folder/key.pem"
mv new-cert.pem "$folder/cert.pem"
kill -HUP "$BASALT_PID"
for _ in $(seq 50); do
  [ "$(serial)" != "$before" ] && break
  sleep 0.1
done
[ "$(serial)" != "$before" ] || fail "the new certificate is not served after SIGHUP"
"${signed[@]}" --fail -o back "$BASALT_ENDPOINT/$b/file"
same file back
echo "tls: all as expected"
