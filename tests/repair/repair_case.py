"""The base class of the repair tests: a server of its own for each test, objects of every way of storage, damage by hand."""
import json
import os
import pathlib
import random
import subprocess
import time
import unittest

import botocore.exceptions

from harness.s3_case import client
from harness.server import Server, build_dir, fresh_dir

MIB = 1 << 20
BUCKET = "repair"
SECONDS_MAX = 120  # for whatever is waited for; nothing here is measured


def content(name, size):
    return random.Random(name).randbytes(size)


# Key -> bytes: in the index, in the log (one chunk, two chunks), in a bulk segment, in a file of its own, and a name
# that takes layers in the index.
OBJECTS = {
    "tiny": content("tiny", 100),
    "small": content("small", 20_000),
    "two chunks": content("two chunks", 100_000),
    "bulk": content("bulk", 300_000),
    "own": content("own", 5 * MIB + 17),
    "long/" + "n" * 900: content("long", 5_000),
    "empty": b"",
}


class RepairCase(unittest.TestCase):
    server_args = ()
    settings = {}

    def setUp(self):
        os.environ.pop("AWS_CA_BUNDLE", None)
        self.environment = {f"BASALT_{name}": value for name, value in {
            "STORAGE_SHARDS": "4", "STORAGE_LOG_SEGMENT_BYTES": "4MiB", "STORAGE_BULK_SEGMENT_BYTES": "8MiB",
            **self.settings}.items()}
        # The harness gives the server no BASALT_ variable of the caller's; ours go through env(1).
        launcher = ["/usr/bin/env", *[f"{name}={value}" for name, value in self.environment.items()]]
        self.server = Server(f"repair-{self.id().rsplit('.', 1)[-1]}", launcher=launcher, args=self.server_args)
        self.data = self.server.data
        self.addCleanup(self.end)
        self.start()

    def end(self):
        failed = any(error for _, error in getattr(self._outcome, "errors", [])) or not self._outcome.success
        if self.server.running():
            self.server.kill()
        if failed:
            print(self.server.log_tail())
        else:
            self.server.remove()

    def start(self):
        self.server.start()
        self.s3 = client(self.server.endpoint, self.server.access_key, self.server.secret_key)

    def binary(self, name):
        return str(build_dir() / "bin" / name)

    # --- Tools

    def ctl(self, *args, good=True):
        """basaltctl --json; its answer."""
        done = subprocess.run([self.binary("basaltctl"), "--socket", str(self.data / "admin.sock"), "--json", *map(str, args)],
                              capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
        self.assertEqual(done.returncode == 0, good, f"{args}: {done.stdout}{done.stderr}")
        return json.loads(done.stdout)

    def tool(self, *args, status=0):
        """basaltd's offline commands with --json; status None: whatever it is. Returns its answer."""
        done = subprocess.run([self.binary("basaltd"), *map(str, args), "--json"], capture_output=True, text=True,
                              timeout=SECONDS_MAX, check=False)
        if status is not None:
            self.assertEqual(done.returncode, status, f"{args}: {done.stdout}{done.stderr}")
        return json.loads(done.stdout) if done.stdout.startswith("{") else done.stderr

    def wait(self, condition, what):
        end = time.monotonic() + SECONDS_MAX
        while not condition():
            self.assertLess(time.monotonic(), end, f"waited in vain: {what}")
            time.sleep(0.05)

    def scrub(self, *args):
        self.ctl("scrub", "start", *args)
        self.wait(lambda: self.ctl("scrub", "status")["state"] == "idle", "the end of a scrub")
        return self.ctl("scrub", "status")

    # --- Objects

    def fill(self):
        self.s3.create_bucket(Bucket=BUCKET)
        for key, body in OBJECTS.items():
            self.s3.put_object(Bucket=BUCKET, Key=key, Body=body, Metadata={"of": "repair"})
        upload = self.s3.create_multipart_upload(Bucket=BUCKET, Key="parts")["UploadId"]
        etags = [self.s3.upload_part(Bucket=BUCKET, Key="parts", UploadId=upload, PartNumber=n,
                                     Body=content(f"part {n}", 5 * MIB))["ETag"] for n in (1, 2)]
        self.s3.complete_multipart_upload(Bucket=BUCKET, Key="parts", UploadId=upload, MultipartUpload={
            "Parts": [{"PartNumber": n + 1, "ETag": etag} for n, etag in enumerate(etags)]})
        self.expected = dict(OBJECTS, parts=content("part 1", 5 * MIB) + content("part 2", 5 * MIB))

    def get(self, key, bucket=BUCKET):
        """The bytes, or the code of the error; a body that breaks off is "broken"."""
        try:
            return self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except botocore.exceptions.ClientError as error:
            return error.response["Error"]["Code"]
        except Exception as error:  # whichever way a cut body shows in this client
            return f"broken: {type(error).__name__}"

    def check(self, damaged=(), codes=("InternalError",), listing=True):
        """Every object answers its bytes; those in `damaged` an error, and never other bytes."""
        for key, body in self.expected.items():
            got = self.get(key)
            if key in damaged:
                self.assertIsInstance(got, str, f"{key!r} answers {len(got)} bytes")
                self.assertTrue(got in codes or got.startswith("broken"), f"{key!r}: {got}")
            else:
                self.assertEqual(type(got), bytes, f"{key!r}: {got if isinstance(got, str) else ''}")
                self.assertTrue(got == body, f"{key!r} answers other bytes")
        if not listing:
            return
        listed = {item["Key"] for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
                  for item in page.get("Contents", [])}
        self.assertEqual(listed, set(self.expected))

    # --- Damage

    def find_bytes(self, what, *folders):
        """(path, offset) of each place in files below these folders of the data directory that holds the bytes."""
        places = []
        for folder in folders:
            for path in sorted(p for p in (self.data / folder).rglob("*") if p.is_file()):
                data, at = path.read_bytes(), -1
                while (at := data.find(what, at + 1)) >= 0:
                    places.append((path, at))
        return places

    def place_of(self, key, offset=0):
        """Where the bytes of an object lie, from `offset` on."""
        body = self.expected[key]
        places = self.find_bytes(body[offset:offset + 64], "log", "bulk", "blob")
        self.assertEqual(len(places), 1, f"{key}: {places}")
        return places[0]

    @staticmethod
    def flip(path, offset, mask=0x10):
        with open(path, "r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ mask]))
            file.flush()
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    @staticmethod
    def zero(path, offset, size=4096):
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(bytes(size))
            file.flush()
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def shard_files(self):
        return sorted((self.data / "shard").glob("*/data.mdb"))


__all__ = ["RepairCase", "OBJECTS", "BUCKET", "MIB", "content", "fresh_dir", "pathlib"]
