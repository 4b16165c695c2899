"""PUT, multipart and DELETE, against the disk, against the engine alone and against nginx's GET."""
import shutil
import statistics
import threading
import time

from core import GIB, MIB, Check, Row, cpu_seconds, fresh_dir, interleave, median, memory_of, ratio, rounded
from reading import busy_note, cpu, size_name
from servers import PutFloor, UploadFloor, fio, load, put_objects, yardstick


def put_small(context):
    s = context.settings
    basalt = context.basalt
    folder = fresh_dir("engine")
    flushes = []

    def ours():
        before = basalt.metric("basalt_log_batches_total"), basalt.metric("basalt_device_flushes_total")
        sample = load(s, basalt, op="put", size=4096, keys=20_000, connections=64, prefix="put/")
        batches = basalt.metric("basalt_log_batches_total") - before[0]
        flushes.append((basalt.metric("basalt_device_flushes_total") - before[1]) / max(batches, 1))
        return sample

    results = interleave(s.rounds, {
        "basalt": ours,
        "nginx": lambda: load(s, context.nginx, op="get", size=4096, keys=1000, bucket="b4096"),
        "engine": lambda: yardstick(s, "engine-put", folder, in_flight=64),
    })
    shutil.rmtree(folder, ignore_errors=True)
    engine = results["engine"]
    return Row("put-4k", "PUT 4 KiB, durable, payload signed, 64 connections", "nginx, GET 4 KiB; the engine alone, 64 puts under way", [
        Check("CPU a request, to nginx's GET", ratio(results, "basalt", "nginx", "cpu_us"), 1.5,
              ours=cpu(median(results["basalt"], "cpu_us")), theirs=cpu(median(results["nginx"], "cpu_us"))),
        Check("requests/s, to the engine alone", ratio(results, "basalt", "engine", "rate"), 0.5, True,
              ours=f"{median(results['basalt'], 'rate'):.0f}/s", theirs=f"{median(engine, 'rate'):.0f}/s"),
        Check("device flushes a batch", statistics.median(flushes), 1.02, unit=""),
    ], f"the engine alone: {median(engine, 'cpu_us'):.1f} us CPU a put, {median(engine, 'records_a_batch'):.0f} records a batch",
        rounds=rounded(results))


def put_one(context):
    s = context.settings
    basalt = context.basalt
    folder = fresh_dir("write-sync")
    with PutFloor(s) as floor:
        options = {"op": "put", "size": 4096, "keys": 5000, "connections": 1, "prefix": "put-one/"}
        results = interleave(s.rounds, {
            "basalt": lambda: load(s, basalt, **options),
            "floor": lambda: load(s, floor, **options),
            "disk": lambda: yardstick(s, "write-sync", folder),
        })
    shutil.rmtree(folder, ignore_errors=True)
    return Row("put-4k-1", "PUT 4 KiB, durable, 1 connection", "pwrite and fdatasync of 4 KiB in a pre-written file", [
        Check("latency p50", ratio(results, "basalt", "disk", "p50_us"), 1.6,
              ours=cpu(median(results["basalt"], "p50_us")), theirs=cpu(median(results["disk"], "p50_us")))],
        "the floor, a server of one thread with blocking calls that looks at nothing and does that write and flush: "
        f"{cpu(median(results['floor'], 'p50_us'))}, {ratio(results, 'floor', 'disk', 'p50_us'):.2f}x of the disk; Basalt to that floor "
        f"{ratio(results, 'basalt', 'floor', 'p50_us'):.2f}x", rounds=rounded(results))


def large_checks(results, signed):
    """>= 0.8x of the disk or the CPU a GB, whichever binds: one of the two has to hold."""
    disk = ratio(results, "basalt", "disk", "mbps")
    per_gb, limit = median(results["basalt"], "cpu_s_per_gb"), 0.9 if signed else 0.6
    what, ours = "CPU a GB", ""
    note = f"CPU a GB: {per_gb:.2f} s (target {limit}); the other bound, to the disk: {disk:.2f}x (target 0.8x)"
    if "basalt_16" in results:  # the target speaks of 4 connections or more
        with_16 = median(results["basalt_16"], "cpu_s_per_gb")
        what, ours = "CPU a GB, the better of 4 and 16 connections", f"{per_gb:.2f} s; {with_16:.2f} s"
        note += f"; with 16 connections {with_16:.2f} s and {median(results['basalt_16'], 'mbps'):.0f} MB/s"
        per_gb = min(per_gb, with_16)
    by_disk = Check("MB/s, to the disk", disk, 0.8, True, ours=f"{median(results['basalt'], 'mbps'):.0f} MB/s",
                    theirs=f"{median(results['disk'], 'mbps'):.0f} MB/s")
    by_cpu = Check(what, per_gb, limit, unit="s", ours=ours)
    return [by_disk if by_disk.met else by_cpu], note


def floor_load(settings, floor, size, connections, duration=None):
    """The load that Basalt gets, signatures left out of account: the floor looks at none."""
    return load(settings, floor, op="put", size=size, keys=64, connections=connections, signing="unsigned-payload", prepare="never",
                duration=duration or f"{settings.seconds}s")


def floor_note(settings, results, size, signed, connections, duration=None):
    """What of the floor's figure is what, and how far Basalt is from it. `connections`: of the contenders "floor" and "basalt" (and "floor_16" ...)."""
    notes = []
    parts = {"receiving": (), "receiving and digests": ("md5", "sha256") if signed else ("md5",), "receiving and writing": ("write",)}
    for suffix, count in connections.items():
        ours, floor = results["basalt" + suffix], results["floor" + suffix]
        alone = []
        for name, flags in parts.items():
            with UploadFloor(settings, *flags) as server:
                alone.append(f"{name} {floor_load(settings, server, size, count, duration)['cpu_s_per_gb']:.2f} s")
        notes.append(f"{count} connections: the floor {median(floor, 'cpu_s_per_gb'):.2f} s a GB ({', '.join(alone)}), Basalt "
                     f"{statistics.median(a['cpu_s_per_gb'] / b['cpu_s_per_gb'] for a, b in zip(ours, floor)):.2f}x of it")
    return "; ".join(notes)


class CollectionWatch:
    """What garbage collection did meanwhile: on a disk that is nearly full it works beside the uploads, and is part of their figure."""

    def __init__(self, basalt):
        self.basalt, self.before = basalt, basalt.metric("basalt_gc_bytes_moved_total")

    def note(self):
        moved = self.basalt.metric("basalt_gc_bytes_moved_total") - self.before
        return f"; garbage collection moved {moved / MIB:.0f} MiB meanwhile: the disk is nearly full" if moved else ""


def put_large(context, size, signed, name):
    s = context.settings
    basalt = context.basalt
    folder = fresh_dir("fio")
    signing = "header" if signed else "unsigned-payload"
    keys = max(4, 256 * MIB // size)
    duration = f"{max(2.0, 2 * s.seconds) if size > MIB else s.seconds}s"
    connections = {"": 4, "_16": 16} if size == MIB else {"": 4}

    def ours(count):
        return load(s, basalt, op="put", size=size, keys=keys, connections=count,
                    signing=signing, prefix=f"put-{size}/", duration=duration)

    collection = CollectionWatch(basalt)
    contenders = {"disk": lambda: fio(s, folder, rw="write", bs=MIB, iodepth=4, size=512 * MIB, end_fsync=1)}
    with UploadFloor(s, "md5", "write", *(["sha256"] if signed else [])) as floor:
        for suffix, count in connections.items():
            contenders["basalt" + suffix] = lambda count=count: ours(count)
            contenders["floor" + suffix] = lambda count=count: floor_load(s, floor, size, count, duration)
        results = interleave(s.rounds, contenders)
    shutil.rmtree(folder, ignore_errors=True)
    checks, note = large_checks(results, signed)
    note += collection.note() + "; " + floor_note(s, results, size, signed, connections, duration)
    return Row(name, f"PUT {size_name(size)}, {'signed' if signed else 'unsigned'} payload, {' and '.join(str(c) for c in connections.values())} connections",
               "fio io_uring O_DIRECT sequential write; the floor of the job", checks, note, rounds=rounded(results))


def put_1m_unsigned(context):
    return put_large(context, MIB, False, "put-1m-unsigned")


def put_1m_signed(context):
    return put_large(context, MIB, True, "put-1m-signed")


def put_16m_unsigned(context):
    return put_large(context, 16 * MIB, False, "put-16m-unsigned")


def put_16m_signed(context):
    return put_large(context, 16 * MIB, True, "put-16m-signed")


class MemoryWatch:
    """The highest RssAnon of a process while the block runs."""

    def __init__(self, pid):
        self.pid, self.before, self.highest, self.stopped = pid, memory_of(pid)["RssAnon"], 0, False

    def __enter__(self):
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self):
        while not self.stopped:
            self.highest = max(self.highest, memory_of(self.pid)["RssAnon"])
            time.sleep(0.01)

    def __exit__(self, kind, value, trace):
        self.stopped = True
        self.thread.join()

    @property
    def growth_mib(self):
        return max(0, self.highest - self.before) / 1024


def multipart(context):
    """Eight parts under way at any time: eight uploads side by side, each a part after the other."""
    s = context.settings
    basalt = context.basalt
    total = s.scale(GIB, 2 * GIB, 5 * GIB)
    rounds = min(s.rounds, s.scale(1, 2))
    folder = fresh_dir("fio")
    options = {"op": "multipart", "part_size": 8 * MIB, "connections": 8, "keys": 8, "signing": "unsigned-payload", "warmup": "0s",
               "prefix": "multipart/"}
    # Once small, so that the buffers of a server that has worked before are not counted as growth of this object.
    load(s, basalt, size=16 * MIB, count=8, **options)
    growth = []
    collection = CollectionWatch(basalt)

    def ours():
        before, begin = cpu_seconds(basalt.pid), time.monotonic()
        with MemoryWatch(basalt.pid) as watch:
            sample = load(s, basalt, size=total // 8, count=8, **options)
        growth.append(watch.growth_mib)
        sample["mbps"] = total / (time.monotonic() - begin) / 1e6
        sample["cpu_s_per_gb"] = (cpu_seconds(basalt.pid) - before) / total * 1e9
        return sample

    part = options["part_size"]
    with UploadFloor(s, "md5", "write") as floor:
        results = interleave(rounds, {
            "basalt": ours,
            "floor": lambda: floor_load(s, floor, part, 8, f"{2 * s.seconds}s"),
            "disk": lambda: fio(s, folder, rw="write", bs=MIB, iodepth=8, size=GIB, end_fsync=1, runtime=3 * s.seconds),
        })
    shutil.rmtree(folder, ignore_errors=True)
    checks, note = large_checks(results, False)
    note += collection.note() + "; PUTs of a part's size, " + floor_note(s, results, part, False, {"": 8}, f"{2 * s.seconds}s")
    checks.append(Check("growth of memory", max(growth), 64, unit="MiB"))
    return Row("multipart", f"multipart of {total // GIB} GiB in parts of 8 MiB, 8 at a time, unsigned payload",
               "fio io_uring O_DIRECT sequential write; the floor of the job", checks, note, rounds=rounded(results))


def delete(context):
    s = context.settings
    basalt = context.basalt
    keys = s.scale(8_000, 20_000)

    def deletes():
        put_objects(s, basalt, 4096, keys, prefix="delete/")
        return load(s, basalt, op="delete", size=4096, keys=keys, connections=64, prefix="delete/",
                    duration="60s")

    results = interleave(s.rounds, {
        "delete": deletes,
        "put": lambda: load(s, basalt, op="put", size=4096, keys=20_000, connections=64,
                            prefix="put/"),
    })
    return Row("delete", "DELETE, durable, 64 connections", "PUT 4 KiB", [
        Check("CPU a request", ratio(results, "delete", "put", "cpu_us"), 0.8,
              ours=cpu(median(results["delete"], "cpu_us")), theirs=cpu(median(results["put"], "cpu_us")))],
        busy_note(results, "delete"), rounds=rounded(results))


def mixed(context):
    """The same rate of operations both times, well below what either could do, so that the latency is the server's and not the queue's."""
    s = context.settings
    basalt = context.basalt
    put_objects(s, basalt, 16384, 5000, prefix="mixed/")
    options = {"size": 16384, "keys": 5000, "connections": 32, "rate": 1500, "prefix": "mixed/", "duration": f"{2 * s.seconds}s"}
    results = interleave(s.rounds, {
        "mixed": lambda: load(s, basalt, op="mixed", mix="get:45,put:15,delete:10,head:30",
                              **options),
        "alone": lambda: load(s, basalt, op="get", **options),
    })
    return Row("mixed", "mixed 45/15/10/30 GET/PUT/DELETE/STAT, 16 KiB, 1500/s", "the same GET alone at 1500/s", [
        Check("p99 of GET", ratio(results, "mixed", "alone", "get_p99_us"), 3,
              ours=cpu(median(results["mixed"], "get_p99_us")), theirs=cpu(median(results["alone"], "get_p99_us")))],
        rounds=rounded(results))


ROWS = {"put-4k": put_small, "put-4k-1": put_one, "put-1m-unsigned": put_1m_unsigned, "put-1m-signed": put_1m_signed,
        "put-16m-unsigned": put_16m_unsigned, "put-16m-signed": put_16m_signed, "multipart": multipart, "delete": delete,
        "mixed": mixed}
