"""CreateMultipartUpload: an upload id of its own each time, what it keeps for the object, errors."""
import harness


class CreateMultipartUpload(harness.S3Case):
    def begin(self, key="k", **arguments):
        return self.s3.create_multipart_upload(Bucket=self.bucket, Key=key, **arguments)["UploadId"]

    def part(self, upload, number, body, key="k"):
        return self.s3.upload_part(Bucket=self.bucket, Key=key, UploadId=upload, PartNumber=number, Body=body)["ETag"]

    def test_ids_differ_and_nothing_is_visible(self):
        self.assertNotEqual(self.begin(), self.begin())
        self.assertEqual(self.s3.list_objects_v2(Bucket=self.bucket)["KeyCount"], 0)

    def test_headers_reach_the_object(self):
        upload = self.begin(ContentType="text/x-test", Metadata={"a": "b"}, CacheControl="no-cache")
        tag = self.part(upload, 1, b"x")
        self.s3.complete_multipart_upload(Bucket=self.bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": tag}]})
        got = self.s3.head_object(Bucket=self.bucket, Key="k")
        self.assertEqual((got["ContentType"], got["Metadata"], got["CacheControl"]), ("text/x-test", {"a": "b"}, "no-cache"))

    def test_xml(self):
        root = self.raw("POST", f"/{self.bucket}/a%20b", "uploads=").xml()
        self.assertEqual([child.tag.split("}")[1] for child in root], ["Bucket", "Key", "UploadId"])
        self.assertEqual(root[1].text, "a b")

    def test_errors(self):
        self.error("NoSuchBucket", 404, self.s3.create_multipart_upload, Bucket="no-such-bucket-here", Key="k")
        self.error("KeyTooLongError", 400, self.s3.create_multipart_upload, Bucket=self.bucket, Key="k" * 1025)
        self.assertEqual(self.raw("POST", f"/{self.bucket}/k", "uploads=", sign=False).status, 403)


if __name__ == "__main__":
    harness.main()
