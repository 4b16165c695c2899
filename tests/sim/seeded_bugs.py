#!/usr/bin/python3
"""Each seeded bug is built into the simulation, which must catch it within so many seeds (docs/reliability.md).

seeded_bugs.py [--seeds N] [NAME...]   without a name: all

The exit status is 1 when a bug was not caught that the simulation must catch.
"""
import argparse
import re
import subprocess
import sys

from harness import seeded_bugs

SEEDS = 1000


def first_failing(program, bug, seeds):
    """(seed, what it said), or None."""
    ran = subprocess.run([program, "--seeds", f"1:{seeds}"], stdout=subprocess.PIPE, text=True, errors="replace", check=False)
    found = re.search(r"^seed (\d+)(?: FAILED)?: (.*)$", ran.stdout, re.MULTILINE)
    if found:
        return int(found[1]), found[2]
    if ran.returncode != 0 or not ran.stdout.rstrip().endswith(f", seeded bug {bug}"):
        raise RuntimeError(f"this is no run of the simulation with {bug}: status {ran.returncode}, {ran.stdout[-300:]!r}")
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many from 1 on, at most")
    parser.add_argument("--builder", help=argparse.SUPPRESS)  # what builds instead of cmake: COMMAND DIR TARGET
    parser.add_argument("names", nargs="*", metavar="NAME")
    args = parser.parse_args()
    if unknown := set(args.names) - set(seeded_bugs.BUGS):
        parser.error(f"no such seeded bug: {', '.join(sorted(unknown))}; there are {', '.join(seeded_bugs.BUGS)}")
    seeded_bugs.check_refusals()
    caught, missed = 0, []
    for bug in args.names or seeded_bugs.BUGS:
        found = first_failing(seeded_bugs.build(bug, "basalt-sim", args.builder), bug, args.seeds)
        if found:
            caught += 1
            outcome = "caught by seed {}: {}".format(*found)
        else:
            outcome = f"NOT CAUGHT in {args.seeds:,} seeds"
            if "sim" in seeded_bugs.MUST_CATCH[bug]:
                missed.append(bug)
            else:
                outcome += ", and need not be: crash states must catch it"
        print(f"sim: seeded bug {bug}: {outcome}", flush=True)
    print(f"sim: {caught} seeded bugs caught, not caught by the simulation that must: {missed or 'none'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
