"""What all rows share: the result of a row, interleaved rounds, medians, files and processes."""
import dataclasses
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from harness import server as harness_server  # noqa: E402  (the tests' own way to start servers)
from harness.server import build_dir, free_ports  # noqa: E402

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@dataclasses.dataclass
class Check:
    """One figure against one target. `value` is what the target speaks of: a ratio, or a figure in `unit`."""
    what: str
    value: float
    limit: float
    at_least: bool = False
    unit: str = "x"
    ours: str = ""   # the two figures of a ratio, for people
    theirs: str = ""

    @property
    def met(self):
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclasses.dataclass
class Row:
    name: str
    operation: str
    yardstick: str
    checks: list
    note: str = ""
    failed: str = ""   # why there are no figures
    rounds: list = dataclasses.field(default_factory=list)  # raw figures

    @property
    def met(self):
        return not self.failed and all(check.met for check in self.checks)


@dataclasses.dataclass
class Settings:
    rounds: int = 5
    seconds: float = 1.0   # of one measurement
    quick: bool = False
    full: bool = False
    server_cpu: int = 0
    client_cpu: int = 0
    nice: int = 0          # of everything that is measured

    def scale(self, quick, normal, full=None):
        """The size of something for this kind of run."""
        if self.quick:
            return quick
        return full if self.full and full is not None else normal


_folders = []


def fresh_dir(name):
    """A new directory on the disk that is measured; whatever becomes of the row, remove_folders() ends it."""
    _folders.append(harness_server.fresh_dir(name))
    return _folders[-1]


def remove_folders():
    for folder in _folders:
        shutil.rmtree(folder, ignore_errors=True)


def say(text):
    print(text, file=sys.stderr, flush=True)


def binary(name):
    return str(build_dir() / "bin" / name)


_nice = []


def set_nice(level):
    """All that is measured, yardsticks and load generator alike, gets this niceness (below 0: root only)."""
    _nice[:] = ["nice", "-n", str(level)] if level else []


def pinned(cpu, command):
    """Each of these programs execs the next, so the process id stays the last one's."""
    return [*_nice, "taskset", "-c", str(cpu), *command]


def run_json(command, good=(0,), **kwargs):
    """A program that prints one JSON document; its complaint is ours."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **kwargs)
    if done.returncode not in good or not done.stdout.strip():
        raise RuntimeError(f"{' '.join(command[-12:])} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout)


def host_ticks():
    """What the hypervisor gave to others while a program of this machine wanted to run, and all time: ticks of all CPUs (proc_stat(5))."""
    ticks = [int(field) for field in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return ticks[7], sum(ticks)


# A round that lost more of its time to the hypervisor's other guests is measured again, but not more than so many rounds for one.
STOLEN_MAX = 0.03
ROUNDS_FACTOR_MAX = 2
left_out = {"measured": 0, "left out": 0}  # rounds, for the report


def interleave(rounds, contenders):
    """contenders: name -> function that measures once. Each round measures all of them, every other one backwards, so that
    what drifts on the machine hits all alike. Of more rounds than asked for, those count that lost the least time to the
    hypervisor, whatever they measured. Returns name -> list of what they returned."""
    names, measured = list(contenders), []
    while sum(stolen <= STOLEN_MAX for stolen, _ in measured) < rounds and len(measured) < rounds * ROUNDS_FACTOR_MAX:
        stolen, total = host_ticks()
        samples = {}
        for name in names if len(measured) % 2 == 0 else reversed(names):
            samples[name] = contenders[name]()
        stolen_after, total_after = host_ticks()
        measured.append(((stolen_after - stolen) / max(total_after - total, 1), samples))
    left_out["measured"] += len(measured)
    left_out["left out"] += len(measured) - rounds
    kept = sorted(measured, key=lambda one: one[0])[:rounds]
    return {name: [samples[name] for _, samples in kept] for name in names}


def median(samples, key):
    return statistics.median(sample[key] for sample in samples)


def ratio(results, ours, theirs, key, their_key=None):
    """The median over the rounds of the ratio of two figures of the same round."""
    pairs = zip(results[ours], results[theirs])
    return statistics.median(a[key] / max(b[their_key or key], 1e-12) for a, b in pairs)


def rounded(results):
    """The raw figures, short enough for a JSON file."""
    short = {}
    for name, samples in results.items():
        short[name] = [{k: round(v, 4) if isinstance(v, float) else v for k, v in sample.items()} for sample in samples]
    return short


def drop_cache(folder):
    """Forgets the page cache of the data files below `folder` (they are clean: their writers flushed them); the index stays."""
    for path in pathlib.Path(folder).rglob("*"):
        if path.is_file() and "shard" not in path.parts:
            fd = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)


def memory_of(pid):
    """kB by name, of /proc/PID/status. RssAnon is what a process has for itself; mapped index files are RssFile."""
    out = {}
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("VmRSS", "VmHWM", "RssAnon", "RssFile", "RssShmem"):
            out[name] = int(rest.split()[0])
    return out


def cpu_seconds(pid):
    """All threads, from the scheduler's nanoseconds."""
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except OSError:
            pass  # it ended
    return total / 1e9


def wait_until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not within {seconds} s")
        time.sleep(0.05)


__all__ = ["ROOT", "KIB", "MIB", "GIB", "Check", "Row", "Settings", "say", "binary", "pinned", "set_nice", "run_json", "interleave", "left_out", "median",
           "ratio", "rounded", "drop_cache", "memory_of", "cpu_seconds", "wait_until", "build_dir", "free_ports", "fresh_dir",
           "remove_folders"]
