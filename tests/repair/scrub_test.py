"""basaltctl scrub: names every damaged object, and the server never answers their bytes."""
from repair_case import BUCKET, RepairCase


class ScrubTest(RepairCase):
    def keys(self, status):
        for finding in status["findings"]:
            self.assertTrue({"kind", "file", "offset", "what"} <= finding.keys(), finding)
        return {finding["key"] for finding in status["findings"] if "key" in finding}

    def test_clean(self):
        self.fill()
        for args in (["--light"], [], ["--mib-per-second", "0"]):
            status = self.scrub(*args)
            self.assertEqual((status["findings_total"], status["findings"]), (0, []))
        self.assertGreaterEqual(status["records"], len(self.expected))
        self.assertIn("basalt_scrub_findings 0", self.server.metrics())

    def test_damage_is_named(self):
        self.fill()
        self.server.stop()
        damaged = ["small", "two chunks", "bulk", "own", "parts"]
        for key in damaged:
            self.flip(*self.place_of(key, 1000 if key == "small" else 70_000))
        self.start()
        self.check(damaged)
        status = self.scrub()
        self.assertEqual(self.keys(status), set(damaged))
        self.assertEqual({finding["bucket"] for finding in status["findings"]}, {BUCKET})
        self.assertIn(f"basalt_scrub_findings {len(damaged)}", self.server.metrics())
        # It is still known after a restart; a new scrub forgets what was replaced.
        self.server.stop()
        self.start()
        self.assertEqual(self.keys(self.ctl("scrub", "status")), set(damaged))
        for key in damaged:
            self.s3.delete_object(Bucket=BUCKET, Key=key)
            del self.expected[key]
        self.check()
        self.assertEqual(self.keys(self.scrub()), set())

    def test_missing_and_cut_files(self):
        self.fill()
        self.server.stop()
        own, _ = self.place_of("own")
        bulk, _ = self.place_of("bulk")
        own.unlink()
        with open(bulk, "r+b") as file:
            file.truncate(16384)
        self.start()
        self.check(["own", "bulk"])
        self.assertEqual(self.keys(self.scrub("--light")), {"own", "bulk"})

    def test_index_records(self):
        self.fill()
        self.server.stop()
        for path, offset in self.find_bytes(self.expected["tiny"][:40], "shard"):
            self.flip(path, offset + 5)
        self.start()
        self.check(["tiny"], listing=False)  # a page with a record that cannot be read is an error too
        status = self.scrub("--light")
        self.assertEqual(self.keys(status), {"tiny"})
        self.assertEqual(status["findings"][0]["kind"], "record")

    def test_superblock_and_headers(self):
        self.fill()
        self.server.stop()
        self.flip(self.data / "superblock", 40)
        bulk, _ = self.place_of("bulk")
        self.flip(bulk, 4096 + 30)
        self.start()  # a start writes both copies of the superblock again
        self.flip(self.data / "superblock", 4096 + 40)
        self.check()
        kinds = {(finding["kind"], finding["offset"]) for finding in self.scrub("--light")["findings"]}
        self.assertEqual(kinds, {("superblock", 4096), ("segment", 4096)})

    def test_pause_and_errors(self):
        self.fill()
        self.assertIn("no scrub is running", self.ctl("scrub", "pause", good=False)["error"])
        self.assertIn("no scrub is under way", self.ctl("scrub", "cancel", good=False)["error"])
        # A budget so small that it does not end by itself.
        self.ctl("scrub", "start", "--mib-per-second", "1")
        self.assertIn("under way", self.ctl("scrub", "start", good=False)["error"])
        self.assertEqual(self.ctl("scrub", "pause")["state"], "paused")
        state = self.data / "scrub.json"
        self.wait(lambda: state.exists() and '"state":2' in state.read_text(), "the pause in scrub.json")
        self.server.kill()
        self.start()
        self.assertEqual(self.ctl("scrub", "status")["state"], "paused")
        self.ctl("scrub", "resume")
        self.ctl("scrub", "cancel")
        self.wait(lambda: self.ctl("scrub", "status")["state"] == "idle", "the end of a cancelled scrub")
        self.assertEqual(self.scrub("--mib-per-second", "0")["findings_total"], 0)
