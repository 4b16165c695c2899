"""HeadObject: what GetObject says, without a body, errors included."""
import harness


class HeadObject(harness.S3Case):
    def test_as_get(self):
        self.s3.put_object(Bucket=self.bucket, Key="k", Body=b"12345", ContentType="text/x-test", Metadata={"a": "b"})
        head, get = self.raw("HEAD", f"/{self.bucket}/k"), self.raw("GET", f"/{self.bucket}/k")
        self.assertEqual((head.status, head.body, head.headers["content-length"]), (200, b"", "5"))
        volatile = ("date", "x-amz-request-id", "x-amz-id-2")
        self.assertEqual({n: v for n, v in head.headers.items() if n not in volatile},
                         {n: v for n, v in get.headers.items() if n not in volatile})

    def test_range_and_conditions(self):
        tag = self.s3.put_object(Bucket=self.bucket, Key="k", Body=b"12345")["ETag"]
        reply = self.raw("HEAD", f"/{self.bucket}/k", headers={"Range": "bytes=1-2"})
        self.assertEqual((reply.status, reply.headers["content-length"], reply.headers["content-range"]), (206, "2", "bytes 1-2/5"))
        self.assertEqual(self.raw("HEAD", f"/{self.bucket}/k", headers={"If-None-Match": tag}).status, 304)
        self.assertEqual(self.raw("HEAD", f"/{self.bucket}/k", headers={"If-Match": '"0"'}).status, 412)

    def test_errors_have_no_body(self):
        for path, status in ((f"/{self.bucket}/absent", 404), ("/no-such-bucket-here/k", 404)):
            reply = self.raw("HEAD", path)
            self.assertEqual((reply.status, reply.body), (status, b""))
        self.assertEqual(self.raw("HEAD", f"/{self.bucket}/k", sign=False).status, 403)


if __name__ == "__main__":
    harness.main()
