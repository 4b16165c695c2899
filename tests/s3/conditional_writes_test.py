"""Conditional writes over every operation that makes or removes an object: create only if absent, change only what was
seen. "Conditional writes" and "Conditional deletes" in the S3 user guide."""
import threading

import harness

COMPLETE = "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{}</ETag></Part></CompleteMultipartUpload>"


class ConditionalWrites(harness.S3Case):
    def path(self, key="k"):
        return f"/{self.bucket}/{key}"

    def upload(self, body=b"by parts"):
        upload = self.s3.create_multipart_upload(Bucket=self.bucket, Key="k")["UploadId"]
        tag = self.s3.upload_part(Bucket=self.bucket, Key="k", UploadId=upload, PartNumber=1, Body=body)["ETag"]
        return upload, COMPLETE.format(tag).encode()

    def expect(self, reply, status, code=None):
        self.assertEqual((reply.status, reply.code if reply.body else None), (status, code), reply)

    def test_put(self):
        self.expect(self.raw("PUT", self.path(), headers={"If-Match": "*"}, body=b"0"), 404, "NoSuchKey")
        tag = self.raw("PUT", self.path(), headers={"If-None-Match": "*"}, body=b"1").headers["etag"]
        refused = self.raw("PUT", self.path(), headers={"If-None-Match": "*"}, body=b"2")
        self.expect(refused, 412, "PreconditionFailed")
        self.assertEqual(refused.xml().findtext("Condition"), "If-None-Match")
        self.expect(self.raw("PUT", self.path(), headers={"If-Match": '"0"'}, body=b"2"), 412, "PreconditionFailed")
        self.expect(self.raw("PUT", self.path(), headers={"If-Match": tag.strip('"')}, body=b"3"), 200)
        self.expect(self.raw("PUT", self.path(), headers={"If-Match": "*"}, body=b"4"), 200)
        self.assertEqual(self.s3.get_object(Bucket=self.bucket, Key="k")["Body"].read(), b"4")

    def test_forms_that_are_not_offered(self):
        for headers in ({"If-None-Match": '"0"'}, {"If-None-Match": "*", "If-Match": '"0"'}):
            self.expect(self.raw("PUT", self.path(), headers=headers, body=b"1"), 501, "NotImplemented")

    def test_a_large_body_is_refused_as_well(self):
        self.s3.put_object(Bucket=self.bucket, Key="k", Body=b"1")
        self.expect(self.raw("PUT", self.path(), headers={"If-None-Match": "*"}, body=bytes(200_000)), 412, "PreconditionFailed")
        self.assertEqual(self.s3.head_object(Bucket=self.bucket, Key="k")["ContentLength"], 1)

    def test_complete(self):
        upload, xml = self.upload()
        query = "uploadId=" + upload
        self.expect(self.raw("POST", self.path(), query, {"If-Match": '"0"'}, xml), 404, "NoSuchKey")
        self.s3.put_object(Bucket=self.bucket, Key="k", Body=b"1")
        self.expect(self.raw("POST", self.path(), query, {"If-None-Match": "*"}, xml), 412, "PreconditionFailed")
        self.assertEqual(self.s3.get_object(Bucket=self.bucket, Key="k")["Body"].read(), b"1")
        tag = self.s3.head_object(Bucket=self.bucket, Key="k")["ETag"]
        self.assertEqual(self.raw("POST", self.path(), query, {"If-Match": tag}, xml).status, 200)
        self.assertEqual(self.s3.get_object(Bucket=self.bucket, Key="k")["Body"].read(), b"by parts")

    def test_copy(self):
        self.s3.put_object(Bucket=self.bucket, Key="source", Body=b"1")
        source = {"x-amz-copy-source": f"{self.bucket}/source"}
        self.expect(self.raw("PUT", self.path(), headers={**source, "If-Match": '"0"'}), 404, "NoSuchKey")
        self.assertEqual(self.raw("PUT", self.path(), headers={**source, "If-None-Match": "*"}).status, 200)
        self.expect(self.raw("PUT", self.path(), headers={**source, "If-None-Match": "*"}), 412, "PreconditionFailed")

    def test_delete(self):
        tag = self.s3.put_object(Bucket=self.bucket, Key="k", Body=b"1")["ETag"]
        self.expect(self.raw("DELETE", self.path(), headers={"If-Match": '"0"'}), 412, "PreconditionFailed")
        self.expect(self.raw("DELETE", self.path(), headers={"If-Match": tag}), 204)
        self.expect(self.raw("DELETE", self.path(), headers={"If-Match": tag}), 404, "NoSuchKey")
        self.expect(self.raw("DELETE", self.path()), 204)

    def test_compare_and_swap_counts_every_success(self):
        """Eight writers increment a number that each read before: no update is lost."""
        self.s3.put_object(Bucket=self.bucket, Key="k", Body=b"0")
        done, lock = [0], threading.Lock()

        def increment():
            for _ in range(10):
                seen = self.raw("GET", self.path())
                reply = self.raw("PUT", self.path(), headers={"If-Match": seen.headers["etag"]}, body=b"%d" % (int(seen.body) + 1))
                if reply.status == 200:
                    with lock:
                        done[0] += 1
                else:
                    assert reply.status in (409, 412), reply

        threads = [threading.Thread(target=increment) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(int(self.raw("GET", self.path()).body), done[0])
        self.assertGreater(done[0], 0)

    def test_one_of_several_completions_creates(self):
        uploads, statuses = [self.upload(b"%d" % n) for n in range(6)], []
        threads = [threading.Thread(target=lambda u=u, x=x: statuses.append(
            self.raw("POST", self.path(), "uploadId=" + u, {"If-None-Match": "*"}, x).status)) for u, x in uploads]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(statuses.count(200), 1, statuses)
        self.assertTrue(set(statuses) <= {200, 409, 412}, statuses)


if __name__ == "__main__":
    harness.main()
