#!/usr/bin/python3
"""A full disk is a state, not a disaster.

A real file system in a loop image. Each cycle: objects of all sizes until PUT is refused; then ballast beside the data directory takes
the rest, to the last byte. Now every read must be exact, PUT refused with 507 InsufficientStorage, the server killed and started
again on the full disk in every second cycle, and DELETE must work: half of all objects go, chosen at random. PUT is taken again
once that has given enough back; then the rest is deleted, and at least 95 % of the space that was free in the beginning must
return, by itself, while the server runs. Nothing may be corrupt at any time.

enospc.py [--cycles N] [--mib SIZE] [--fs ext4|xfs] [--snapshot-s N] [--seed N] [--io threads]
needs root (losetup, mount); says so and is skipped without
"""
import argparse
import concurrent.futures
import contextlib
import os
import random
import shutil
import subprocess
import sys
import threading
import time

from faults.wire import S3, Broken
from harness.server import Server, fresh_dir

BUCKET = "full"
MIB = 1 << 20
PATTERN = random.Random(7).randbytes(16 * MIB)
TAKEN_WHEN_FULL_MAX = 8000  # two segments of 4 MiB in batches of 4 KiB, for each of two cores, and as much again
REFUSED_IN_A_ROW = 8  # of different keys: every core has refused
DEADLINE = 120  # of what the server does in the background
RETURN_MIN = 0.95
# Without snapshots unless they come so often that the log which is kept for the newest is small in the end.
CONFIG = """
[storage]
checkpoint_interval_ms = 2000
[snapshot]
interval_s = {snapshot_s}
kept = 1
"""


class Failed(Exception):
    pass


def content(state):
    return PATTERN[state[0]:state[0] + state[1]]


class Disk:
    """A file system of a given size in a file."""

    def __init__(self, mib, kind):
        self.root = fresh_dir("enospc")
        image, self.mount = self.root / "image", self.root / "mount"
        self.mount.mkdir()
        with open(image, "wb") as file:
            file.truncate(mib * MIB)
        make = {"ext4": ["mkfs.ext4", "-q", "-m", "0"], "xfs": ["mkfs.xfs", "-q"]}[kind]
        subprocess.run([*make, str(image)], check=True, stdin=subprocess.DEVNULL)
        self.loop = subprocess.run(["losetup", "--find", "--show", "--direct-io=on", str(image)], check=True,
                                   capture_output=True, text=True).stdout.strip()
        subprocess.run(["mount", self.loop, str(self.mount)], check=True)
        self.ballast = self.mount / "ballast"

    def free(self):
        info = os.statvfs(self.mount)
        return info.f_bavail * info.f_frsize

    def take_the_rest(self):
        """To the last byte: allocated while that goes, then written."""
        with open(self.ballast, "ab") as file:
            for step in (16 * MIB, MIB, 65536, 4096):
                with contextlib.suppress(OSError):
                    while True:
                        os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, step)
        with contextlib.suppress(OSError):
            os.sync()
        with contextlib.suppress(OSError), open(self.ballast, "ab", buffering=0) as file:
            while file.write(bytes(4096)) == 4096:
                pass

    def give_back(self):
        self.ballast.unlink(missing_ok=True)
        os.sync()

    def close(self):
        subprocess.run(["umount", str(self.mount)], check=False)
        subprocess.run(["losetup", "--detach", self.loop], check=False)
        if not os.path.ismount(self.mount):
            shutil.rmtree(self.root, ignore_errors=True)


class Full:
    def __init__(self, args, disk):
        self.rng, self.disk = random.Random(args.seed), disk
        config = disk.root / "basalt.toml"
        config.write_text(CONFIG.format(snapshot_s=args.snapshot_s))
        self.server = Server("enospc", data=disk.mount / "data", args=["--config", str(config)] + (["--io", args.io] if args.io else []))
        disk.mount.joinpath("data").mkdir()
        self.local = threading.local()
        self.held = {}  # key -> state, acknowledged
        self.pool = concurrent.futures.ThreadPoolExecutor(4)
        self.written = self.deleted = self.reads = 0
        self.next = 0

    def s3(self):
        if getattr(self.local, "client", None) is None:
            self.local.client = S3.of(self.server)
        return self.local.client

    def again(self, call):
        """Once more if the connection was of the server before."""
        try:
            return call(self.s3())
        except Broken:
            return call(self.s3())

    def new_state(self):
        low, high = self.rng.choices(((0, 1000), (1001, 128 << 10), (140 << 10, MIB), (4 * MIB, 8 * MIB)), (25, 35, 25, 15))[0]
        return self.rng.randrange(len(PATTERN) - high), self.rng.randint(low, high)

    def put(self, key, state):
        answer = self.again(lambda s3: s3.put(BUCKET, key, content(state)))
        if answer.status == 200:
            self.held[key] = state
            self.written += 1
            return True
        if (answer.status, answer.code) != (507, "InsufficientStorage"):
            raise Failed(f"PUT {key}: {answer.status} {answer.code}, not 507 InsufficientStorage")
        return False

    def fill(self):
        refused, jobs = False, set()
        while not refused or jobs:
            while not refused and len(jobs) < 8:
                jobs.add(self.pool.submit(self.put, f"object/{self.next:06}", self.new_state()))
                self.next += 1
            done, jobs = concurrent.futures.wait(jobs, return_when=concurrent.futures.FIRST_COMPLETED)
            refused = refused or not all([job.result() for job in done])

    def check(self, item):
        key, state = item
        answer = self.again(lambda s3: s3.get(BUCKET, key))
        if answer.status != 200 or answer.body != content(state):
            raise Failed(f"GET {key}: {answer.status} {answer.code}, {len(answer.body)} of {state[1]} bytes")
        self.reads += 1

    def verify(self):
        list(self.pool.map(self.check, list(self.held.items())))
        listed = {key: size for key, size, _ in self.again(lambda s3: s3.list(BUCKET))}
        if listed != {key: state[1] for key, state in self.held.items()}:
            raise Failed(f"list has {len(listed)} keys, {len(self.held)} are held, or a size differs")
        metrics = self.server.metrics()
        if "basalt_healthy 1" not in metrics:
            raise Failed("the server is not healthy")

    def refused(self):
        """Every kind of write ends with the clear code. Not at once: what the first refusal left of the log segments that have their space
        already still takes small objects, and what it takes is held to be there like all else."""
        for size in (6 * MIB, 500_000, 100_000, 10):
            self.until_refused(f"a PUT of {size} bytes", lambda key, size=size: self.put(key, (0, size)))
        self.until_refused("a multipart upload", self.put_in_parts)

    def until_refused(self, what, write):
        in_a_row = 0
        for _ in range(TAKEN_WHEN_FULL_MAX):
            self.next += 1
            in_a_row = 0 if write(f"late/{self.next:06}") else in_a_row + 1
            if in_a_row == REFUSED_IN_A_ROW:
                return
        raise Failed(f"{what} is still taken on a full disk")

    def put_in_parts(self, key):
        state = (0, 4)
        answer = self.again(lambda s3: s3.multipart(BUCKET, key, [content(state)]))
        if answer.status == 200:
            self.held[key] = state
            self.written += 1
            return True
        if (answer.status, answer.code) != (507, "InsufficientStorage"):
            raise Failed(f"multipart upload on a full disk: {answer.status} {answer.code}")
        return False

    def delete(self, key):
        answer = self.again(lambda s3: s3.delete(BUCKET, key))
        if answer.status != 204:
            raise Failed(f"DELETE {key}: {answer.status} {answer.code}")
        del self.held[key]
        self.deleted += 1

    def wait(self, what, holds):
        begin = time.monotonic()
        while not holds():
            if time.monotonic() - begin > DEADLINE:
                use = subprocess.run(["du", "-k", "-d1", str(self.server.data)], check=False, capture_output=True, text=True).stdout
                segments = [line for line in self.server.metrics().splitlines() if line.startswith("basalt_segment")]
                raise Failed(f"{what}: not within {DEADLINE} s; {self.disk.free() // MIB} MiB free\n{use}" + "\n".join(segments))
            time.sleep(0.1)
        return time.monotonic() - begin

    def settled_free(self):
        """Free bytes once they stay the same for two seconds."""
        last, since = self.disk.free(), time.monotonic()
        begin = since
        while time.monotonic() - since < 2 and time.monotonic() - begin < DEADLINE:
            time.sleep(0.1)
            if (now := self.disk.free()) != last:
                last, since = now, time.monotonic()
        return last

    def begin(self):
        self.server.start()
        if self.s3().create_bucket(BUCKET).status != 200:
            raise Failed("no bucket")
        for size in (100, 10_000, 500_000, 6 * MIB):  # every kind of file exists from here on
            for number in range(4):
                self.put(f"warm/{size}/{number}", (0, size))
        for key in list(self.held):
            self.delete(key)
        return self.settled_free()

    def cycle(self, number, free_at_first):
        begin = time.monotonic()
        self.fill()
        objects, held = len(self.held), sum(state[1] for state in self.held.values())
        self.disk.take_the_rest()
        left = self.disk.free()
        self.refused()
        self.verify()
        if number % 2 == 0:
            self.server.kill()
            self.server.start()
            self.verify()
            self.refused()
        half = self.rng.sample(sorted(self.held), objects // 2)
        list(self.pool.map(self.delete, half))
        taken_again = self.wait("PUT is taken again after half was deleted", lambda: self.put("again", (0, 300_000)))
        self.verify()
        list(self.pool.map(self.delete, list(self.held)))
        self.disk.give_back()
        enough = RETURN_MIN * free_at_first
        returned = self.wait(f"{RETURN_MIN:.0%} of {free_at_first // MIB} MiB free", lambda: self.disk.free() >= enough)
        self.verify()
        share = self.disk.free() / free_at_first
        print(f"enospc: cycle {number}: {objects} objects, {held // MIB} MiB of {free_at_first // MIB} MiB; full with {left} bytes "
              f"left; PUT again {taken_again:.1f} s after half was deleted; {share:.1%} back after {returned:.1f} s; "
              f"{time.monotonic() - begin:.0f} s", flush=True)
        return share


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--fs", choices=("ext4", "xfs"), default="ext4")
    parser.add_argument("--snapshot-s", type=int, default=0, help="seconds between two snapshots of the indexes (0: none)")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--io")
    args = parser.parse_args()
    if os.geteuid() != 0 or shutil.which("losetup") is None or shutil.which(f"mkfs.{args.fs}") is None:
        print(f"enospc: needs root, losetup and mkfs.{args.fs}")
        return 77
    try:
        disk = Disk(args.mib, args.fs)
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"enospc: no loop mount here: {error}")
        return 77
    print(f"enospc: seed {args.seed}, {args.mib} MiB of {args.fs}, snapshots each {args.snapshot_s} s", flush=True)
    full = Full(args, disk)
    status, lowest = 0, 1.0
    try:
        first = full.begin()
        for number in range(1, args.cycles + 1):
            lowest = min(lowest, full.cycle(number, first))
        full.server.stop()
        print(f"enospc: {args.cycles} cycles, {full.written} objects written, {full.deleted} deleted, {full.reads} reads exact, at "
              f"least {lowest:.1%} of the space back")
    except (Failed, Broken, RuntimeError) as error:
        print(f"enospc: seed {args.seed}: {error}\n{full.server.log_tail()}")
        status = 1
    finally:
        if full.server.process is not None:
            full.server.kill()
        disk.close()
    return status


if __name__ == "__main__":
    sys.exit(main())
