"""The gate: every handled route, every form of credentials, every way to be wrong. Nothing gets in, nothing changes."""
import datetime
import hashlib
import hmac
import os
import urllib.parse

import harness

EMPTY = hashlib.sha256(b"").hexdigest()
UNSIGNED = "UNSIGNED-PAYLOAD"
UPLOAD = "0123456789abcdef0123456789abcdef"
DELETE_XML = b"<Delete><Object><Key>kept</Key></Object></Delete>"
# method, path below the bucket, query, headers, body: one of every row that has a handler.
ROUTES = [
    ("GET", None, "", {}, b""), ("PUT", "", "", {}, b""), ("HEAD", "", "", {}, b""), ("DELETE", "", "", {}, b""),
    ("GET", "", "location", {}, b""), ("GET", "", "", {}, b""), ("GET", "", "list-type=2", {}, b""), ("GET", "", "uploads", {}, b""),
    ("POST", "", "delete", {"Content-MD5": "invalid"}, DELETE_XML),
    ("PUT", "/kept", "", {}, b"overwritten"), ("PUT", "/new", "", {}, b"new"), ("GET", "/kept", "", {}, b""),
    ("HEAD", "/kept", "", {}, b""), ("DELETE", "/kept", "", {}, b""), ("GET", "/kept", "attributes", {"x-amz-object-attributes": "ETag"}, b""),
    ("PUT", "/copied", "", {"x-amz-copy-source": "{bucket}/kept"}, b""), ("POST", "/kept", "uploads", {}, b""),
    ("PUT", "/kept", f"partNumber=1&uploadId={UPLOAD}", {}, b"part"),
    ("PUT", "/kept", f"partNumber=1&uploadId={UPLOAD}", {"x-amz-copy-source": "{bucket}/kept"}, b""),
    ("POST", "/kept", f"uploadId={UPLOAD}", {}, b"<CompleteMultipartUpload/>"), ("DELETE", "/kept", f"uploadId={UPLOAD}", {}, b""),
    ("GET", "/kept", f"uploadId={UPLOAD}", {}, b""), ("GET", "", "policy", {}, b""), ("PUT", "/kept", "tagging", {}, b"<Tagging/>"),
]


def now(**shift):
    return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(**shift)


def mac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def canonical_query(query):
    pairs = [part.partition("=") for part in query.split("&") if part]
    quote = lambda text: urllib.parse.quote(urllib.parse.unquote_plus(text), safe="-_.~")  # noqa: E731
    return "&".join(f"{name}={value}" for name, value in sorted((quote(n), quote(v)) for n, _, v in pairs))


class Signer:
    """SigV4 by the book, with every ingredient open to spoiling."""

    def __init__(self, access_key=None, secret_key=None, when=None, region="us-east-1", service="s3"):
        self.access_key = access_key or os.environ["AWS_ACCESS_KEY_ID"]
        self.secret_key = secret_key or os.environ["AWS_SECRET_ACCESS_KEY"]
        self.stamp = (when or now()).strftime("%Y%m%dT%H%M%SZ")
        self.scope = f"{self.stamp[:8]}/{region}/{service}/aws4_request"

    def signature(self, method, path, query, headers, payload_hash):
        names = sorted(headers)
        canonical = "\n".join([method, path, canonical_query(query), *(f"{name}:{headers[name].strip()}" for name in names), "",
                               ";".join(names), payload_hash])
        text = "\n".join(["AWS4-HMAC-SHA256", self.stamp, self.scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = ("AWS4" + self.secret_key).encode()
        for part in self.scope.split("/"):
            key = mac(key, part)
        return mac(key, text).hex()

    def headers(self, method, path, query="", headers=None, body=b"", payload_hash=None):
        payload_hash = payload_hash or hashlib.sha256(body).hexdigest()
        signed = {name.lower(): value for name, value in (headers or {}).items()}
        signed |= {"host": os.environ["BASALT_ENDPOINT"].split("://")[1], "x-amz-date": self.stamp, "x-amz-content-sha256": payload_hash}
        signature = self.signature(method, path, query, signed, payload_hash)
        # Host with a capital: raw() would add its own beside "host".
        return {"Host" if name == "host" else name: value for name, value in signed.items()} | {
            "authorization": f"AWS4-HMAC-SHA256 Credential={self.access_key}/{self.scope}, "
                             f"SignedHeaders={';'.join(sorted(signed))}, Signature={signature}"}

    def query(self, method, path, query="", expires=300):
        fields = {"X-Amz-Algorithm": "AWS4-HMAC-SHA256", "X-Amz-Credential": f"{self.access_key}/{self.scope}",
                  "X-Amz-Date": self.stamp, "X-Amz-Expires": str(expires), "X-Amz-SignedHeaders": "host"}
        query = "&".join(filter(None, [query, urllib.parse.urlencode(fields)]))
        host = {"host": os.environ["BASALT_ENDPOINT"].split("://")[1]}
        return f"{query}&X-Amz-Signature={self.signature(method, path, query, host, UNSIGNED)}"


class AuthMatrix(harness.S3Case):
    def setUp(self):
        super().setUp()
        self.s3.put_object(Bucket=self.bucket, Key="kept", Body=b"kept")

    def tearDown(self):
        listing = self.s3.list_objects_v2(Bucket=self.bucket)
        self.assertEqual([item["Key"] for item in listing["Contents"]], ["kept"])
        self.assertEqual(self.s3.get_object(Bucket=self.bucket, Key="kept")["Body"].read(), b"kept")
        self.assertNotIn("Uploads", self.s3.list_multipart_uploads(Bucket=self.bucket))

    def routes(self):
        for method, below, query, headers, body in ROUTES:
            path = "/" if below is None else f"/{self.bucket}{below}"
            yield method, path, query, {name: value.format(bucket=self.bucket) for name, value in headers.items()}, body

    def expect(self, status, code, reply, what):
        self.assertEqual(reply.status, status, f"{what}: {reply}")
        if reply.body:
            self.assertEqual(reply.code, code, what)

    def test_anonymous(self):
        for method, path, query, headers, body in self.routes():
            reply = self.raw(method, path, query, headers, body, sign=False)
            self.expect(403, "AccessDenied", reply, (method, path, query))

    def test_anonymous_streaming_forms(self):
        for form in (UNSIGNED, "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
                     "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"):
            headers = {"x-amz-content-sha256": form, "x-amz-decoded-content-length": "3"}
            reply = self.raw("PUT", f"/{self.bucket}/new", "", headers, b"3\r\nnew\r\n0\r\n\r\n", sign=False)
            # Signed chunks without a signature to chain them to are refused before anybody asks who sent them.
            self.assertIn((reply.status, reply.code), {(403, "AccessDenied"), (400, "InvalidArgument")}, form)

    def test_wrong_headers(self):
        wrong = [
            (Signer(secret_key="not-the-secret"), 403, "SignatureDoesNotMatch"),
            (Signer(access_key="NOSUCHACCESSKEY"), 403, "InvalidAccessKeyId"),
            (Signer(when=now(minutes=-16)), 403, "RequestTimeTooSkewed"),
            (Signer(when=now(minutes=16)), 403, "RequestTimeTooSkewed"),
            (Signer(region="eu-mars-7"), 400, "AuthorizationHeaderMalformed"),
        ]
        for method, path, query, headers, body in self.routes():
            for signer, status, code in wrong:
                reply = self.raw(method, path, query, signer.headers(method, path, query, headers, body), body, sign=False)
                self.expect(status, code, reply, (method, path, query))

    def test_wrong_signature_in_streaming_forms(self):
        for form in (UNSIGNED, "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
                     "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"):
            path, body = f"/{self.bucket}/kept", b"3\r\nnew\r\n0\r\n\r\n"
            headers = Signer(secret_key="not-the-secret").headers(
                "PUT", path, "", {"x-amz-decoded-content-length": "3"}, body, payload_hash=form)
            self.expect(403, "SignatureDoesNotMatch", self.raw("PUT", path, "", headers, body, sign=False), form)

    def test_unsigned_chunks_in_the_signed_form(self):
        path, body = f"/{self.bucket}/kept", b"3\r\nnew\r\n0\r\n\r\n"
        headers = Signer().headers("PUT", path, "", {"x-amz-decoded-content-length": "3"}, body,
                                   payload_hash="STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
        self.assertIn(self.raw("PUT", path, "", headers, body, sign=False).status, (400, 403))

    def test_what_was_signed_is_what_counts(self):
        path = f"/{self.bucket}/kept"
        good = Signer().headers("GET", path)
        self.assertEqual(self.raw("GET", path, "", good, sign=False).status, 200)
        for what, (method, target, query, headers) in {
                "method": ("DELETE", path, "", good),
                "path": ("GET", f"/{self.bucket}/other", "", good),
                "query": ("GET", path, "versionId=null", good),
                "header": ("GET", path, "", good | {"x-amz-date": now(seconds=5).strftime("%Y%m%dT%H%M%SZ")}),
                "host": ("GET", path, "", good | {"Host": "elsewhere.test"})}.items():
            reply = self.raw(method, target, query, headers, sign=False)
            self.expect(403, "SignatureDoesNotMatch", reply, what)
        reply = self.raw("PUT", path, "", Signer().headers("PUT", path, body=b"signed"), b"other!", sign=False)
        self.expect(400, "XAmzContentSHA256Mismatch", reply, "payload")
        reply = self.raw("GET", path, "", good | {"x-amz-acl": "private"}, sign=False)
        self.expect(403, "AccessDenied", reply, "x-amz header that is not signed")

    def test_presigned(self):
        path = f"/{self.bucket}/kept"
        self.assertEqual(self.raw("GET", path, Signer().query("GET", path), sign=False).body, b"kept")
        wrong = [
            (Signer(secret_key="not-the-secret").query("GET", path), 403, "SignatureDoesNotMatch"),
            (Signer(access_key="NOSUCHACCESSKEY").query("GET", path), 403, "InvalidAccessKeyId"),
            (Signer(when=now(seconds=-11)).query("GET", path, expires=10), 403, "AccessDenied"),
            (Signer().query("GET", path, expires=604801), 400, "AuthorizationQueryParametersError"),
            (Signer().query("GET", path, expires=-1), 400, "AuthorizationQueryParametersError"),
            (Signer(region="eu-mars-7").query("GET", path), 400, "AuthorizationQueryParametersError"),
            (Signer().query("PUT", path), 403, "SignatureDoesNotMatch"),
            (Signer().query("GET", path) + "&versionId=null", 403, "SignatureDoesNotMatch"),
        ]
        for query, status, code in wrong:
            self.expect(status, code, self.raw("GET", path, query, sign=False), query)
        self.expect(403, "SignatureDoesNotMatch", self.raw("DELETE", path, Signer().query("GET", path), sign=False), "other method")

    def test_credentials_twice(self):
        path = f"/{self.bucket}/kept"
        query = Signer().query("GET", path)
        reply = self.raw("GET", path, query, Signer().headers("GET", path, query), sign=False)
        self.assertEqual(reply.status, 400, reply)

    def test_old_signatures(self):
        path = f"/{self.bucket}/kept"
        for authorization in ("AWS AKID:c2lnbmF0dXJl", "Bearer token", "AWS4-ECDSA-P256-SHA256 Credential=x", "nonsense"):
            reply = self.raw("GET", path, "", {"Authorization": authorization, "x-amz-date": now().strftime("%Y%m%dT%H%M%SZ")}, sign=False)
            self.assertIn(reply.status, (400, 403), authorization)

    def test_denials_do_not_tell_what_exists(self):
        replies = [self.raw("GET", f"/{self.bucket}/{key}", "", headers, sign=False)
                   for key in ("kept", "missing") for headers in ({}, {"Range": "bytes=0-1"}, {"If-None-Match": "*"})]
        self.assertEqual({(reply.status, reply.code) for reply in replies}, {(403, "AccessDenied")})

    def test_secrets_are_not_repeated(self):
        secret = os.environ["AWS_SECRET_ACCESS_KEY"]
        reply = self.raw("GET", f"/{self.bucket}", "prefix=a", Signer().headers("GET", f"/{self.bucket}", "prefix=b"), sign=False)
        self.assertEqual(reply.code, "SignatureDoesNotMatch")
        self.assertNotIn(secret.encode(), reply.body)
        self.assertTrue(reply.xml().findtext("StringToSign").startswith("AWS4-HMAC-SHA256\n"))
        self.assertEqual(reply.xml().findtext("AWSAccessKeyId"), os.environ["AWS_ACCESS_KEY_ID"])


if __name__ == "__main__":
    harness.main()
