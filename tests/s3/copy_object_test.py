"""CopyObject: content, metadata directives, conditions on the source, copies onto itself, errors."""
import functools
import random

import harness


class CopyObject(harness.S3Case):
    def setUp(self):
        super().setUp()
        self.tag = self.s3.put_object(Bucket=self.bucket, Key="src ü", Body=b"content", ContentType="text/x-test", Metadata={"a": "b"})["ETag"]
        self.source = {"Bucket": self.bucket, "Key": "src ü"}

    def test_copies_content_and_metadata(self):
        answer = self.s3.copy_object(Bucket=self.bucket, Key="dst", CopySource=self.source)
        self.assertEqual(answer["CopyObjectResult"]["ETag"], self.tag)
        self.assertTrue(answer["CopyObjectResult"]["LastModified"])
        got = self.s3.get_object(Bucket=self.bucket, Key="dst")
        self.assertEqual((got["Body"].read(), got["ContentType"], got["Metadata"]), (b"content", "text/x-test", {"a": "b"}))

    def test_replaces_metadata(self):
        self.s3.copy_object(Bucket=self.bucket, Key="dst", CopySource=self.source, MetadataDirective="REPLACE",
                            Metadata={"c": "d"}, ContentType="text/other")
        got = self.s3.head_object(Bucket=self.bucket, Key="dst")
        self.assertEqual((got["ContentType"], got["Metadata"]), ("text/other", {"c": "d"}))

    def test_onto_itself(self):
        self.error("InvalidRequest", 400, self.s3.copy_object, Bucket=self.bucket, Key="src ü", CopySource=self.source)
        self.s3.copy_object(Bucket=self.bucket, Key="src ü", CopySource=self.source, MetadataDirective="REPLACE", Metadata={"e": "f"})
        got = self.s3.get_object(Bucket=self.bucket, Key="src ü")
        self.assertEqual((got["Body"].read(), got["Metadata"]), (b"content", {"e": "f"}))

    def test_the_copy_outlives_its_source(self):
        large = random.Random(2).randbytes((5 << 20) + 7)
        self.s3.put_object(Bucket=self.bucket, Key="large", Body=large)
        other = self.make_bucket()
        self.s3.copy_object(Bucket=other, Key="copy", CopySource=f"{self.bucket}/large")
        self.s3.delete_object(Bucket=self.bucket, Key="large")
        self.assertTrue(self.s3.get_object(Bucket=other, Key="copy")["Body"].read() == large)

    def test_source_conditions(self):
        past = "2000-01-01T00:00:00Z"
        copy = functools.partial(self.s3.copy_object, Bucket=self.bucket, Key="dst", CopySource=self.source)
        copy(CopySourceIfMatch=self.tag)
        copy(CopySourceIfNoneMatch='"0"')
        copy(CopySourceIfModifiedSince=past)
        for condition in ({"CopySourceIfMatch": '"0"'}, {"CopySourceIfNoneMatch": self.tag}, {"CopySourceIfUnmodifiedSince": past}):
            self.error("PreconditionFailed", 412, copy, **condition)

    def test_errors(self):
        copy = functools.partial(self.s3.copy_object, Bucket=self.bucket, Key="dst")
        self.error("NoSuchKey", 404, copy, CopySource=f"{self.bucket}/absent")
        self.error("NoSuchBucket", 404, copy, CopySource="no-such-bucket-here/k")
        self.error("NoSuchBucket", 404, self.s3.copy_object, Bucket="no-such-bucket-here", Key="k", CopySource=self.source)
        for source in ("", "/", "nokey", f"{self.bucket}/", f"{self.bucket}/%zz"):
            reply = self.raw("PUT", f"/{self.bucket}/dst", headers={"x-amz-copy-source": source})
            self.assertTrue(400 <= reply.status < 500, (source, reply))
        self.error("NoSuchKey", 404, self.s3.get_object, Bucket=self.bucket, Key="dst")


if __name__ == "__main__":
    harness.main()
