"""A small S3 client for tests that send very many requests: one keep-alive connection, SigV4 with an unsigned payload.

It hides nothing: an answer is its status, its fields and its bytes; a connection that ends in the middle is an OSError
(Broken), and then nobody knows whether the request was carried out.
"""
import datetime
import hashlib
import hmac
import re
import socket
import urllib.parse


class Broken(OSError):
    """No whole answer came."""


class TimedOut(Broken):
    """The server may still be at work on it."""


class NotSent(Broken):
    """There was no connection: the request was certainly not carried out."""


class Answer:
    __slots__ = ("status", "fields", "body")

    def __init__(self, status, fields, body):
        self.status, self.fields, self.body = status, fields, body

    @property
    def etag(self):
        return self.fields.get("etag", "").strip('"')

    @property
    def code(self):
        """The S3 error code of an error answer."""
        found = re.search(rb"<Code>(\w+)</Code>", self.body)
        return found.group(1).decode() if found else ""


def _hmac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


class S3:
    def __init__(self, host, access_key, secret_key, timeout=60, region="us-east-1"):
        self.host, self.access_key, self.secret_key = host, access_key, secret_key
        self.timeout, self.region = timeout, region
        self.sock = None
        self.day = self.key = None
        self.left = b""

    @classmethod
    def of(cls, server, **options):
        return cls(server.host, server.access_key, server.secret_key, **options)

    def close(self):
        if self.sock is not None:
            self.sock.close()
        self.sock, self.left = None, b""

    def request(self, method, path, query="", fields=(), body=b""):
        """path: "/bucket/key" without escapes. Raises Broken if no whole answer came; the next request connects anew."""
        path = urllib.parse.quote(path)
        query = "&".join(sorted(query.split("&"))) if query else ""
        head = self._head(method, path, query, dict(fields), len(body))
        try:
            if self.sock is None:
                name, port = self.host.split(":")
                try:
                    self.sock = socket.create_connection((name, int(port)), timeout=self.timeout)
                except OSError as error:
                    raise NotSent(str(error)) from None
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._send(head, body)
            return self._answer(method)
        except NotSent:
            raise
        except TimeoutError:
            self.close()
            raise TimedOut(f"no answer in {self.timeout} s") from None
        except (OSError, ValueError) as error:
            self.close()
            raise Broken(str(error) or type(error).__name__) from None

    def _send(self, head, body):
        try:
            self.sock.sendall(head + body if len(body) < 65536 else head)
            if len(body) >= 65536:
                self.sock.sendall(body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server may have answered before it closed

    def _head(self, method, path, query, fields, length):
        now = datetime.datetime.now(datetime.timezone.utc)
        day, stamp = now.strftime("%Y%m%d"), now.strftime("%Y%m%dT%H%M%SZ")
        if day != self.day:
            key = _hmac(("AWS4" + self.secret_key).encode(), day)
            for part in (self.region, "s3", "aws4_request"):
                key = _hmac(key, part)
            self.day, self.key = day, key
        fields.update({"host": self.host, "x-amz-date": stamp, "x-amz-content-sha256": "UNSIGNED-PAYLOAD"})
        names = sorted(fields)
        signed = ";".join(names)
        canonical = (f"{method}\n{path}\n" + "&".join(p if "=" in p else p + "=" for p in query.split("&") if p) + "\n" +
                     "".join(f"{n}:{fields[n]}\n" for n in names) + f"\n{signed}\nUNSIGNED-PAYLOAD")
        scope = f"{day}/{self.region}/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n" + hashlib.sha256(canonical.encode()).hexdigest()
        signature = hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()
        lines = [f"{method} {path}{'?' + query if query else ''} HTTP/1.1", *(f"{n}: {fields[n]}" for n in names),
                 f"authorization: AWS4-HMAC-SHA256 Credential={self.access_key}/{scope},SignedHeaders={signed},"
                 f"Signature={signature}"]
        if length or method in ("PUT", "POST"):
            lines.append(f"content-length: {length}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def _more(self):
        got = self.sock.recv(1 << 18)
        if not got:
            raise Broken("the connection ended")
        return got

    def _answer(self, method):
        data = self.left
        while True:
            while (end := data.find(b"\r\n\r\n")) < 0:
                data += self._more()
            lines = data[:end].decode("latin-1").split("\r\n")
            data = data[end + 4:]
            status = int(lines[0].split(" ", 2)[1])
            if status != 100:
                break
        fields = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines[1:])}
        if method == "HEAD" or status in (204, 304):
            body, self.left = b"", data
        elif fields.get("transfer-encoding", "").lower() == "chunked":
            body, self.left = self._chunked(data)
        else:
            length = int(fields.get("content-length", 0))
            parts, have = [data], len(data)
            while have < length:
                parts.append(self._more())
                have += len(parts[-1])
            data = b"".join(parts)
            body, self.left = data[:length], data[length:]
        if fields.get("connection", "").lower() == "close":
            self.close()
        return Answer(status, fields, body)

    def _chunked(self, data):
        body = b""
        while True:
            while (end := data.find(b"\r\n")) < 0:
                data += self._more()
            size = int(data[:end].split(b";")[0], 16)
            data = data[end + 2:]
            while len(data) < size + 2:
                data += self._more()
            body += data[:size]
            data = data[size + 2:]
            if size == 0:
                return body, data

    # --- What tests ask for

    def put(self, bucket, key, body, **conditions):
        fields = {{"if_match": "if-match", "if_none_match": "if-none-match"}[n]: v for n, v in conditions.items()}
        return self.request("PUT", f"/{bucket}/{key}", fields=fields, body=body)

    def get(self, bucket, key):
        return self.request("GET", f"/{bucket}/{key}")

    def head(self, bucket, key):
        return self.request("HEAD", f"/{bucket}/{key}")

    def delete(self, bucket, key, **conditions):
        return self.request("DELETE", f"/{bucket}/{key}", fields={"if-match": v for v in conditions.values()})

    def create_bucket(self, bucket):
        return self.request("PUT", f"/{bucket}")

    def multipart(self, bucket, key, parts):
        """Uploads and completes; the last answer, which is the first that is not a success."""
        answer = self.request("POST", f"/{bucket}/{key}", query="uploads")
        if answer.status != 200:
            return answer
        upload = re.search(rb"<UploadId>([^<]+)</UploadId>", answer.body).group(1).decode()
        tags = []
        for number, part in enumerate(parts, 1):
            answer = self.request("PUT", f"/{bucket}/{key}", query=f"partNumber={number}&uploadId={upload}", body=part)
            if answer.status != 200:
                return answer
            tags.append(f"<Part><PartNumber>{number}</PartNumber><ETag>\"{answer.etag}\"</ETag></Part>")
        text = "<CompleteMultipartUpload>" + "".join(tags) + "</CompleteMultipartUpload>"
        return self.request("POST", f"/{bucket}/{key}", query=f"uploadId={upload}", body=text.encode())

    def list(self, bucket, prefix="", max_keys=1000):
        """All (key, size, etag) of a bucket, in the order of the pages. Broken if a page fails."""
        found, token = [], None
        while True:
            query = f"list-type=2&max-keys={max_keys}"
            if prefix:
                query += "&prefix=" + urllib.parse.quote(prefix, safe="")
            if token:
                query += "&continuation-token=" + urllib.parse.quote(token, safe="")
            answer = self.request("GET", f"/{bucket}", query=query)
            if answer.status != 200:
                raise Broken(f"list: {answer.status} {answer.code}")
            for item in re.findall(rb"<Contents>(.*?)</Contents>", answer.body, re.S):
                key = re.search(rb"<Key>(.*?)</Key>", item, re.S).group(1).decode()
                size = int(re.search(rb"<Size>(\d+)</Size>", item).group(1))
                tag = re.search(rb"<ETag>(.*?)</ETag>", item).group(1).decode().replace("&quot;", "").strip('"')
                found.append((key, size, tag))
            token = re.search(rb"<NextContinuationToken>(.*?)</NextContinuationToken>", answer.body)
            if token is None:
                return found
            token = token.group(1).decode()
