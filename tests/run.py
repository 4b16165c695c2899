#!/usr/bin/python3
"""Runs groups of tests over what is built, and counts them: run.py [options] GROUP...

Groups: tidy unit sim s3 clients repair kill crash faults linear no_io_uring fuzz, or "one" with --name. tools/dev builds and
then calls this; its last line is "N passed, N failed, N skipped" and its exit status is 0 when nothing failed.
"""
import argparse
import contextlib
import faulthandler
import os
import pathlib
import shutil
import subprocess
import sys
import time
import traceback
import unittest
import xml.etree.ElementTree

from harness import server as harness_server
from harness.server import ROOT, Server, build_dir, fresh_dir

PYTHON = "/usr/bin/python3"
CLIENT_SECONDS = 300
SKIPPED = 77  # the exit status by which a client's script says why on its last line and counts as skipped


class Tally:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.lines = []

    def add(self, outcome, name, note="", seconds=None):
        setattr(self, outcome, getattr(self, outcome) + 1)
        took = f" ({seconds:.1f} s)" if seconds is not None else ""
        if outcome != "passed":
            self.lines.append(f"{outcome.upper():8} {name}{': ' + note if note else ''}")
        print(f"{outcome:8} {name}{took}{': ' + note if note else ''}", flush=True)

    def add_many(self, passed, failed, skipped):
        self.passed += passed
        self.failed += failed
        self.skipped += skipped


@contextlib.contextmanager
def whole(tally, name):
    """A group that breaks outside its tests is a failed test, not a lost run."""
    begin = time.monotonic()
    print(f"\n== {name}", flush=True)
    try:
        yield
    except Exception as error:  # whatever broke, the other groups still run
        traceback.print_exc()
        tally.add("failed", name, str(error).splitlines()[0] if str(error) else type(error).__name__)
    print(f"-- {name}: {time.monotonic() - begin:.0f} s", flush=True)


def run_command(tally, name, command, timeout, **kwargs):
    """Passed, failed or skipped by exit status; output goes to our own."""
    begin = time.monotonic()
    sys.stdout.flush()
    try:
        status = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=timeout, check=False, **kwargs).returncode
        note = "" if status in (0, SKIPPED) else f"exit status {status}"
    except subprocess.TimeoutExpired:
        status, note = 1, f"still running after {timeout} s"
    outcome = {0: "passed", SKIPPED: "skipped"}.get(status, "failed")
    tally.add(outcome, name, note, time.monotonic() - begin)
    return outcome


def tidy(tally, args):
    run_command(tally, "tidy", [PYTHON, str(ROOT / "tests/tidy/tidy.py")], 120)


def instructions(tally, args):
    run_command(tally, "instructions", [PYTHON, str(ROOT / "tests/instructions/instructions.py")], 400)


def unit(tally, args, gtest_filter=None, binaries=None):
    results = build_dir() / "test-results" / "unit"
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    env = dict(os.environ, GTEST_OUTPUT=f"xml:{results}/")
    if gtest_filter is None:
        command = ["ctest", "--test-dir", str(build_dir()), "-L", "unit", "--output-on-failure", "--no-tests=error",
                   "-j", str(os.cpu_count())]
        status = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, check=False).returncode
    else:
        status = 0
        for binary in binaries:
            status |= subprocess.run([str(binary), f"--gtest_filter={gtest_filter}"], env=env, check=False).returncode
    passed = failed = skipped = 0
    for report in sorted(results.glob("*.xml")):
        for case in xml.etree.ElementTree.parse(report).getroot().iter("testcase"):
            if case.get("status") == "notrun":
                continue
            if case.find("failure") is not None:
                failed += 1
                tally.lines.append(f"FAILED   {report.stem}: {case.get('classname')}.{case.get('name')}")
            elif case.get("result") == "skipped":
                skipped += 1
            else:
                passed += 1
    tally.add_many(passed, failed, skipped)
    print(f"unit: {passed} passed, {failed} failed, {skipped} skipped in {len(list(results.glob('*.xml')))} binaries")
    # A binary that crashed leaves no report: its exit status is all there is.
    if status != 0 and failed == 0:
        tally.add("failed", "unit", f"a test binary ended with {status}")


class CountingResult(unittest.TextTestResult):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.successes = 0

    def addSuccess(self, test):
        super().addSuccess(test)
        self.successes += 1


def run_suite(tally, args, label, folder, pattern, seconds):
    """The unittest files of a folder. One that hangs shows where; the run then ends, because nothing after it could be believed."""
    sys.path.insert(0, str(folder))
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        suite = unittest.TestLoader().discover(str(folder), pattern=pattern, top_level_dir=str(folder))
        result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2 if args.verbose else 1,
                                         resultclass=CountingResult).run(suite)
    finally:
        faulthandler.cancel_dump_traceback_later()
    broken = result.failures + result.errors
    failed = len(broken) + len(result.unexpectedSuccesses)
    tally.add_many(result.successes + len(result.expectedFailures), failed, len(result.skipped))
    tally.lines += [f"FAILED   {label}: {test.id()}" for test, _ in broken]
    tally.lines += [f"SKIPPED  {label}: {test.id()}: {why}" for test, why in result.skipped]
    return failed


def s3(tally, args, pattern="*_test.py", label="s3", io=None, **server_options):
    folder = ROOT / "tests" / "s3"
    if not any(folder.glob(pattern)):
        raise RuntimeError(f"no test file {pattern} in tests/s3")
    server = Server(label, **server_options)
    took = server.start()
    print(f"basaltd ready after {took:.2f} s; log {server.log_path}")
    # "It passed without io_uring" has to be true of the server, not only of its surroundings.
    if io is not None and f'io="{io}"' not in server.metrics():
        raise RuntimeError(f"/metrics does not say that the server uses io=\"{io}\"\n{server.log_tail()}")
    os.environ.update({k: v for k, v in server.env(server.data).items() if k.startswith(("AWS_", "BASALT_"))})
    try:
        failed = run_suite(tally, args, label, folder, pattern, 900)
    finally:
        for name in ("BASALT_ENDPOINT", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            os.environ.pop(name, None)
    if failed and not server.running():
        print(server.log_tail())
    begin = time.monotonic()
    server.stop()
    tally.add("passed", f"{label}: basaltd stops with status 0 on SIGTERM", seconds=time.monotonic() - begin)
    if not failed:
        server.remove()


def no_io_uring(tally, args):
    s3(tally, args, label="s3 without io_uring", io="threads", launcher=[str(ROOT / "tests/tools/no_io_uring.py")])


def client_scripts():
    folder = ROOT / "tests" / "clients"
    return {path.stem: path for path in sorted([*folder.glob("*.sh"), *folder.glob("*.py"), *folder.glob("js/*.mjs")])
            if path.stem != "common"}


def install_js():
    """The exact packages of package-lock.json, below the build directory; nothing is done when they are there."""
    source, target = ROOT / "tests/clients/js", build_dir() / "js"
    target.mkdir(parents=True, exist_ok=True)
    lock, stamp = (source / "package-lock.json").read_text(), target / "installed"
    if not stamp.exists() or stamp.read_text() != lock:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(source / name, target / name)
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"], cwd=target,
                       check=True, stdin=subprocess.DEVNULL)
        stamp.write_text(lock)
    for path in source.glob("*.mjs"):
        shutil.copy(path, target / path.name)
    return target


def certificate(folder):
    """A self-signed certificate for 127.0.0.1 and localhost."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
                    "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout",
                    str(key), "-out", str(cert)], check=True, capture_output=True)
    key.chmod(0o600)
    return cert, key


def clients(tally, args, names=None):
    scripts = client_scripts()
    chosen = names or list(scripts)
    node = shutil.which("node")
    js = None
    plain = Server("clients")
    plain.start()
    secure = None
    try:
        for name in chosen:
            path, target = scripts[name], plain
            scratch = fresh_dir(name)
            if name == "tls":
                secure = Server("tls", tls=certificate(scratch))
                secure.start()
                target = secure
            if path.suffix == ".mjs":
                if node is None:
                    tally.add("failed", f"client {name}", "there is no node on PATH")
                    continue
                js = js or install_js()
                command = [node, str(js / path.name)]
            else:
                command = [PYTHON if path.suffix == ".py" else "/bin/bash", str(path)]
            print(f"-- client {name}", flush=True)
            outcome = run_command(tally, f"client {name}", command, CLIENT_SECONDS, cwd=scratch, env=target.env(scratch),
                                  stderr=subprocess.STDOUT)
            if not target.running():
                raise RuntimeError(f"basaltd died under {name}\n{target.log_tail()}")
            if outcome == "failed":
                print(target.log_tail())
            else:
                shutil.rmtree(scratch, ignore_errors=True)
    finally:
        for server in (plain, secure):
            if server is not None:
                server.stop()
    for server in (plain, secure):
        if server is not None:
            server.remove()


def repair(tally, args, pattern="*_test.py"):
    """Damage by hand, and the tools that find and mend it: each test starts servers of its own."""
    run_suite(tally, args, "repair", ROOT / "tests" / "repair", pattern, 1200)


def kill(tally, args):
    run_command(tally, f"kill: {args.cycles} cycles",
                [PYTHON, str(ROOT / "tests/kill/kill.py"), "--cycles", str(args.cycles)], 60 + 20 * args.cycles,
                env=dict(os.environ, PYTHONPATH=str(ROOT / "tests")))


def crash(tally, args):
    run_command(tally, f"crash: {args.states} states", [PYTHON, str(ROOT / "tests/crash/crash.py"), "--states", str(args.states)],
                300 + 10 * args.states, env=dict(os.environ, PYTHONPATH=str(ROOT / "tests")))


def run_faults(tally, name, script, *options, timeout=900):
    run_command(tally, name, [PYTHON, str(ROOT / "tests/faults" / f"{script}.py"), *options], timeout,
                env=dict(os.environ, PYTHONPATH=str(ROOT / "tests")))


def faults(tally, args):
    run_faults(tally, "faults: EIO", "eio", "--stride", "18")
    run_faults(tally, "faults: full disk", "enospc", "--cycles", "3", "--mib", "768")
    run_faults(tally, "faults: full disk, xfs and snapshots", "enospc", "--cycles", "2", "--mib", "1024", "--fs", "xfs", "--snapshot-s", "2")
    run_faults(tally, "faults: bit rot", "bitrot", "--flips", "160", "--blocks", "40", "--pages", "12")


def linear(tally, args):
    run_faults(tally, "linear: 64 clients", "linear", "--operations", "100000")


def sim(tally, args):
    """The storage engine on a simulated machine: seeds in two processes, then some seeds twice."""
    program = build_dir() / "bin" / "basalt-sim"
    half = (args.seeds + 1) // 2
    parts = [(args.seed, half), (args.seed + half, args.seeds - half)]
    begin = time.monotonic()
    running = [(first, count, subprocess.Popen([str(program), "--seeds", f"{first}:{count}"], stdin=subprocess.DEVNULL,
                                               stdout=subprocess.PIPE, text=True))
               for first, count in parts if count > 0]
    for first, count, process in running:
        try:
            output = process.communicate(timeout=1800)[0]
            note = "" if process.returncode == 0 else output.splitlines()[-1] if output else f"exit status {process.returncode}"
        except subprocess.TimeoutExpired:
            process.kill()
            output, note = process.communicate()[0], "still running after 1800 s"
        print(output, end="")
        tally.add("failed" if note else "passed", f"sim: seeds {first} to {first + count - 1}", note, time.monotonic() - begin)
    run_command(tally, "sim: the same seeds run the same way", [str(program), "--seeds", f"{args.seed}:{min(50, args.seeds)}", "--twice"],
                600)


def fuzz(tally, args):
    build = ROOT / "build-fuzz"
    chosen = [args.name] if args.name else sorted(path.stem for path in (ROOT / "tests/fuzz").glob("*_fuzz.cc"))
    if not chosen:
        raise RuntimeError("no fuzzer in tests/fuzz")
    for name in chosen:
        corpus, artifacts = build / "corpus" / name, build / "artifacts" / name
        corpus.mkdir(parents=True, exist_ok=True)
        artifacts.mkdir(parents=True, exist_ok=True)
        command = [str(build / "bin" / name), str(corpus)]
        seeds, words = ROOT / "tests/fuzz/corpus" / name, ROOT / "tests/fuzz" / f"{name}.dict"
        if seeds.is_dir():
            command.append(str(seeds))
        if words.exists():
            command.append(f"-dict={words}")
        command += [f"-max_total_time={args.seconds}", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1",
                    f"-artifact_prefix={artifacts}/"]
        log = build / f"{name}.log"
        symbolizer = "/usr/lib/llvm-19/bin/llvm-symbolizer"
        with open(log, "wb") as out:
            outcome = run_command(tally, name, command, args.seconds * 3 + 120, stdout=out, stderr=subprocess.STDOUT,
                                  env=dict(os.environ, ASAN_SYMBOLIZER_PATH=symbolizer))
        lines = log.read_text(errors="replace").splitlines()
        keep = lines[-60:] if outcome == "failed" else [line for line in lines if "number_of_executed_units" in line]
        print("\n".join(keep), flush=True)


def one(tally, args):
    """Whatever args.name names; several kinds may share a name, then all of them run."""
    name, found = args.name, False
    if name in ("kill", "crash", "faults", "linear", "sim", "no_io_uring", "tidy", "instructions"):
        return GROUPS[name](tally, args)
    if (ROOT / "tests/fuzz" / f"{name}.cc").exists():
        return fuzz(tally, args)
    if (ROOT / "tests/s3" / f"{name}_test.py").exists():
        found = True
        s3(tally, args, pattern=f"{name}_test.py")
    if (ROOT / "tests/repair" / f"{name}_test.py").exists():
        found = True
        repair(tally, args, pattern=f"{name}_test.py")
    if name in client_scripts():
        found = True
        clients(tally, args, [name])
    binaries = sorted((build_dir() / "bin").glob("unit_*"))
    rooms = [binary for binary in binaries if binary.name in (name, f"unit_{name}")]
    if rooms:
        return unit(tally, args, "*", rooms)
    matching = []
    for binary in binaries:
        listed = subprocess.run([str(binary), "--gtest_list_tests", f"--gtest_filter=*{name}*"], text=True,
                                capture_output=True, check=True).stdout
        if any(line.startswith("  ") for line in listed.splitlines()):
            matching.append(binary)
    if matching:
        return unit(tally, args, f"*{name}*", matching)
    if not found:
        raise RuntimeError(f"nothing is called '{name}': no unit room or gtest name, tests/s3/{name}_test.py, "
                           f"tests/clients/{name}.*, tests/fuzz/{name}.cc")
    return None


GROUPS = {"tidy": tidy, "instructions": instructions, "unit": unit, "s3": s3, "clients": clients, "repair": repair, "kill": kill, "crash": crash, "faults": faults,
          "linear": linear, "sim": sim,
          "no_io_uring": no_io_uring, "fuzz": fuzz,
          "one": one}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="+", choices=GROUPS)
    parser.add_argument("--name", help="the one test, or the one fuzzer")
    parser.add_argument("--build", help="the build directory (default build)")
    parser.add_argument("--seconds", type=int, default=10, help="for each fuzzer")
    parser.add_argument("--cycles", type=int, default=50, help="of the kill test")
    parser.add_argument("--states", type=int, default=200, help="of the crash test")
    parser.add_argument("--seeds", type=int, default=1000, help="of the simulation")
    parser.add_argument("--seed", type=int, default=1, help="the first of the simulation")
    parser.add_argument("-v", "--verbose", action="store_true")
    args = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)
    os.chdir(ROOT)
    if args.build:
        os.environ["BASALT_BUILD"] = str(pathlib.Path(args.build).resolve())
    shutil.rmtree(harness_server.build_dir() / "test-data", ignore_errors=True)
    tally = Tally()
    for group in args.groups:
        with whole(tally, group):
            GROUPS[group](tally, args)
    print()
    for line in tally.lines:
        print(line)
    print(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped", flush=True)
    return 1 if tally.failed or tally.passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
