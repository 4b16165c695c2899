"""basaltd fsck: sound directories are sound, damage of every kind is named, and --yes makes a directory from which the
server starts and answers everything that was not damaged. Nothing is deleted."""
import hashlib
import json

from repair_case import RepairCase


class FsckTest(RepairCase):
    def kinds(self, report):
        return sorted({finding["kind"] for finding in report["findings"] if finding["kind"] != "orphan"})

    def keys(self, report):
        return {finding["key"] for finding in report["findings"] if "key" in finding}

    def test_sound(self):
        self.fill()
        error = self.tool("fsck", self.data, status=2)
        self.assertIn("in use", error["error"])
        self.server.stop()
        report = self.tool("fsck", self.data, "--deep")
        self.assertEqual((report["sound"], report["findings_total"], report["log_records"]), (True, 0, 0))
        self.assertGreater(report["bytes_read"], 15_000_000)
        self.start()
        self.s3.put_object(Bucket="repair", Key="late", Body=b"late" * 1000)
        self.expected["late"] = b"late" * 1000
        self.server.kill()
        report = self.tool("fsck", self.data, "--deep")
        self.assertEqual(report["findings_total"], 0, report)
        self.assertGreater(report["log_records"], 0)
        self.start()
        self.check()
        self.assertIn("does not exist", self.tool("fsck", self.data / "nowhere", status=2)["error"])

    def everything(self):
        """What each file, link and folder of the data directory is: its mode, and the digest of its bytes."""
        found = {}
        for path in sorted(self.data.rglob("*")):
            info = path.lstat()
            digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found[str(path.relative_to(self.data))] = (info.st_mode, info.st_uid, info.st_nlink if path.is_file() else 0, digest)
        return found

    def test_without_yes_nothing_is_written(self):
        """Damage of every kind, in the data, the index, the log and the superblock: without --yes not a byte of any file changes."""
        self.fill()
        self.wait(lambda: 'basalt_overlay_entries{core="0"} 0' in self.server.metrics()
                  and 'basalt_overlay_entries{core="1"} 0' in self.server.metrics(), "a checkpoint")
        for i in range(40):
            self.s3.put_object(Bucket="repair", Key=f"late/{i}", Body=f"late {i} ".encode() * 300)
        self.server.kill()
        self.flip(*self.place_of("small", 100))
        self.flip(*self.place_of("bulk", 200_000))
        self.place_of("own")[0].unlink()
        self.flip(self.data / "superblock", 4096 + 60)
        path, offset = self.find_bytes(b"late 10 late 10 ", "log")[0]
        self.flip(path, offset)
        path, offset = self.find_bytes(self.expected["tiny"][:40], "shard")[0]
        self.flip(path, offset + 5)
        (self.data / "blob" / "stray").write_bytes(b"nobody names this")
        before = self.everything()
        for options in ((), ("--deep",)):
            report = self.tool("fsck", self.data, *options, status=1)
            self.assertLessEqual({"log", "superblock", "missing", "record"}, set(self.kinds(report)))
            self.assertEqual(report["repairs"], [])
            self.assertEqual(self.everything(), before, f"fsck {options} without --yes changed something")
        self.tool("fsck", self.data, "--deep", "--yes", status=None)
        self.assertNotEqual(self.everything(), before)

    def test_data(self):
        self.fill()
        self.server.stop()
        self.flip(*self.place_of("small", 100))
        self.flip(*self.place_of("bulk", 200_000))
        own, _ = self.place_of("own")
        own.unlink()
        self.assertEqual(self.keys(self.tool("fsck", self.data, status=1)), {"own"})
        report = self.tool("fsck", self.data, "--deep", status=1)
        self.assertEqual(self.keys(report), {"own", "small", "bulk"})
        report = self.tool("fsck", self.data, "--deep", "--yes")
        self.assertEqual(self.keys(report), {"own", "small", "bulk"})
        self.assertTrue(report["quarantine"])
        kept = [json.loads(line) for line in open(report["quarantine"] + "/records.jsonl", encoding="ascii")]
        self.assertEqual({bytes.fromhex(line["name"]).decode() for line in kept}, {"own", "small", "bulk"})
        self.assertTrue(self.tool("fsck", self.data, "--deep")["sound"])
        self.start()
        self.check(["own", "small", "bulk"], codes=("NoSuchKey",), listing=False)
        for key in ("own", "small", "bulk"):
            self.s3.put_object(Bucket="repair", Key=key, Body=self.expected[key])
        self.check()

    def test_superblock_and_headers(self):
        self.fill()
        self.server.stop()
        bulk, _ = self.place_of("bulk")
        self.flip(self.data / "superblock", 4096 + 60)
        self.flip(bulk, 30)
        report = self.tool("fsck", self.data, status=1)
        self.assertEqual(self.kinds(report), ["segment", "superblock"])
        self.tool("fsck", self.data, "--yes")
        self.assertTrue(self.tool("fsck", self.data)["sound"])
        # Without any good copy of a header: made from what lies in the segment.
        log, _ = self.place_of("small")
        for path in (bulk, log):
            self.zero(path, 0, 8192)
        self.assertEqual(self.kinds(self.tool("fsck", self.data, "--deep", status=1))[-1], "segment")
        self.tool("fsck", self.data, "--yes")
        self.assertTrue(self.tool("fsck", self.data, "--deep")["sound"])
        self.start()
        self.check()

    def test_index_rows(self):
        """Damaged rows of sys, seg and cnt keep a server from starting; fsck mends them without any loss."""
        self.fill()
        self.server.stop()
        path = self.shard_files()[0]
        original = path.read_bytes()
        pages = [page for page in range(2, len(original) // 4096)
                 if b"applied" in original[page * 4096:page * 4096 + 4096]]
        self.assertTrue(pages)
        for page in pages:
            at = original.find(b"applied", page * 4096)
            self.flip(path, at + 12)
        with self.assertRaises(RuntimeError):
            self.server.start()
        report = self.tool("fsck", self.data, status=1)
        self.assertIn("index", self.kinds(report))
        self.tool("fsck", self.data, "--yes")
        self.assertTrue(self.tool("fsck", self.data, "--deep")["sound"])
        self.start()
        self.check()

    def test_index_pages(self):
        """A zeroed page hides names: they are gone after --yes, the others are all there."""
        self.fill()
        for i in range(400):
            self.s3.put_object(Bucket="repair", Key=f"many/{i:04}", Body=b"x" * 50)
            self.expected[f"many/{i:04}"] = b"x" * 50
        self.server.stop()
        path = self.shard_files()[1]
        data = path.read_bytes()
        leaves = [page for page in range(2, len(data) // 4096) if data[page * 4096 + 10] == 2
                  and b"many/" in data[page * 4096:page * 4096 + 4096]]
        for page in leaves[:3]:
            self.zero(path, page * 4096)
        report = self.tool("fsck", self.data, status=1)
        self.assertIn("index", self.kinds(report))
        report = self.tool("fsck", self.data, "--yes")
        self.assertTrue(list((self.data / "quarantine").rglob("data.mdb")))
        self.assertTrue(self.tool("fsck", self.data, "--deep")["sound"])
        self.start()
        lost = 0
        for key, body in self.expected.items():
            got = self.get(key)
            if got == "NoSuchKey":
                lost += 1
            else:
                self.assertTrue(got == body, key)
        self.assertLess(lost, 400)

    def test_acknowledged_log_damage(self):
        """Case H: damage in what the index has not yet: the server opens read-only, fsck --yes ends that and says what is lost."""
        self.fill()
        self.wait(lambda: 'basalt_overlay_entries{core="0"} 0' in self.server.metrics()
                  and 'basalt_overlay_entries{core="1"} 0' in self.server.metrics(), "a checkpoint")
        for i in range(40):
            self.s3.put_object(Bucket="repair", Key=f"late/{i}", Body=f"late {i} ".encode() * 300)
            self.expected[f"late/{i}"] = f"late {i} ".encode() * 300
        self.server.kill()
        path, offset = self.find_bytes(b"late 10 late 10 ", "log")[0]
        self.flip(path, offset)
        self.start()
        self.check(["late/10"], codes=("NoSuchKey", "InternalError"), listing=False)
        self.assertIn("basalt_healthy 0", self.server.metrics())
        self.server.stop()
        self.assertEqual(self.kinds(self.tool("fsck", self.data, status=1)), ["log"])
        report = self.tool("fsck", self.data, "--yes")
        self.assertTrue(any("lost" in line for line in report["repairs"]), report["repairs"])
        self.start()
        self.assertIn("basalt_healthy 1", self.server.metrics())
        self.check(["late/10"], codes=("NoSuchKey",), listing=False)
        self.s3.put_object(Bucket="repair", Key="after", Body=b"after")

    def test_missing_index(self):
        self.fill()
        self.server.stop()
        self.shard_files()[2].unlink()
        with self.assertRaises(RuntimeError):
            self.server.start()
        self.assertIn("rebuild-index", self.server.log_tail())
        report = self.tool("fsck", self.data, status=1)
        self.assertIn("index", self.kinds(report))

    settings = {"STORAGE_CHECKPOINT_INTERVAL_MS": "2000"}
