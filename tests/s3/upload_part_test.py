"""UploadPart: part numbers, replacing a part, digests, and uploads that are not there."""
import base64
import hashlib

import harness


class UploadPart(harness.S3Case):
    def begin(self, key="k", **arguments):
        return self.s3.create_multipart_upload(Bucket=self.bucket, Key=key, **arguments)["UploadId"]

    def part(self, upload, number, body, key="k"):
        return self.s3.upload_part(Bucket=self.bucket, Key=key, UploadId=upload, PartNumber=number, Body=body)["ETag"]

    def test_numbers(self):
        upload = self.begin()
        for number in (1, 5000, 10000):
            self.part(upload, number, b"x")
        for number in ("0", "10001", "-1", "x", ""):
            reply = self.raw("PUT", f"/{self.bucket}/k", f"partNumber={number}&uploadId={upload}", body=b"x")
            self.assertEqual((reply.status, reply.code), (400, "InvalidArgument"), number)

    def test_a_part_can_be_replaced(self):
        upload = self.begin()
        self.part(upload, 1, b"old")
        tag = self.part(upload, 1, b"new")
        self.assertEqual(tag, f'"{hashlib.md5(b"new").hexdigest()}"')
        self.s3.complete_multipart_upload(Bucket=self.bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": tag}]})
        self.assertEqual(self.s3.get_object(Bucket=self.bucket, Key="k")["Body"].read(), b"new")

    def test_digest(self):
        upload = self.begin()
        wrong = base64.b64encode(bytes(16)).decode()
        self.error("BadDigest", 400, self.s3.upload_part, Bucket=self.bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"x", ContentMD5=wrong)
        self.assertNotIn("Parts", self.s3.list_parts(Bucket=self.bucket, Key="k", UploadId=upload))

    def test_no_such_upload(self):
        upload = self.begin()
        for key, upload_id in (("k", "0" * 32), ("other", upload), ("k", "nonsense")):
            self.error("NoSuchUpload", 404, self.s3.upload_part, Bucket=self.bucket, Key=key, UploadId=upload_id, PartNumber=1, Body=b"x")


if __name__ == "__main__":
    harness.main()
