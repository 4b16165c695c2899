"""Snapshots of the indexes, and basaltd rebuild-index: from a snapshot and the log everything acknowledged comes back,
whatever happened to the indexes; from segments alone what the segments still tell, with the rest named."""
import json
import shutil

from repair_case import BUCKET, MIB, RepairCase, content


class RebuildTest(RepairCase):
    # Snapshots on command; the interval is long, but set: then the log since the last one is kept.
    settings = {"SNAPSHOT_INTERVAL_S": "86400", "SNAPSHOT_BYTES_PER_SECOND": "0", "STORAGE_CHECKPOINT_INTERVAL_MS": "500",
                "STORAGE_GC_SEALED_AGE_MS": "0"}

    def snapshot(self):
        before = {one["snapshot"] for one in self.ctl("snapshot", "status")["snapshots"]}
        self.ctl("snapshot", "create")
        self.wait(lambda: not self.ctl("snapshot", "status")["running"], "a snapshot")
        status = self.ctl("snapshot", "status")
        self.assertEqual(status["error"], "")
        made = {one["snapshot"] for one in status["snapshots"]} - before
        self.assertEqual(len(made), 1, status)
        return made.pop()

    def churn(self):
        """Overwrites, deletes and new objects, over several log segments of 4 MiB."""
        for i in range(120):
            key, body = f"churn/{i % 40}", content(f"churn {i}", 100_000)
            self.s3.put_object(Bucket=BUCKET, Key=key, Body=body)
            self.expected[key] = body
        for i in range(0, 40, 3):
            self.s3.delete_object(Bucket=BUCKET, Key=f"churn/{i}")
            del self.expected[f"churn/{i}"]
        for key in ("own", "bulk"):
            self.expected[key] = content(f"new {key}", len(self.expected[key]))
            self.s3.put_object(Bucket=BUCKET, Key=key, Body=self.expected[key])
        self.s3.delete_object(Bucket=BUCKET, Key="parts")
        self.expected.pop("parts", None)

    def damage_indexes(self):
        shutil.rmtree(self.data / "shard" / "00")
        path = self.data / "shard" / "01" / "data.mdb"
        for page in range(2, path.stat().st_size // 4096):
            self.zero(path, page * 4096)
        with open(self.data / "shard" / "02" / "data.mdb", "r+b") as file:
            file.truncate(8192)

    def test_snapshot_and_log(self):
        self.fill()
        self.snapshot()
        self.churn()
        self.server.stop()
        self.start()
        self.churn()  # over a restart, into another epoch
        self.s3.put_object(Bucket=BUCKET, Key="last", Body=b"last")
        self.expected["last"] = b"last"
        self.server.kill()
        self.damage_indexes()
        report = self.tool("rebuild-index", self.data)
        self.assertEqual((report["whole"], report["losses"], report["dropped"]), (True, [], 0))
        self.assertGreater(report["log_records"], 100)
        self.assertTrue(list((self.data / "quarantine").rglob("data.mdb")))
        self.assertTrue(self.tool("fsck", self.data, "--deep")["sound"])
        self.start()
        self.check()
        self.assertEqual(self.scrub()["findings_total"], 0)
        # What was deleted stays deleted, over another restart too.
        self.server.stop()
        self.start()
        self.check()

    def test_damaged_snapshots_are_not_used(self):
        self.fill()
        old, new = self.snapshot(), self.snapshot()
        self.server.stop()
        self.flip(self.data / "snapshot" / new / "01.mdb", 9000)
        report = self.tool("rebuild-index", self.data, status=None)
        self.assertEqual(report["source"], old)
        self.start()
        self.check()
        self.server.stop()
        for path in (self.data / "snapshot" / old).glob("*.mdb"):
            path.unlink()
        self.assertIn("last resort", self.tool("rebuild-index", self.data, status=2)["error"])
        self.start()
        self.check()

    def test_three_are_kept(self):
        self.s3.create_bucket(Bucket=BUCKET)
        made = [self.snapshot() for _ in range(5)]
        self.wait(lambda: len(list((self.data / "snapshot").iterdir())) == 3, "old snapshots gone")
        self.assertEqual({path.name for path in (self.data / "snapshot").iterdir()}, set(made[2:]))
        # A directory without a manifest is left over from a crash.
        (self.data / "snapshot" / "20200101T000000Z").mkdir()
        made.append(self.snapshot())
        self.wait(lambda: {path.name for path in (self.data / "snapshot").iterdir()} == set(made[3:]), "the left-over gone")

    def test_superblock_from_a_snapshot(self):
        self.fill()
        self.snapshot()
        self.server.stop()
        self.zero(self.data / "superblock", 0, 8192)
        with self.assertRaises(RuntimeError):
            self.server.start()
        self.assertIn("damaged", self.server.log_tail())
        self.assertIn("damaged", self.tool("fsck", self.data, status=2)["error"])
        report = self.tool("fsck", self.data, "--yes")
        self.assertTrue(any("superblock" in line for line in report["repairs"]))
        self.start()
        self.check()
        self.s3.put_object(Bucket=BUCKET, Key="after", Body=content("after", 5 * MIB))
        self.assertEqual(self.scrub()["findings_total"], 0)

    def test_damaged_index_gives_no_snapshot(self):
        self.fill()
        self.server.stop()
        for path, offset in self.find_bytes(self.expected["tiny"][:40], "shard"):
            self.flip(path, offset + 5)
        self.start()
        self.ctl("snapshot", "create")
        self.wait(lambda: not self.ctl("snapshot", "status")["running"], "a snapshot")
        status = self.ctl("snapshot", "status")
        self.assertEqual(status["snapshots"], [])
        self.assertIn("damaged", status["error"])
        self.assertIn("tiny", status["error"])

    def test_from_segments(self):
        self.fill()
        self.churn()
        self.server.stop()
        self.start()
        deleted = [f"churn/{i}" for i in range(0, 40, 3)]
        self.server.stop()
        # Shard 0 has the buckets: its rows of that kind can still be read.
        for path in self.shard_files()[1:]:
            for page in range(2, path.stat().st_size // 4096):
                self.zero(path, page * 4096)
        report = self.tool("rebuild-index", self.data, "--from-segments", status=1)
        self.assertEqual(report["source"], "segments")
        uncertain = set()
        if report["uncertain"]:
            with open(report["quarantine"] + "/uncertain.jsonl", encoding="ascii") as lines:
                uncertain = {bytes.fromhex(json.loads(line)["name"]).decode() for line in lines}
        self.assertTrue(self.tool("fsck", self.data, "--deep")["sound"])
        self.start()
        found = 0
        for key, body in self.expected.items():
            got = self.get(key)
            found += got == body
            self.assertTrue(got in (body, "NoSuchKey") or key in uncertain, f"{key}: not its bytes, and not named")
        self.assertGreater(found, 20)  # those of 100,000 bytes keep their segments
        for key in deleted:
            self.assertTrue(self.get(key) == "NoSuchKey" or key in uncertain, f"{key} came back unnamed")
