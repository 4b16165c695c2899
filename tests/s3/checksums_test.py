"""Additional checksums from upload to read: every algorithm, header and trailer, composite and full object.
"Checking object integrity in Amazon S3" in the user guide."""
import base64
import hashlib
import zlib

import harness

PART = 5 << 20


def crc64nvme(data):
    table = []
    for n in range(256):
        for _ in range(8):
            n = (n >> 1) ^ 0x9A6C9329AC4BC9B5 if n & 1 else n >> 1
        table.append(n)
    value = 0xFFFFFFFFFFFFFFFF
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFFFFFFFFFF


def b64(value):
    return base64.b64encode(value).decode()


def crc32(data):
    return zlib.crc32(data).to_bytes(4, "big")


def sha256(data):
    return hashlib.sha256(data).digest()


class Checksums(harness.S3Case):
    def head(self, key="k"):
        return self.raw("HEAD", f"/{self.bucket}/{key}", headers={"x-amz-checksum-mode": "ENABLED"}).headers

    def test_default_is_crc64nvme(self):
        body = b"123456789"
        self.assertEqual(crc64nvme(body), 0xAE8B14860A799888)
        reply = self.raw("PUT", f"/{self.bucket}/k", body=body)
        expected = b64(crc64nvme(body).to_bytes(8, "big"))
        for headers in (reply.headers, self.head()):
            self.assertEqual((headers["x-amz-checksum-crc64nvme"], headers["x-amz-checksum-type"]), (expected, "FULL_OBJECT"))

    def test_shown_only_when_asked_and_whole(self):
        self.raw("PUT", f"/{self.bucket}/k", headers={"x-amz-checksum-crc32": b64(crc32(b"body"))}, body=b"body")
        plain = self.raw("GET", f"/{self.bucket}/k").headers
        self.assertFalse([name for name in plain if name.startswith("x-amz-checksum")])
        part = self.raw("GET", f"/{self.bucket}/k", headers={"x-amz-checksum-mode": "ENABLED", "Range": "bytes=0-1"}).headers
        self.assertNotIn("x-amz-checksum-crc32", part)
        self.assertEqual(self.head()["x-amz-checksum-crc32"], b64(crc32(b"body")))

    def test_refused(self):
        good = b64(crc32(b"body"))
        for headers, code in (
                ({"x-amz-checksum-crc32": b64(bytes(4))}, "BadDigest"),
                ({"x-amz-checksum-crc32": "short"}, "InvalidRequest"),
                ({"x-amz-checksum-crc32": good, "x-amz-checksum-sha1": b64(hashlib.sha1(b"body").digest())}, "InvalidRequest"),
                ({"x-amz-sdk-checksum-algorithm": "CRC31", "x-amz-checksum-crc32": good}, "InvalidRequest")):
            reply = self.raw("PUT", f"/{self.bucket}/k", headers=headers, body=b"body")
            self.assertEqual((reply.status, reply.code), (400, code), headers)
        self.assertEqual(self.raw("HEAD", f"/{self.bucket}/k").status, 404)

    def create(self, **headers):
        reply = self.raw("POST", f"/{self.bucket}/k", "uploads", {name.replace("_", "-"): value for name, value in headers.items()})
        self.assertEqual(reply.status, 200, reply)
        return reply.xml().findtext("{*}UploadId")

    def part(self, upload, number, body, **headers):
        return self.raw("PUT", f"/{self.bucket}/k", f"partNumber={number}&uploadId={upload}",
                        {name.replace("_", "-"): value for name, value in headers.items()}, body)

    def complete(self, upload, parts, headers=None):
        xml = "".join(f"<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag>{more}</Part>" for number, tag, more in parts)
        return self.raw("POST", f"/{self.bucket}/k", "uploadId=" + upload, headers,
                        f"<CompleteMultipartUpload>{xml}</CompleteMultipartUpload>".encode())

    def test_composite(self):
        bodies = [b"a" * PART, b"tail"]
        upload = self.create(x_amz_checksum_algorithm="SHA256")
        parts = []
        for number, body in enumerate(bodies, 1):
            reply = self.part(upload, number, body, x_amz_checksum_sha256=b64(sha256(body)))
            self.assertEqual(reply.headers["x-amz-checksum-sha256"], b64(sha256(body)))
            parts.append((number, reply.headers["etag"], f"<ChecksumSHA256>{b64(sha256(body))}</ChecksumSHA256>"))
        without = [(number, tag, "") for number, tag, _ in parts]
        self.assertEqual(self.complete(upload, without).code, "InvalidRequest")
        swapped = [(number, tag, parts[2 - number][2]) for number, tag, _ in parts]
        self.assertEqual(self.complete(upload, swapped).code, "InvalidPart")
        composite = b64(sha256(b"".join(map(sha256, bodies)))) + "-2"
        self.assertEqual(self.complete(upload, parts, {"x-amz-checksum-sha256": b64(bytes(32)) + "-2"}).code, "BadDigest")
        reply = self.complete(upload, parts, {"x-amz-checksum-sha256": composite})
        self.assertEqual(reply.xml().findtext("{*}ChecksumSHA256"), composite, reply)
        headers = self.head()
        self.assertEqual((headers["x-amz-checksum-sha256"], headers["x-amz-checksum-type"]), (composite, "COMPOSITE"))

    def test_full_object(self):
        bodies = [b"b" * PART, b"tail"]
        upload = self.create(x_amz_checksum_algorithm="CRC32", x_amz_checksum_type="FULL_OBJECT")
        parts = [(number, self.part(upload, number, body).headers["etag"], "") for number, body in enumerate(bodies, 1)]
        self.assertEqual(self.complete(upload, parts, {"x-amz-checksum-crc32": "AAAAAA=="}).code, "BadDigest")
        whole = b64(crc32(b"".join(bodies)))
        reply = self.complete(upload, parts, {"x-amz-checksum-crc32": whole, "x-amz-checksum-type": "FULL_OBJECT"})
        self.assertEqual(reply.xml().findtext("{*}ChecksumCRC32"), whole, reply)

    def test_pairs_that_do_not_go_together(self):
        for algorithm, kind in (("SHA256", "FULL_OBJECT"), ("SHA1", "FULL_OBJECT"), ("CRC64NVME", "COMPOSITE"),
                                ("CRC32", "OTHER"), ("CRC31", ""), ("", "COMPOSITE")):
            headers = {"x-amz-checksum-algorithm": algorithm, "x-amz-checksum-type": kind}
            reply = self.raw("POST", f"/{self.bucket}/k", "uploads", {name: value for name, value in headers.items() if value})
            self.assertEqual((reply.status, reply.code), (400, "InvalidRequest"), headers)

    def test_part_of_another_algorithm(self):
        upload = self.create(x_amz_checksum_algorithm="SHA256")
        self.assertEqual(self.part(upload, 1, b"x", x_amz_checksum_crc32=b64(crc32(b"x"))).code, "InvalidRequest")
        self.assertEqual(self.part(upload, 1, b"x").code, "InvalidRequest")

    def test_copy_carries_or_computes(self):
        self.raw("PUT", f"/{self.bucket}/source", headers={"x-amz-checksum-crc32": b64(crc32(b"body"))}, body=b"body")
        source = {"x-amz-copy-source": f"{self.bucket}/source"}
        reply = self.raw("PUT", f"/{self.bucket}/k", headers=source)
        self.assertEqual(reply.xml().findtext("{*}ChecksumCRC32"), b64(crc32(b"body")))
        reply = self.raw("PUT", f"/{self.bucket}/k", headers={**source, "x-amz-checksum-algorithm": "SHA256"})
        self.assertEqual(reply.xml().findtext("{*}ChecksumSHA256"), b64(sha256(b"body")))
        self.assertEqual(self.head()["x-amz-checksum-sha256"], b64(sha256(b"body")))


if __name__ == "__main__":
    harness.main()
