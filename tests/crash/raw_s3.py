"""A small S3 client: one connection, one request after another, signed by hand. A client library costs ten times as much
CPU for each request, and a crash state is a few hundred of them."""
import hashlib
import hmac
import http.client
import time
import urllib.parse
import xml.etree.ElementTree

NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"
REGION = "us-east-1"


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def code(self):
        if not self.body.lstrip().startswith(b"<"):
            return ""
        root = xml.etree.ElementTree.fromstring(self.body)
        return root.findtext("Code") or root.findtext(NAMESPACE + "Code") or ""

    @property
    def etag(self):
        return self.headers.get("etag", "").strip('"')

    def all(self, path):
        """Texts at a path such as "Contents/Key"."""
        root = xml.etree.ElementTree.fromstring(self.body)
        return [element.text or "" for element in root.iterfind("/".join(NAMESPACE + part for part in path.split("/")))]


class Refused(Exception):
    """An answer that is not the expected one."""

    def __init__(self, method, path, answer):
        super().__init__(f"{method} {path}: {answer.status} {answer.code} {answer.body[:300]!r}")
        self.answer = answer


class RawS3:
    """Raises OSError or http.client.HTTPException when the connection breaks; the next request makes a new one."""

    def __init__(self, port, access_key, secret_key, timeout=60):
        self.port, self.access_key, self.secret_key, self.timeout = port, access_key, secret_key, timeout
        self.connection = None
        self.signing_keys = {}

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def _signing_key(self, day):
        if day not in self.signing_keys:
            key = b"AWS4" + self.secret_key.encode()
            for word in (day, REGION, "s3", "aws4_request"):
                key = hmac.digest(key, word.encode(), "sha256")
            self.signing_keys[day] = key
        return self.signing_keys[day]

    def request(self, method, path, query=None, headers=None, body=b"", expect=(200, 204)):
        """Path is "bucket/key" as it is; expect None returns any answer."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        host = f"127.0.0.1:{self.port}"
        quoted = "/" + urllib.parse.quote(path, safe="/-_.~")
        quote = urllib.parse.quote
        pairs = "&".join(f"{quote(k, safe='-_.~')}={quote(str(v), safe='-_.~')}" for k, v in sorted((query or {}).items()))
        fields = {k.lower(): v for k, v in (headers or {}).items()}
        fields.update({"host": host, "x-amz-date": stamp, "x-amz-content-sha256": "UNSIGNED-PAYLOAD"})
        names = sorted(name for name in fields if name == "host" or name.startswith("x-amz-") or name == "content-md5")
        canonical = "\n".join([method, quoted, pairs, *(f"{name}:{fields[name]}" for name in names), "", ";".join(names),
                               "UNSIGNED-PAYLOAD"])
        scope = f"{stamp[:8]}/{REGION}/s3/aws4_request"
        to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        signature = hmac.digest(self._signing_key(stamp[:8]), to_sign.encode(), "sha256").hex()
        fields["authorization"] = (f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, "
                                   f"SignedHeaders={';'.join(names)}, Signature={signature}")
        fields["content-length"] = str(len(body))
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.timeout)
            self.connection.request(method, quoted + ("?" + pairs if pairs else ""), body=body, headers=fields)
            response = self.connection.getresponse()
            answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
            if answer.headers.get("connection", "").lower() == "close":
                self.close()
        except BaseException:
            self.close()
            raise
        if expect is not None and answer.status not in expect:
            raise Refused(method, path, answer)
        return answer

    def list_keys(self, bucket):
        keys, query = [], {"list-type": "2", "max-keys": "1000"}
        while True:
            answer = self.request("GET", bucket, query)
            keys += answer.all("Contents/Key")
            token = answer.all("NextContinuationToken")
            if not token:
                return keys
            query["continuation-token"] = token[0]
