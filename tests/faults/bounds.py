#!/usr/bin/python3
"""Costs stay bounded: figures, not a test.

  index   the index after many random updates with listings running: file size against used pages, reader lag, overlay, buffers
  gc      bytes written for each byte that a client overwrites, with the disk 50, 70, 80 and 90 % full of live data (root: loop image)
  stall   latency of HEAD of an absent key, which needs no disk, while checkpoints, garbage collection and cold look-ups run: what a loop
          that stands still would show

bounds.py index|gc|stall [--updates N] [--keys N] [--mib SIZE] [--seconds N]
"""
import argparse
import multiprocessing
import random
import re
import sys
import threading
import time

from faults.enospc import Disk
from faults.wire import S3, Broken
from harness.server import Server, fresh_dir

BUCKET = "bounds"
MIB = 1 << 20
WRITERS = 8
PATTERN = random.Random(5).randbytes(4 * MIB)


def metric(server, name):
    """The sum over labels."""
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", server.metrics(), re.M))


def writer(connection, number, count, keys, size, results):
    """count puts; or, of a float, as many as that many seconds allow."""
    s3, rng, taken, refused = S3(*connection), random.Random(number), 0, 0
    end = time.monotonic() + count if isinstance(count, float) else None
    while time.monotonic() < end if end else taken + refused < count:
        start = rng.randrange(len(PATTERN) - size)
        answer = s3.put(BUCKET, f"{rng.randrange(keys):08}", PATTERN[start:start + size])
        if answer.status == 200:
            taken += 1
        elif answer.status == 507:
            refused += 1
            time.sleep(0.01)
        else:
            raise RuntimeError(f"put: {answer.status} {answer.code}")
    results.put((taken, refused))


def write_all(server, count, keys, size, beside=None):
    """count puts of random keys by WRITERS processes; beside(s3) runs again and again meanwhile. Returns (taken, refused, seconds)."""
    connection, results = (server.host, server.access_key, server.secret_key), multiprocessing.Queue()
    writers = [multiprocessing.Process(target=writer, args=(connection, number, count if isinstance(count, float) else count // WRITERS, keys, size, results))
               for number in range(WRITERS)]
    begin = time.monotonic()
    for one in writers:
        one.start()
    s3 = S3.of(server)
    while any(one.is_alive() for one in writers):
        if beside is not None:
            beside(s3)
        else:
            time.sleep(0.05)
    for one in writers:
        one.join()
        if one.exitcode != 0:
            raise RuntimeError("a writer failed")
    sums = [results.get() for _ in writers]
    return sum(s[0] for s in sums), sum(s[1] for s in sums), time.monotonic() - begin


def make_server(root, text, data=None):
    config = root / "basalt.toml"
    config.write_text("[storage]\n" + text)
    server = Server("bounds", data=data or root / "data", args=["--config", str(config)])
    server.data.mkdir(exist_ok=True)
    server.start()
    S3.of(server).create_bucket(BUCKET)
    return server


def index(args):
    root = fresh_dir("bounds")
    server = make_server(root, "checkpoint_interval_ms = 2000\n")
    highest = {}

    def beside(s3):
        s3.list(BUCKET)
        for name in ("basalt_overlay_bytes", "basalt_buffer_bytes", "basalt_io_in_flight", "basalt_index_reader_lag"):
            highest[name] = max(highest.get(name, 0), metric(server, name))

    taken, _, took = write_all(server, args.updates, args.keys, 300, beside)
    time.sleep(5)
    file, used = metric(server, "basalt_index_file_bytes"), metric(server, "basalt_index_used_bytes")
    checkpoints = metric(server, "basalt_checkpoints_total")
    server.stop()
    print(f"bounds index: {taken} updates of {args.keys} keys in {took:.0f} s with listings, {checkpoints:.0f} checkpoints: file "
          f"{file / MIB:.1f} MiB, used {used / MIB:.1f} MiB: {file / used:.2f}x; highest: " +
          ", ".join(f"{name[7:]} {value:.0f}" for name, value in highest.items()))


def gc(args):
    size = 64 << 10
    for share in (50, 70, 80, 90):
        disk = Disk(args.mib, "ext4")
        try:
            server = make_server(disk.root, "checkpoint_interval_ms = 1000\ngc_sealed_age_ms = 1000\ngc_interval_ms = 500\n",
                                 disk.mount / "data")
            keys = int(disk.free() * share / 100 / (size + 4096))
            s3 = S3.of(server)
            for number in range(keys):
                if s3.put(BUCKET, f"{number:08}", PATTERN[:size]).status != 200:
                    break
            filled = number + 1
            before = metric(server, "basalt_log_bytes_total") + metric(server, "basalt_blob_written_bytes_total")
            taken, refused, took = write_all(server, float(args.seconds), filled, size)
            after = metric(server, "basalt_log_bytes_total") + metric(server, "basalt_blob_written_bytes_total")
            print(f"bounds gc: {share} % full ({filled} of {keys} objects of 64 KiB): {(after - before) / max(1, taken * size):.2f} bytes "
                  f"written a byte; {taken * size / MIB / took:.0f} MiB/s; {refused} of {taken + refused} puts refused with 507", flush=True)
            server.stop()
        finally:
            if server.process is not None:
                server.kill()
            disk.close()


def stall(args):
    root = fresh_dir("bounds")
    server = make_server(root, "checkpoint_interval_ms = 500\ngc_sealed_age_ms = 500\ngc_interval_ms = 500\n"
                         "log_segment_bytes = 8388608\n")
    write_all(server, args.keys, args.keys, 2000)
    times, done = [], threading.Event()

    def probe(number):
        s3 = S3.of(server)
        while not done.is_set():
            begin = time.perf_counter()
            try:
                s3.head(BUCKET, f"absent/{number}")
            except Broken:
                return
            times.append(time.perf_counter() - begin)
            time.sleep(0.002)

    def measure(what, work):
        times.clear()
        done.clear()
        probes = [threading.Thread(target=probe, args=(number,)) for number in range(2)]
        for one in probes:
            one.start()
        work()
        done.set()
        for one in probes:
            one.join()
        ordered = sorted(times)
        print(f"bounds stall: {what}: {len(ordered)} HEADs, p50 {ordered[len(ordered) // 2] * 1e3:.2f} ms, p99 "
              f"{ordered[int(len(ordered) * 0.99)] * 1e3:.2f} ms, highest {ordered[-1] * 1e3:.1f} ms; {metric(server, 'basalt_checkpoints_total'):.0f} "
              f"checkpoints so far", flush=True)

    measure("idle", lambda: time.sleep(args.seconds))

    def overwrite():
        s3, rng, end = S3.of(server), random.Random(1), time.monotonic() + args.seconds
        while time.monotonic() < end:
            s3.put(BUCKET, f"{rng.randrange(args.keys):08}", PATTERN[:2000])

    measure("one writer, checkpoints and garbage collection", overwrite)
    server.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("index", "gc", "stall"))
    parser.add_argument("--updates", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--seconds", type=int, default=10)
    args = parser.parse_args()
    {"index": index, "gc": gc, "stall": stall}[args.what](args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
