"""HeadBucket: 200 with the region, 404, and never a body."""
import harness


class HeadBucket(harness.S3Case):
    def test_exists(self):
        answer = self.s3.head_bucket(Bucket=self.bucket)
        self.assertEqual(answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region"), "us-east-1")

    def test_absent(self):
        reply = self.raw("HEAD", "/no-such-bucket-here")
        self.assertEqual((reply.status, reply.body), (404, b""))

    def test_anonymous(self):
        self.assertEqual(self.raw("HEAD", f"/{self.bucket}", sign=False).status, 403)


if __name__ == "__main__":
    harness.main()
