"""Routing: unknown sub-resources, wrong methods, operations that are not there, path against query."""
import harness

BUCKET_SUBRESOURCES = ["abac", "accelerate", "acl", "analytics", "analytics&id=x", "cors", "encryption", "intelligent-tiering", "inventory",
                       "lifecycle", "logging", "metadataConfiguration", "metadataTable", "metrics", "notification", "object-lock",
                       "ownershipControls", "policy", "policyStatus", "publicAccessBlock", "replication", "requestPayment", "session",
                       "tagging", "versioning", "versions", "website"]
OBJECT_SUBRESOURCES = ["acl", "annotation", "legal-hold", "retention", "torrent"]


class Routing(harness.S3Case):
    def setUp(self):
        super().setUp()
        self.s3.put_object(Bucket=self.bucket, Key="key", Body=b"kept")

    def tearDown(self):
        self.assertEqual(self.s3.get_object(Bucket=self.bucket, Key="key")["Body"].read(), b"kept")
        self.assertEqual([item["Key"] for item in self.s3.list_objects_v2(Bucket=self.bucket)["Contents"]], ["key"])

    def test_operations_we_lack_say_so(self):
        for query in BUCKET_SUBRESOURCES:
            reply = self.raw("GET", f"/{self.bucket}", query)
            self.assertEqual((reply.status, reply.code), (501, "NotImplemented"), query)
        for query in OBJECT_SUBRESOURCES:
            reply = self.raw("GET", f"/{self.bucket}/key", query)
            self.assertEqual((reply.status, reply.code), (501, "NotImplemented"), query)

    def test_subresources_never_reach_the_default_operation(self):
        names = {query.split("&")[0] for query in BUCKET_SUBRESOURCES + OBJECT_SUBRESOURCES} | {"tagging", "uploads", "delete", "location", "restore",
                                                                                              "select", "renameObject", "attributes"}
        for name in sorted(names):
            for method in ("PUT", "DELETE", "POST"):
                for path in (f"/{self.bucket}", f"/{self.bucket}/other"):
                    if (name, method, path.endswith("other")) in {("uploads", "POST", True), ("tagging", "DELETE", True)}:
                        continue
                    reply = self.raw(method, path, name)
                    self.assertIn(reply.status, (400, 405, 501), (method, path, name, reply))

    def test_conflicts(self):
        reply = self.raw("GET", f"/{self.bucket}", "acl&policy")
        self.assertEqual((reply.status, reply.code), (400, "InvalidArgument"))
        for query in ("uploadId=x", "partNumber=1"):
            reply = self.raw("PUT", f"/{self.bucket}/other", query, body=b"x")
            self.assertEqual((reply.status, reply.code), (400, "InvalidArgument"), query)

    def test_foreign_parameters_are_ignored(self):
        self.assertEqual(self.raw("GET", f"/{self.bucket}/key", "utm_source=x&foo").body, b"kept")
        self.assertEqual(self.raw("GET", f"/{self.bucket}", "list-type=2&x-id=ListObjectsV2&foo=bar").status, 200)

    def test_methods(self):
        for method, path in (("PUT", "/"), ("DELETE", "/"), ("POST", "/"), ("PATCH", f"/{self.bucket}/key"), ("BREW", f"/{self.bucket}/key"),
                             ("POST", f"/{self.bucket}/key")):
            reply = self.raw(method, path)
            self.assertEqual((reply.status, reply.code), (405, "MethodNotAllowed"), (method, path))
        self.assertEqual(self.raw("POST", f"/{self.bucket}").status, 412)

    def test_form_upload_is_not_there_yet(self):
        reply = self.raw("POST", f"/{self.bucket}", "", {"Content-Type": "multipart/form-data; boundary=x"}, b"--x--\r\n")
        self.assertEqual((reply.status, reply.code), (501, "NotImplemented"))

    def test_preflight(self):
        reply = self.raw("OPTIONS", f"/{self.bucket}/key", sign=False)
        self.assertEqual(reply.status, 400)
        reply = self.raw("OPTIONS", f"/{self.bucket}/key", "", {"Origin": "https://a.test", "Access-Control-Request-Method": "PUT"}, sign=False)
        self.assertEqual((reply.status, reply.code), (403, "AccessForbidden"))

    def test_trailing_slash_is_the_bucket(self):
        self.assertEqual(self.raw("HEAD", f"/{self.bucket}/").status, 200)
        self.assertEqual(self.raw("GET", f"/{self.bucket}/").xml().tag, "{http://s3.amazonaws.com/doc/2006-03-01/}ListBucketResult")
        self.assertEqual(self.raw("GET", "//key").status, 400)

    def test_keys_are_opaque(self):
        keys = ["/lead", "a//b", "..", "../up", "a/../b", ".", "dir/", "a", "a/b", "%41", "a+b", "a b", "\\", "é", "k" * 1024]
        for key in keys:
            path = f"/{self.bucket}/{self.quote(key)}"
            self.assertEqual(self.raw("PUT", path, body=key.encode()).status, 200, key)
        for key in keys:
            path = f"/{self.bucket}/{self.quote(key)}"
            self.assertEqual(self.raw("GET", path).body, key.encode(), key)
            self.assertEqual(self.raw("DELETE", path).status, 204, key)


if __name__ == "__main__":
    harness.main()
