"""ListMultipartUploads: by key, then by time; prefix and delimiter; pages; markers."""
import harness


class ListMultipartUploads(harness.S3Case):
    def begin(self, key="k", **arguments):
        return self.s3.create_multipart_upload(Bucket=self.bucket, Key=key, **arguments)["UploadId"]

    def part(self, upload, number, body, key="k"):
        return self.s3.upload_part(Bucket=self.bucket, Key=key, UploadId=upload, PartNumber=number, Body=body)["ETag"]

    def test_sorted_by_key_then_time(self):
        uploads = [(key, self.begin(key)) for key in ("b", "a", "b", "c/d")]
        answer = self.s3.list_multipart_uploads(Bucket=self.bucket)
        found = [(item["Key"], item["UploadId"]) for item in answer["Uploads"]]
        self.assertEqual([key for key, _ in found], ["a", "b", "b", "c/d"])
        self.assertEqual(set(found), set(uploads))
        self.assertTrue(all(item["Initiated"] and item["StorageClass"] == "STANDARD" for item in answer["Uploads"]))

    def test_prefix_and_delimiter(self):
        for key in ("a/1", "a/2", "b", "c/3"):
            self.begin(key)
        answer = self.s3.list_multipart_uploads(Bucket=self.bucket, Delimiter="/")
        self.assertEqual(([item["Key"] for item in answer["Uploads"]], [item["Prefix"] for item in answer["CommonPrefixes"]]),
                         (["b"], ["a/", "c/"]))
        answer = self.s3.list_multipart_uploads(Bucket=self.bucket, Prefix="a/")
        self.assertEqual([item["Key"] for item in answer["Uploads"]], ["a/1", "a/2"])

    def test_pages(self):
        uploads = {(key, self.begin(key)) for key in ("a", "b", "b", "b", "c")}
        found, markers = [], {}
        while True:
            answer = self.s3.list_multipart_uploads(Bucket=self.bucket, MaxUploads=2, **markers)
            found += [(item["Key"], item["UploadId"]) for item in answer["Uploads"]]
            if not answer["IsTruncated"]:
                break
            markers = {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}
        self.assertEqual((len(found), set(found)), (5, uploads))

    def test_errors(self):
        self.assertNotIn("Uploads", self.s3.list_multipart_uploads(Bucket=self.bucket))
        self.error("NoSuchBucket", 404, self.s3.list_multipart_uploads, Bucket="no-such-bucket-here")


if __name__ == "__main__":
    harness.main()
