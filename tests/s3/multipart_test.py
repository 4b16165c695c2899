"""Multipart uploads as a whole: what the per-operation files do not see. Races, replacement, many parts, left-overs."""
import hashlib
import random
import threading

import botocore.exceptions
import harness

PART = 5 << 20


class Multipart(harness.S3Case):
    def create(self, **arguments):
        return self.s3.create_multipart_upload(Bucket=self.bucket, Key="k", **arguments)["UploadId"]

    def part(self, upload, number, body):
        return self.s3.upload_part(Bucket=self.bucket, Key="k", UploadId=upload, PartNumber=number, Body=body)["ETag"]

    def complete(self, upload, tags):
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in sorted(tags.items())]
        return self.s3.complete_multipart_upload(Bucket=self.bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts})

    def body(self):
        return self.s3.get_object(Bucket=self.bucket, Key="k")["Body"].read()

    def test_etag_and_content(self):
        bodies = {1: random.Random(1).randbytes(PART), 4: random.Random(2).randbytes(PART + 12345), 9: b"end"}
        upload = self.create(Metadata={"a": "b"}, ContentType="text/x")
        tags = {number: self.part(upload, number, body) for number, body in reversed(bodies.items())}
        answer = self.complete(upload, tags)
        expected = hashlib.md5(b"".join(hashlib.md5(body).digest() for body in bodies.values())).hexdigest() + "-3"
        self.assertEqual(answer["ETag"], f'"{expected}"')
        whole = b"".join(bodies.values())
        self.assertTrue(self.body() == whole)
        head = self.s3.head_object(Bucket=self.bucket, Key="k")
        self.assertEqual((head["ETag"], head["ContentLength"], head["Metadata"], head["ContentType"]),
                         (answer["ETag"], len(whole), {"a": "b"}, "text/x"))
        for begin, end in ((PART - 3, PART + 3), (2 * PART + 12340, len(whole)), (0, len(whole))):
            reply = self.s3.get_object(Bucket=self.bucket, Key="k", Range=f"bytes={begin}-{end - 1}")
            self.assertTrue(reply["Body"].read() == whole[begin:end])
        for number, body in bodies.items():
            reply = self.s3.get_object(Bucket=self.bucket, Key="k", PartNumber=number)
            self.assertEqual((reply["PartsCount"], reply["Body"].read() == body), (3, True))

    def test_replacing_a_part_with_the_same_bytes(self):
        upload = self.create()
        for _ in range(3):
            tag = self.part(upload, 1, b"same" * 50_000)
        self.complete(upload, {1: tag})
        self.assertTrue(self.body() == b"same" * 50_000)

    def test_an_overwritten_object_is_readable_to_its_end(self):
        body = random.Random(3).randbytes(8 << 20)
        self.s3.put_object(Bucket=self.bucket, Key="k", Body=body)
        reading = self.s3.get_object(Bucket=self.bucket, Key="k")["Body"]
        first = reading.read(100_000)
        upload = self.create()
        self.complete(upload, {1: self.part(upload, 1, b"new")})
        self.assertTrue(first + reading.read() == body)
        self.assertEqual(self.body(), b"new")

    def test_completion_against_uploads_of_the_same_part(self):
        """Whatever wins, the object holds one version of the part, whole, and nothing of the upload is left."""
        for round_number in range(5):
            upload = self.create()
            bodies = [bytes([n]) * 300_000 for n in range(4)]
            tags = {hashlib.md5(body).hexdigest(): body for body in bodies}
            self.part(upload, 1, bodies[0])
            outcomes = []

            def replace(body):
                try:
                    self.part(upload, 1, body)
                except botocore.exceptions.ClientError as error:
                    outcomes.append(error.response["Error"]["Code"])

            threads = [threading.Thread(target=replace, args=(body,)) for body in bodies]
            for thread in threads:
                thread.start()
            done = None
            while done is None:
                listed = self.s3.list_parts(Bucket=self.bucket, Key="k", UploadId=upload)["Parts"][0]["ETag"]
                try:
                    done = self.complete(upload, {1: listed})
                except botocore.exceptions.ClientError as error:
                    self.assertIn(error.response["Error"]["Code"], ("InvalidPart", "OperationAborted"))
            for thread in threads:
                thread.join()
            self.assertLessEqual(set(outcomes), {"NoSuchUpload"})
            self.assertTrue(self.body() == tags[listed.strip('"')], round_number)
            self.error("NoSuchUpload", 404, self.s3.list_parts, Bucket=self.bucket, Key="k", UploadId=upload)
            self.assertNotIn("Uploads", self.s3.list_multipart_uploads(Bucket=self.bucket))

    def test_abort_against_uploads(self):
        upload = self.create()
        codes = []

        def send(number):
            try:
                self.part(upload, number, bytes(200_000))
            except botocore.exceptions.ClientError as error:
                codes.append(error.response["Error"]["Code"])

        threads = [threading.Thread(target=send, args=(number,)) for number in range(1, 9)]
        for thread in threads:
            thread.start()
        self.s3.abort_multipart_upload(Bucket=self.bucket, Key="k", UploadId=upload)
        for thread in threads:
            thread.join()
        self.assertLessEqual(set(codes), {"NoSuchUpload"})
        self.error("NoSuchUpload", 404, self.s3.abort_multipart_upload, Bucket=self.bucket, Key="k", UploadId=upload)

    def test_two_uploads_of_a_key(self):
        first, second = self.create(), self.create()
        first_tag, second_tag = self.part(first, 1, b"first"), self.part(second, 1, b"second")
        self.error("InvalidPart", 400, self.complete, first, {1: second_tag})
        self.complete(second, {1: second_tag})
        self.complete(first, {1: first_tag})
        self.assertEqual(self.body(), b"first")

    def test_many_parts_are_paged(self):
        upload = self.create()
        tag = ""
        for number in range(1, 1006):
            tag = self.raw("PUT", f"/{self.bucket}/k", f"partNumber={number}&uploadId={upload}").headers["etag"]
        pages = list(self.s3.get_paginator("list_parts").paginate(Bucket=self.bucket, Key="k", UploadId=upload))
        self.assertEqual([len(page["Parts"]) for page in pages], [1000, 5])
        self.complete(upload, {1005: tag})
        self.assertEqual(self.body(), b"")


if __name__ == "__main__":
    harness.main()
