"""DeleteObjects: results in order, quiet mode, the limit of 1000, digests and malformed documents."""
import base64
import hashlib

import harness


class DeleteObjects(harness.S3Case):
    def post(self, body, headers=None, md5=True):
        headers = dict(headers or {})
        if md5:
            headers["Content-MD5"] = base64.b64encode(hashlib.md5(body).digest()).decode()
        return self.raw("POST", f"/{self.bucket}", "delete=", headers, body)

    def test_present_and_absent(self):
        keys = ["a", "b & <c>", "ü/"]
        for key in keys:
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=b"x")
        answer = self.s3.delete_objects(Bucket=self.bucket, Delete={"Objects": [{"Key": key} for key in [*keys, "absent"]]})
        self.assertEqual([item["Key"] for item in answer["Deleted"]], [*keys, "absent"])
        self.assertNotIn("Errors", answer)
        self.assertEqual(self.s3.list_objects_v2(Bucket=self.bucket)["KeyCount"], 0)

    def test_quiet(self):
        self.s3.put_object(Bucket=self.bucket, Key="a", Body=b"x")
        answer = self.s3.delete_objects(Bucket=self.bucket, Delete={"Objects": [{"Key": "a"}], "Quiet": True})
        self.assertNotIn("Deleted", answer)
        self.error("NoSuchKey", 404, self.s3.get_object, Bucket=self.bucket, Key="a")

    def test_a_thousand_and_one_more(self):
        objects = [{"Key": f"k{n}"} for n in range(1000)]
        self.s3.put_object(Bucket=self.bucket, Key="k999", Body=b"x")
        self.assertEqual(len(self.s3.delete_objects(Bucket=self.bucket, Delete={"Objects": objects})["Deleted"]), 1000)
        self.error("MalformedXML", 400, self.s3.delete_objects, Bucket=self.bucket, Delete={"Objects": [*objects, {"Key": "one-more"}]})

    def test_malformed(self):
        for body in (b"<Delete><Object>", b"", b"<Delete></Delete>", b"<Other/>", b"no xml"):
            reply = self.post(body)
            self.assertEqual(reply.status, 400, (body, reply))
        self.assertEqual(self.post(b"<Delete></Delete>").code, "MalformedXML")

    def test_digest(self):
        body = b"<Delete><Object><Key>a</Key></Object></Delete>"
        self.s3.put_object(Bucket=self.bucket, Key="a", Body=b"x")
        reply = self.post(body, {"Content-MD5": base64.b64encode(bytes(16)).decode()}, md5=False)
        self.assertEqual((reply.status, reply.code), (400, "BadDigest"))
        self.s3.head_object(Bucket=self.bucket, Key="a")
        self.assertEqual(self.post(body).status, 200)


if __name__ == "__main__":
    harness.main()
