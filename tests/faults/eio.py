#!/usr/bin/python3
"""The n-th read, write and flush fails with EIO, for every n of a script of 200 operations; no wrong 200 may come of it.

A server runs on a faultfs mount (faultfs.cc) with small segments and frequent checkpoints, so that the script goes through all that
the engine does: log batches, bulk segments, own files, index commits, segments sealed and made. For each n: the n-th call of one
kind fails, once or from then on; the script runs; what was acknowledged must read back exactly, what was refused must be
wholly there or wholly not, and after a restart without faults nothing acknowledged may be missing. A failed write or flush of a data
file stops all writes, /-/healthy turns to 503, and reads go on. A failed read of a mapped index page ends the process (SIGBUS has
no other honest answer), and the restart recovers. The same again for the calls of a start.

eio.py [--kinds read,write,fsync] [--stride N] [--offset N] [--seed N] [--io threads] [--health-within SECONDS]
With --stride 1 (the full run) every n, else every N-th beginning with a random one. How long health took to turn at most is always printed,
and judged only with --health-within: a busy machine is not a fault of the server.
"""
import argparse
import errno
import random
import sys
import time

from faults.mount import FaultFs, why_not
from faults.wire import S3, Broken
from harness.server import Server

OPERATIONS = 200
KEYS = 30
BUCKET = "eio"
MIB = 1 << 20
CONFIG = """
[storage]
shards = 2
log_segment_bytes = 4194304
bulk_segment_bytes = 4194304
own_file_bytes_min = 2097152
checkpoint_interval_ms = 300
gc_sealed_age_ms = 500
allow_network_filesystem = true
"""
DEADLINE = 30


def content(state):
    return random.Random(state[0]).randbytes(state[1])


class Failed(Exception):
    pass


class Trial:
    """The server, and for every key the states that it may have: one, or several where an outcome is not known."""

    def __init__(self, args):
        self.rng = random.Random(args.seed)
        self.fs = FaultFs("eio")
        config = self.fs.root / "basalt.toml"
        config.write_text(CONFIG)
        options = ["--config", str(config), "--cores", "1"] + (["--io", args.io] if args.io else [])
        self.server = Server("eio", data=self.fs.data, args=options)
        self.may_hold = {f"key/{i}": {None} for i in range(KEYS)}
        self.base = dict.fromkeys(self.may_hold)  # the state before the writes of unknown outcome
        self.acknowledged = self.refused = self.reads = self.read_errors = 0
        self.slowest_health = 0.0

    def client(self):
        return S3.of(self.server, timeout=DEADLINE)

    def begin(self):
        self.server.start()
        if self.client().create_bucket(BUCKET).status != 200:
            raise Failed("no bucket")

    def new_state(self):
        low, high = self.rng.choices(((0, 2000), (2001, 100_000), (140_000, MIB), (2 * MIB, 3 * MIB)), (50, 32, 12, 6))[0]
        return self.rng.getrandbits(48), self.rng.randint(low, high)

    def script(self, s3, operations=OPERATIONS, on_refusal=None):
        """Ends early when the server is gone. Returns whether a write was refused; on_refusal() follows the first at once."""
        refused = told = False
        for _ in range(operations):
            if refused and not told and on_refusal is not None:
                on_refusal()
                told = True
            key = self.rng.choice(list(self.may_hold))
            action = self.rng.choices(("put", "delete", "get", "multipart", "list"), (55, 12, 25, 3, 5))[0]
            try:
                if action == "get":
                    self.check(s3, key)
                    continue
                if action == "list":
                    self.check_list(s3)
                    continue
                state = None if action == "delete" else self.new_state()
                before = self.may_hold[key]
                self.may_hold[key] = before | {state}
                if action == "delete":
                    answer = s3.delete(BUCKET, key)
                elif action == "multipart":
                    answer = s3.multipart(BUCKET, key, [content(state)])
                else:
                    answer = s3.put(BUCKET, key, content(state))
            except Broken:
                if self.server.process.poll() is not None:
                    return True
                refused = True
                continue
            if answer.status in (200, 204) and not (action == "multipart" and b"<Error>" in answer.body):
                self.may_hold[key] = {state}
                self.base[key] = state
                self.acknowledged += 1
            elif answer.status >= 500 or b"<Error>" in answer.body:
                refused = True
                self.refused += 1
            else:
                raise Failed(f"{action} {key}: {answer.status} {answer.code}")
        return refused

    def check(self, s3, key, errors_allowed=True, settle=False):
        """A GET is right, or an error, or breaks off; never wrong bytes, never a key that should be there missing."""
        try:
            answer = s3.get(BUCKET, key)
        except Broken as broken:
            if not errors_allowed:
                raise Failed(f"GET {key}: {broken}") from None
            self.read_errors += 1
            return
        self.reads += 1
        possible = self.may_hold[key]
        if answer.status == 404:
            if None not in possible:
                raise Failed(f"GET {key}: 404, but it was acknowledged")
            held = None
        elif answer.status == 200:
            held = next((s for s in possible if s is not None and s[1] == len(answer.body) and content(s) == answer.body), 0)
            if held == 0:
                raise Failed(f"GET {key}: {len(answer.body)} bytes that were never acknowledged last; possible {possible}")
        else:
            if answer.status < 500 or not errors_allowed:
                raise Failed(f"GET {key}: {answer.status} {answer.code}")
            self.read_errors += 1
            return
        # A write whose outcome is not known may still show after the restart, when the log is read again; but one that was
        # seen stays (no dirty reads). After a restart nothing is open any more.
        if settle:
            self.may_hold[key] = {held}
        elif held != self.base[key]:
            self.may_hold[key].discard(self.base[key])
        else:
            return
        self.base[key] = held

    def check_list(self, s3, errors_allowed=True):
        try:
            listed = {key: size for key, size, _ in s3.list(BUCKET)}
        except Broken as broken:
            if not errors_allowed:
                raise Failed(f"list: {broken}") from None
            self.read_errors += 1
            return
        for key, possible in self.may_hold.items():
            if key not in listed and None not in possible:
                raise Failed(f"list lacks {key}")
            if key in listed and listed[key] not in {s[1] for s in possible if s is not None}:
                raise Failed(f"list shows {key} with {listed[key]} bytes; possible {possible}")
        if set(listed) - set(self.may_hold):
            raise Failed(f"list shows keys that nobody wrote: {set(listed) - set(self.may_hold)}")

    def healthy(self):
        return "basalt_healthy 1" in self.server.metrics()

    def wait_degraded(self, since):
        while self.healthy():
            if time.monotonic() - since > DEADLINE:
                raise Failed("a write failed, but the server still says it is healthy")
            time.sleep(0.02)
        self.slowest_health = max(self.slowest_health, time.monotonic() - since)

    def check_degraded(self, s3):
        """Reads go on, writes are refused with a clear code."""
        for key in self.may_hold:
            self.check(s3, key, errors_allowed=False)
        self.check_list(s3, errors_allowed=False)
        key = next(iter(self.may_hold))
        answer = s3.put(BUCKET, key, b"late")
        if (answer.status, answer.code) != (503, "ServiceUnavailable"):
            raise Failed(f"PUT on a degraded server: {answer.status} {answer.code}")

    def one(self, kind, number, sticky):
        """Returns whether the fault struck."""
        server, fs = self.server, self.fs
        before = fs.counts()["fired"]
        fs.tell("clear", f"fail {kind} {number} {0 if sticky else 1} {errno.EIO} /data/")
        s3 = self.client()
        refused = self.script(s3, on_refusal=None if kind == "read" else lambda: self.wait_degraded(time.monotonic()))
        alive = server.process.poll() is None
        fired = fs.counts()["fired"] - before
        began = time.monotonic()
        if not alive:
            # Only an unreadable page of a mapping may end the process (basaltd.cc, on_sigbus).
            if kind != "read" or server.process.returncode != 3:
                raise Failed(f"basaltd ended with {server.process.returncode}")
        elif kind != "read" and refused:
            if not fired:
                raise Failed("writes were refused without a fault")
            self.wait_degraded(began)
            self.check_degraded(s3)
        elif kind == "read":
            fs.tell("clear")
            if fired and not self.healthy():
                self.check_degraded(s3)
        s3.close()
        self.restart()
        return fired > 0

    def restart(self):
        self.fs.tell("clear")
        if self.server.process.poll() is None and self.rng.random() < 0.5:
            self.server.stop()
        else:
            self.server.kill()
        self.server.start()
        self.verify()

    def verify(self):
        s3 = self.client()
        for key in self.may_hold:
            self.check(s3, key, errors_allowed=False, settle=True)
        self.check_list(s3, errors_allowed=False)
        if not self.healthy():
            raise Failed("degraded after a restart without faults")
        s3.close()

    def one_start(self, kind, number):
        """A fault among the calls of a start after SIGKILL: it starts, or says why not; then a clean start has everything."""
        server, fs = self.server, self.fs
        s3 = self.client()
        self.script(s3, 20)
        s3.close()
        server.kill()
        before = fs.counts()["fired"]
        fs.tell("clear", f"fail {kind} {number} 1 {errno.EIO} /data/")
        try:
            server.start()
            s3 = self.client()
            for key in self.may_hold:
                self.check(s3, key)
            s3.close()
        except RuntimeError:
            if server.process is not None and server.process.poll() is None:
                raise
        fired = fs.counts()["fired"] > before
        fs.tell("clear")
        if server.process is not None:
            server.kill()
        server.start()
        self.verify()
        return fired


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default="read,write,fsync")
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--offset", type=int)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--io")
    parser.add_argument("--health-within", type=float, metavar="SECONDS")
    args = parser.parse_args()
    if (reason := why_not()) is not None:
        print(f"eio: {reason}")
        return 77
    print(f"eio: seed {args.seed}, stride {args.stride}", flush=True)
    trial = Trial(args)
    trial.begin()
    what = "the start"
    trials = struck = 0
    try:
        for phase, run in (("script", trial.one), ("start", trial.one_start)):
            for kind in args.kinds.split(","):
                stride = args.stride if phase == "script" else max(1, args.stride // 4)
                number = trial.rng.randint(1, stride) if args.offset is None else args.offset
                missed = 0
                # Past the last call of the script nothing strikes any more; twice, because runs differ a little.
                while missed < 2:
                    sticky = phase == "script" and trial.rng.random() < 0.5
                    what = f"{phase}: {kind} {number}{' and all behind it' if sticky else ''}"
                    hit = run(kind, number, sticky) if phase == "script" else run(kind, number)
                    missed = 0 if hit else missed + 1
                    trials += 1
                    struck += hit
                    number += stride
                print(f"eio: {phase}, {kind}: up to call {number - stride}, {trials} trials, {struck} struck", flush=True)
    except (Failed, Broken, RuntimeError) as error:
        print(f"eio: seed {args.seed}, {what}: {error}\nfault: {trial.fs.counts()['last']}\n{trial.server.log_tail()}")
        trial.server.args.clear()
        return 1
    trial.server.stop()
    trial.fs.close(remove=True)
    print(f"eio: {trials} trials, {struck} with a fault; {trial.acknowledged} writes acknowledged, {trial.refused} refused, "
          f"{trial.reads} reads right, {trial.read_errors} answered with an error, 0 wrong; health turned after at most "
          f"{trial.slowest_health:.2f} s")
    if args.health_within is not None and trial.slowest_health > args.health_within:
        print(f"eio: FAILED: health turned only {trial.slowest_health:.2f} s after the refusal; promised is within {args.health_within:g} s")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
