#!/usr/bin/python3
"""Power may be lost at any moment, and nothing that was acknowledged is lost with it.

basaltd runs on a disk that records every write and flush (recorder.cc), under eight threads that put, copy, complete,
delete and list, and note with each answer how long the recording was. It is killed and started again in between. Then
disks as they may be after a power cut are made of the recording (state_disk.cc): everything that was flushed, and of the
rest a random part, some of it torn. On each of them basaltd must start, healthy, and hold everything it had answered.

crash.py [--states N] [--seed S] [--fs ext4|xfs|both] [--jobs N] [--seconds N] [--keep]
crash.py --replay FILE     one state again (FILE is a failure's .json)
crash.py --seeded-bugs [NAME...]   each seeded bug must be caught (docs/reliability.md)

The exit status is 77 where there is no root, loop device or FUSE.
"""
import argparse
import collections
import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time

import rig
from workload import BUCKET, WORKERS, BucketWorker, Model, ObjectWorker, check

from harness import seeded_bugs
from harness.server import Server, build_dir

SKIPPED = 77
MIB = 1 << 20
IMAGE_BYTES = 2048 * MIB
LOG_BYTES_MAX = 1024 * MIB
DELAY_US = 4000
FAILURES_SHOWN = 5
# Of the states; see Explorer._check(). One in 6,000 was seen.
UNMOUNTABLE_SHARE_MAX = 0.01
MODES = ("none", "none", "tail", "tail", "half", "half", "half", "few", "most", "all")
# Small and hasty: within seconds checkpoints, garbage collection and reuse of segments happen many times.
CONFIG = """
cores = {cores}
pin_cores = false
[storage]
shards = 4
log_segment_bytes = "4MiB"
bulk_segment_bytes = "4MiB"
own_file_bytes_min = "1MiB"
checkpoint_interval_ms = 8000
gc_sealed_age_ms = 200
gc_interval_ms = 1200
"""
# What must have happened in a recording: a test of it would prove nothing otherwise.
EVENTS = ("basalt_checkpoints_total", "basalt_segments_reused_total", "basalt_gc_records_moved_total")


def metric(text, name):
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(rf"{name}[ {{]", line))


def write_config(path, cores):
    path.write_text(CONFIG.format(cores=cores))
    return path


def phase_at(seconds):
    """Of every eight seconds. The records need several: only the third segment takes the place of the first."""
    at = seconds % 8
    return "mixed" if at < 2.4 else "burst" if at < 3.4 else "records"


class AlreadyWrong(Exception):
    """The server gave a wrong answer, or stopped writing, while it was recorded."""


class Recording:
    """A folder: base.img, log, model.json, about.json."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.base, self.log = self.folder / "base.img", self.folder / "log"

    def load(self):
        self.about = json.loads((self.folder / "about.json").read_text())
        self.model = Model.from_json(json.loads((self.folder / "model.json").read_text()))
        return self

    def make(self, fs, seed, seconds):
        rng = random.Random(seed)
        cores = rng.choice((1, 2))
        rig.make_image(self.base, fs, IMAGE_BYTES)
        running = self.folder / "recording.img"
        rig.copy_sparse(self.base, running)
        model, events = Model(), collections.Counter()
        disk = self.folder / "recorder"
        server = Server(f"crash {fs}", data=self.folder / "recorded",
                        args=["--config", str(write_config(self.folder / "recorded.toml", cores))])
        with rig.fuse_program("crash_recorder", disk, (running, self.log), (DELAY_US, seed)):
            with rig.mounted(disk / "disk", fs, server.data):
                seq = os.open(disk / "seq", os.O_RDONLY)
                try:
                    self._drive(server, model, rng, seconds, seq, events)
                finally:
                    if server.running():
                        server.kill()
                    entries = int(os.pread(seq, 64, 0))
                    os.close(seq)
        running.unlink()
        self.about = {"fs": fs, "seed": seed, "cores": cores, "entries": entries, "access_key": server.access_key,
                      "secret_key": server.secret_key, "events": events}
        (self.folder / "model.json").write_text(json.dumps(model.to_json()))
        (self.folder / "about.json").write_text(json.dumps(self.about))
        return self.load()

    def _drive(self, server, model, rng, seconds, seq, events):
        server.start()
        owners = [ObjectWorker(n, random.Random(rng.getrandbits(64)), model, seq) for n in range(WORKERS)]
        owners += [BucketWorker(n, random.Random(rng.getrandbits(64)), model, seq) for n in range(2)]
        first = model.slot(model.buckets, BUCKET)
        owners[0].begin(server, threading.Event(), None)
        owners[0].write(first, BUCKET, True, "PUT", BUCKET)
        # The second run begins with the recovery after a kill; it ends cleanly.
        for run, share in enumerate((0.65, 0.35)):
            if run > 0:
                server.start()
            begun = time.monotonic()
            stop = threading.Event()
            for owner in owners:
                owner.begin(server, stop, lambda begun=begun: phase_at(time.monotonic() - begun))
                owner.start()
            # So long as asked, and until everything has happened that must have.
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline and self.log.stat().st_size < LOG_BYTES_MAX:
                time.sleep(0.2)
                text = server.metrics() if server.running() else ""
                counts = {name: metric(text, name) for name in EVENTS}
                if time.monotonic() - begun > seconds * share and (run > 0 or all(count > 0 for count in counts.values())):
                    break
                if any(owner.problems for owner in owners):
                    break
            events.update({name: int(counts[name]) for name in EVENTS})
            healthy = metric(text, "basalt_healthy") == 1
            if run == 0:
                server.kill()
            stop.set()
            for owner in owners:
                owner.join(60)
            problems = [problem for owner in owners for problem in owner.problems]
            problems += [f"thread {owner.number} hangs" for owner in owners if owner.is_alive()]
            if problems or not healthy:
                raise AlreadyWrong(f"the recording failed (healthy: {healthy}): {problems[:5]}\n{server.log_tail()}")
        server.stop()
        events["operations"] = sum(owner.operations for owner in owners)
        missing = [name for name in EVENTS if events[name] == 0]
        if missing:
            raise RuntimeError(f"{missing} did not happen in the recording: states of it would prove too little")


def read_log(path):
    """(arrived, is a flush) of every entry (disk_log.h)."""
    entries, header = [], struct.Struct("<QQQQII")
    with open(path, "rb") as log:
        while len(head := log.read(header.size)) == header.size:
            _, arrived, _, length, kind, _ = header.unpack(head)
            entries.append((arrived, kind == 3))
            if kind == 1:
                log.seek(length, os.SEEK_CUR)
    return entries


def choose_states(recording, count, rng):
    """(until, seed, mode), in order of `until`. Half of them lie right at an acknowledgement, where everything is still
    needed; most where something is left to chance, and a third where a flush overtook a write that had come before it."""
    entries = read_log(recording.log)
    undecided, overtaken, flushed = set(), set(), 0
    in_flight = sorted((arrived, number) for number, (arrived, is_flush) in enumerate(entries) if not is_flush)
    begun, waiting = 0, set()
    for until in range(len(entries) + 1):
        while begun < len(in_flight) and in_flight[begun][0] <= until:
            waiting.add(in_flight[begun][1])
            begun += 1
        waiting = {number for number in waiting if number >= flushed}
        if waiting:
            undecided.add(until)
        if any(number >= until and entries[number][0] < flushed for number in waiting):
            overtaken.add(until)
        if until < len(entries) and entries[until][1]:
            flushed = max(flushed, entries[until][0])
    stamps = recording.model.stamps()
    pools = [pool for pool in ([s for s in stamps if s in overtaken], [s for s in stamps if s in undecided], stamps,
                               sorted(overtaken), sorted(undecided), range(len(entries) + 1)) if pool]
    states = [(rng.choice(pools[i % len(pools)]), rng.getrandbits(48), rng.choice(MODES)) for i in range(count)]
    return sorted(states)


class Explorer:
    """Checks states of one recording, one after another; several can share a recording."""

    def __init__(self, recording, name):
        self.recording, self.name = recording, name
        self.folder = recording.folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.report = ""

    def explore(self, states, on_state):
        """on_state(state, problems, report) after each; a true result ends it. For `problems` see _check()."""
        image = self.folder / "rolling.img"
        rig.copy_sparse(self.recording.base, image)
        fs = self.recording.about["fs"]
        try:
            with rig.fuse_program("crash_state_disk", self.folder / "disk", (image, self.recording.log), ()):
                for number, state in enumerate(states):
                    (self.folder / "disk" / "state").write_text("{} {} {}".format(*state))
                    self.report = (self.folder / "disk" / "state").read_text().strip()
                    problems = self._check(state, fs, number)
                    if on_state(state, problems, self.report):
                        break
        finally:
            image.unlink(missing_ok=True)

    def _check(self, state, fs, number):
        """The problems; None where a write of the file system's own metadata is torn and it refuses to mount: xfs does not mend a
        directory block that is torn at 512 bytes. No server can do anything about that, and none ran."""
        until, seed, _ = state
        about = self.recording.about
        # Recovery does not depend on how many cores there were.
        config = write_config(self.folder / "state.toml", random.Random(seed).choice((1, 2)))
        server = Server(f"crash {fs} {self.name}", data=self.folder / f"state-{number}", args=["--config", str(config)])
        server.access_key, server.secret_key = about["access_key"], about["secret_key"]
        mounted = False
        try:
            with rig.mounted(self.folder / "disk" / "disk", fs, server.data):
                mounted = True
                try:
                    server.start(60)
                    healthy = metric(server.metrics(), "basalt_healthy") == 1
                    problems = [] if healthy else ["the server is not healthy: it opened read-only"]
                    problems += check(server, self.recording.model, until)
                    if not server.running():
                        problems.append("basaltd died")
                except Exception as error:
                    problems = [f"the state does not open, or does not answer: {error!r}"]
                finally:
                    if server.running():
                        server.kill()
            if problems:
                problems.append(server.log_tail(15))
        except Exception as error:
            if fs == "xfs" and not mounted and "torn=0" not in self.report:
                with contextlib.suppress(OSError):
                    server.data.rmdir()
                return None
            problems = [f"the file system: {error!r}", subprocess.run(["dmesg"], capture_output=True, text=True,
                                                                      check=False).stdout[-2000:]]
        with contextlib.suppress(OSError):
            server.data.rmdir()
        return problems


class Run:
    """States of one recording by several explorers."""

    def __init__(self, recording, states, jobs, stop_after=None):
        self.recording, self.stop_after = recording, stop_after
        self.checked, self.failures, self.lock = 0, [], threading.Lock()
        self.torn = self.unmountable = 0
        self.errors = []
        share = (len(states) + jobs - 1) // jobs
        self.parts = [states[i:i + share] for i in range(0, len(states), share)]

    def _on_state(self, state, problems, report):
        with self.lock:
            self.checked += 1
            self.torn += "torn=0" not in report
            self.unmountable += problems is None
            if problems:
                until, seed, mode = state
                path = self.recording.folder / f"failure-{until}-{seed}.json"
                path.write_text(json.dumps({"until": until, "seed": seed, "mode": mode, "report": report, "problems": problems},
                                           indent=1))
                self.failures.append((path, problems))
                if len(self.failures) <= FAILURES_SHOWN:
                    shown = [problem[:600] for problem in problems[:4]]
                    print(f"crash: BAD STATE {path}\n  " + "\n  ".join(shown), flush=True)
            return self.stop_after is not None and len(self.failures) >= self.stop_after

    def _work(self, number, part):
        try:
            Explorer(self.recording, f"part-{number}").explore(part, self._on_state)
        except Exception as error:
            self.errors.append(repr(error))

    def go(self):
        threads = [threading.Thread(target=self._work, args=each) for each in enumerate(self.parts)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.errors:
            raise RuntimeError(f"the exploration broke: {self.errors}")
        return self


def new_folder(name):
    # Not below test-data, which the next run of the tests empties: a failing state is kept until somebody has looked.
    parent = build_dir() / "crash-states"
    parent.mkdir(parents=True, exist_ok=True)
    return pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))


def explore(fs, count, seed, args):
    """Records, checks; returns the number of bad states."""
    folder = new_folder(fs)
    begun = time.monotonic()
    recording = Recording(folder).make(fs, seed, args.seconds)
    recorded = time.monotonic() - begun
    about = recording.about
    print(f"crash: {fs}, seed {seed}: {about['events']['operations']} acknowledged operations on {about['cores']} cores, "
          f"{about['entries']} writes and flushes, " + ", ".join(f"{about['events'][name]} {name[7:-6]}" for name in EVENTS) +
          f" ({recorded:.0f} s)", flush=True)
    begun = time.monotonic()
    run = Run(recording, choose_states(recording, count, random.Random(seed)), args.jobs).go()
    took = time.monotonic() - begun
    if run.unmountable > run.checked * UNMOUNTABLE_SHARE_MAX:
        raise RuntimeError(f"{run.unmountable} of {run.checked} states do not mount: the disk is wrong, or the file system")
    refused = f"{run.unmountable} that {fs} refused to mount, " if run.unmountable else ""
    print(f"crash: {fs}: {run.checked} states, {run.torn} of them with torn writes, {refused}{len(run.failures)} bad "
          f"({took:.0f} s, {took / max(1, run.checked):.2f} s each)", flush=True)
    if run.failures or args.keep:
        print(f"crash: kept in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return len(run.failures)


def replay(path):
    path = pathlib.Path(path).resolve()
    state = json.loads(path.read_text())
    recording = Recording(path.parent).load()
    outcome = []
    Explorer(recording, "replay").explore([(state["until"], state["seed"], state["mode"])],
                                          lambda *result: outcome.extend([result]))
    _, problems, report = outcome[0]
    if problems is None:
        print(f"crash: replayed {report}: the file system refuses to mount it")
        return 0
    print(f"crash: replayed {report}: {len(problems)} problems")
    print("\n".join(problems))
    return 1 if problems else 0


def look_for_bugs(names, args):
    """Builds each bug and looks for it; the table of docs/reliability.md."""
    seeded_bugs.check_refusals()
    names = names or [bug for bug, must in seeded_bugs.MUST_CATCH.items() if "crash" in must]
    caught_count, missed = 0, []
    for bug in names:
        os.environ["BASALT_BASALTD"] = str(seeded_bugs.build(bug, "basaltd", args.builder))
        folder = new_folder(bug)
        try:
            recording = Recording(folder).make(args.fs if args.fs != "both" else "ext4", args.seed, args.seconds)
            run = Run(recording, choose_states(recording, args.states, random.Random(args.seed)), args.jobs).go()
            caught, outcome = bool(run.failures), f"{len(run.failures)} of {run.checked} states bad"
            if caught:
                outcome += f"; such as: {run.failures[0][1][0][:150]}"
        except AlreadyWrong as error:
            caught, outcome = True, f"the recording itself: {str(error)[:300]}"
        print(f"crash: seeded bug {bug}: {'caught' if caught else 'NOT CAUGHT'}: {outcome}", flush=True)
        caught_count += caught
        if not caught and "crash" in seeded_bugs.MUST_CATCH[bug]:
            missed.append(bug)
        shutil.rmtree(folder, ignore_errors=True)
    print(f"crash: {caught_count} seeded bugs caught, not caught by crash states that must: {missed or 'none'}")
    return 1 if missed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, help="how many (default 200; 100 for each seeded bug)")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--fs", choices=(*rig.FILE_SYSTEMS, "both"), default="both")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--seconds", type=float, default=16, help="of workload in a recording, at least")
    parser.add_argument("--keep", action="store_true", help="keep the recording also if no state is bad")
    parser.add_argument("--replay", metavar="FILE")
    parser.add_argument("--seeded-bugs", nargs="*", metavar="NAME", choices=seeded_bugs.BUGS)
    parser.add_argument("--builder", help=argparse.SUPPRESS)  # what builds instead of cmake: COMMAND DIR TARGET
    args = parser.parse_args()
    why = rig.why_not()
    if why is not None:
        print(f"SKIPPED: crash states need FUSE and loop devices, and this machine lacks them: {why}")
        return SKIPPED
    rig.end_on_signals()
    if args.replay:
        return replay(args.replay)
    if args.seeded_bugs is not None:
        args.states = args.states or 100
        return look_for_bugs(args.seeded_bugs, args)
    systems = rig.FILE_SYSTEMS if args.fs == "both" else (args.fs,)
    states = args.states or 200
    bad = sum(explore(fs, states // len(systems), args.seed + number, args) for number, fs in enumerate(systems))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
