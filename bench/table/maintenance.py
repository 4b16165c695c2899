"""The scrub: how fast it reads when nothing else is to be done, and what a reader feels of it."""
import json
import os
import subprocess

from core import GIB, MIB, Check, Row, binary, fresh_dir, interleave, median, ratio, rounded, wait_until
from reading import cpu
from servers import Basalt, fio, load, put_objects


def admin(server, *command):
    done = subprocess.run([binary("basaltctl"), "--socket", str(server.data / "admin.sock"), "--json", *command],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    return json.loads(done.stdout) if done.stdout.strip() else {}


def scrub(context):
    """Bodies of 1 MiB: as much as stays in no cache of the processor, read from the disk in any case (a scrub reads past the page
    cache). The readers ask for objects of 4 KiB at a fixed rate, and the scrub that they feel has the budget it has by default."""
    s = context.settings
    size = s.scale(GIB, 2 * GIB)
    free = os.statvfs(context.scratch).f_bavail * os.statvfs(context.scratch).f_frsize
    size = min(size, free // 8)
    folder = fresh_dir("fio")
    with Basalt(s, "scrub") as server:
        put_objects(s, server, MIB, size // MIB, prefix="large/", connections=8)
        put_objects(s, server, 4096, 2000, prefix="small/")

        def full_speed():
            admin(server, "scrub", "start", "--mib-per-second", "0")
            wait_until(lambda: admin(server, "scrub", "status")["state"] == "idle", 600, "a scrub")
            status = admin(server, "scrub", "status")
            if status["findings_total"]:
                raise RuntimeError(f"the scrub found damage: {status}")
            return {"mbps": status["bytes"] / max(status["ended_ms"] - status["started_ms"], 1) / 1e3}

        reads = {"op": "get", "size": 4096, "keys": 2000, "prefix": "small/", "connections": 16, "rate": 3000,
                 "duration": f"{3 * s.seconds}s"}

        def beside():
            admin(server, "scrub", "start")
            sample = load(s, server, **reads)
            if admin(server, "scrub", "status")["state"] != "running":
                raise RuntimeError("the scrub ended before the readers")
            admin(server, "scrub", "cancel")
            wait_until(lambda: admin(server, "scrub", "status")["state"] == "idle", 60, "the end of a scrub")
            return sample

        results = interleave(s.rounds, {
            "scrub": full_speed,
            "disk": lambda: fio(s, folder, rw="read", bs=MIB, iodepth=4, size=min(size, GIB)),
            "alone": lambda: load(s, server, **reads),
            "beside": beside,
        })
    (folder / "fio.data").unlink()
    folder.rmdir()
    speed, disk = median(results["scrub"], "mbps"), median(results["disk"], "mbps")
    # A disk that cannot give 500 MB/s bounds the scrub: then nine tenths of what the disk gives are asked for.
    bound = Check("MB/s, idle, without a bound", speed, 500, True, unit="MB/s")
    if not bound.met:
        bound = Check("MB/s, idle, without a bound", ratio(results, "scrub", "disk", "mbps"), 0.9, True, ours=f"{speed:.0f} MB/s",
                      theirs=f"{disk:.0f} MB/s")
    return Row("scrub", "deep scrub, and GET 4 KiB at 3,000/s beside one with its default budget",
               "fio io_uring O_DIRECT sequential read; the same GET alone", [
                   bound,
                   Check("p99 of GET", ratio(results, "beside", "alone", "p99_us"), 1.2, ours=cpu(median(results["beside"], "p99_us")),
                         theirs=cpu(median(results["alone"], "p99_us")))],
               f"p50 of GET {cpu(median(results['beside'], 'p50_us'))}, alone {cpu(median(results['alone'], 'p50_us'))}",
               rounds=rounded(results))


ROWS = {"scrub": scrub}
