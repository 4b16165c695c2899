#!/usr/bin/python3
"""profile.py OP [--seconds N] [-o FILE.svg]: where a server's time goes under one kind of load.

OP: get, get-large, head, put, put-large, delete, list, multipart, mixed. Starts a server of its own on one core, loads it from another,
samples it with perf and writes a flame graph (width = share of the samples; hover for figures) and a table of the functions. Without a
usable perf: a callgrind summary of the same path in one thread (instructions instead of time).
"""
import argparse
import collections
import html
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "table"))
from core import MIB, Settings, binary, build_dir, fresh_dir, say  # noqa: E402
from servers import Basalt, load, put_objects  # noqa: E402

# What is prepared (size, objects), and what the load generator is asked for.
OPERATIONS = {
    "get": ((4096, 1000), {"op": "get", "size": 4096, "keys": 1000}),
    "get-large": ((MIB, 64), {"op": "get", "size": MIB, "keys": 64, "connections": 8}),
    "head": ((4096, 1000), {"op": "head", "size": 4096, "keys": 1000}),
    "put": (None, {"op": "put", "size": 4096, "keys": 20_000, "connections": 64}),
    "put-large": (None, {"op": "put", "size": 16 * MIB, "keys": 16, "connections": 4}),
    "delete": ((4096, 60_000), {"op": "delete", "size": 4096, "keys": 60_000, "connections": 64}),
    "list": ((16, 10_000), {"op": "list", "size": 16, "keys": 10_000, "connections": 4}),
    "multipart": (None, {"op": "multipart", "size": 64 * MIB, "part_size": 8 * MIB, "keys": 8, "connections": 8}),
    "mixed": ((16384, 5000), {"op": "mixed", "mix": "get:45,put:15,delete:10,head:30", "size": 16384, "keys": 5000}),
}
CALLGRIND = {"get": "get_4k", "head": "head", "put": "put_4k", "list": "list_1000"}


def sample(operation, seconds, data):
    """perf record of a server under load; false: perf cannot be used here."""
    prepared, options = OPERATIONS[operation]
    cpus = sorted(os.sched_getaffinity(0))
    settings = Settings(seconds=seconds, server_cpu=cpus[0], client_cpu=cpus[-1])
    with Basalt(settings, "profile", environment=["BASALT_STORAGE_CHECKPOINT_INTERVAL_MS=1000"]) as server:
        if prepared:
            put_objects(settings, server, *prepared)
            server.checkpoint()
        # The processor's own counter where there is one, else the timer (virtual machines).
        for event in ("cycles", "cpu-clock"):
            done = subprocess.run(["perf", "record", "-q", "-e", event, "-o", str(data), "-p", str(server.pid), "--", "sleep", "0.1"],
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                break
        else:
            say(f"perf cannot be used here: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'it failed'}")
            return False
        results = []
        worker = threading.Thread(target=lambda: results.append(load(settings, server, **options)))
        worker.start()
        time.sleep(0.3)
        subprocess.run(["perf", "record", "-q", "-e", event, "-F", "1999", "-g", "-o", str(data), "-p", str(server.pid), "--", "sleep",
                        str(max(0.5, seconds - 0.2))], stdin=subprocess.DEVNULL, check=True, capture_output=True)
        worker.join()
    if results:
        say(f"{results[0]['rate']:.0f} operations/s, {results[0]['cpu_us']:.1f} us CPU an operation while it was sampled")
    return True


def fold(data):
    """Stacks (outermost first) -> samples."""
    text = subprocess.run(["perf", "script", "-i", str(data), "-F", "comm,ip,sym,dso"], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, check=True, errors="replace").stdout
    stacks = collections.Counter()
    for block in text.split("\n\n"):
        lines = block.strip().splitlines()
        if len(lines) < 2:
            continue
        frames = []
        for line in lines[1:]:
            match = re.match(r"\s*[0-9a-f]+ (.*) \(([^()]*)\)$", line)
            if not match:
                continue
            symbol, library = match[1], pathlib.Path(match[2]).name
            symbol = re.sub(r"\+0x[0-9a-f]+$", "", symbol)
            frames.append(f"[{library}]" if symbol == "[unknown]" else symbol)
        stacks[(lines[0].strip(), *reversed(frames))] += 1
    return stacks


def short(name):
    """Without parameters and namespaces' noise."""
    name = re.sub(r"\((?:anonymous namespace)\)::", "", name)
    name = re.sub(r"\.(?:resume|destroy|cleanup|llvm\.\d+)\b", "", name)
    depth, out = 0, []
    for char in name:
        if char in "(<":
            depth += 1
        if depth == 0:
            out.append(char)
        if char in ")>" and depth:
            depth -= 1
    return "".join(out).strip().replace("basalt::", "") or name


def table(stacks, lines=30):
    alone, below = collections.Counter(), collections.Counter()
    for stack, count in stacks.items():
        names = [short(name) for name in stack]
        alone[names[-1]] += count
        for name in set(names):
            below[name] += count
    total = max(1, sum(stacks.values()))
    out = [f"{total} samples", "", f"{'self':>6}  {'total':>6}  function"]
    out += [f"{count / total:6.1%}  {below[name] / total:6.1%}  {name[:110]}" for name, count in alone.most_common(lines)]
    out += ["", f"{'total':>6}  function"]
    out += [f"{count / total:6.1%}  {name[:110]}" for name, count in below.most_common(lines) if name not in ("basalt-0",)]
    return "\n".join(out)


def flame(stacks, title):
    """An SVG: one box a function and place, as wide as its share."""
    root = {"count": 0, "inner": {}}
    for stack, count in stacks.items():
        root["count"] += count
        node = root
        for name in stack:
            node = node["inner"].setdefault(short(name), {"count": 0, "inner": {}})
            node["count"] += count
    width, height, total = 1600, 17, max(1, root["count"])
    boxes, deepest = [], 0

    def draw(name, node, left, depth):
        nonlocal deepest
        box = node["count"] / total * width
        if box < 0.6:
            return
        deepest = max(deepest, depth)
        # One colour a name, warm for ours, cool for the kernel and libraries.
        seed = sum(ord(c) * (i + 1) for i, c in enumerate(name))
        ours = "::" in name
        colour = f"hsl({(seed % 40) + (5 if ours else 190)}, {60 + seed % 20}%, {62 + seed % 14}%)"
        boxes.append((left, depth, box, name, node["count"], colour))
        for inner_name, inner in sorted(node["inner"].items()):
            draw(inner_name, inner, left, depth + 1)
            left += inner["count"] / total * width

    left = 0.0
    for name, node in sorted(root["inner"].items()):
        draw(name, node, left, 0)
        left += node["count"] / total * width
    tall = (deepest + 1) * height + 40
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{tall}" font-family="monospace" font-size="11">',
           '<rect width="100%" height="100%" fill="white"/>', f'<text x="8" y="18" font-size="14">{html.escape(title)}</text>']
    for left, depth, box, name, count, colour in boxes:
        y = tall - (depth + 1) * height - 6
        label = html.escape(name[:max(0, int(box / 6.7) - 1)])
        out.append(f'<g><title>{html.escape(name)}: {count} samples, {count / total:.1%}</title>'
                   f'<rect x="{left:.1f}" y="{y}" width="{max(box - 0.3, 0.3):.1f}" height="{height - 1}" fill="{colour}" rx="1"/>'
                   f'<text x="{left + 3:.1f}" y="{y + 12}">{label}</text></g>')
    out.append("</svg>")
    return "\n".join(out)


def instructions(profile, requests, lines=40):
    """A table from one thread's part of a callgrind profile (Callgrind Format Specification). callgrind_annotate cannot read parts
    of a program without line numbers."""
    alone, below = collections.Counter(), collections.Counter()
    function, called = "?", False
    for line in profile.read_text(errors="replace").splitlines():
        if line.startswith("fn="):
            function = line[3:]
        elif line.startswith("calls="):
            called = True
        elif re.match(r"[0-9+*-]", line):
            cost = int(line.split()[1])
            below[function] += cost
            if not called:
                alone[function] += cost
            called = False
    total = max(1, sum(alone.values()))
    out = [f"{total / requests:.0f} instructions a request", "", f"{'self':>8}  {'share':>6}  {'with what it calls':>18}  function"]
    return "\n".join(out + [f"{cost / requests:8.0f}  {cost / total:6.1%}  {below[name] / requests:18.0f}  {short(name)[:100]}"
                            for name, cost in alone.most_common(lines)])


def callgrind(operation):
    path = CALLGRIND.get(operation)
    if path is None:
        raise RuntimeError(f"without perf only {', '.join(CALLGRIND)} can be profiled")
    folder = fresh_dir("profile")
    try:
        data, out = folder / "data", folder / "callgrind"
        subprocess.run([binary("basalt-paths"), "prepare", str(data)], check=True, stdin=subprocess.DEVNULL)
        done = subprocess.run(["valgrind", "--tool=callgrind", "-q", "--compress-strings=no", "--compress-pos=no",
                               "--dump-before=basalt_paths_mark", "--separate-threads=yes",
                               f"--callgrind-out-file={out}", binary("basalt-paths"), "run", str(data), path],
                              check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        count = 2 * json.loads(done.stdout)["paths"][path]["count"]
        return instructions(pathlib.Path(f"{out}.3-01"), count)  # the third part: 2 N requests after the warm-up
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operation", choices=OPERATIONS, metavar="OP")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("-o", "--output", type=pathlib.Path, help="default: build/bench/profile-OP.svg")
    parser.add_argument("--callgrind", action="store_true", help="instructions, also where perf works")
    args = parser.parse_args()
    out = args.output or build_dir() / "bench" / f"profile-{args.operation}.svg"
    out.parent.mkdir(parents=True, exist_ok=True)
    data = out.with_suffix(".perf")
    if args.callgrind or shutil.which("perf") is None or not sample(args.operation, args.seconds, data):
        print(callgrind(args.operation))
        return 0
    stacks = fold(data)
    data.unlink()
    out.write_text(flame(stacks, f"basaltd under {args.operation}: {sum(stacks.values())} samples"))
    out.with_suffix(".json").write_text(json.dumps([[list(map(short, stack)), count] for stack, count in stacks.most_common()]) + "\n")
    print(table(stacks))
    say(f"flame graph: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
