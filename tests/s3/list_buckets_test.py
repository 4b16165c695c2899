"""ListBuckets: every bucket of the caller, sorted, with its owner; nothing for anonymous callers."""
import harness


class ListBuckets(harness.S3Case):
    def test_lists_sorted_with_dates_and_owner(self):
        more = [self.make_bucket("aaa"), self.make_bucket("zzz")]
        answer = self.s3.list_buckets()
        names = [bucket["Name"] for bucket in answer["Buckets"]]
        self.assertTrue({self.bucket, *more} <= set(names))
        self.assertEqual(names, sorted(names))
        self.assertTrue(all(bucket["CreationDate"] for bucket in answer["Buckets"]))
        self.assertTrue(answer["Owner"]["ID"])

    def test_a_removed_bucket_is_gone(self):
        name = self.make_bucket()
        self.s3.delete_bucket(Bucket=name)
        self.assertNotIn(name, [bucket["Name"] for bucket in self.s3.list_buckets()["Buckets"]])

    def test_xml(self):
        reply = self.raw("GET", "/")
        self.assertEqual((reply.status, reply.headers["content-type"]), (200, "application/xml"))
        root = reply.xml()
        self.assertTrue(root.tag.endswith("ListAllMyBucketsResult"))
        self.assertTrue(reply.body.startswith(b"<?xml"))
        self.assertIn("x-amz-request-id", reply.headers)

    def test_anonymous_and_unknown_keys(self):
        self.assertEqual((self.raw("GET", "/", sign=False).status, self.raw("GET", "/", sign=False).code), (403, "AccessDenied"))
        self.assertEqual(self.raw("GET", "/", access_key="BASALTNOSUCHKEY0000").code, "InvalidAccessKeyId")
        self.assertEqual(self.raw("GET", "/", secret_key="not the secret of this key at all").code, "SignatureDoesNotMatch")


if __name__ == "__main__":
    harness.main()
