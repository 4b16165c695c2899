"""DeleteObject: 204 whether or not the key is there, and only that key."""
import harness


class DeleteObject(harness.S3Case):
    def test_delete(self):
        for key in ("a", "a/b", "a/"):
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=b"x")
        reply = self.raw("DELETE", f"/{self.bucket}/a")
        self.assertEqual((reply.status, reply.body), (204, b""))
        self.error("NoSuchKey", 404, self.s3.get_object, Bucket=self.bucket, Key="a")
        keys = [item["Key"] for item in self.s3.list_objects_v2(Bucket=self.bucket)["Contents"]]
        self.assertEqual(keys, ["a/", "a/b"])

    def test_absent(self):
        self.assertEqual(self.raw("DELETE", f"/{self.bucket}/absent").status, 204)
        self.error("NoSuchBucket", 404, self.s3.delete_object, Bucket="no-such-bucket-here", Key="k")

    def test_put_after_delete(self):
        for n in range(20):
            self.s3.put_object(Bucket=self.bucket, Key="k", Body=b"%d" % n)
            self.s3.delete_object(Bucket=self.bucket, Key="k")
        self.assertEqual(self.s3.list_objects_v2(Bucket=self.bucket)["KeyCount"], 0)

    def test_anonymous(self):
        self.s3.put_object(Bucket=self.bucket, Key="k", Body=b"x")
        self.assertEqual(self.raw("DELETE", f"/{self.bucket}/k", sign=False).status, 403)
        self.s3.head_object(Bucket=self.bucket, Key="k")


if __name__ == "__main__":
    harness.main()
