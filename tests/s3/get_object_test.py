"""GetObject: ranges, conditions, overriding headers, part numbers, presigned URLs, errors."""
import random
import urllib.error
import urllib.request

import harness


class GetObject(harness.S3Case):
    def setUp(self):
        super().setUp()
        self.body = random.Random(1).randbytes(200_000)
        self.tag = self.s3.put_object(Bucket=self.bucket, Key="k", Body=self.body)["ETag"]

    def get(self, headers=None, query="", method="GET"):
        return self.raw(method, f"/{self.bucket}/k", query, headers)

    def test_whole(self):
        reply = self.get()
        self.assertEqual((reply.status, reply.body == self.body, reply.headers["etag"]), (200, True, self.tag))
        self.assertEqual(reply.headers["accept-ranges"], "bytes")
        self.assertTrue(reply.headers["last-modified"].endswith(" GMT"))

    def test_ranges(self):
        size = len(self.body)
        for text, begin, end in (("0-0", 0, 1), ("0-", 0, size), ("100-199", 100, 200), ("131000-131999", 131000, 132000),
                                 ("199999-", 199999, size), ("-1", size - 1, size), ("-500000", 0, size), ("5-999999999", 5, size)):
            reply = self.get({"Range": "bytes=" + text})
            self.assertEqual((reply.status, reply.headers["content-range"]), (206, f"bytes {begin}-{end - 1}/{size}"), text)
            self.assertTrue(reply.body == self.body[begin:end], text)

    def test_ranges_that_are_not_served(self):
        for text in (f"{len(self.body)}-", "-0"):
            reply = self.get({"Range": "bytes=" + text})
            self.assertEqual((reply.status, reply.code), (416, "InvalidRange"), text)
        for text in ("bytes=5-1", "bytes=a-b", "bytes", "items=0-1"):  # not a valid Range: ignored (RFC 9110, 14.2)
            self.assertEqual(self.get({"Range": text}).status, 200, text)

    def test_conditions(self):
        date = self.get().headers["last-modified"]
        past, future = "Sat, 01 Jan 2000 00:00:00 GMT", "Thu, 01 Jan 2099 00:00:00 GMT"
        for headers, status in (
                ({"If-Match": self.tag}, 200), ({"If-Match": "*"}, 200), ({"If-Match": '"0"'}, 412),
                ({"If-None-Match": self.tag}, 304), ({"If-None-Match": '"0"'}, 200), ({"If-None-Match": "*"}, 304),
                ({"If-Modified-Since": past}, 200), ({"If-Modified-Since": date}, 304),
                ({"If-Unmodified-Since": past}, 412), ({"If-Unmodified-Since": future}, 200),
                ({"If-Match": self.tag, "If-Unmodified-Since": past}, 200),
                ({"If-None-Match": '"0"', "If-Modified-Since": date}, 200)):
            reply = self.get(headers)
            self.assertEqual(reply.status, status, headers)
            if status == 304:
                self.assertEqual((reply.body, reply.headers["etag"]), (b"", self.tag), headers)

    def test_response_overrides(self):
        reply = self.get(query="response-cache-control=no-store&response-content-type=text%2Fplain")
        self.assertEqual((reply.headers["cache-control"], reply.headers["content-type"]), ("no-store", "text/plain"))

    def test_part_number(self):
        parts = [self.body[:1] * (5 << 20), b"tail"]
        upload = self.s3.create_multipart_upload(Bucket=self.bucket, Key="mp")["UploadId"]
        tags = [{"PartNumber": n, "ETag": self.s3.upload_part(Bucket=self.bucket, Key="mp", UploadId=upload, PartNumber=n, Body=part)["ETag"]}
                for n, part in enumerate(parts, 1)]
        self.s3.complete_multipart_upload(Bucket=self.bucket, Key="mp", UploadId=upload, MultipartUpload={"Parts": tags})
        got = self.s3.get_object(Bucket=self.bucket, Key="mp", PartNumber=2)
        self.assertEqual((got["Body"].read(), got["PartsCount"], got["ContentRange"]),
                         (b"tail", 2, f"bytes {5 << 20}-{(5 << 20) + 3}/{(5 << 20) + 4}"))
        self.error("InvalidPartNumber", 416, self.s3.get_object, Bucket=self.bucket, Key="mp", PartNumber=3)

    def test_presigned(self):
        url = self.s3.generate_presigned_url("get_object", Params={"Bucket": self.bucket, "Key": "k"}, ExpiresIn=60)
        with urllib.request.urlopen(url) as reply:
            self.assertTrue(reply.read() == self.body)
        with self.assertRaises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(url.replace("/k?", "/other?"))
        self.assertEqual(caught.exception.code, 403)

    def test_errors(self):
        self.error("NoSuchKey", 404, self.s3.get_object, Bucket=self.bucket, Key="absent")
        self.error("NoSuchBucket", 404, self.s3.get_object, Bucket="no-such-bucket-here", Key="k")
        self.assertEqual(self.raw("GET", f"/{self.bucket}/k", sign=False).status, 403)
        reply = self.raw("GET", f"/{self.bucket}/absent")
        self.assertEqual([child.tag for child in reply.xml()][:2], ["Code", "Message"])
        self.assertEqual(reply.xml().findtext("Key"), "absent")


if __name__ == "__main__":
    harness.main()
