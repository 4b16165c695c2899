"""CompleteMultipartUpload: the object, its ETag, order and size rules, repeated and conditional completion."""
import hashlib
import random

import harness


class CompleteMultipartUpload(harness.S3Case):
    def begin(self, key="k", **arguments):
        return self.s3.create_multipart_upload(Bucket=self.bucket, Key=key, **arguments)["UploadId"]

    def part(self, upload, number, body, key="k"):
        return self.s3.upload_part(Bucket=self.bucket, Key=key, UploadId=upload, PartNumber=number, Body=body)["ETag"]

    def complete(self, upload, parts, key="k", **arguments):
        return self.s3.complete_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload, MultipartUpload={
            "Parts": [{"PartNumber": number, "ETag": tag} for number, tag in parts]}, **arguments)

    def test_object_and_tag(self):
        bodies = [random.Random(n).randbytes(5 << 20) for n in range(2)] + [b"tail"]
        upload = self.begin()
        parts = [(n * 7, self.part(upload, n * 7, body)) for n, body in enumerate(bodies, 1)]
        answer = self.complete(upload, parts)
        digests = b"".join(hashlib.md5(body).digest() for body in bodies)
        self.assertEqual(answer["ETag"], f'"{hashlib.md5(digests).hexdigest()}-3"')
        self.assertEqual((answer["Bucket"], answer["Key"]), (self.bucket, "k"))
        got = self.s3.get_object(Bucket=self.bucket, Key="k")
        self.assertTrue(got["Body"].read() == b"".join(bodies))
        self.assertEqual(got["ETag"], answer["ETag"])
        self.assertNotIn("Uploads", self.s3.list_multipart_uploads(Bucket=self.bucket))
        self.error("NoSuchUpload", 404, self.s3.list_parts, Bucket=self.bucket, Key="k", UploadId=upload)

    def test_only_the_named_parts(self):
        upload = self.begin()
        tags = {number: self.part(upload, number, b"%d" % number) for number in (1, 2, 3)}
        self.complete(upload, [(2, tags[2])])
        self.assertEqual(self.s3.get_object(Bucket=self.bucket, Key="k")["Body"].read(), b"2")

    def test_rules(self):
        upload = self.begin()
        first, second = self.part(upload, 1, b"too small"), self.part(upload, 2, b"x")
        self.error("InvalidPartOrder", 400, self.complete, upload, [(2, second), (1, first)])
        self.error("InvalidPart", 400, self.complete, upload, [(1, '"00000000000000000000000000000000"')])
        self.error("InvalidPart", 400, self.complete, upload, [(3, first)])
        self.error("EntityTooSmall", 400, self.complete, upload, [(1, first), (2, second)])
        self.error("NoSuchUpload", 404, self.complete, "0" * 32, [(1, first)])
        for body in (b"", b"<CompleteMultipartUpload/>", b"<Other/>", b"<CompleteMultipartUpload>"):
            reply = self.raw("POST", f"/{self.bucket}/k", f"uploadId={upload}", body=body)
            self.assertEqual(reply.status, 400, (body, reply))
        self.error("NoSuchKey", 404, self.s3.get_object, Bucket=self.bucket, Key="k")
        self.complete(upload, [(1, first)])  # none of the refusals harmed the upload

    def test_replaces_an_object(self):
        self.s3.put_object(Bucket=self.bucket, Key="k", Body=b"old")
        upload = self.begin()
        self.complete(upload, [(1, self.part(upload, 1, b"new"))])
        self.assertEqual(self.s3.get_object(Bucket=self.bucket, Key="k")["Body"].read(), b"new")

    def test_if_none_match(self):
        self.s3.put_object(Bucket=self.bucket, Key="k", Body=b"old")
        upload = self.begin()
        tag = self.part(upload, 1, b"new")
        body = f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{tag}</ETag></Part></CompleteMultipartUpload>".encode()
        reply = self.raw("POST", f"/{self.bucket}/k", f"uploadId={upload}", {"If-None-Match": "*"}, body)
        self.assertIn(b"PreconditionFailed", reply.body)
        self.assertEqual(self.s3.get_object(Bucket=self.bucket, Key="k")["Body"].read(), b"old")


if __name__ == "__main__":
    harness.main()
