"""GetObjectTagging, PutObjectTagging, DeleteObjectTagging: the tag set of an object, whatever its content is stored as."""
import harness


def tag_set(**tags):
    return {"TagSet": [{"Key": key, "Value": value} for key, value in tags.items()]}


class ObjectTagging(harness.S3Case):
    def tags(self, key="k"):
        return {tag["Key"]: tag["Value"] for tag in self.s3.get_object_tagging(Bucket=self.bucket, Key=key)["TagSet"]}

    def test_round_trip_keeps_the_object(self):
        # In the index, in the log, in a segment, in a file of its own.
        for size in (0, 10, 5_000, 300_000, 5 << 20):
            body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
            self.s3.put_object(Bucket=self.bucket, Key="k", Body=body, Metadata={"m": "1"}, ContentType="text/x-y",
                               ChecksumAlgorithm="SHA256", Tagging="from=put")
            before = self.s3.head_object(Bucket=self.bucket, Key="k", ChecksumMode="ENABLED")
            self.assertEqual(self.tags(), {"from": "put"})
            self.s3.put_object_tagging(Bucket=self.bucket, Key="k", Tagging=tag_set(a="1", b="", c="\u00e9"))
            self.assertEqual(self.tags(), {"a": "1", "b": "", "c": "\u00e9"})
            after = self.s3.get_object(Bucket=self.bucket, Key="k", ChecksumMode="ENABLED")
            self.assertEqual(after["Body"].read(), body)
            for field in ("ETag", "LastModified", "ContentType", "Metadata", "ContentLength", "ChecksumSHA256"):
                self.assertEqual(after[field], before[field], field)
            self.assertEqual(after["TagCount"], 3)
            self.s3.delete_object_tagging(Bucket=self.bucket, Key="k")
            self.assertEqual(self.tags(), {})
            self.assertEqual(self.s3.get_object(Bucket=self.bucket, Key="k")["Body"].read(), body)

    def test_of_a_multipart_object(self):
        upload = self.s3.create_multipart_upload(Bucket=self.bucket, Key="k", Tagging="from=create")["UploadId"]
        part = b"p" * (5 << 20)
        parts = [{"PartNumber": n, "ETag": self.s3.upload_part(Bucket=self.bucket, Key="k", UploadId=upload, PartNumber=n,
                                                              Body=part)["ETag"]} for n in (1, 2)]
        self.s3.complete_multipart_upload(Bucket=self.bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts})
        self.assertEqual(self.tags(), {"from": "create"})
        self.s3.put_object_tagging(Bucket=self.bucket, Key="k", Tagging=tag_set(a="1"))
        self.assertEqual(self.tags(), {"a": "1"})
        self.assertEqual(self.s3.get_object(Bucket=self.bucket, Key="k", PartNumber=2)["Body"].read(), part)

    def test_copy_carries_or_replaces(self):
        self.s3.put_object(Bucket=self.bucket, Key="k", Body=b"1", Tagging="a=1")
        source = {"Bucket": self.bucket, "Key": "k"}
        self.s3.copy_object(Bucket=self.bucket, Key="same", CopySource=source)
        self.s3.copy_object(Bucket=self.bucket, Key="new", CopySource=source, TaggingDirective="REPLACE", Tagging="b=2")
        self.assertEqual((self.tags("same"), self.tags("new")), ({"a": "1"}, {"b": "2"}))

    def test_a_put_drops_tags(self):
        self.s3.put_object(Bucket=self.bucket, Key="k", Body=b"1", Tagging="a=1")
        self.s3.put_object(Bucket=self.bucket, Key="k", Body=b"2")
        self.assertEqual(self.tags(), {})

    def test_errors(self):
        put = self.s3.put_object_tagging
        for call, extra in ((self.s3.get_object_tagging, {}), (self.s3.delete_object_tagging, {}), (put, {"Tagging": tag_set(a="1")})):
            self.error("NoSuchKey", 404, call, Bucket=self.bucket, Key="absent", **extra)
        self.s3.put_object(Bucket=self.bucket, Key="k", Body=b"1", Tagging="kept=yes")
        self.error("InvalidTag", 400, put, Bucket=self.bucket, Key="k", Tagging=tag_set(**{f"k{n}": "v" for n in range(11)}))
        self.error("InvalidTag", 400, put, Bucket=self.bucket, Key="k", Tagging=tag_set(**{"k" * 129: "v"}))
        self.error("InvalidTag", 400, put, Bucket=self.bucket, Key="k", Tagging=tag_set(k="v" * 257))
        self.error("InvalidTag", 400, put, Bucket=self.bucket, Key="k", Tagging=tag_set(**{"aws:k": "v"}))
        self.error("InvalidTag", 400, put, Bucket=self.bucket, Key="k", Tagging={"TagSet": [{"Key": "a", "Value": "1"}] * 2})
        for body in (b"", b"<Tagging/>", b"<Tagging><TagSet><Tag><Key>a</Key></Tag></TagSet></Tagging>", b"<Other><TagSet/></Other>"):
            answer = self.raw("PUT", f"/{self.bucket}/k", "tagging=", body=body)
            self.assertEqual((answer.status, answer.code), (400, "MalformedXML"), body)
        self.assertEqual(self.tags(), {"kept": "yes"})


if __name__ == "__main__":
    harness.main()
