"""The two servers of a comparison, on the same pinned core, and the load generator on another."""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time
import types

from harness.server import Server

from core import MIB, binary, free_ports, fresh_dir, pinned, run_json, wait_until

BUCKET = "bench"

NGINX = """
daemon off; master_process on; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/error.log crit;
{user}
events {{ worker_connections 4096; }}
http {{
  access_log off; default_type application/octet-stream; sendfile on; tcp_nopush on; tcp_nodelay on;
  keepalive_requests 1000000000; keepalive_timeout 600s; open_file_cache off; client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  ssl_certificate {cert}; ssl_certificate_key {key}; ssl_protocols TLSv1.3;
  server {{ listen 127.0.0.1:{plain}; listen 127.0.0.1:{tls} ssl; root {dir}/files;
{locations}  }}
}}
"""


def answers(port):
    """Something listens there."""
    with contextlib.suppress(OSError):
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    return False


def end_process(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Basalt:
    """One basaltd on settings.server_cpu (or `cpus`, a taskset list)."""

    def __init__(self, settings, name, cores=1, cpus=None, tls=None, environment=()):
        # All of it execs what follows, so the process id stays basaltd's.
        launcher = pinned(cpus if cpus is not None else settings.server_cpu, ["env", *environment])
        self.settings = settings
        self.frequent = any("CHECKPOINT_INTERVAL" in setting for setting in environment)
        self.server = Server(f"bench-{name}", launcher=launcher, tls=tls, args=["--cores", str(cores), "--log-level", "warn"])
        self.start_seconds = self.server.start(120)

    @property
    def pid(self):
        return self.server.process.pid

    @property
    def data(self):
        return self.server.data

    @property
    def endpoint(self):
        return self.server.endpoint

    @property
    def credentials(self):
        return {"AWS_ACCESS_KEY_ID": self.server.access_key, "AWS_SECRET_ACCESS_KEY": self.server.secret_key}

    def restart(self):
        """A clean stop and a start; seconds until ready."""
        self.server.stop(300)
        return self.server.start(120)

    def metric(self, name):
        """The sum of a metric over its labels."""
        return sum(float(match[1]) for match in re.finditer(rf"^{name}(?:{{[^}}]*}})? (\S+)$", self.server.metrics(), re.M))

    def checkpoint(self):
        """Brings everything into the index: waits for the next checkpoint where they are frequent, else stops and starts."""
        if not self.frequent:
            self.restart()
            return
        wait_until(lambda: self.metric("basalt_overlay_entries") == 0, 120, "a checkpoint")

    def close(self):
        self.server.stop(300)
        shutil.rmtree(self.data, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is None:
            self.close()
        else:
            self.server._end()
            shutil.rmtree(self.data, ignore_errors=True)


class Nginx:
    """Static files, one worker. Whatever is asked below /b4096/ is answered with the same file of 4096 bytes, so that the load
    generator's keys need not exist."""
    SIZES = (1024, 4096, 65536, 1 * MIB, 16 * MIB, 128 * MIB)

    def __init__(self, settings, certificate):
        self.settings = settings
        self.dir = fresh_dir("nginx")
        self.port, self.tls_port = free_ports(2)
        files = self.dir / "files"
        files.mkdir()
        locations = ""
        for size in self.SIZES:
            with open(files / f"f{size}", "wb") as out:
                for _ in range(max(1, size // MIB)):
                    out.write(os.urandom(min(size, MIB)))
            locations += f"    location /b{size}/ {{ try_files /f{size} =404; }}\n"
        for path in (self.dir, files):
            path.chmod(0o755)
        # The worker of a root master becomes another user, who may not be able to reach the files.
        user = "user root;" if os.geteuid() == 0 else ""
        (self.dir / "nginx.conf").write_text(NGINX.format(dir=self.dir, plain=self.port, tls=self.tls_port, cert=certificate[0],
                                                          key=certificate[1], locations=locations, user=user))
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        self.process = subprocess.Popen(pinned(settings.server_cpu, [nginx, "-p", str(self.dir), "-c", "nginx.conf"]),
                                        stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.dir)
        wait_until(lambda: answers(self.port), 10, "nginx")

    # nginx looks at no signature: the load generator signs all the same, and its cost is not the server's.
    credentials = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none-at-all"}
    pid = "auto"  # master and worker

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def secure(self):
        """The same over TLS."""
        return types.SimpleNamespace(endpoint=f"https://127.0.0.1:{self.tls_port}", credentials=self.credentials, pid=self.pid)

    def close(self):
        end_process(self.process)
        shutil.rmtree(self.dir, ignore_errors=True)


class PutFloor:
    """The yardstick's put-floor as a server: one connection at a time, no signatures."""
    credentials = Nginx.credentials

    def __init__(self, settings):
        self.dir = fresh_dir("put-floor")
        (self.port,) = free_ports(1)
        self.process = subprocess.Popen(pinned(settings.server_cpu, [binary("basalt-yardstick"), "put-floor", "--dir", str(self.dir),
                                                                     "--port", str(self.port)]), stdin=subprocess.DEVNULL)
        wait_until(lambda: answers(self.port), 60, "put-floor")

    @property
    def pid(self):
        return self.process.pid

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        end_process(self.process)
        shutil.rmtree(self.dir, ignore_errors=True)


class UploadFloor:
    """basalt-yardstick upload-floor: a server that does only what a large PUT must cost on this machine. `parts` of it: md5, sha256, write;
    receiving is always one."""
    credentials = Nginx.credentials

    def __init__(self, settings, *parts):
        self.dir = fresh_dir("floor")
        command = [binary("basalt-yardstick"), "upload-floor", "--dir", str(self.dir), *(f"--{part}" for part in parts)]
        self.process = subprocess.Popen(pinned(settings.server_cpu, command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        said = self.process.stdout.readline()
        if not said:
            raise RuntimeError(f"upload-floor ended with {self.process.wait()}")
        self.endpoint = f"http://127.0.0.1:{json.loads(said)['port']}"
        self.pid = self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        end_process(self.process)
        self.process.stdout.close()
        shutil.rmtree(self.dir, ignore_errors=True)


def load(settings, server, **options):
    """One run of the load generator, short figures. Options are basalt-bench's, - as _. On a machine so busy that nothing is answered
    within the time, again with more of it."""
    for factor in (1, 4, 4):
        if factor > 1:
            options["duration"] = f"{factor * float(str(options.get('duration', settings.seconds)).rstrip('s'))}s"
        result = load_once(settings, server, options)
        if result:
            return result
    raise RuntimeError(f"{options}: nothing was answered within {options['duration']}")


def load_once(settings, server, options):
    # Writing rows need the bucket only, which "auto" makes; what reading rows read is there (put_objects).
    prepare = "auto" if options.get("op") in ("put", "multipart") else "never"
    chosen = {"connections": 32, "duration": f"{settings.seconds}s", "warmup": "0.2s", "prepare": prepare, "bucket": BUCKET,
              "threads": 1, "timeout": "60s"}
    chosen.update(options)
    command = pinned(settings.client_cpu, [binary("basalt-bench"), "run", "--endpoint", server.endpoint, "--pid", str(server.pid),
                                           "--json", "-", "--quiet"])
    for name, value in chosen.items():
        if value is True:
            command.append("--" + name.replace("_", "-"))
        elif value is not None:
            command += ["--" + name.replace("_", "-"), str(value)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "BASALT_"))}
    environment.update(server.credentials)
    result = run_json(command, good=(0, 1), env=environment)
    if result["failures"]:
        raise RuntimeError(f"{result['description']}: {result['first_failure']}")
    if not result["total"]["operations"]:
        return None
    total, used = result["total"], result.get("server", {})
    latency = total["latency_us"]
    out = {"rate": total["operations_per_s"], "mbps": total["bytes_per_s"] / 1e6, "operations": total["operations"],
           "cpu_us": used.get("cpu_us_per_operation", 0.0), "p50_us": latency["p50"], "p99_us": latency["p99"],
           "busiest": result["client"]["busiest_thread"], "client_us": result["client"]["cpu_us_per_operation"], "rss": used.get("rss_bytes_max", 0)}
    if total["bytes"]:
        out["cpu_s_per_gb"] = out["cpu_us"] * total["operations"] / total["bytes"] * 1e3
    for name, entry in result["operations"].items():
        out[f"{name}_p99_us"] = entry["latency_us"]["p99"]
    return out


def put_objects(settings, server, size, keys, **options):
    """Puts what the reading rows read."""
    load(settings, server, op="get", size=size, keys=keys, prepare="always", count=1, warmup="0s",
         connections=options.pop("connections", 64), **options)


def certificate(folder):
    """Self-signed, for both servers."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", str(key), "-out",
                    str(cert)], check=True, capture_output=True)
    key.chmod(0o600)
    return cert, key


def fio(settings, folder, **options):
    """One fio job with O_DIRECT and io_uring: operations and MB a second, CPU seconds a GB."""
    folder = pathlib.Path(folder)
    chosen = {"name": "job", "ioengine": "io_uring", "direct": 1, "directory": folder, "filename": "fio.data", "time_based": 1,
              "runtime": settings.seconds, "output-format": "json", "randrepeat": 0, "norandommap": 1}
    chosen.update(options)
    command = ["fio"] + [f"--{name}={value}" for name, value in chosen.items()]
    done = subprocess.run(pinned(settings.server_cpu, command), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"fio: {done.stderr.strip()[-400:]}")
    job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
    side = job["write"] if "write" in str(options.get("rw")) else job["read"]
    seconds = max(job["job_runtime"] / 1e3, 1e-3)
    moved = max(side["io_bytes"], 1)
    cpu = (job["usr_cpu"] + job["sys_cpu"]) / 100 * seconds
    return {"rate": side["iops"], "mbps": side["bw_bytes"] / 1e6, "cpu_s_per_gb": cpu / moved * 1e9}


def yardstick(settings, command, folder, cpu=None, **options):
    words = [binary("basalt-yardstick"), command, "--dir", str(folder), "--seconds", str(settings.seconds)]
    for name, value in options.items():
        words += ["--" + name.replace("_", "-"), str(value)]
    return run_json(pinned(settings.server_cpu if cpu is None else cpu, words))


def settle():
    """Lets what the last step left behind (flushes, a closing server) end."""
    time.sleep(0.2)
