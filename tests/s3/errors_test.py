"""What every answer carries, and the form of S3's errors."""
import hashlib
import base64
import re

import harness


class Errors(harness.S3Case):
    def test_ids_on_every_answer(self):
        seen = set()
        for method, path in (("GET", "/"), ("HEAD", f"/{self.bucket}"), ("GET", f"/{self.bucket}/missing"), ("HEAD", "/no-such-bucket-here"),
                             ("GET", f"/{self.bucket}?policy")):
            path, _, query = path.partition("?")
            reply = self.raw(method, path, query)
            self.assertRegex(reply.headers["x-amz-request-id"], r"^[0-9A-F]{16}$")
            self.assertTrue(reply.headers["x-amz-id-2"])
            self.assertTrue(reply.headers["date"])
            seen.add(reply.headers["x-amz-request-id"])
            if reply.status >= 400 and method != "HEAD":
                self.assertEqual(reply.xml().findtext("RequestId"), reply.headers["x-amz-request-id"])
                self.assertEqual(reply.xml().findtext("HostId"), reply.headers["x-amz-id-2"])
        self.assertEqual(len(seen), 5)

    def test_error_document(self):
        reply = self.raw("GET", f"/{self.bucket}/missing%20%26%20gone")
        self.assertEqual((reply.status, reply.headers["content-type"]), (404, "application/xml"))
        root = reply.xml()
        self.assertEqual(root.tag, "Error")
        self.assertEqual([element.tag for element in root][:2], ["Code", "Message"])
        self.assertEqual(root.findtext("Code"), "NoSuchKey")
        self.assertEqual(root.findtext("Key"), "missing & gone")
        self.assertEqual(root.findtext("Resource"), f"/{self.bucket}/missing & gone")
        self.assertTrue(reply.body.startswith(b'<?xml version="1.0" encoding="UTF-8"?>'))

    def test_head_has_no_body(self):
        reply = self.raw("HEAD", f"/{self.bucket}/missing")
        self.assertEqual((reply.status, reply.body), (404, b""))

    def test_no_such_bucket(self):
        for method, path, query in (("GET", "", ""), ("GET", "", "list-type=2"), ("GET", "", "location"), ("GET", "", "uploads"),
                                    ("DELETE", "", ""), ("GET", "/key", ""), ("PUT", "/key", ""), ("DELETE", "/key", ""),
                                    ("POST", "/key", "uploads"), ("GET", "", "policy")):
            reply = self.raw(method, f"/no-such-bucket-here{path}", query)
            self.assertEqual((reply.status, reply.code), (404, "NoSuchBucket"), (method, path, query))
            self.assertEqual(reply.xml().findtext("BucketName"), "no-such-bucket-here")

    def test_paths(self):
        for path, status, code in ((f"/{self.bucket}/%zz", 400, "InvalidURI"), (f"/{self.bucket}/%", 400, "InvalidURI"),
                                   (f"/{self.bucket}/a%00b", 400, "InvalidURI"), (f"/{self.bucket}/%c0%af", 400, "InvalidURI"),
                                   (f"/{self.bucket}/" + "k" * 1025, 400, "KeyTooLongError"), ("/a%2Ab", 400, "InvalidBucketName")):
            reply = self.raw("GET", path)
            self.assertEqual(reply.status, status, path)
            # The gate may refuse a path that has no canonical form before it is looked at.
            self.assertIn(reply.code, (code, "SignatureDoesNotMatch"), path)

    def test_content_md5(self):
        path = f"/{self.bucket}/key"
        good = base64.b64encode(hashlib.md5(b"body").digest()).decode()
        other = base64.b64encode(hashlib.md5(b"other").digest()).decode()
        self.assertEqual(self.raw("PUT", path, "", {"Content-MD5": other}, b"body").code, "BadDigest")
        for bad in ("", "x", "AAAA"):
            self.assertEqual(self.raw("PUT", path, "", {"Content-MD5": bad}, b"body").code, "InvalidDigest", bad)
        self.assertEqual(self.raw("GET", path).code, "NoSuchKey")
        self.assertEqual(self.raw("PUT", path, "", {"Content-MD5": good}, b"body").status, 200)

    def test_payload_hash(self):
        path = f"/{self.bucket}/key"
        reply = self.raw("PUT", path, "", {"x-amz-content-sha256": hashlib.sha256(b"other").hexdigest()}, b"body")
        self.assertEqual((reply.status, reply.code), (400, "XAmzContentSHA256Mismatch"))
        reply = self.raw("PUT", path, "", {"x-amz-content-sha256": "nonsense"}, b"body")
        self.assertEqual((reply.status, reply.code), (400, "InvalidArgument"))
        self.assertEqual(self.raw("GET", path).code, "NoSuchKey")

    def test_expected_bucket_owner(self):
        owner = self.s3.list_buckets()["Owner"]["ID"]
        self.assertEqual(self.raw("GET", f"/{self.bucket}", "", {"x-amz-expected-bucket-owner": owner}).status, 200)
        reply = self.raw("GET", f"/{self.bucket}", "", {"x-amz-expected-bucket-owner": "111122223333"})
        self.assertEqual((reply.status, reply.code), (403, "AccessDenied"))

    def test_no_response_splitting(self):
        reply = self.raw("GET", f"/{self.bucket}/k%0d%0aX-Injected:%201")
        self.assertNotIn("x-injected", reply.headers)
        self.assertIsNone(re.search(rb"\nX-Injected", reply.body))


if __name__ == "__main__":
    harness.main()
