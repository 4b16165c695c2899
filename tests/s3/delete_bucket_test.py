"""DeleteBucket: only an empty one, and it is gone at once."""
import harness


class DeleteBucket(harness.S3Case):
    def test_empty_bucket(self):
        name = self.make_bucket()
        self.assertEqual(self.raw("DELETE", f"/{name}").status, 204)
        self.error("NoSuchBucket", 404, self.s3.list_objects_v2, Bucket=name)
        self.error("NoSuchBucket", 404, self.s3.put_object, Bucket=name, Key="k", Body=b"")
        self.error("NoSuchBucket", 404, self.s3.delete_bucket, Bucket=name)

    def test_not_empty(self):
        self.s3.put_object(Bucket=self.bucket, Key="k", Body=b"")
        self.error("BucketNotEmpty", 409, self.s3.delete_bucket, Bucket=self.bucket)
        self.s3.delete_object(Bucket=self.bucket, Key="k")
        self.s3.delete_bucket(Bucket=self.bucket)

    def test_a_new_bucket_of_the_name_is_empty(self):
        name = self.make_bucket()
        self.s3.put_object(Bucket=name, Key="k", Body=b"old")
        self.s3.delete_object(Bucket=name, Key="k")
        upload = self.s3.create_multipart_upload(Bucket=name, Key="k")["UploadId"]
        self.s3.abort_multipart_upload(Bucket=name, Key="k", UploadId=upload)
        self.s3.delete_bucket(Bucket=name)
        self.s3.create_bucket(Bucket=name)
        self.assertEqual(self.s3.list_objects_v2(Bucket=name)["KeyCount"], 0)
        self.error("NoSuchKey", 404, self.s3.get_object, Bucket=name, Key="k")


if __name__ == "__main__":
    harness.main()
