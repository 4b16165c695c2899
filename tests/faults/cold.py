"""Makes the files of a running server cold, those that it has mapped as well.

posix_fadvise(POSIX_FADV_DONTNEED) leaves pages alone that a process has mapped, and so the pages of an index that look-ups use. ColdMaps lets the
server itself let go of them first (cold_maps.cc). What came of it is asked of the kernel: cachestat(2) says what is still in the page cache, and a
major fault is a page that a look-up had to wait for."""
import ctypes
import os
import pathlib
import select

from harness.server import build_dir

SYS_CACHESTAT = 451  # the same on all architectures
ANSWER_SECONDS = 60


class Range(ctypes.Structure):
    _fields_ = [("offset", ctypes.c_uint64), ("length", ctypes.c_uint64)]


class CacheStat(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("cached", "dirty", "writeback", "evicted", "recently_evicted")]


libc = ctypes.CDLL(None, use_errno=True)


class ColdMaps:
    """launcher is for Server(). Where the library is not built, unmap() says so."""

    def __init__(self, folder):
        library = build_dir() / "bin" / "libcold_maps.so"
        self.why_not = None if library.exists() else f"{library.name} is not built"
        self.launcher = []
        if self.why_not is None:
            folder.mkdir()
            for name in ("ask", "done"):
                os.mkfifo(folder / name)
            self.ask, self.done = (os.open(folder / name, os.O_RDWR) for name in ("ask", "done"))
            self.launcher = ["/usr/bin/env", f"LD_PRELOAD={library}", f"COLD_MAPS={folder}"]

    def unmap(self):
        """The server lets go of the pages of its indexes. None, or the reason why it did not."""
        if self.why_not is None:
            os.write(self.ask, b"x")
            if not select.select([self.done], [], [], ANSWER_SECONDS)[0]:
                self.why_not = f"no answer from cold_maps within {ANSWER_SECONDS} s"
            elif int(os.read(self.done, 100)) == 0:
                self.why_not = "the server has no index mapped"
        return self.why_not


def drop(path):
    """Out of the page cache, what no process has mapped."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cached_bytes(paths):
    """How much of the files is in the page cache; None where the kernel does not say (before Linux 6.5)."""
    total = 0
    for path in paths:
        stat = CacheStat()
        with open(path, "rb") as file:
            if libc.syscall(SYS_CACHESTAT, file.fileno(), ctypes.byref(Range(0, 0)), ctypes.byref(stat), 0) != 0:
                return None
        total += stat.cached * os.sysconf("SC_PAGE_SIZE")
    return total


def major_faults(pid):
    """Of all threads, so far."""
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[9])
