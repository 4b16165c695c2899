#!/usr/bin/python3
"""Costs stay bounded: figures, and two of them are judged.

  index   the index after many random updates with listings running: file size against the bytes of its rows and against used pages, reader lag,
          overlay, buffers. Fails when the file is larger than INDEX_FILE_TO_USED_MAX times its used pages
  gc      what garbage collection writes for each byte that a client overwrites, with the disk 50, 70, 80 and 90 % full of live data, and
          how long clients wait (root: loop image)
  stall   how long the turns of the loops take (basalt_loop_turn_seconds), idle and while writes, checkpoints, garbage collection, cold reads,
          cold look-ups in the index (cold.py) and listings run. Fails, with --within-ms, when the 99th percentile under this load is above it

bounds.py index|gc|stall [--updates N] [--keys N] [--checkpoint-ms MS] [--mib SIZE] [--full PERCENT ...] [--seconds N] [--within-ms MS]
"""
import argparse
import contextlib
import multiprocessing
import queue
import random
import re
import sys
import threading
import time

from faults import cold
from faults.enospc import Disk
from faults.lmdb_file import IndexFile
from faults.wire import S3
from harness.server import Server, fresh_dir

BUCKET = "bounds"
MIB = 1 << 20
WRITERS = 8
INDEX_FILE_TO_USED_MAX = 2.0
COLD_SECONDS = 0.5  # how often everything is made cold
PATTERN = random.Random(5).randbytes(4 * MIB)


def metric(server, name):
    """The sum over labels."""
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", server.metrics(), re.M))


def writer(connection, number, count, keys, size, results):
    """count puts; or, of a float, as many as that many seconds allow."""
    s3, rng, refused, times = S3(*connection), random.Random(number), 0, []
    end = time.monotonic() + count if isinstance(count, float) else None
    while time.monotonic() < end if end else len(times) + refused < count:
        start = rng.randrange(len(PATTERN) - size)
        begin = time.monotonic()
        answer = s3.put(BUCKET, f"{rng.randrange(keys):08}", PATTERN[start:start + size])
        if answer.status == 200:
            times.append(time.monotonic() - begin)
        elif answer.status in (503, 507):
            refused += 1
            time.sleep(0.01)
        else:
            raise RuntimeError(f"put: {answer.status} {answer.code}")
    results.put((times, refused))


def write_all(server, count, keys, size, beside=None):
    """count puts of random keys by WRITERS processes; beside(s3) runs again and again meanwhile. Returns (seconds of each, sorted; refused; seconds
    in all)."""
    connection, results = (server.host, server.access_key, server.secret_key), multiprocessing.Queue()
    writers = [multiprocessing.Process(target=writer, args=(connection, number, count if isinstance(count, float) else count // WRITERS, keys, size, results))
               for number in range(WRITERS)]
    begin = time.monotonic()
    for one in writers:
        one.start()
    # Read while they run: a process ends only when its results were taken.
    sums = []

    def read():
        while len(sums) < len(writers) and (any(one.is_alive() for one in writers) or not results.empty()):
            with contextlib.suppress(queue.Empty):
                sums.append(results.get(timeout=1))

    reader = threading.Thread(target=read)
    reader.start()
    s3 = S3.of(server)
    while any(one.is_alive() for one in writers):
        if beside is not None:
            beside(s3)
        else:
            time.sleep(0.05)
    for one in writers:
        one.join()
    reader.join()
    if any(one.exitcode != 0 for one in writers):
        raise RuntimeError("a writer failed")
    return sorted(t for s in sums for t in s[0]), sum(s[1] for s in sums), time.monotonic() - begin


def quantile(ordered, share):
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0


def turns(server):
    """{upper bound in seconds: turns up to there}, over all loops."""
    found = {}
    for bound, count in re.findall(r'^basalt_loop_turn_seconds_bucket{[^}]*le="([^"]+)"} (\S+)$', server.metrics(), re.M):
        found[float(bound)] = found.get(float(bound), 0) + float(count)
    return found


def turn_quantile(before, after, share):
    """The upper bound of the bucket with it, in ms."""
    counts = {bound: after[bound] - before.get(bound, 0) for bound in after}
    total = counts[float("inf")]
    return next(bound for bound in sorted(counts) if counts[bound] >= total * share) * 1e3


def make_server(root, text, data=None, launcher=()):
    config = root / "basalt.toml"
    config.write_text("[storage]\n" + text)
    server = Server("bounds", data=data or root / "data", args=["--config", str(config)], launcher=launcher)
    server.data.mkdir(exist_ok=True)
    server.start()
    S3.of(server).create_bucket(BUCKET)
    return server


def index_files(server):
    return sorted((server.data / "shard").glob("*/data.mdb"))


def index(args):
    root = fresh_dir("bounds")
    server = make_server(root, f"checkpoint_interval_ms = {args.checkpoint_ms}\n")
    highest = {}

    def beside(s3):
        s3.list(BUCKET)
        for name in ("basalt_overlay_bytes", "basalt_buffer_bytes", "basalt_io_in_flight", "basalt_index_reader_lag"):
            highest[name] = max(highest.get(name, 0), metric(server, name))

    times, _, took = write_all(server, args.updates, args.keys, 300, beside)
    taken = len(times)
    time.sleep(args.checkpoint_ms / 1000 + 3)
    file, used = metric(server, "basalt_index_file_bytes"), metric(server, "basalt_index_used_bytes")
    checkpoints = metric(server, "basalt_checkpoints_total")
    server.stop()
    live = sum(IndexFile(path).live_bytes() for path in index_files(server))
    print(f"bounds index: {taken} updates of {args.keys} keys in {took:.0f} s with listings, {checkpoints:.0f} checkpoints: file "
          f"{file / MIB:.1f} MiB, keys and values {live / MIB:.1f} MiB: {file / live:.2f}x; used pages {used / MIB:.1f} MiB: {file / used:.2f}x; highest: " +
          ", ".join(f"{name[7:]} {value:.0f}" for name, value in highest.items()))
    if file > INDEX_FILE_TO_USED_MAX * used:
        print(f"bounds index: FAILED: the file is {file / used:.2f} times its used pages, more than {INDEX_FILE_TO_USED_MAX:g}")
        return 1
    return 0


def gc(args):
    size = 64 << 10
    for share in args.full:
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

            def written():
                return (metric(server, "basalt_log_bytes_total") + metric(server, "basalt_blob_written_bytes_total"),
                        metric(server, "basalt_gc_bytes_moved_total"))

            # The first part brings the segments into the state that overwriting at random leads to.
            write_all(server, float(args.seconds), filled, size)
            before = written()
            times, refused, took = write_all(server, float(args.seconds), filled, size)
            after, taken = written(), len(times)
            print(f"bounds gc: {share} % full ({filled} of {keys} objects of 64 KiB): {(after[0] - before[0]) / max(1, taken * size):.2f} bytes "
                  f"written a byte, {(after[1] - before[1]) / max(1, taken * size):.2f} by collection; {taken * size / MIB / took:.0f} MiB/s; {refused} of "
                  f"{taken + refused} puts refused; of the others p50 {quantile(times, 0.5) * 1e3:.0f} ms, p99 {quantile(times, 0.99) * 1e3:.0f} ms, "
                  f"highest {quantile(times, 1) * 1e3:.0f} ms", flush=True)
            server.stop()
        finally:
            if server.process is not None:
                server.kill()
            disk.close()
    return 0


def stall(args):
    root = fresh_dir("bounds")
    maps = cold.ColdMaps(root / "maps")
    server = make_server(root, "checkpoint_interval_ms = 500\ngc_sealed_age_ms = 500\ngc_interval_ms = 500\n"
                         "log_segment_bytes = 8388608\n", launcher=maps.launcher)
    write_all(server, args.keys, args.keys, 2000)
    large = [f"large/{number}" for number in range(16)]
    for name in large:
        S3.of(server).put(BUCKET, name, PATTERN)

    def measure(what, work):
        before = turns(server)
        checkpoints, moved = metric(server, "basalt_checkpoints_total"), metric(server, "basalt_gc_records_moved_total")
        work()
        after = turns(server)
        p99 = turn_quantile(before, after, 0.99)
        total = after[float("inf")] - before[float("inf")]
        print(f"bounds stall: {what}: {total:.0f} turns, p50 {turn_quantile(before, after, 0.5):.3g} ms, p99 {p99:.3g} ms, "
              f"p99.9 {turn_quantile(before, after, 0.999):.3g} ms, highest {turn_quantile(before, after, 1):.3g} ms (upper bounds of buckets); "
              f"{metric(server, 'basalt_checkpoints_total') - checkpoints:.0f} checkpoints, "
              f"{metric(server, 'basalt_gc_records_moved_total') - moved:.0f} records moved", flush=True)
        return p99

    measure("idle", lambda: time.sleep(args.seconds))

    pid, indexes = server.process.pid, index_files(server)
    warm, still = [], []  # of the indexes in the page cache, before and after each time they were made cold

    def make_cold():
        warm.append(cold.cached_bytes(indexes))
        maps.unmap()
        for file in server.data.rglob("*"):
            if file.is_file():
                cold.drop(file)
        still.append(cold.cached_bytes(indexes))

    def mixed():
        rng, latest = random.Random(3), [time.monotonic()]

        def beside(s3):
            if time.monotonic() - latest[0] > COLD_SECONDS:
                make_cold()
                latest[0] = time.monotonic()
            s3.list(BUCKET)
            s3.get(BUCKET, rng.choice(large))
            for _ in range(20):
                s3.get(BUCKET, f"{rng.randrange(args.keys):08}")

        write_all(server, float(args.seconds), args.keys, 2000, beside)

    faults = cold.major_faults(pid)
    p99 = measure("eight writers, checkpoints, garbage collection, cold reads, cold look-ups, listings", mixed)
    faults = cold.major_faults(pid) - faults
    server.stop()
    if maps.why_not is not None:
        print(f"bounds stall: !!! LOOK-UPS IN THE INDEX WERE NOT COLD: {maps.why_not}")
    in_cache = "" if None in warm + still or not warm else (f"of the indexes {sum(warm) / len(warm) / MIB:.1f} MiB were in memory before and "
                                                            f"{sum(still) / len(still) / MIB:.1f} MiB after, on average; ")
    print(f"bounds stall: made cold {len(warm)} times; {in_cache}{faults} major faults of the server (pages of an index that had to be read)")
    if args.within_ms is not None and p99 > args.within_ms:
        print(f"bounds stall: FAILED: the 99th percentile of a turn under load is up to {p99:.3g} ms, more than {args.within_ms:g} ms")
        return 1
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("index", "gc", "stall"))
    parser.add_argument("--updates", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--checkpoint-ms", type=int, default=2000, help="index: between checkpoints; the server's default is 30000")
    parser.add_argument("--mib", type=int, default=2048, help="size of the disk: what is kept free of a small one is more than a tenth")
    parser.add_argument("--full", type=int, nargs="+", default=(50, 70, 80, 90), help="per cent of it that are live data")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--within-ms", type=float, metavar="MS", help="stall: judge the 99th percentile under load")
    args = parser.parse_args()
    return {"index": index, "gc": gc, "stall": stall}[args.what](args)


if __name__ == "__main__":
    sys.exit(main())
