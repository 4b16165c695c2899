"""UploadPartCopy: whole sources and ranges, conditions, errors."""
import functools
import random

import harness


class UploadPartCopy(harness.S3Case):
    def begin(self, key="k", **arguments):
        return self.s3.create_multipart_upload(Bucket=self.bucket, Key=key, **arguments)["UploadId"]

    def part(self, upload, number, body, key="k"):
        return self.s3.upload_part(Bucket=self.bucket, Key=key, UploadId=upload, PartNumber=number, Body=body)["ETag"]

    def test_ranges_make_the_object(self):
        source = random.Random(3).randbytes((6 << 20) + 11)
        self.s3.put_object(Bucket=self.bucket, Key="src", Body=source)
        upload, parts = self.begin(), []
        for number, text in ((1, f"bytes=0-{(5 << 20) - 1}"), (2, f"bytes={5 << 20}-{len(source) - 1}")):
            answer = self.s3.upload_part_copy(Bucket=self.bucket, Key="k", UploadId=upload, PartNumber=number,
                                              CopySource=f"{self.bucket}/src", CopySourceRange=text)
            parts.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
        self.s3.complete_multipart_upload(Bucket=self.bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts})
        self.s3.delete_object(Bucket=self.bucket, Key="src")
        self.assertTrue(self.s3.get_object(Bucket=self.bucket, Key="k")["Body"].read() == source)

    def test_whole_source(self):
        self.s3.put_object(Bucket=self.bucket, Key="src", Body=b"small")
        upload = self.begin()
        answer = self.s3.upload_part_copy(Bucket=self.bucket, Key="k", UploadId=upload, PartNumber=1, CopySource=f"{self.bucket}/src")
        part = {"PartNumber": 1, "ETag": answer["CopyPartResult"]["ETag"]}
        self.s3.complete_multipart_upload(Bucket=self.bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": [part]})
        self.assertEqual(self.s3.get_object(Bucket=self.bucket, Key="k")["Body"].read(), b"small")

    def test_errors(self):
        tag = self.s3.put_object(Bucket=self.bucket, Key="src", Body=b"small")["ETag"]
        upload = self.begin()
        copy = functools.partial(self.s3.upload_part_copy, Bucket=self.bucket, Key="k", PartNumber=1)
        self.error("NoSuchUpload", 404, copy, UploadId="0" * 32, CopySource=f"{self.bucket}/src")
        self.error("NoSuchKey", 404, copy, UploadId=upload, CopySource=f"{self.bucket}/absent")
        self.error("PreconditionFailed", 412, copy, UploadId=upload, CopySource=f"{self.bucket}/src", CopySourceIfNoneMatch=tag)
        for text in ("bytes=0-5", "bytes=9-10", "0-1", "bytes=3-2"):
            reply = self.raw("PUT", f"/{self.bucket}/k", f"partNumber=1&uploadId={upload}",
                             {"x-amz-copy-source": f"/{self.bucket}/src", "x-amz-copy-source-range": text})
            self.assertTrue(400 <= reply.status < 500, (text, reply))


if __name__ == "__main__":
    harness.main()
