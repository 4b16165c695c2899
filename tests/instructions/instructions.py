#!/usr/bin/python3
"""Counts the instructions and the heap allocations of the hottest paths and compares them with counts.json.

  tools/dev test instructions      compares: more than 3 % above what is recorded fails, and so does one allocation more
  tools/dev instructions           prints the counts
  tools/dev instructions --update  records them

Allocations are every malloc and operator new of any library (counting_allocator.cc), of the thread that makes the request.

basalt-paths (basalt_paths.cc) runs each path in one thread without sockets, clocks or flushes; callgrind counts. The cost of one
request is the difference between 2 N and N requests, divided by N: start-up and warm-up fall out. So the result is the same on a busy
machine, and whoever makes a path dearer sees it without timing anything. Instructions are only comparable between builds of one compiler for
one kind of processor; with another their comparison is skipped, saying so (exit status 77). Allocations are compared always.
"""
import argparse
import json
import pathlib
import platform
import re
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness.server import build_dir, fresh_dir  # noqa: E402

RECORD = pathlib.Path(__file__).with_name("counts.json")
TOLERANCE = 0.03
# A table that grows now and then is a fraction of an allocation a request; a new one is a whole.
ALLOCATIONS_TOLERANCE = 0.5
SKIPPED = 77


def count(scratch):
    """(what basalt-paths says of itself, instructions of one request by path)."""
    program = build_dir() / "bin" / "basalt-paths"
    data, profile = scratch / "data", scratch / "profile"
    # The caller's environment is on the stack and in some libraries' decisions: a fixed one. Without the C library's use of "rep movsb" and
    # "rep stosb", of which valgrind counts every byte as an instruction, and which not every processor has.
    environment = {"PATH": "/usr/bin:/bin", "LANG": "C", "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-ERMS,-FSRM"}
    options = {"env": environment, "stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "cwd": scratch, "check": False}
    made = subprocess.run([str(program), "prepare", str(data)], **options)
    if made.returncode != 0:
        raise RuntimeError(f"basalt-paths prepare: {made.stderr}")
    done = subprocess.run(["valgrind", "--tool=callgrind", "--dump-before=basalt_paths_mark", "--separate-threads=yes",
                           f"--callgrind-out-file={profile}", str(program), "run", str(data)], **options, timeout=300)
    if done.returncode != 0:
        raise RuntimeError(f"basalt-paths under callgrind ended with {done.returncode}\n{done.stderr[-3000:]}")
    said = json.loads(done.stdout)
    totals = {}
    for number, part in enumerate(said["parts"], 1):
        # Thread 1 is the one that makes requests; the engine's helpers are no part of them.
        text = (scratch / f"profile.{number}-01").read_text(errors="replace")
        totals[part] = int(re.search(r"^(?:totals|summary): (\d+)", text, re.M)[1])
    return said, {name: round((totals[f"{name} 2N"] - totals[f"{name} N"]) / entry["count"]) for name, entry in said["paths"].items()}


def surroundings(said):
    """What the counts depend on besides our code."""
    cache = (build_dir() / "CMakeCache.txt").read_text()
    value = {name: re.search(rf"^{name}:[A-Z]+=(.*)$", cache, re.M) for name in ("CMAKE_BUILD_TYPE", "BASALT_LTO")}
    build = f"{value['CMAKE_BUILD_TYPE'][1] if value['CMAKE_BUILD_TYPE'] else ''} LTO {value['BASALT_LTO'][1] if value['BASALT_LTO'] else 'OFF'}"
    return {"compiler": said["compiler"], "build": build, "machine": platform.machine(), "cpu_as_valgrind_shows_it": said["cpu"]}


def allocations_of(said):
    return {name: entry["allocations"] for name, entry in said["paths"].items()}


def compare_allocations(recorded, allocations):
    """Whether all is well."""
    good = True
    for name in sorted({*allocations, *recorded}):
        now, before = allocations.get(name), recorded.get(name)
        if now is None or before is None:
            print(f"FAILED  {name}: allocations {'not measured' if now is None else 'not recorded'}")
            good = False
            continue
        verdict = "FAILED" if now > before + ALLOCATIONS_TOLERANCE else "fewer" if now < before - ALLOCATIONS_TOLERANCE else "ok"
        good &= verdict != "FAILED"
        print(f"{verdict:7} {name:10} {now:>10.2f} allocations a request, recorded {before:.2f}")
    return good


def compare(recorded, here, counts, allocations):
    differs = [f"{key} is {here[key]}, recorded with {recorded['with'].get(key)}" for key in here if recorded["with"].get(key) != here[key]]
    # The kind of processor decides which instructions a library chooses, not how often it asks for memory.
    if not compare_allocations(recorded["allocations"], allocations):
        print("a path asks for memory more often than recorded: tools/dev profile OP --callgrind shows who calls operator new")
        return 1
    if differs:
        print("SKIPPED: the instruction counts were recorded elsewhere and say nothing here (allocations were compared): " + "; ".join(differs))
        print("tools/dev instructions --update records them anew")
        return SKIPPED
    failed = faster = False
    for name in sorted({*counts, *recorded["instructions"]}):
        now, before = counts.get(name), recorded["instructions"].get(name)
        if now is None or before is None:
            print(f"FAILED  {name}: {'not measured' if now is None else 'not recorded'}")
            failed = True
            continue
        change = now / before - 1
        verdict = "FAILED" if change > TOLERANCE else "faster" if change < -TOLERANCE else "ok"
        failed |= verdict == "FAILED"
        faster |= verdict == "faster"
        print(f"{verdict:7} {name:10} {now:>10} instructions a request, recorded {before} ({change:+.1%})")
    if failed:
        print(f"a path costs more than {TOLERANCE:.0%} more than recorded: find out why (tools/dev profile), or, if it is meant, record it "
              "with tools/dev instructions --update in the commit that says why")
    elif faster:
        print("faster than recorded: keep it with tools/dev instructions --update")
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="record what is counted now")
    parser.add_argument("--print", action="store_true", help="do not compare")
    args = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("SKIPPED: there is no valgrind")
        return SKIPPED
    scratch = fresh_dir("instructions")
    try:
        said, counts = count(scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    here = surroundings(said)
    if args.update:
        RECORD.write_text(json.dumps({"with": here, "instructions": counts, "allocations": allocations_of(said)}, indent=1) + "\n")
    if args.update or args.print:
        for name, instructions in counts.items():
            print(f"{name:10} {instructions:>10} instructions, {said['paths'][name]['allocations']:.2f} allocations a request")
        return 0
    if not RECORD.exists():
        print(f"FAILED: {RECORD} is missing: tools/dev instructions --update")
        return 1
    return compare(json.loads(RECORD.read_text()), here, counts, allocations_of(said))


if __name__ == "__main__":
    sys.exit(main())
