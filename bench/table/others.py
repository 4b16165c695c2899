"""Listings, cores, memory, start, and verification by itself."""
import concurrent.futures
import contextlib
import json
import resource
import socket
import ssl
import statistics
import subprocess
import time

from core import MIB, Check, Row, binary, interleave, median, memory_of, pinned, ratio, rounded
from reading import cpu
from servers import Basalt, load, put_objects, settle, yardstick
from writing import MemoryWatch

# The index is read as it is on disk: checkpoints come soon after the writes.
SOON = ["BASALT_STORAGE_CHECKPOINT_INTERVAL_MS=500"]


def fill(settings, server, keys, **options):
    """Many small objects."""
    put_objects(settings, server, 16, keys, connections=256, signing="unsigned-payload", **options)
    server.checkpoint()


def big_server(context):
    """The server with many keys, made once; listings, memory and start read it."""
    if context.big is None:
        s = context.settings
        context.big_keys = s.scale(10**5, 10**6, 10**7)
        context.big = Basalt(s, "big", environment=SOON)
        context.closing.callback(context.big.close)
        fill(s, context.big, context.big_keys)
    return context.big


def list_1000(context):
    s = context.settings
    big = big_server(context)
    with Basalt(s, "small", environment=SOON) as small:
        fill(s, small, 10_000)
        listing = {"op": "list", "connections": 4, "size": 16}
        results = interleave(s.rounds, {
            "small": lambda: load(s, small, keys=10_000, **listing),
            "big": lambda: load(s, big, keys=context.big_keys, **listing),
            "lmdb": lambda: yardstick(s, "lmdb-scan", small.data, prefix="bench/"),
            "lmdb big": lambda: yardstick(s, "lmdb-scan", big.data, prefix="bench/"),
        })
    ours, large = median(results["small"], "cpu_us"), median(results["big"], "cpu_us")
    raw = median(results["lmdb"], "cpu_us")
    return Row("list-1000", f"LIST of 1,000 keys of 10^4 and of {context.big_keys:,} keys",
               "LMDB cursor scan of 1,000 records on one partition", [
                   Check("CPU a page, to the raw scan", ratio(results, "small", "lmdb", "cpu_us"), 3, ours=cpu(ours), theirs=cpu(raw)),
                   Check(f"the same with {context.big_keys:,} keys", ratio(results, "big", "lmdb big", "cpu_us"), 3, ours=cpu(large),
                         theirs=cpu(median(results["lmdb big"], "cpu_us"))),
                   Check("CPU a page", ours / 1e3, 0.4, unit="ms"),
                   Check("growth with the bucket's size", ratio(results, "big", "small", "cpu_us"), 1.25, ours=cpu(large),
                         theirs=cpu(ours))],
               "growth: up to 1.25x counts as none, for the caches of the processor", rounds=rounded(results))


def list_delimiter(context):
    s = context.settings
    folders = 1000
    each = s.scale(20, 100, 10_000)
    with Basalt(s, "folders", environment=SOON) as server:
        fill(s, server, folders * each, folders=folders, prefix="bench/")
        results = interleave(s.rounds, {
            "basalt": lambda: load(s, server, op="list", connections=4, size=16, folders=folders,
                                   keys=folders * each, list_delimiter="/", prefix="bench/"),
            "lmdb": lambda: yardstick(s, "lmdb-seek", server.data, prefix="bench/", records=folders),
        })
    return Row("list-delimiter", f"LIST with delimiter, 1,000 prefixes of {each:,} keys each", "the seeks of all shards on raw LMDB", [
        Check("CPU a page", ratio(results, "basalt", "lmdb", "cpu_us"), 3, ours=cpu(median(results["basalt"], "cpu_us")),
              theirs=cpu(median(results["lmdb"], "cpu_us")))],
        f"{results['lmdb'][0]['seeks']} seeks", rounds=rounded(results))


def two_cores(context):
    s = context.settings
    if s.server_cpu == s.client_cpu:
        raise RuntimeError("this machine has one core")
    with Basalt(s, "two", cores=2, cpus=f"{s.server_cpu},{s.client_cpu}") as two, Basalt(s, "other", cpus=s.client_cpu) as other:
        one = context.basalt
        for server in (one, two, other):
            put_objects(s, server, 4096, 1000, prefix="cores/")
        options = {"op": "get", "size": 4096, "keys": 1000, "prefix": "cores/"}

        def apart():
            """Two servers that share nothing, one a core, half of the connections each: what the machine itself takes for the second core."""
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                halves = list(pool.map(lambda server: load(s, server, connections=16, **options), (one, other)))
            return {"cpu_us": statistics.mean(half["cpu_us"] for half in halves), "rate": sum(half["rate"] for half in halves)}

        results = interleave(s.rounds, {
            "one": lambda: load(s, one, **options),
            "two": lambda: load(s, two, **options),
            "apart": apart,
        })
    return Row("two-cores", "growth from 1 to 2 cores, GET 4 KiB", "1 core", [
        Check("CPU a request", ratio(results, "two", "one", "cpu_us"), 1.15, ours=cpu(median(results["two"], "cpu_us")),
              theirs=cpu(median(results["one"], "cpu_us")))],
        f"{median(results['two'], 'rate'):.0f}/s with 2 cores, one of them shared with the load generator; "
        f"{median(results['one'], 'rate'):.0f}/s with 1; two servers of one core each that share nothing, one beside the load generator: "
        f"{ratio(results, 'apart', 'one', 'cpu_us'):.2f}x, {cpu(median(results['apart'], 'cpu_us'))} a request, "
        f"{median(results['apart'], 'rate'):.0f}/s", rounds=rounded(results))


def idle_connections(server, count, context=None):
    """kB of memory that each idle connection costs; each has had one answer."""
    before = memory_of(server.pid)["RssAnon"]
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(count):
            plain = stack.enter_context(socket.create_connection(("127.0.0.1", server.server.s3_port)))
            connection = context.wrap_socket(plain) if context else plain
            stack.callback(connection.close)
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            connections.append(connection)
            connection.recv(4096)
        time.sleep(0.3)
        return (memory_of(server.pid)["RssAnon"] - before) / count


def memory(context):
    s = context.settings
    checks, figures = [], {}
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(1000, hard // 2)
    with Basalt(s, "memory") as server:
        settle()
        figures["idle_mib"] = memory_of(server.pid)["VmRSS"] / 1024
        figures["idle_anonymous_mib"] = memory_of(server.pid)["RssAnon"] / 1024
        idle_connections(server, 50)  # pools have their first pages then
        figures["plain_kib"] = idle_connections(server, count)
    with Basalt(s, "memory-tls", tls=context.certificate) as server:
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        idle_connections(server, 50, tls)
        figures["tls_kib"] = idle_connections(server, count // 2, tls)
    with Basalt(s, "memory-uploads") as server:
        put_objects(s, server, 4096, 10)
        with MemoryWatch(server.pid) as watch:
            load(s, server, op="put", size=16 * MIB, keys=64, connections=64, count=128,
                 warmup="0s", signing="unsigned-payload", prefix="uploads/", duration="60s")
        figures["uploads_mib"] = watch.highest / 1024
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    checks += [Check("idle", figures["idle_mib"], 32, unit="MiB"),
               Check("an idle connection, plain", figures["plain_kib"], 4, unit="KiB"),
               Check("an idle connection, TLS", figures["tls_kib"], 32, unit="KiB"),
               Check("64 uploads of 16 MiB at once", figures["uploads_mib"], 400, unit="MiB")]
    big = big_server(context)
    figures["objects_mib"] = memory_of(big.pid)["RssAnon"] / 1024
    checks.append(Check(f"{context.big_keys:,} objects, beyond page cache", figures["objects_mib"], 512, unit="MiB"))
    return Row("memory", "memory", "", checks, "idle: all of the process, its program included "
               f"({figures['idle_anonymous_mib']:.1f} MiB of it are its own)", rounds=[figures])


def start(context):
    big = big_server(context)
    took = []
    for _ in range(3):
        took.append({"seconds": big.restart()})
    return Row("start", f"start after a clean stop, {context.big_keys:,} objects", "", [
        Check("until ready", median(took, "seconds"), 0.2, unit="s")], rounds=took)


def sigv4(context):
    s = context.settings
    command = pinned(s.client_cpu, [binary("basalt-micro"), "--benchmark_filter=^(authenticate|openssl_sha256_and_hmac)$",
                                    f"--benchmark_repetitions={s.rounds}", "--benchmark_enable_random_interleaving=true",
                                    "--benchmark_min_time=0.2", "--benchmark_format=json"])
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    medians = {entry["run_name"]: entry["cpu_time"] for entry in json.loads(done.stdout)["benchmarks"]
               if entry.get("aggregate_name") == "median"}
    ours, theirs = medians["authenticate"], medians["openssl_sha256_and_hmac"]
    allocations = context.allocations().get("verify", {}).get("allocations", float("nan"))
    return Row("sigv4", "verification of a SigV4 header by itself", "SHA-256 and HMAC of the same bytes by OpenSSL", [
        Check("CPU", ours / theirs, 1.5, ours=f"{ours:.0f} ns", theirs=f"{theirs:.0f} ns"),
        Check("heap allocations, head parsed too", allocations, 0, unit="")], rounds=[medians])


ROWS = {"list-1000": list_1000, "list-delimiter": list_delimiter, "two-cores": two_cores, "memory": memory, "start": start,
        "sigv4": sigv4}
