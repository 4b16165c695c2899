#!/usr/bin/python3
"""How long a start takes after SIGKILL with so many records in the log that no checkpoint has written to the index yet.

Prints the times of five starts and their processor time, which a busy machine does not change much. Each start reads the whole
log again: it checkpoints as well, so each has a copy of the data directory.

restart.py [--records N] [--size BYTES] [--interrupted] [--ready-within SECONDS]
With --interrupted each timed start comes after a kill between two parts of a checkpoint, whose rest the log has.
With --ready-within the median of the starts is judged; not in CI, where other jobs take the processor.
"""
import argparse
import multiprocessing
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import time

from faults.wire import S3
from harness.server import Server, fresh_dir

BUCKET = "restart"
STARTS = 5
WRITERS = 8
KILLS_MAX = 100  # how often a checkpoint may be over, or not begun, when the kill comes
INDEXED = re.compile(r'"indexed_already":(\d+)')  # what the server logs of it
# No trigger of a checkpoint but its size limits, which are the defaults times ten.
CONFIG = """
[storage]
checkpoint_entries = 10000000
checkpoint_log_bytes = 4294967296
checkpoint_interval_ms = 3600000
overlay_bytes_max = 4294967296
"""


def write(connection, number, count, size):
    s3 = S3(*connection)
    body = bytes(range(256)) * (size // 256 + 1)
    for turn in range(count):
        answer = s3.put(BUCKET, f"{number}/{turn:07}", body[:size])
        if answer.status != 200:
            raise RuntimeError(f"put: {answer.status} {answer.code}")


def processor_seconds(pid):
    words = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def fresh_copy(base, copy):
    shutil.rmtree(copy, ignore_errors=True)
    subprocess.run(["cp", "-r", "--sparse=always", str(base), str(copy)], check=True)


def timed_start(server):
    seconds = server.start()
    return seconds, processor_seconds(server.process.pid)


def interrupted_starts(server, base):
    """A start begins a checkpoint as soon as it is ready; the kill comes at a random moment of the second after it."""
    results = []
    for _ in range(KILLS_MAX):
        fresh_copy(base, server.data)
        server.start()
        time.sleep(random.uniform(0, 1))
        server.kill()
        server.log_path.write_bytes(b"")
        result = timed_start(server)
        server.kill()
        if any(int(count) > 0 for count in INDEXED.findall(server.log_path.read_text())):
            results.append(result)
        if len(results) == STARTS:
            return results
    raise RuntimeError(f"only {len(results)} of {KILLS_MAX} kills fell between two parts of a checkpoint")


def starts(server, base):
    results = []
    for _ in range(STARTS):
        fresh_copy(base, server.data)
        results.append(timed_start(server))
        server.kill()
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=128 * 1024)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--interrupted", action="store_true")
    parser.add_argument("--ready-within", type=float, metavar="SECONDS")
    args = parser.parse_args()
    root = fresh_dir("restart")
    config = root / "basalt.toml"
    config.write_text(CONFIG)
    base = root / "base"
    base.mkdir()
    server = Server("restart", data=base, args=["--config", str(config)])
    server.start()
    S3.of(server).create_bucket(BUCKET)
    connection = (server.host, server.access_key, server.secret_key)
    writers = [multiprocessing.Process(target=write, args=(connection, number, -(-args.records // WRITERS), args.size))
               for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        if writer.exitcode != 0:
            print("restart: a writer failed")
            return 1
    server.kill()
    server.data = root / "copy"
    times, cpu = zip(*(interrupted_starts if args.interrupted else starts)(server, base))
    shutil.rmtree(root)
    text, median = ", ".join(f"{seconds:.2f}" for seconds in times), sorted(times)[STARTS // 2]
    after = ", after a kill between two parts of a checkpoint" if args.interrupted else ""
    print(f"restart: {args.records} records of {args.size} bytes in the log{after}: ready after {text} s (median {median:.2f} s); "
          f"processor time of a start {sorted(cpu)[STARTS // 2]:.2f} s (median)")
    if args.ready_within is not None and median > args.ready_within:
        print(f"restart: FAILED: ready only after {median:.2f} s (median); promised is within {args.ready_within:g} s")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
