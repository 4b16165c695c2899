"""Block devices for crash tests: a FUSE program that serves one file, a loop device on it, a file system on that.

Whatever is set up here is taken down again, in the opposite order, when its `with` block ends and, failing that, when
the process ends, also by SIGTERM."""
import atexit
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

from harness.server import build_dir

FILE_SYSTEMS = ("ext4", "xfs")
TIMEOUT = 60
# "nouuid": the same file system is mounted more than once at a time, from several state disks.
MOUNT_OPTIONS = {"ext4": "noatime", "xfs": "noatime,nouuid"}

_undo, _undo_lock = {}, threading.Lock()


def why_not():
    """None, or what this machine lacks."""
    if os.geteuid() != 0:
        return "loop devices and mounts need root"
    for node in ("/dev/fuse", "/dev/loop-control"):
        try:
            os.close(os.open(node, os.O_RDWR))
        except OSError as error:
            return f"{node}: {error.strerror}"
    for program in ("crash_recorder", "crash_state_disk"):
        if not (build_dir() / "bin" / program).exists():
            return f"{program} is not built (libfuse3-dev)"
    for tool in ("losetup", "mount", "umount", "fusermount3", *(f"mkfs.{fs}" for fs in FILE_SYSTEMS)):
        if shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
            return f"there is no {tool}"
    probe = subprocess.run(["losetup", "-f"], capture_output=True, text=True, check=False)
    return None if probe.returncode == 0 else f"no loop device: {probe.stderr.strip()}"


def run(*command, **kwargs):
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT, check=False, **kwargs)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(str(word) for word in command)}: exit status {done.returncode}: {done.stdout.strip()}")
    return done.stdout


@contextlib.contextmanager
def undone(action):
    """Runs the action when the block or the process ends, once."""
    token = object()
    with _undo_lock:
        _undo[token] = action
    try:
        yield
    finally:
        with _undo_lock:
            mine = _undo.pop(token, None)
        if mine is not None:
            mine()


def _undo_all():
    while True:
        with _undo_lock:
            if not _undo:
                return
            _, action = _undo.popitem()
        with contextlib.suppress(Exception):
            action()


def end_on_signals():
    atexit.register(_undo_all)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))


def _insist(*command):
    """Unmounting waits for the last user of a dying process: tried for a while."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            return run(*command)
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@contextlib.contextmanager
def fuse_program(name, folder, *arguments):
    """Runs a program of fuse_disk.h at `folder`: its arguments are those before and after the directory."""
    before, after = arguments
    folder.mkdir(parents=True, exist_ok=True)
    log = open(folder.with_suffix(".log"), "ab")
    process = subprocess.Popen([str(build_dir() / "bin" / name), *map(str, before), str(folder), *map(str, after)],
                               stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def end():
        with contextlib.suppress(Exception):
            _insist("fusermount3", "-u", folder)
        try:
            process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()

    with undone(end):
        deadline = time.monotonic() + TIMEOUT
        while not (folder / "disk").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} did not start: {folder.with_suffix('.log').read_text(errors='replace')}")
            time.sleep(0.01)
        yield


@contextlib.contextmanager
def mounted(disk, fs, folder):
    """The loop device's file system at `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    device = run("losetup", "--direct-io=on", "--show", "-f", disk).strip()
    with undone(lambda: _insist("losetup", "-d", device)):
        run("mount", "-t", fs, "-o", MOUNT_OPTIONS[fs], device, folder)
        with undone(lambda: _insist("umount", folder)):
            yield


def make_image(path, fs, size):
    path = pathlib.Path(path)
    with open(path, "wb") as image:
        image.truncate(size)
    if fs == "ext4":
        # Everything is initialised now: the kernel's lazy initialisation would be noise in the recording.
        run("mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", path)
    else:
        run("mkfs.xfs", "-q", "-f", "-K", path)


def copy_sparse(source, target):
    run("cp", "--sparse=always", source, target)
