#!/usr/bin/python3
"""Damage at rest: no wrong byte is ever served, and one scrub finds what would fail.

A data directory with objects of every kind (in the index, the log, bulk segments, own files, multipart) is stopped and kept. Each round
damages a copy of it: single flipped bits, 4 KiB blocks of zeros, or blocks that lie where another one belongs (misdirected writes),
in log segments, bulk segments, own files or indexes. Then a server starts on the copy and everything is asked for: each GET and
HEAD is right or an error; a listing shows right metadata or fails. A server that will not start on a damaged index, or ends, has
served nothing wrong either; it is counted.
After that one scrub, also where nothing was lost, must name every object that could not be read: its key, or a page of its index that a look-up of
its row or of its bucket's row reads, by file and offset (--no-scrub leaves that out).
Then pages of the indexes are damaged below a running server, a page a round: everything is asked for, overwritten, deleted and listed, and
a checkpoint is asked for. The server must live, each answer be right or an error, and the scrub find the page.
Last, a server that has served every object, and would send much of it from the page cache unchecked, has its data files damaged below
it and the page cache emptied: everything is asked for twice, so that what a refused read brought into the cache is asked for, too.

bitrot.py [--flips N] [--blocks N] [--pages N] [--seed N] [--io threads] [--no-scrub]
"""
import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time

from faults.lmdb_file import IndexFile
from faults.wire import S3, Broken
from harness.server import Server, build_dir, fresh_dir

BUCKET = "rot"
MIB = 1 << 20
BLOCK = 4096
PATTERN = random.Random(3).randbytes(12 * MIB)
# What is damaged in a round, and how much of it: an index loses whole ranges of keys by a single bit, so few at a time.
KINDS = (("log", 25), ("bulk", 25), ("blob", 25), ("shard", 5))
CONFIG = """
[storage]
shards = 4
log_segment_bytes = 8388608
bulk_segment_bytes = 16777216
"""
SCRUB_SECONDS = 300


class Failed(Exception):
    pass


class Rot:
    def __init__(self, args):
        self.rng = random.Random(args.seed)
        self.scrub = not args.no_scrub
        self.options = ["--io", args.io] if args.io else []
        self.root = fresh_dir("bitrot")
        self.config = self.root / "basalt.toml"
        self.config.write_text(CONFIG)
        self.base = self.root / "base"
        self.base.mkdir()
        self.held = {}
        self.kept = {}
        self.lost_pages = self.scrubs = self.by_page = self.findings = 0
        self.served = self.errors = self.ended = self.unstarted = self.found = self.rounds = self.lists = 0

    def server(self, data):
        return Server("bitrot", data=data, args=["--config", str(self.config), "--cores", "2", *self.options])

    def fill(self):
        server = self.server(self.base)
        server.start()
        s3 = S3.of(server)
        s3.create_bucket(BUCKET)
        for number in range(600):
            low, high = self.rng.choices(((0, 900), (901, 128 << 10), (140 << 10, 2 * MIB), (4 * MIB, 6 * MIB)),
                                         (40, 40, 16, 4))[0]
            size = self.rng.randint(low, high)
            start = self.rng.randrange(len(PATTERN) - size)
            key = f"{number % 7}/object/{number:04}"
            answer = s3.put(BUCKET, key, PATTERN[start:start + size])
            self.keep(answer, key, start, size)
        for number in range(3):
            start = self.rng.randrange(MIB)
            cut = 5 * MIB + self.rng.randrange(MIB)
            answer = s3.multipart(BUCKET, f"multi/{number}", [PATTERN[start:start + cut], PATTERN[start + cut:start + 9 * MIB]])
            head = s3.head(BUCKET, f"multi/{number}")
            self.keep(head if answer.status == 200 else answer, f"multi/{number}", start, 9 * MIB)
        s3.close()
        self.kept = dict(self.held)
        server.stop()
        server.start()  # what was written is now in the index, and the next start replays nothing
        server.stop()
        self.find_pages(self.base)

    def keep(self, answer, key, start, size):
        if answer.status != 200:
            raise Failed(f"put {key}: {answer.status} {answer.code}")
        self.held[key] = (start, size, answer.etag)

    def damage(self, data, kind, count, block):
        """Only where the files have data, and more often where something is: of the candidates, those that are not zeros."""
        files = [path for path in (data / kind).rglob("*") if path.is_file() and path.name != "lock.mdb" and path.stat().st_size]
        done = []
        for _ in range(count):
            for _ in range(100):
                path = self.rng.choice(files)
                with open(path, "r+b") as file:
                    size = os.fstat(file.fileno()).st_size
                    offset = self.rng.randrange(max(1, size // BLOCK)) * BLOCK
                    file.seek(offset)
                    old = file.read(BLOCK)
                    if old.strip(b"\0") == b"":
                        continue
                    if block:
                        new = bytes(len(old))
                        if self.rng.random() < 0.5:
                            file.seek(self.rng.randrange(max(1, size // BLOCK)) * BLOCK)
                            new = file.read(len(old))
                        if new == old:
                            continue
                    else:
                        bit = self.rng.randrange(len(old) * 8)
                        new = bytearray(old)
                        new[bit // 8] ^= 1 << bit % 8
                    file.seek(offset)
                    file.write(new)
                    done.append(f"{path.relative_to(data)} at {offset}")
                    break
        return done

    def ask(self, server):
        """Returns the keys that could not be had."""
        s3, lost = S3.of(server), set()
        for key, (start, size, etag) in self.held.items():
            for method in ("HEAD", "GET"):
                try:
                    answer = s3.get(BUCKET, key) if method == "GET" else s3.head(BUCKET, key)
                except Broken:
                    if server.process.poll() is not None:
                        raise
                    self.errors += 1
                    lost.add(key)
                    continue
                if answer.status == 200:
                    right = answer.etag == etag and int(answer.fields["content-length"]) == size
                    if method == "GET":
                        right = right and answer.body == PATTERN[start:start + size]
                        self.served += 1
                    if not right:
                        raise Failed(f"{method} {key}: wrong: {answer.fields}, {len(answer.body)} of {size} bytes")
                elif answer.status == 404:
                    raise Failed(f"{method} {key}: not found")
                elif answer.status >= 500:
                    self.errors += 1
                    lost.add(key)
                else:
                    raise Failed(f"{method} {key}: {answer.status} {answer.code}")
        try:
            for key, size, etag in s3.list(BUCKET):
                if key not in self.held or self.held[key][1:] != (size, etag):
                    raise Failed(f"the listing shows {key} with {size} bytes and {etag}")
            self.lists += 1
        except Broken:
            if server.process.poll() is not None:
                raise
        s3.close()
        return lost

    def scrubbed(self, server, lost):
        """One scrub; the lost objects that it did not name, and what it said."""
        control = [str(build_dir() / "bin" / "basaltctl"), "--socket", str(server.data / "admin.sock"), "--json", "scrub"]

        def run(*words):
            done = subprocess.run([*control, *words], capture_output=True, timeout=60, check=False)
            if server.process.poll() is not None:
                raise Broken("the server ended")
            if done.returncode != 0:
                raise Failed(f"basaltctl scrub {words}: {done.stdout} {done.stderr}")
            return done.stdout

        run("start", "--mib-per-second", "0")
        begin = time.monotonic()
        while (status := json.loads(text := run("status")))["state"] != "idle":
            if time.monotonic() - begin > SCRUB_SECONDS:
                raise Failed("the scrub does not end")
            time.sleep(0.05)
        self.scrubs += 1
        self.findings += len(status["findings"])
        named = {finding.get("key") for finding in status["findings"] if finding.get("bucket") == BUCKET}
        # A damaged page of an index hides names that nobody can tell any more: then the page is what is named. Likewise a key that a flipped
        # bit has changed: its row is named as one that nobody wrote.
        pages = {(finding["file"], finding["offset"] // BLOCK) for finding in status["findings"]
                 if finding["kind"] == "index" or (finding["kind"] == "record" and finding.get("key") not in self.held)}
        hidden = {key for key in lost - named if not pages.isdisjoint(self.pages_of[key])}
        self.by_page += len(hidden)
        return lost - named - hidden, text.decode()

    def find_pages(self, data):
        """Key -> (file, page) of all pages that a look-up of it reads, as its row and its bucket's are in the sound indexes of `data`."""
        found, common = {}, set()
        for path in sorted((data / "shard").glob("*/data.mdb")):
            index, name = IndexFile(path), str(path.relative_to(data))
            for key, _, pages in index.rows("cur"):
                found[key[8:].decode()] = {(name, page) for page in pages}
            for key, _, pages in index.rows("bkt"):
                if key[8:].decode() == BUCKET:
                    common |= {(name, page) for page in pages}
        if missing := set(self.held) - set(found):
            raise Failed(f"the test does not find the rows of {sorted(missing)[:5]}")
        self.pages_of = {key: pages | common for key, pages in found.items()}

    def round(self, kind, count, block):
        data = self.root / "data"
        shutil.rmtree(data, ignore_errors=True)
        subprocess.run(["cp", "-r", "--sparse=always", "--reflink=auto", str(self.base), str(data)], check=True)
        done = self.damage(data, kind, count, block)
        self.rounds += 1
        server = self.server(data)
        try:
            server.start()
        except RuntimeError:
            self.unstarted += 1
            server.process = None
            return len(done)
        try:
            lost = self.ask(server)
            if self.scrub:
                unnamed, report = self.scrubbed(server, lost)
                self.found += len(lost) - len(unnamed)
                if unnamed:
                    raise Failed(f"the scrub did not name {sorted(unnamed)[:5]} of {len(lost)} lost objects: {report[:2000]}")
            server.kill()
        except Broken:
            if kind != "shard":
                raise Failed(f"basaltd ended with {server.process.returncode}") from None
            self.ended += 1
        except Failed as failure:
            server.kill()
            raise Failed(f"{failure}\ndamage: {done[:30]}\n{server.log_tail(5)}") from None
        return len(done)


    def index_below_a_server(self):
        """One page of one index: zeroed, another one, or a bit of it flipped, mostly where its structure is."""
        data = self.root / "data"
        shutil.rmtree(data, ignore_errors=True)
        subprocess.run(["cp", "-r", "--sparse=always", "--reflink=auto", str(self.base), str(data)], check=True)
        server = self.server(data)
        server.start()
        damage = ""
        try:
            if self.ask(server):
                raise Failed("an object is lost before there was any damage")
            self.find_pages(data)
            path = self.rng.choice(sorted((data / "shard").glob("*/data.mdb")))
            with open(path, "r+b") as file:
                pages = os.fstat(file.fileno()).st_size // BLOCK
                while not damage:
                    page = self.rng.randrange(2, pages)
                    file.seek(page * BLOCK)
                    old = file.read(BLOCK)
                    kind = self.rng.choice(("zero", "other", "head", "bit"))
                    new = bytearray(old)
                    if kind == "zero":
                        new = bytes(BLOCK)
                    elif kind == "other":
                        file.seek(self.rng.randrange(pages) * BLOCK)
                        new = file.read(BLOCK)
                    else:
                        bit = self.rng.randrange((80 if kind == "head" else BLOCK) * 8)
                        new[bit // 8] ^= 1 << bit % 8
                    if old.strip(b"\0") and new != old:
                        file.seek(page * BLOCK)
                        file.write(new)
                        damage = f"{path.relative_to(data)} page {page}: {kind}"
            lost = self.ask(server)
            if self.scrub:
                unnamed, report = self.scrubbed(server, lost)
                if unnamed:
                    raise Failed(f"the scrub did not name {sorted(unnamed)[:5]} of {len(lost)} lost objects: {report[:2000]}")
                self.found += len(lost)
            self.write_over(server)
            self.ask(server)
        except (Broken, Failed) as failure:
            ended = server.process.poll()
            raise Failed(f"{failure}; {'it ended with ' + str(ended) if ended is not None else 'it lives'}\n{damage}\n"
                         f"{server.log_tail(5)}") from None
        finally:
            held, self.held = self.held, dict(self.kept)
            server.kill()
        self.lost_pages += bool(lost) or held != self.held
        self.rounds += 1
        self.find_pages(self.base)

    def write_over(self, server):
        """Changes half of the objects, and waits for the checkpoint, which the damaged page may make the last one."""
        s3 = S3.of(server)
        for key in self.rng.sample(sorted(self.kept), len(self.kept) // 2):
            if self.rng.random() < 0.4:
                answer = s3.delete(BUCKET, key)
            else:
                start, size = self.rng.randrange(MIB), self.rng.randrange(2000)
                answer = s3.put(BUCKET, key, PATTERN[start:start + size])
                if answer.status == 200:
                    self.held[key] = (start, size, answer.etag)
            if answer.status == 204:
                self.held.pop(key, None)
            elif answer.status != 200 and answer.status < 500:
                raise Failed(f"change {key}: {answer.status} {answer.code}")
        s3.close()
        subprocess.run([str(build_dir() / "bin" / "basaltctl"), "--socket", str(server.data / "admin.sock"), "snapshot", "create"],
                       capture_output=True, timeout=60, check=False)
        if server.process.poll() is not None:
            raise Broken("the server ended")

    def below_a_server(self, count):
        data = self.root / "data"
        shutil.rmtree(data, ignore_errors=True)
        subprocess.run(["cp", "-r", "--sparse=always", "--reflink=auto", str(self.base), str(data)], check=True)
        server = self.server(data)
        server.start()
        done = []
        try:
            for _ in range(2):
                if self.ask(server):
                    raise Failed("an object is lost before there was any damage")
            for kind in ("log", "bulk", "blob"):
                done += self.damage(data, kind, count, False)
                for path in (data / kind).rglob("*"):
                    if path.is_file():
                        with open(path, "rb") as file:
                            os.fsync(file.fileno())
                            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            lost = self.ask(server)
            if not lost:
                raise Failed("no damage was met")
            if again := lost - self.ask(server):
                raise Failed(f"refused, and then served: {sorted(again)[:5]}")
        except (Broken, Failed) as failure:
            raise Failed(f"damaged while it served: {failure}\ndamage: {done[:30]}\n{server.log_tail(5)}") from None
        finally:
            server.kill()
        self.rounds += 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--blocks", type=int, default=100)
    parser.add_argument("--pages", type=int, default=40)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--io")
    parser.add_argument("--no-scrub", action="store_true")
    args = parser.parse_args()
    print(f"bitrot: seed {args.seed}", flush=True)
    rot = Rot(args)
    try:
        rot.fill()
        for block, wanted in ((False, args.flips), (True, args.blocks)):
            turn = done = 0
            while done < wanted:
                kind, count = KINDS[turn % len(KINDS)]
                turn += 1
                done += rot.round(kind, min(count, wanted - done), block)
            print(f"bitrot: {done} {'blocks' if block else 'flips'}, {rot.rounds} rounds", flush=True)
        for _ in range(args.pages):
            rot.index_below_a_server()
        rot.below_a_server(30)
    except (Failed, Broken, RuntimeError, subprocess.SubprocessError) as error:
        print(f"bitrot: seed {args.seed}: {error}")
        return 1
    shutil.rmtree(rot.root, ignore_errors=True)
    print(f"bitrot: {rot.rounds} rounds, {rot.served} GETs right, {rot.errors} refused, {rot.lists} listings, 0 "
          f"wrong; {rot.unstarted} starts refused, {rot.ended} ended; {rot.scrubs} scrubs with {rot.findings} findings "
          f"named all {rot.found} lost objects, {rot.by_page} of them by a page of the index; "
          f"{args.pages} index pages damaged below a server, {rot.lost_pages} of them felt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
