"""ListObjects (version 1): markers, NextMarker with a delimiter, owners always."""
import harness


class ListObjects(harness.S3Case):
    def fill(self, *keys):
        for key in keys:
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=b"x")

    def test_markers(self):
        keys = [f"k{n:02}" for n in range(10)]
        self.fill(*keys)
        found, marker = [], ""
        while True:
            answer = self.s3.list_objects(Bucket=self.bucket, MaxKeys=3, Marker=marker)
            found += [item["Key"] for item in answer["Contents"]]
            self.assertTrue(all(item["Owner"]["ID"] for item in answer["Contents"]))
            self.assertEqual(answer["Marker"], marker)
            self.assertNotIn("NextMarker", answer)
            if not answer["IsTruncated"]:
                break
            marker = found[-1]
        self.assertEqual(found, keys)

    def test_next_marker_with_a_delimiter(self):
        self.fill("a/1", "a/2", "b", "c/3", "d")
        seen, marker = [], ""
        while True:
            answer = self.s3.list_objects(Bucket=self.bucket, MaxKeys=1, Delimiter="/", Marker=marker)
            seen += [item["Key"] for item in answer.get("Contents", [])] + [p["Prefix"] for p in answer.get("CommonPrefixes", [])]
            if not answer["IsTruncated"]:
                break
            marker = answer["NextMarker"]
        self.assertEqual(seen, ["a/", "b", "c/", "d"])

    def test_empty_and_absent(self):
        answer = self.s3.list_objects(Bucket=self.bucket)
        self.assertEqual((answer["IsTruncated"], "Contents" in answer), (False, False))
        self.error("NoSuchBucket", 404, self.s3.list_objects, Bucket="no-such-bucket-here")


if __name__ == "__main__":
    harness.main()
