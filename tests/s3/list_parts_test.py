"""ListParts: numbers, sizes and tags in order, in pages."""
import harness


class ListParts(harness.S3Case):
    def begin(self, key="k", **arguments):
        return self.s3.create_multipart_upload(Bucket=self.bucket, Key=key, **arguments)["UploadId"]

    def part(self, upload, number, body, key="k"):
        return self.s3.upload_part(Bucket=self.bucket, Key=key, UploadId=upload, PartNumber=number, Body=body)["ETag"]

    def test_parts_in_order(self):
        upload = self.begin()
        tags = {number: self.part(upload, number, b"x" * number) for number in (3, 1, 20)}
        answer = self.s3.list_parts(Bucket=self.bucket, Key="k", UploadId=upload)
        self.assertEqual([(part["PartNumber"], part["Size"], part["ETag"]) for part in answer["Parts"]],
                         [(number, number, tags[number]) for number in (1, 3, 20)])
        self.assertEqual((answer["IsTruncated"], answer["MaxParts"], answer["UploadId"]), (False, 1000, upload))

    def test_pages(self):
        upload = self.begin()
        for number in range(1, 8):
            self.part(upload, number, b"x")
        found, marker = [], 0
        while True:
            answer = self.s3.list_parts(Bucket=self.bucket, Key="k", UploadId=upload, MaxParts=3, PartNumberMarker=marker)
            found += [part["PartNumber"] for part in answer["Parts"]]
            if not answer["IsTruncated"]:
                break
            marker = answer["NextPartNumberMarker"]
        self.assertEqual(found, list(range(1, 8)))

    def test_errors(self):
        self.error("NoSuchUpload", 404, self.s3.list_parts, Bucket=self.bucket, Key="k", UploadId="0" * 32)
        reply = self.raw("GET", f"/{self.bucket}/k", f"max-parts=x&uploadId={self.begin()}")
        self.assertEqual((reply.status, reply.code), (400, "InvalidArgument"))


if __name__ == "__main__":
    harness.main()
