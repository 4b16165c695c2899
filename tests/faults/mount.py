"""A faultfs mount below the build directory."""
import atexit
import os
import shutil
import subprocess
import time

from harness.server import build_dir, fresh_dir


def why_not():
    """None if faultfs can be used here, else the reason."""
    if not (build_dir() / "bin" / "faultfs").exists():
        return "faultfs is not built (libfuse3-dev)"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse cannot be used"
    if shutil.which("fusermount3") is None:
        return "there is no fusermount3"
    return None


class FaultFs:
    """data is an empty directory on the mount; backing holds the same files without faults."""

    def __init__(self, name="faults"):
        self.root = fresh_dir(name)
        self.mount, self.below = self.root / "mount", self.root / "below"
        self.mount.mkdir()
        self.below.mkdir()
        self.process = None
        atexit.register(self.close)
        self.open()
        self.data = self.mount / "data"
        self.data.mkdir()
        self.backing = self.below / "data"

    def open(self):
        self.process = subprocess.Popen([str(build_dir() / "bin" / "faultfs"), str(self.below), str(self.mount)],
                                        stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not os.path.ismount(self.mount):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("faultfs did not mount")
            time.sleep(0.01)

    def tell(self, *commands):
        with open(self.mount / ".faults", "wb", buffering=0) as control:
            control.write("\n".join(commands).encode())

    def counts(self):
        lines = (self.mount / ".faults").read_text().splitlines()
        found = dict(line.split(" ", 1) for line in lines)
        return {name: value if name == "last" else int(value) for name, value in found.items()}

    def close(self, remove=False):
        if self.process is None:
            return
        subprocess.run(["fusermount3", "-u", "-z", str(self.mount)], check=False, stderr=subprocess.DEVNULL)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None
        if remove:
            shutil.rmtree(self.root, ignore_errors=True)
