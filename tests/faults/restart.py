#!/usr/bin/python3
"""How long a start takes after SIGKILL with so many records in the log that no checkpoint has written to the index yet.

Prints the times of five starts and their processor time, which a busy machine does not change much. Each start reads the whole
log again: it checkpoints as well, so each has a copy of the data directory.

restart.py [--records N] [--size BYTES] [--ready-within SECONDS]
With --ready-within the median of the starts is judged; not in CI, where other jobs take the processor.
"""
import argparse
import multiprocessing
import os
import pathlib
import shutil
import subprocess
import sys

from faults.wire import S3
from harness.server import Server, fresh_dir

BUCKET = "restart"
STARTS = 5
WRITERS = 8
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=128 * 1024)
    parser.add_argument("--size", type=int, default=512)
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
    times, cpu = [], []
    for _ in range(STARTS):
        copy = root / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        subprocess.run(["cp", "-r", "--sparse=always", str(base), str(copy)], check=True)
        server.data = copy
        times.append(server.start())
        cpu.append(processor_seconds(server.process.pid))
        server.kill()
    shutil.rmtree(root)
    text, median = ", ".join(f"{seconds:.2f}" for seconds in times), sorted(times)[STARTS // 2]
    print(f"restart: {args.records} records of {args.size} bytes in the log: ready after {text} s (median {median:.2f} s); "
          f"processor time of a start {sorted(cpu)[STARTS // 2]:.2f} s (median)")
    if args.ready_within is not None and median > args.ready_within:
        print(f"restart: FAILED: ready only after {median:.2f} s (median); promised is within {args.ready_within:g} s")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
