#!/usr/bin/python3
"""SIGKILL at any moment loses nothing that was acknowledged.

Each cycle: eight threads put (small, large, over an older object), copy, complete multipart uploads and delete, each on
keys of its own; after 0.3 to 1.5 seconds the server is killed; it must be ready again (how soon is printed); then
every key must hold exactly the last acknowledged state. Only the operation that was in flight on a key when the server
died may have happened or not, but then wholly. Prints its seed; the last line has the counts.

kill.py [--cycles N] [--seed N] [--io threads] [--ready-within SECONDS]
Only with --ready-within is a slow start a failure. CI does not ask for it: there other jobs take the processor, and how long a start
waits for it says nothing about the server. One that is not ready after 30 s (Server.start) fails always.
"""
import argparse
import hashlib
import queue
import random
import sys
import threading
import time

import botocore.exceptions

from harness.s3_case import client
from harness.server import Server

THREADS = 8
KEYS_PER_THREAD = 24
MIB = 1 << 20
BUCKET = "kill"


def content(seed, size):
    return random.Random(seed).randbytes(size)


class Worker(threading.Thread):
    """Owns the keys "worker/0" ... and knows what each must hold: None (absent) or (content seed, size, ETag)."""

    def __init__(self, number, rng):
        super().__init__(daemon=True)
        self.number, self.rng = number, rng
        self.acked = {f"{number}/{i}": None for i in range(KEYS_PER_THREAD)}
        self.flight = None  # (key, the state it would have) while an answer is awaited
        self.operations = 0
        self.surprises = []
        self.stop_at_error = None
        self.s3 = None

    def begin(self, s3, expect_end):
        super().__init__(daemon=True)
        self.s3, self.stop_at_error, self.flight = s3, expect_end, None

    def run(self):
        while not self.stop_at_error.is_set():
            key = self.rng.choice(list(self.acked))
            action = self.rng.choices((self.put, self.delete, self.multipart, self.copy), (70, 12, 6, 12))[0]
            try:
                action(key)
                self.flight = None
                self.operations += 1
            except botocore.exceptions.ClientError as error:
                status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                if status == 503:  # refused whole: SlowDown
                    self.flight = None
                    continue
                self.surprises.append(f"{key}: {error}")
                return
            except (botocore.exceptions.BotoCoreError, OSError) as error:
                # The connection broke: after a kill, and at no other time. How long the killed process takes to end is the
                # machine's: so the times are compared.
                broke = time.monotonic()
                if not self.stop_at_error.wait(120) or broke < self.stop_at_error.kill_sent:
                    self.surprises.append(f"{key}: {error!r} while the server ran")
                return
            except Exception as error:  # a writer that dies silently would test less than it says
                self.surprises.append(f"{key}: {error!r}")
                return

    def done(self, key, state):
        self.acked[key] = state
        self.flight = None

    def put(self, key):
        # Inline, log and blob sizes; the large ones less often.
        low, high = self.rng.choices(((0, 4096), (4097, 131072), (131073, MIB), (4 * MIB, 6 * MIB)), (55, 25, 15, 5))[0]
        seed, size = self.rng.getrandbits(48), self.rng.randint(low, high)
        body = content(seed, size)
        state = (seed, size, hashlib.md5(body).hexdigest())
        self.flight = (key, state)
        answer = self.s3.put_object(Bucket=BUCKET, Key=key, Body=body)
        self.check_tag(key, answer, state)
        self.done(key, state)

    def delete(self, key):
        self.flight = (key, None)
        self.s3.delete_object(Bucket=BUCKET, Key=key)
        self.done(key, None)

    def multipart(self, key):
        seed, size = self.rng.getrandbits(48), 5 * MIB + self.rng.randint(1, MIB)
        body = content(seed, size)
        upload = self.s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
        parts, digests = [], b""
        for number, part in enumerate((body[:5 * MIB], body[5 * MIB:]), 1):
            answer = self.s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=part)
            parts.append({"PartNumber": number, "ETag": answer["ETag"]})
            digests += hashlib.md5(part).digest()
        state = (seed, size, hashlib.md5(digests).hexdigest() + "-2")
        self.flight = (key, state)
        answer = self.s3.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
        self.check_tag(key, answer, state)
        self.done(key, state)

    def copy(self, key):
        sources = [k for k, state in self.acked.items() if state is not None and k != key]
        if not sources:
            return
        source = self.rng.choice(sources)
        seed, size, _ = self.acked[source]
        # The tag of a copy is the server's to choose (its source may be a multipart object), but then it must stay.
        self.flight = (key, (seed, size, None))
        answer = self.s3.copy_object(Bucket=BUCKET, Key=key, CopySource={"Bucket": BUCKET, "Key": source})
        self.done(key, (seed, size, answer["CopyObjectResult"]["ETag"].strip('"')))

    def check_tag(self, key, answer, state):
        if answer.get("ETag", "").strip('"') != state[2]:
            self.surprises.append(f"{key}: acknowledged with {answer}, its {state[1]} bytes have {state[2]}")


def holds(s3, key, state):
    """None if the server's answer for key is exactly state, else what it is instead."""
    try:
        answer = s3.get_object(Bucket=BUCKET, Key=key)
        body = answer["Body"].read()
    except botocore.exceptions.ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchKey":
            return f"GET failed: {error}"
        return None if state is None else f"lost: NoSuchKey, expected {state[1]} bytes"
    if state is None:
        return f"back from the dead: {len(body)} bytes"
    if body != content(state[0], state[1]):
        return f"wrong bytes: {len(body)}, expected {state[1]}"
    tag = answer["ETag"].strip('"')
    return None if state[2] in (None, tag) else f"ETag {tag}, expected {state[2]}"


def verify(workers, s3):
    """Reads every key on several threads; returns (keys read, in flight that had happened, problems)."""
    todo, problems, happened, lock = queue.Queue(), [], [0], threading.Lock()
    for worker in workers:
        for key in worker.acked:
            todo.put((worker, key))
    total = todo.qsize()

    def drain():
        while True:
            try:
                worker, key = todo.get_nowait()
            except queue.Empty:
                return
            try:
                problem = holds(s3, key, worker.acked[key])
                if problem is not None and worker.flight is not None and worker.flight[0] == key:
                    if holds(s3, key, worker.flight[1]) is None:
                        worker.acked[key], problem = worker.flight[1], None
                        with lock:
                            happened[0] += 1
            except Exception as error:  # a reader that dies silently would read as success
                problem = repr(error)
            if problem is not None:
                with lock:
                    problems.append(f"{key}: {problem} (in flight: {worker.flight})")

    readers = [threading.Thread(target=drain) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    listed = {item["Key"] for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
              for item in page.get("Contents", [])}
    expected = {key for worker in workers for key, state in worker.acked.items() if state is not None}
    for key in sorted(listed ^ expected):
        problems.append(f"{key}: {'listed but deleted' if key in listed else 'not listed'}")
    return total, happened[0], problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=50)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--io")
    parser.add_argument("--ready-within", type=float, metavar="SECONDS")
    args = parser.parse_args()
    print(f"kill: seed {args.seed}", flush=True)
    rng = random.Random(args.seed)
    server = Server("kill", args=["--io", args.io] if args.io else [])
    server.start()
    workers = [Worker(n, random.Random(rng.getrandbits(64))) for n in range(THREADS)]
    slowest = verified = happened = 0

    def connect():
        return client(server.endpoint, server.access_key, server.secret_key, read_timeout=30)

    connect().create_bucket(Bucket=BUCKET)
    for cycle in range(1, args.cycles + 1):
        ended = threading.Event()
        s3 = connect()
        for worker in workers:
            worker.begin(s3, ended)
            worker.start()
        time.sleep(rng.uniform(0.3, 1.5))
        died = not server.running()
        if died:
            print(f"basaltd ended by itself\n{server.log_tail()}")
        ended.kill_sent = time.monotonic()
        server.kill()
        ended.set()
        for worker in workers:
            worker.join(150)
        ready = server.start()
        slowest = max(slowest, ready)
        read, late, problems = verify(workers, connect())
        verified += read
        happened += late
        problems += [surprise for worker in workers for surprise in worker.surprises]
        problems += [f"worker {worker.number} hangs" for worker in workers if worker.is_alive()]
        if args.ready_within is not None and ready > args.ready_within:
            problems.append(f"ready only after {ready:.2f} s; promised is within {args.ready_within:g} s")
        if died or problems:
            print(f"kill: cycle {cycle} of seed {args.seed}: {len(problems)} problems\n" + "\n".join(problems[:20]))
            print(server.log_tail())
            return 1
        if cycle % 10 == 0:
            print(f"kill: {cycle} cycles, slowest restart {slowest:.2f} s", flush=True)
    server.stop()
    server.remove()
    operations = sum(worker.operations for worker in workers)
    print(f"kill: {args.cycles} cycles, {operations} acknowledged operations, {verified} states verified, {happened} in "
          f"flight had happened, slowest restart {slowest:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
