#!/usr/bin/python3
"""The table of docs/performance.md: every row against its yardstick in the same run.

  tools/dev bench                      all rows, 5 rounds; writes docs/performance.md and build/bench/table.json
  tools/dev bench --quick              smaller sizes, 3 rounds of 0.5 s
  tools/dev bench --rows get-4k,head   only these (the document is left alone)
  tools/dev bench --full               10^7 keys, 5 GiB
  tools/dev bench run OPTIONS          the load generator alone, against a server of its own
"""
import argparse
import contextlib
import json
import os
import pathlib
import resource
import subprocess
import sys
import time
import traceback

from core import ROOT, Row, Settings, binary, build_dir, fresh_dir, remove_folders, run_json, say, set_nice
from servers import Basalt, Nginx, certificate, settle
import maintenance
import others
import reading
import report
import writing

# In this order: reads first, on a server that has little; then what fills disks and caches.
ALL = {**reading.ROWS, **writing.ROWS, **others.ROWS, **maintenance.ROWS}


class Context:
    """What rows share. Servers are made when the first row asks for them."""

    def __init__(self, settings, closing):
        self.settings, self.closing = settings, closing
        self.scratch = fresh_dir("bench")
        self.certificate = certificate(self.scratch)
        self.big, self.big_keys = None, 0
        self._basalt = self._nginx = self._allocations = None

    @property
    def basalt(self):
        if self._basalt is None:
            self._basalt = Basalt(self.settings, "table")
            self.closing.callback(self._basalt.close)
        return self._basalt

    @property
    def nginx(self):
        if self._nginx is None:
            self._nginx = Nginx(self.settings, self.certificate)
            self.closing.callback(self._nginx.close)
        return self._nginx

    def allocations(self):
        """Heap allocations of one request on the hot paths, counted (tests/instructions)."""
        if self._allocations is None:
            data = self.scratch / "paths"
            subprocess.run([binary("basalt-paths"), "prepare", str(data)], check=True, stdin=subprocess.DEVNULL)
            self._allocations = run_json([binary("basalt-paths"), "run", str(data)])["paths"]
        return self._allocations


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", help=f"only these, by comma: {', '.join(ALL)}")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of one measurement")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--nice", type=int, default=0, help="of all that is measured; below 0 (root) against a busy machine")
    parser.add_argument("--document", type=pathlib.Path, help="default: docs/performance.md when all rows ran")
    parser.add_argument("--json", type=pathlib.Path, help="default: build/bench/table.json")
    args = parser.parse_args()
    names = args.rows.split(",") if args.rows else list(ALL)
    unknown = [name for name in names if name not in ALL]
    if unknown:
        parser.error(f"no row is called {', '.join(unknown)}; there are: {', '.join(ALL)}")
    return args, names


def main():
    args, names = parse()
    cpus = sorted(os.sched_getaffinity(0))
    settings = Settings(rounds=args.rounds or (3 if args.quick else 5), seconds=args.seconds or (0.5 if args.quick else 1.0),
                        quick=args.quick, full=args.full, server_cpu=cpus[0], client_cpu=cpus[-1], nice=args.nice)
    set_nice(args.nice)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    begin, load_before = time.time(), os.getloadavg()
    rows = []
    with contextlib.ExitStack() as closing:
        closing.callback(remove_folders)
        context = Context(settings, closing)
        for number, name in enumerate(names, 1):
            since = time.monotonic()
            try:
                row = ALL[name](context)
            except Exception as error:  # a row that cannot be measured must not take the others with it
                traceback.print_exc()
                row = Row(name, name, "", [], failed=str(error).splitlines()[0] if str(error) else type(error).__name__)
            rows.append(row)
            say(f"[{number}/{len(names)}] {report.line_of(row)}  ({time.monotonic() - since:.0f} s)")
            settle()
        with contextlib.suppress(Exception):
            context.allocations()
        result = report.collect(rows, settings, context._allocations or {}, begin, time.time(), load_before)
    out = args.json or build_dir() / "bench" / "table.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(report.text(result))
    document = args.document or (ROOT / "docs/performance.md" if not args.rows else None)
    if document:
        report.write_document(document, result)
        say(f"written: {document} and {out}")
    # A missed target is a finding, not a failure of the measurement; a row without figures is one.
    return 1 if any(row.failed for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
