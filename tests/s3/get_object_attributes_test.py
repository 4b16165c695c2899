"""GetObjectAttributes: only what was asked for."""
import harness


class GetObjectAttributes(harness.S3Case):
    def test_asked_attributes(self):
        tag = self.s3.put_object(Bucket=self.bucket, Key="k", Body=b"12345", ChecksumAlgorithm="SHA256")["ETag"]
        answer = self.s3.get_object_attributes(Bucket=self.bucket, Key="k", ObjectAttributes=["ETag", "ObjectSize", "StorageClass", "Checksum"])
        self.assertEqual((answer["ETag"], answer["ObjectSize"], answer["StorageClass"]), (tag.strip('"'), 5, "STANDARD"))
        self.assertTrue(answer["Checksum"]["ChecksumSHA256"])
        answer = self.s3.get_object_attributes(Bucket=self.bucket, Key="k", ObjectAttributes=["ObjectSize"])
        self.assertEqual((answer["ObjectSize"], "ETag" in answer), (5, False))

    def test_errors(self):
        self.error("NoSuchKey", 404, self.s3.get_object_attributes, Bucket=self.bucket, Key="absent", ObjectAttributes=["ETag"])
        self.assertEqual(self.raw("GET", f"/{self.bucket}/k", "attributes=").status, 400)


if __name__ == "__main__":
    harness.main()
