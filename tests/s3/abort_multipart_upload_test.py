"""AbortMultipartUpload: the upload and its parts are gone, the object is not touched."""
import harness


class AbortMultipartUpload(harness.S3Case):
    def begin(self, key="k", **arguments):
        return self.s3.create_multipart_upload(Bucket=self.bucket, Key=key, **arguments)["UploadId"]

    def part(self, upload, number, body, key="k"):
        return self.s3.upload_part(Bucket=self.bucket, Key=key, UploadId=upload, PartNumber=number, Body=body)["ETag"]

    def test_abort(self):
        self.s3.put_object(Bucket=self.bucket, Key="k", Body=b"stays")
        upload = self.begin()
        tag = self.part(upload, 1, b"x")
        self.assertEqual(self.raw("DELETE", f"/{self.bucket}/k", f"uploadId={upload}").status, 204)
        self.error("NoSuchUpload", 404, self.s3.list_parts, Bucket=self.bucket, Key="k", UploadId=upload)
        self.error("NoSuchUpload", 404, self.s3.complete_multipart_upload, Bucket=self.bucket, Key="k", UploadId=upload,
                   MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": tag}]})
        self.assertEqual(self.s3.get_object(Bucket=self.bucket, Key="k")["Body"].read(), b"stays")

    def test_no_such_upload(self):
        upload = self.begin()
        for key, upload_id in (("other", upload), ("k", "0" * 32)):
            self.error("NoSuchUpload", 404, self.s3.abort_multipart_upload, Bucket=self.bucket, Key=key, UploadId=upload_id)
        self.s3.list_parts(Bucket=self.bucket, Key="k", UploadId=upload)


if __name__ == "__main__":
    harness.main()
