"""One basaltd process under test."""
import atexit
import contextlib
import http.client
import os
import pathlib
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def build_dir():
    """Where the binaries are: build/, or what tests/run.py --build named."""
    return pathlib.Path(os.environ.get("BASALT_BUILD", ROOT / "build")).resolve()


def fresh_dir(name):
    """A new directory below the build directory: on a real file system (O_DIRECT), and never in the tree."""
    parent = build_dir() / "test-data"
    parent.mkdir(parents=True, exist_ok=True)
    return pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))


def free_ports(count):
    """Ports nobody listens on; all are held until all are known, so they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


class Server:
    """start() returns when /-/ready answers 200; stop() sends SIGTERM and expects exit status 0; kill() is SIGKILL.

    A stopped or killed server can be started again: same data, same ports, same keys. launcher goes in front of the
    command line and must exec it, so that the process id stays basaltd's.
    """

    def __init__(self, name, data=None, args=(), launcher=(), tls=None):
        self.own_data = data is None
        self.data = pathlib.Path(data) if data else fresh_dir(name.split()[0])
        self.log_path = build_dir() / "test-logs" / f"{name.replace(' ', '-')}-{os.getpid()}.log"
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self.log_path.write_bytes(b"")
        self.s3_port, self.admin_port = free_ports(2)
        self.access_key = "BASALT" + secrets.token_hex(7).upper()
        self.secret_key = secrets.token_urlsafe(30)
        self.args, self.launcher, self.tls = list(args), list(launcher), tls
        self.process = None
        atexit.register(self._end)

    @property
    def host(self):
        return f"127.0.0.1:{self.s3_port}"

    @property
    def admin(self):
        return f"127.0.0.1:{self.admin_port}"

    @property
    def endpoint(self):
        return f"{'https' if self.tls else 'http'}://{self.host}"

    def start(self, timeout=30):
        """Returns the seconds from exec to ready."""
        binary = pathlib.Path(os.environ.get("BASALT_BASALTD", build_dir() / "bin" / "basaltd"))
        command = [*self.launcher, str(binary), "serve", "--data", str(self.data), "--s3", self.host, "--admin", self.admin,
                   *self.args]
        if self.tls:
            command += ["--tls-cert", str(self.tls[0]), "--tls-key", str(self.tls[1])]
        env = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "BASALT_"))}
        env.update(BASALT_ROOT_ACCESS_KEY=self.access_key, BASALT_ROOT_SECRET_KEY=self.secret_key)
        begin = time.monotonic()
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, cwd=self.data)
        while time.monotonic() - begin < timeout:
            if self.process.poll() is not None:
                raise RuntimeError(f"basaltd ended with {self.process.returncode} before it was ready\n{self.log_tail()}")
            if self._ready():
                return time.monotonic() - begin
            time.sleep(0.01)
        raise RuntimeError(f"basaltd was not ready after {timeout} s\n{self.log_tail()}")

    def _ready(self):
        # The admin listener is plain HTTP unless the server has a certificate for it as well.
        for connect in (http.client.HTTPConnection, self._https) if self.tls else (http.client.HTTPConnection,):
            try:
                connection = connect("127.0.0.1", self.admin_port, timeout=2)
                with contextlib.closing(connection):
                    connection.request("GET", "/-/ready")
                    if connection.getresponse().status == 200:
                        return True
            except (OSError, http.client.HTTPException):
                pass
        return False

    @staticmethod
    def _https(host, port, timeout):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return http.client.HTTPSConnection(host, port, timeout=timeout, context=context)

    def metrics(self):
        """The text of /metrics."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()

    def running(self):
        return self.process is not None and self.process.poll() is None

    def stop(self, timeout=30):
        """A clean stop is part of every test: anything but exit status 0 is an error."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._end()
            raise RuntimeError(f"basaltd did not stop within {timeout} s of SIGTERM\n{self.log_tail()}") from None
        self.process = None
        if status != 0:
            raise RuntimeError(f"basaltd ended with {status}\n{self.log_tail()}")

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process = None

    def _end(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process = None

    def remove(self):
        """Forgets the data; for a server that was stopped and whose test passed."""
        if self.own_data:
            shutil.rmtree(self.data, ignore_errors=True)

    def log_tail(self, lines=40):
        text = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join([f"-- last lines of {self.log_path}", *text[-lines:]])

    def env(self, scratch):
        """A client's whole environment: nothing of the caller's configuration leaks in (HOME is the scratch folder)."""
        env = {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "LANG": "C.UTF-8",
            "HOME": str(scratch),
            "TMPDIR": str(scratch),
            "SCRATCH": str(scratch),
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "BASALT_ENDPOINT": self.endpoint,
            "BASALT_HOST": self.host,
            "BASALT_ADMIN": self.admin,
            "BASALT_DATA": str(self.data),
            "BASALT_BUILD": str(build_dir()),
            "PYTHONPATH": str(ROOT / "tests"),
        }
        if self.process is not None:
            env["BASALT_PID"] = str(self.process.pid)
        if self.tls:
            env["BASALT_CA"] = str(self.tls[0])
        return env

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, value, trace):
        if kind is None:
            self.stop()
            self.remove()
        else:
            self._end()
