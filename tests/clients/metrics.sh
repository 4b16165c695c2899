#!/bin/bash
# promtool, as Prometheus reads it: /metrics is well-formed, and its counters move when requests are served.
source "$(dirname "$0")/common.sh"
curl -sS --fail "http://$BASALT_ADMIN/metrics" >before
promtool check metrics <before
b=$(bucket)
/usr/bin/aws --endpoint-url "$BASALT_ENDPOINT" s3 mb "s3://$b"
curl -sS --fail "http://$BASALT_ADMIN/metrics" >after
promtool check metrics <after
grep -q '^basalt_s3_requests_total{.*operation="CreateBucket".*} [1-9]' after || fail "the request was not counted"
grep -q -F -e "$AWS_SECRET_ACCESS_KEY" after && fail "the secret key is in the metrics"
echo "metrics: all as expected"
