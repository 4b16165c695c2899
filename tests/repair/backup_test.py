"""basaltctl backup: an online copy under load that verifies, restores and serves; damage in it is named."""
import shutil
import subprocess
import threading

import botocore.exceptions

from harness.s3_case import client
from harness.server import Server
from repair_case import BUCKET, MIB, RepairCase, content, fresh_dir


class BackupTest(RepairCase):
    settings = {"STORAGE_CHECKPOINT_INTERVAL_MS": "300", "STORAGE_GC_SEALED_AGE_MS": "0", "STORAGE_GC_INTERVAL_MS": "50"}

    def setUp(self):
        super().setUp()
        self.place = fresh_dir("backup")
        self.addCleanup(shutil.rmtree, self.place, ignore_errors=True)

    def restore(self, backup, name="restored"):
        """A server on the restored directory, with the keys of the first."""
        directory = self.place / name
        self.ctl("backup", "restore", backup, directory)
        server = Server(f"repair-{name}", data=directory)
        server.access_key, server.secret_key = self.server.access_key, self.server.secret_key
        self.addCleanup(lambda: server.kill() if server.running() else None)
        server.start()
        return server, client(server.endpoint, server.access_key, server.secret_key)

    def test_create_verify_restore(self):
        self.fill()
        backup = self.place / "one"
        done = self.ctl("backup", "create", backup)
        self.assertEqual((done["running"], done["error"], done["stage"]), (False, "", "done"))
        check = self.ctl("backup", "verify", backup)
        self.assertTrue(check["sound"])
        self.assertGreaterEqual(check["records"], len(self.expected))
        # What comes later is not in it.
        self.s3.put_object(Bucket=BUCKET, Key="later", Body=b"later")
        self.s3.delete_object(Bucket=BUCKET, Key="small")
        server, self.s3 = self.restore(backup)
        self.check()
        self.s3.put_object(Bucket=BUCKET, Key="new", Body=content("new", 6 * MIB))
        server.stop()
        server.start()
        self.assertTrue(self.get("new") == content("new", 6 * MIB))
        self.expected["new"] = content("new", 6 * MIB)
        self.check()
        server.stop()
        self.assertTrue(self.tool("fsck", server.data, "--deep")["sound"])

    def test_under_load(self):
        """Every write that was acknowledged before is in it; while it is made segments empty and files go, and none that it
        needs is lost."""
        self.fill()
        stop, failures = threading.Event(), []

        def load(number):
            s3, i = client(self.server.endpoint, self.server.access_key, self.server.secret_key), 0
            while not stop.is_set():
                i += 1
                key = f"load/{number}/{i % 10}"
                try:
                    if i % 7 == 0:
                        s3.delete_object(Bucket=BUCKET, Key=key)
                    else:
                        s3.put_object(Bucket=BUCKET, Key=key, Body=content(f"{key} {i}", (5 * MIB, 300_000, 60_000)[i % 3]))
                except botocore.exceptions.ClientError as error:
                    failures.append(error)
                    return

        threads = [threading.Thread(target=load, args=(n,), daemon=True) for n in range(2)]
        for thread in threads:
            thread.start()
        for i in range(3):
            self.s3.put_object(Bucket=BUCKET, Key=f"before/{i}", Body=f"before {i}".encode())
            self.expected[f"before/{i}"] = f"before {i}".encode()
            self.ctl("backup", "create", self.place / str(i), "--mib-per-second", "40")
        stop.set()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        for i in range(3):
            check = self.ctl("backup", "verify", self.place / str(i))
            self.assertEqual(check["findings"], [])
        server, self.s3 = self.restore(self.place / "2")
        for key, body in self.expected.items():
            self.assertTrue(self.get(key) == body, key)
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
            for item in page["Contents"]:
                self.assertIsInstance(self.get(item["Key"]), bytes, item["Key"])
        server.stop()

    def test_damage(self):
        self.fill()
        backup = self.place / "one"
        self.ctl("backup", "create", backup)
        self.assertIn("not empty", self.ctl("backup", "create", backup, good=False)["error"])
        self.assertIn("inside", self.ctl("backup", "create", self.data / "backup", good=False)["error"])
        self.assertIn("no backup is under way", self.ctl("backup", "cancel", good=False)["error"])
        bulk, offset = next((path, path.read_bytes().find(self.expected["bulk"][:64]))
                            for path in sorted((backup / "bulk").iterdir())
                            if self.expected["bulk"][:64] in path.read_bytes())
        self.flip(bulk, offset + 1000)
        check = self.ctl("backup", "verify", backup, good=False)
        self.assertEqual({finding.get("key") for finding in check["findings"]}, {None, "bulk"})
        self.assertIn("not as it was written", self.ctl("backup", "restore", backup, self.place / "no", good=False)["error"])
        # What is half restored is no data directory, and is not formatted over.
        done = subprocess.run([self.binary("basaltd"), "serve", "--data", str(self.place / "no"), "--s3", "127.0.0.1:0",
                               "--admin", "127.0.0.1:0"], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("not formatting over it", done.stderr)
        self.flip(bulk, offset + 1000)
        own = next((backup / "blob").rglob("0*"))
        own = next(path for path in (backup / "blob").rglob("*") if path.is_file())
        own.unlink()
        self.assertIn("missing", {finding["kind"] for finding in self.ctl("backup", "verify", backup, good=False)["findings"]})
        manifest = (backup / "manifest.json").read_text()
        (backup / "manifest.json").write_text(manifest.replace('"bytes": ', '"bytes": 1', 1))
        self.assertIn("damaged", self.ctl("backup", "verify", backup, good=False)["error"])
        (backup / "manifest.json").unlink()
        self.assertIn("not finished", self.ctl("backup", "verify", backup, good=False)["error"])

    def test_cancel(self):
        self.fill()
        self.ctl("backup", "create", self.place / "slow", "--mib-per-second", "1", "--no-wait")
        self.assertIn("under way", self.ctl("backup", "create", self.place / "other", good=False)["error"])
        self.ctl("backup", "cancel")
        self.wait(lambda: not self.ctl("backup", "status")["running"], "the end of a cancelled backup")
        self.assertEqual(self.ctl("backup", "status")["error"], "cancelled")
        self.assertFalse((self.place / "slow" / "manifest.json").exists())
        self.ctl("backup", "create", self.place / "good")
        self.assertTrue(self.ctl("backup", "verify", self.place / "good")["sound"])
