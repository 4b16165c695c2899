"""GET and HEAD: warm against nginx, cold against the disk, over TLS against nginx over TLS."""
import os
import subprocess

from core import MIB, Check, Row, drop_cache, fresh_dir, interleave, median, ratio, rounded
from servers import Basalt, fio, load, put_objects


def size_name(size):
    return f"{size // MIB} MiB" if size >= MIB else f"{size // 1024} KiB"


def busy_note(results, name="basalt"):
    used = f"the load generator took {cpu(median(results[name], 'client_us'))} of CPU an operation"
    return used + (" and was busy all the time" if median(results[name], "busiest") > 0.93 else "")


def aes_gcm_s_per_gb():
    """CPU of AES-256-GCM by itself, in records of TLS's size."""
    done = subprocess.run(["openssl", "speed", "-seconds", "1", "-bytes", "16384", "-evp", "aes-256-gcm", "-mr"], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=True)
    fields = next(line for line in done.stdout.splitlines() if line.startswith("+F:")).split(":")
    return 1e9 / float(fields[-1])


def cpu(us):
    return f"{us:.1f} us"


def get_small(context):
    s = context.settings
    basalt = context.basalt
    put_objects(s, basalt, 4096, 1000)
    basalt.checkpoint()
    results = interleave(s.rounds, {
        "basalt": lambda: load(s, basalt, op="get", size=4096, keys=1000),
        "nginx": lambda: load(s, context.nginx, op="get", size=4096, keys=1000, signing="header", bucket="b4096"),
    })
    ours, theirs = results["basalt"], results["nginx"]
    return Row("get-4k", "GET 4 KiB, SigV4 verified, warm, 32 connections", "nginx, static file, keep-alive", [
        Check("requests/s", ratio(results, "basalt", "nginx", "rate"), 1.3, True,
              ours=f"{median(ours, 'rate'):.0f}/s", theirs=f"{median(theirs, 'rate'):.0f}/s"),
        Check("CPU a request", ratio(results, "basalt", "nginx", "cpu_us"), 0.65,
              ours=cpu(median(ours, "cpu_us")), theirs=cpu(median(theirs, "cpu_us"))),
    ], busy_note(results), rounds=rounded(results))


def head(context):
    s = context.settings
    basalt = context.basalt
    put_objects(s, basalt, 4096, 1000)
    results = interleave(s.rounds, {
        "basalt": lambda: load(s, basalt, op="head", size=4096, keys=1000),
        "nginx": lambda: load(s, context.nginx, op="get", size=1024, keys=1000, bucket="b1024"),
    })
    return Row("head", "HEAD, SigV4 verified", "nginx, GET 1 KiB", [
        Check("CPU a request", ratio(results, "basalt", "nginx", "cpu_us"), 0.75,
              ours=cpu(median(results["basalt"], "cpu_us")), theirs=cpu(median(results["nginx"], "cpu_us")))],
        busy_note(results), rounds=rounded(results))


def get_large(context, size, name):
    s = context.settings
    basalt = context.basalt
    keys = max(1, min(64, 256 * MIB // size))
    connections = 16 if size < MIB else 8 if size < 16 * MIB else 4
    prefix = f"get-{size}/"
    put_objects(s, basalt, size, keys, prefix=prefix, connections=4)
    options = {"op": "get", "size": size, "keys": keys, "connections": connections, "prefix": prefix}
    if size >= 16 * MIB:
        # Long enough for many to begin and end within it, also on a machine that is busy.
        options["warmup"] = "0.4s"
        options["duration"] = f"{max(2.0, 2 * s.seconds)}s"
    # Warm: each was read before, twice, since the first reader leaves the page cache as it is.
    for _ in range(2):
        load(s, basalt, **{**options, "key_distribution": "sequential", "count": keys, "warmup": "0s"})
    results = interleave(s.rounds, {
        "basalt": lambda: load(s, basalt, **options),
        "nginx": lambda: load(s, context.nginx, bucket=f"b{size}", **options),
    })
    return Row(name, f"GET {size_name(size)}, warm, {connections} connections", "nginx with sendfile", [
        Check("MB/s", ratio(results, "basalt", "nginx", "mbps"), 0.95, True,
              ours=f"{median(results['basalt'], 'mbps'):.0f} MB/s", theirs=f"{median(results['nginx'], 'mbps'):.0f} MB/s"),
        Check("CPU a GB", ratio(results, "basalt", "nginx", "cpu_s_per_gb"), 1.1,
              ours=f"{median(results['basalt'], 'cpu_s_per_gb'):.3f} s", theirs=f"{median(results['nginx'], 'cpu_s_per_gb'):.3f} s"),
    ], busy_note(results), rounds=rounded(results))


def get_64k(context):
    return get_large(context, 65536, "get-64k")


def get_1m(context):
    return get_large(context, MIB, "get-1m")


def get_16m(context):
    return get_large(context, 16 * MIB, "get-16m")


def get_128m(context):
    return get_large(context, 128 * MIB, "get-128m")


def get_cold(context, size, keys, connections, name):
    """Every round starts with nothing of the data in the page cache, and a server that has read nothing yet: what it is asked for a
    second time it would read another way. The disk's own cache cannot be emptied: it is the same for both."""
    s = context.settings
    basalt = context.basalt
    prefix = f"cold-{size}/"
    put_objects(s, basalt, size, keys, prefix=prefix, connections=64 if size < MIB else 4)
    basalt.checkpoint()
    folder = fresh_dir("fio")
    small = size < MIB
    job = {"rw": "randread", "bs": 4096, "iodepth": connections} if small else {"rw": "read", "bs": MIB, "iodepth": connections}
    job["size"] = size * keys

    def ours():
        basalt.restart()
        drop_cache(basalt.data)
        return load(s, basalt, op="get", size=size, keys=keys, prefix=prefix,
                    connections=connections, warmup="0s", key_distribution="uniform" if small else "sequential")

    fio(s, folder, **{**job, "time_based": 0, "rw": "write", "bs": MIB, "iodepth": 4})
    results = interleave(s.rounds, {"basalt": ours, "fio": lambda: fio(s, folder, **job)})
    (folder / "fio.data").unlink()
    folder.rmdir()
    key, what, limit = ("rate", "operations/s", 0.7) if small else ("mbps", "MB/s", 0.9)
    unit = "/s" if small else " MB/s"
    return Row(name, f"GET {size_name(size)}, cold, {connections} connections",
               f"fio io_uring O_DIRECT {'random' if small else 'sequential'} read, the same depth", [
                   Check(what, ratio(results, "basalt", "fio", key), limit, True,
                         ours=f"{median(results['basalt'], key):.0f}{unit}", theirs=f"{median(results['fio'], key):.0f}{unit}")],
               rounds=rounded(results))


def get_cold_4k(context):
    return get_cold(context, 4096, context.settings.scale(20_000, 60_000), 32, "get-cold-4k")


def get_cold_16m(context):
    return get_cold(context, 16 * MIB, context.settings.scale(32, 64), 4, "get-cold-16m")


def tls_get_1m(context):
    s = context.settings
    os.environ.pop("SSL_CERT_FILE", None)
    with Basalt(s, "tls", tls=context.certificate) as basalt:
        put_objects(s, basalt, MIB, 16, insecure=True, connections=4)
        options = {"op": "get", "size": MIB, "keys": 16, "connections": 8, "insecure": True}
        results = interleave(s.rounds, {
            "basalt": lambda: load(s, basalt, **options),
            "nginx": lambda: load(s, context.nginx.secure, bucket=f"b{MIB}", **options),
        })
    return Row("tls-get-1m", "GET 1 MiB over TLS 1.3, 8 connections", "nginx over TLS 1.3; AES-GCM by itself", [
        Check("MB/s", ratio(results, "basalt", "nginx", "mbps"), 0.9, True,
              ours=f"{median(results['basalt'], 'mbps'):.0f} MB/s", theirs=f"{median(results['nginx'], 'mbps'):.0f} MB/s")],
        f"CPU a GB: {median(results['basalt'], 'cpu_s_per_gb'):.2f} s, nginx {median(results['nginx'], 'cpu_s_per_gb'):.2f} s; AES-256-GCM "
        f"alone {aes_gcm_s_per_gb():.2f} s (openssl speed, 16 KiB)", rounds=rounded(results))


ROWS = {"get-4k": get_small, "head": head, "get-64k": get_64k, "get-1m": get_1m, "get-16m": get_16m, "get-128m": get_128m,
        "get-cold-4k": get_cold_4k, "get-cold-16m": get_cold_16m, "tls-get-1m": tls_get_1m}
