"""PutObject: bytes of every size class, digests, checksums, metadata, keys, conditions, and what is refused."""
import base64
import hashlib
import random
import threading
import zlib

import harness


class PutObject(harness.S3Case):
    def test_sizes(self):
        # Around each way of storing a body: inline, in the log, in a bulk segment, in a file of its own.
        for size in (0, 1, 511, 4095, 4096, 4097, 131071, 131072, 131073, (1 << 20) + 1, (4 << 20) - 1, 4 << 20, (5 << 20) + 3):
            body = random.Random(size).randbytes(size)
            answer = self.s3.put_object(Bucket=self.bucket, Key="sized", Body=body)
            self.assertEqual(answer["ETag"], f'"{hashlib.md5(body).hexdigest()}"', size)
            got = self.s3.get_object(Bucket=self.bucket, Key="sized")
            self.assertEqual((got["ContentLength"], got["ETag"]), (size, answer["ETag"]))
            self.assertTrue(got["Body"].read() == body, size)

    def test_after_an_empty_object_on_the_same_connection(self):
        # botocore waits for 100 Continue before a body of no bytes, too; after a final answer instead it loses the next one's headers.
        for body in (b"", b"not empty", b"", b"", b"not empty"):
            self.assertEqual(self.s3.put_object(Bucket=self.bucket, Key="k", Body=body)["ETag"], f'"{hashlib.md5(body).hexdigest()}"')
        self.error("NoSuchBucket", 404, self.s3.put_object, Bucket="no-such-bucket-here", Key="k", Body=b"")
        self.assertIn("ETag", self.s3.put_object(Bucket=self.bucket, Key="k", Body=b"not empty"))

    def test_overwrite(self):
        for body in (b"first", b"", b"third, longer than the first"):
            self.s3.put_object(Bucket=self.bucket, Key="k", Body=body)
            self.assertEqual(self.s3.get_object(Bucket=self.bucket, Key="k")["Body"].read(), body)
        self.assertEqual(self.s3.list_objects_v2(Bucket=self.bucket)["KeyCount"], 1)

    def test_headers_and_metadata_come_back(self):
        self.s3.put_object(Bucket=self.bucket, Key="k", Body=b"x", ContentType="text/x-test", CacheControl="max-age=3",
                           ContentDisposition="attachment", ContentEncoding="gzip", ContentLanguage="de",
                           Metadata={"one": "1", "two-words": "a b"})
        got = self.s3.head_object(Bucket=self.bucket, Key="k")
        self.assertEqual(
            [got[name] for name in ("ContentType", "CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage")],
            ["text/x-test", "max-age=3", "attachment", "gzip", "de"])
        self.assertEqual(got["Metadata"], {"one": "1", "two-words": "a b"})

    def test_default_content_type(self):
        self.raw("PUT", f"/{self.bucket}/k", body=b"x")
        self.assertEqual(self.s3.head_object(Bucket=self.bucket, Key="k")["ContentType"], "binary/octet-stream")

    def test_metadata_limit(self):
        self.error("MetadataTooLarge", 400, self.s3.put_object, Bucket=self.bucket, Key="k", Body=b"", Metadata={"m": "v" * 2048})

    def test_keys_are_opaque_bytes(self):
        for key in ("a/../b", "a//b", "/lead", "..", "a b+c%20d", "ä/ß/漢字", "tail/", "?&=#;", "a" * 1024):
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=key.encode())
            self.assertEqual(self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read(), key.encode(), key)
        self.error("KeyTooLongError", 400, self.s3.put_object, Bucket=self.bucket, Key="a" * 1025, Body=b"")

    def test_content_md5(self):
        good = base64.b64encode(hashlib.md5(b"body").digest()).decode()
        self.s3.put_object(Bucket=self.bucket, Key="k", Body=b"body", ContentMD5=good)
        self.error("BadDigest", 400, self.s3.put_object, Bucket=self.bucket, Key="bad", Body=b"other", ContentMD5=good)
        self.error("InvalidDigest", 400, self.s3.put_object, Bucket=self.bucket, Key="bad", Body=b"other", ContentMD5="short")
        self.error("NoSuchKey", 404, self.s3.get_object, Bucket=self.bucket, Key="bad")

    def test_checksums(self):
        body = b"checksummed"
        sums = {"ChecksumCRC32": zlib.crc32(body).to_bytes(4, "big"), "ChecksumSHA1": hashlib.sha1(body).digest(),
                "ChecksumSHA256": hashlib.sha256(body).digest()}
        for name, value in sums.items():
            text = base64.b64encode(value).decode()
            self.assertEqual(self.s3.put_object(Bucket=self.bucket, Key=name, Body=body, **{name: text})[name], text)
            self.assertEqual(self.s3.head_object(Bucket=self.bucket, Key=name, ChecksumMode="ENABLED")[name], text)
            wrong = base64.b64encode(bytes(len(value))).decode()
            self.error("BadDigest", 400, self.s3.put_object, Bucket=self.bucket, Key="bad", Body=body, **{name: wrong})
        self.error("NoSuchKey", 404, self.s3.get_object, Bucket=self.bucket, Key="bad")

    def test_payload_hash_must_match(self):
        reply = self.raw("PUT", f"/{self.bucket}/k", headers={"x-amz-content-sha256": hashlib.sha256(b"other").hexdigest()}, body=b"x")
        self.assertEqual((reply.status, reply.code), (400, "XAmzContentSHA256Mismatch"))
        self.error("NoSuchKey", 404, self.s3.get_object, Bucket=self.bucket, Key="k")

    def test_chunked_with_a_trailer(self):
        body = b"chunked body" * 100
        crc = base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
        framed = b"%x\r\n%s\r\n0\r\nx-amz-checksum-crc32:%s\r\n\r\n" % (len(body), body, crc.encode())
        headers = {"x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "content-encoding": "aws-chunked",
                   "x-amz-decoded-content-length": str(len(body)), "x-amz-trailer": "x-amz-checksum-crc32"}
        reply = self.raw("PUT", f"/{self.bucket}/k", headers=headers, body=framed)
        self.assertEqual((reply.status, reply.headers.get("x-amz-checksum-crc32")), (200, crc), reply)
        got = self.s3.get_object(Bucket=self.bucket, Key="k")
        self.assertEqual(got["Body"].read(), body)
        self.assertNotIn("aws-chunked", got.get("ContentEncoding", ""))
        reply = self.raw("PUT", f"/{self.bucket}/bad", headers=headers, body=framed.replace(crc.encode(), b"AAAAAA=="))
        self.assertEqual((reply.status, reply.code), (400, "BadDigest"))

    def test_if_none_match_and_if_match(self):
        path = f"/{self.bucket}/k"
        self.assertEqual(self.raw("PUT", path, headers={"If-None-Match": "*"}, body=b"1").status, 200)
        reply = self.raw("PUT", path, headers={"If-None-Match": "*"}, body=b"2")
        self.assertEqual((reply.status, reply.code), (412, "PreconditionFailed"))
        tag = self.s3.head_object(Bucket=self.bucket, Key="k")["ETag"]
        self.assertEqual(self.raw("PUT", path, headers={"If-Match": '"0"'}, body=b"2").status, 412)
        self.assertEqual(self.raw("PUT", path, headers={"If-Match": tag}, body=b"3").status, 200)
        self.assertEqual(self.raw("PUT", f"/{self.bucket}/absent", headers={"If-Match": tag}, body=b"4").status, 404)
        self.assertEqual(self.s3.get_object(Bucket=self.bucket, Key="k")["Body"].read(), b"3")

    def test_only_one_of_many_creates(self):
        path, statuses = f"/{self.bucket}/race", []
        threads = [threading.Thread(target=lambda n=n: statuses.append(
            self.raw("PUT", path, headers={"If-None-Match": "*"}, body=b"%d" % n).status)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(statuses.count(200), 1, statuses)
        self.assertTrue(set(statuses) <= {200, 409, 412}, statuses)

    def test_refused(self):
        self.error("NoSuchBucket", 404, self.s3.put_object, Bucket="no-such-bucket-here", Key="k", Body=b"")
        self.error("AccessControlListNotSupported", 400, self.s3.put_object, Bucket=self.bucket, Key="k", Body=b"", ACL="public-read")
        self.error("InvalidStorageClass", 400, self.s3.put_object, Bucket=self.bucket, Key="k", Body=b"", StorageClass="NOPE")
        self.assertEqual(self.raw("PUT", f"/{self.bucket}/k", sign=False, body=b"x").status, 403)
        self.assertEqual(self.raw("PUT", f"/{self.bucket}/%zz", sign=False).status, 400)
        self.assertEqual(self.s3.list_objects_v2(Bucket=self.bucket)["KeyCount"], 0)


if __name__ == "__main__":
    harness.main()
