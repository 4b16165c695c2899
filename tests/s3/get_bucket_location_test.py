"""GetBucketLocation: an empty constraint in us-east-1, errors by name."""
import harness


class GetBucketLocation(harness.S3Case):
    def test_us_east_1_is_empty(self):
        self.assertIsNone(self.s3.get_bucket_location(Bucket=self.bucket)["LocationConstraint"])

    def test_xml(self):
        reply = self.raw("GET", f"/{self.bucket}", "location=")
        self.assertEqual(reply.status, 200)
        self.assertTrue(reply.xml().tag.endswith("LocationConstraint"))

    def test_no_such_bucket(self):
        self.error("NoSuchBucket", 404, self.s3.get_bucket_location, Bucket="no-such-bucket-here")


if __name__ == "__main__":
    harness.main()
