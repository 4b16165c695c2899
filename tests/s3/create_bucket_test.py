"""CreateBucket: names, repeated creation, location constraints, bodies that are not XML."""
import uuid

import harness


class CreateBucket(harness.S3Case):
    def test_create_answers_its_location(self):
        name = f"create-{uuid.uuid4().hex[:12]}"
        self.addCleanup(self.remove_bucket, name)
        reply = self.raw("PUT", f"/{name}")
        self.assertEqual((reply.status, reply.headers["location"], reply.body), (200, f"/{name}", b""))

    def test_again_by_the_same_owner_keeps_what_is_in_it(self):
        self.s3.put_object(Bucket=self.bucket, Key="kept", Body=b"kept")
        self.assertEqual(self.raw("PUT", f"/{self.bucket}").status, 200)  # us-east-1 alone answers 200
        self.assertEqual(self.s3.get_object(Bucket=self.bucket, Key="kept")["Body"].read(), b"kept")

    def test_names(self):
        for name in ("ab", "Upper-case", "under_score", "-begins", "ends-", "two..dots", "192.168.0.1", "a" * 64, "xn--prefix",
                     "suffix-s3alias"):
            reply = self.raw("PUT", f"/{name}")
            self.assertEqual((reply.status, reply.code), (400, "InvalidBucketName"), name)
        for name in (f"a.b-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex + "a" * 31):
            self.addCleanup(self.remove_bucket, name)
            self.assertEqual(self.raw("PUT", f"/{name}").status, 200, name)

    def test_location_constraint(self):
        name = f"located-{uuid.uuid4().hex[:12]}"
        self.error("IllegalLocationConstraintException", 400, self.s3.create_bucket, Bucket=name,
                   CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        self.error("NoSuchBucket", 404, self.s3.list_objects_v2, Bucket=name)

    def test_malformed_body(self):
        reply = self.raw("PUT", f"/malformed-{uuid.uuid4().hex[:12]}", body=b"<CreateBucketConfiguration>")
        self.assertEqual((reply.status, reply.code), (400, "MalformedXML"))

    def test_anonymous(self):
        self.assertEqual(self.raw("PUT", f"/anonymous-{uuid.uuid4().hex[:12]}", sign=False).status, 403)


if __name__ == "__main__":
    harness.main()
