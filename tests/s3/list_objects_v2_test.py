"""ListObjectsV2: byte order, prefix and delimiter, pages, start-after, encoding, invalid arguments."""
import harness


class ListObjectsV2(harness.S3Case):
    def fill(self, *keys):
        for key in keys:
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=b"x")

    def listing(self, **arguments):
        answer = self.s3.list_objects_v2(Bucket=self.bucket, **arguments)
        return ([item["Key"] for item in answer.get("Contents", [])],
                [item["Prefix"] for item in answer.get("CommonPrefixes", [])], answer)

    def test_byte_order(self):
        keys = ["B", "a", "a!", "a/", "a/b", "a0", "b", "\u00fc", "\uffee", "\U0001f600"]
        self.fill(*reversed(keys))
        self.assertEqual(self.listing()[0], sorted(keys, key=lambda key: key.encode()))

    def test_entry(self):
        tag = self.s3.put_object(Bucket=self.bucket, Key="k", Body=b"12345")["ETag"]
        keys, prefixes, answer = self.listing(FetchOwner=True)
        item = answer["Contents"][0]
        self.assertEqual((item["ETag"], item["Size"], item["StorageClass"]), (tag, 5, "STANDARD"))
        self.assertTrue(item["Owner"]["ID"])
        self.assertEqual((answer["KeyCount"], answer["MaxKeys"], answer["IsTruncated"], answer["Name"]), (1, 1000, False, self.bucket))
        self.assertNotIn("Owner", self.listing()[2]["Contents"][0])

    def test_prefix_and_delimiter(self):
        self.fill("a/1", "a/2", "a/b/3", "ab", "b/4", "c")
        self.assertEqual(self.listing(Delimiter="/")[:2], (["ab", "c"], ["a/", "b/"]))
        self.assertEqual(self.listing(Delimiter="/", Prefix="a/")[:2], (["a/1", "a/2"], ["a/b/"]))
        self.assertEqual(self.listing(Delimiter="/", Prefix="a")[:2], (["ab"], ["a/"]))
        self.assertEqual(self.listing(Prefix="zzz")[:2], ([], []))
        self.assertEqual(self.listing(Delimiter="b/")[:2], (["a/1", "a/2", "ab", "c"], ["a/b/", "b/"]))

    def test_pages(self):
        keys = [f"{n:03}/{m}" for n in range(12) for m in range(3)]
        self.fill(*keys)
        for size in (1, 2, 5, 35, 36, 37):
            found, token = [], {}
            while True:
                page, _, answer = self.listing(MaxKeys=size, **token)
                self.assertTrue(len(page) <= size and answer["KeyCount"] == len(page))
                found += page
                if not answer["IsTruncated"]:
                    break
                token = {"ContinuationToken": answer["NextContinuationToken"]}
            self.assertEqual(found, keys, size)
        prefixes, token = [], {}
        while True:
            _, page, answer = self.listing(MaxKeys=5, Delimiter="/", **token)
            prefixes += page
            if not answer["IsTruncated"]:
                break
            token = {"ContinuationToken": answer["NextContinuationToken"]}
        self.assertEqual(prefixes, [f"{n:03}/" for n in range(12)])

    def test_start_after_and_zero(self):
        self.fill("a", "b", "c")
        self.assertEqual(self.listing(StartAfter="a")[0], ["b", "c"])
        self.assertEqual(self.listing(StartAfter="bb")[0], ["c"])
        keys, _, answer = self.listing(MaxKeys=0)
        self.assertEqual((keys, answer["IsTruncated"], answer["KeyCount"]), ([], False, 0))
        self.assertEqual(self.listing(MaxKeys=5000)[2]["MaxKeys"], 1000)

    def test_encoding(self):
        self.fill("a b+ü&<")
        reply = self.raw("GET", f"/{self.bucket}", "encoding-type=url&list-type=2")
        self.assertIn(b"<Key>a+b%2B%C3%BC%26%3C</Key>", reply.body.replace(b"a%20b", b"a+b"))
        reply = self.raw("GET", f"/{self.bucket}", "list-type=2")
        self.assertIn("<Key>a b+ü&amp;&lt;</Key>".encode(), reply.body)

    def test_a_list_follows_every_write_at_once(self):
        for n in range(30):
            self.fill(f"k{n:02}")
            self.assertEqual(len(self.listing()[0]), n + 1)

    def test_invalid_arguments(self):
        for query in ("list-type=2&max-keys=-1", "list-type=2&max-keys=x", "encoding-type=other&list-type=2",
                      "continuation-token=&list-type=2"):
            reply = self.raw("GET", f"/{self.bucket}", query)
            self.assertEqual((reply.status, reply.code), (400, "InvalidArgument"), query)
        self.error("NoSuchBucket", 404, self.s3.list_objects_v2, Bucket="no-such-bucket-here")
        self.assertEqual(self.raw("GET", f"/{self.bucket}", "list-type=2", sign=False).status, 403)


if __name__ == "__main__":
    harness.main()
