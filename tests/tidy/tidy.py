#!/usr/bin/python3
"""The rules of this tree that a machine can check. Each finding is "file:line: what"; a warning does not fail the run.

  arrows     an include, and a target_link_libraries, only where the rooms' arrows allow it
  routes     every operation that routes.cc handles has a tests/s3/<operation>_test.py (siblings may share one)
  lmdb       storage opens LMDB in its default synchronous mode only
  settings   every setting stands in docs/configuration.md
  fuzzers    each *_fuzz.cc is a fuzzer, says what it proves, and stands in docs/testing.md
  packages   what CMake links is what tools/dev installs
  words      no host of a package registry, no path of somebody's machine, no postponed work
  form       #pragma once; root commands are executable; files over 800 lines (a warning)
"""
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]

# The rooms and what each may include besides itself. "*" is anything.
ARROWS = {
    "base": set(),
    "reactor": {"base"},
    "storage": {"base"},
    "shards": {"storage", "base"},
    "auth": {"base"},
    "protocol/http": {"base"},
    "protocol/session": {"protocol/http", "reactor", "base"},
    "protocol/s3": {"protocol/http", "protocol/session", "auth", "shards", "storage", "base"},
    "server": {"*"},
    "tools": {"base"},
    "bench": {"*"},
    "tests": {"*"},
}
LIBRARY_OF = {room: "basalt_" + room.rsplit("/", maxsplit=1)[-1] for room in ARROWS}
ROOM_OF = {library: room for room, library in LIBRARY_OF.items()}

# What CMake links or finds -> the package of tools/dev that has it. A library missing here is a finding: add both.
PACKAGE_OF = {
    "event": "libevent-dev", "event_core": "libevent-dev", "event_openssl": "libevent-dev", "event_pthreads": "libevent-dev",
    "ssl": "libssl-dev", "crypto": "libssl-dev", "OpenSSL": "libssl-dev", "sodium": "libsodium-dev", "isal": "libisal-dev",
    "lmdb": "liblmdb-dev", "uring": "liburing-dev", "flatbuffers": "libflatbuffers-dev", "fmt": "libfmt-dev",
    "pugixml": "libpugixml-dev", "mimalloc": "libmimalloc-dev", "mimalloc-static": "libmimalloc-dev",
    "prometheus-cpp": "prometheus-cpp-dev", "prometheus-cpp-core": "prometheus-cpp-dev", "tomlplusplus": "libtomlplusplus-dev",
    "CLI11": "libcli11-dev", "nlohmann_json": "nlohmann-json3-dev", "GTest": "libgtest-dev", "benchmark": "libbenchmark-dev",
    "curl": "libcurl4-openssl-dev", "CURL": "libcurl4-openssl-dev", "z": "zlib1g-dev", "ZLIB": "zlib1g-dev",
    "simdjson": "libsimdjson-dev", "deflate": "libdeflate-dev", "zstd": "libzstd-dev", "xxhash": "libxxhash-dev",
    "seccomp": "libseccomp-dev", "PkgConfig": "pkg-config", "Threads": None, "pthread": None, "dl": None, "m": None,
}
# Headers that need a package without anything to link.
HEADER_PACKAGE = {
    "toml++/": "libtomlplusplus-dev", "CLI/": "libcli11-dev", "nlohmann/": "nlohmann-json3-dev", "prometheus/": "prometheus-cpp-dev",
    "simdjson": "libsimdjson-dev", "mimalloc": "libmimalloc-dev", "benchmark/": "libbenchmark-dev", "curl/": "libcurl4-openssl-dev",
    "zlib.h": "zlib1g-dev", "libdeflate.h": "libdeflate-dev", "gmock/": "libgmock-dev", "gtest/": "libgtest-dev", "seccomp.h": "libseccomp-dev",
}
TEXT = {".cc", ".h", ".def", ".fbs", ".py", ".sh", ".mjs", ".md", ".txt", ".cmake", ".json", ".toml", ".yml", ".in", ""}
LINES_MAX = 800

# Written so that this file does not find itself.
FORBIDDEN = [
    (re.compile(r"\b(?:deb|security|snapshot|ftp)\.(?:debian|ubuntu)\.(?:org|com)|archive\.(?:ubuntu)\.com"), "a registry's host"),
    (re.compile(r"registry\.(?:npmjs|yarnpkg)\.|\b(?:test\.)?(?:pypi)\.org|pythonhosted\.|proxy\.(?:golang)\.org|\bcrates\.(?:io)\b"),
     "a registry's host"),
    (re.compile(r"(?<![\w.])/(?:wor[k]|far[m]|hom[e]|roo[t])/|/tm[p]/(?:bash|team|b-)"), "a path of somebody's machine"),
    (re.compile(r"\b(?:TOD[O]|FIXM[E]|XX[X])\b"), "postponed work"),
]

findings, warnings, checked = [], [], 0


def find(path, line, what):
    findings.append(f"{path}:{line}: {what}")


def tracked_files():
    out = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                         capture_output=True, check=True).stdout.decode()
    return sorted(name for name in set(out.split("\0")) if name and (ROOT / name).is_file())


def room_of(name):
    """The room that holds a path; generated headers belong to their schema's room."""
    return next((room for room in sorted(ARROWS, key=len, reverse=True) if name.startswith(room + "/")), None)


def allowed(room, other):
    return other == room or "*" in ARROWS[room] or other in ARROWS[room]


def strip_comments(text):
    """C++ without comments, line numbers kept; string literals stay."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.S)
    return pattern.sub(lambda m: m[0] if m[0][0] == '"' else re.sub(r"[^\n]", " ", m[0]), text)


def check_includes(name, text):
    room = room_of(name)
    for number, line in enumerate(text.split("\n"), 1):
        match = re.match(r'\s*#\s*include\s+([<"])([^>"]+)[>"]', line)
        if not match:
            continue
        quoted, target = match[1] == '"', match[2]
        other = room_of(target)
        if other is None:
            from_tests = room == "tests" and (ROOT / "tests" / target).exists()
            if quoted and room is not None and not from_tests:
                find(name, number, f'"{target}" is not written from the root')
        elif room is not None and not allowed(room, other):
            find(name, number, f"{room} may not include {other}")
        for prefix, package in HEADER_PACKAGE.items():
            if not quoted and target.startswith(prefix) and package not in packages():
                find(name, number, f"<{target}> needs {package}, which tools/dev does not install")


def check_cmake(name, text):
    text = re.sub(r"#[^\n]*", "", text)
    folder = name.rsplit("/", 1)[0] if "/" in name else ""
    for match in re.finditer(r"\b(basalt_room|target_link_libraries)\s*\(([^)]*)\)", text):
        line = text.count("\n", 0, match.start()) + 1
        words = match[2].split()
        room = room_of(folder + "/")
        for word in words[1:]:
            plain = word.split("::")[0]
            if match[1] == "basalt_room" and "basalt_" + plain in ROOM_OF:
                plain = "basalt_" + plain
            if "$" in plain or plain in ("PUBLIC", "PRIVATE", "INTERFACE", "DEPENDS", "LIBS", "FLATBUFFERS", "SUBFOLDERS", "ops"):
                continue
            if plain in ROOM_OF:
                if room is not None and not allowed(room, ROOM_OF[plain]):
                    find(name, line, f"{room} may not link {ROOM_OF[plain]}")
            elif plain.startswith("basalt_") or plain.endswith(".fbs") or plain.startswith("-"):
                continue
            elif plain in PACKAGE_OF:
                if PACKAGE_OF[plain] is not None and PACKAGE_OF[plain] not in packages():
                    find(name, line, f"{plain} needs {PACKAGE_OF[plain]}, which tools/dev does not install")
            elif match[1] == "target_link_libraries" or plain not in words[:1]:
                find(name, line, f"no package is known for {plain}: add it to tests/tidy and tools/dev")
    for match in re.finditer(r"find_package\s*\(\s*([\w+-]+)", text):
        if match[1] not in PACKAGE_OF:
            find(name, text.count("\n", 0, match.start()) + 1, f"no package is known for {match[1]}")


_packages = None


def packages():
    global _packages
    if _packages is None:
        text = (ROOT / "tools/dev").read_text()
        match = re.search(r"^build_packages=\((.*?)^\)", text, re.S | re.M)
        _packages = set(match[1].split()) if match else set()
    return _packages


def check_lmdb(name, text):
    if not name.startswith("storage/"):
        return
    before = ""
    for number, line in enumerate(strip_comments(text).split("\n"), 1):
        # The list of what is forbidden, the check against it, and the seeded bug may name the flags.
        if re.search(r"MDB_(NOSYNC|WRITEMAP|NOMETASYNC|MAPASYNC)", line) and not re.search(r"static_assert|CHECK|orbidden|seeded::kMdbNosync", before + line):
            find(name, number, "LMDB without its own synchronisation corrupts at power loss ")
        before = line


def check_words(name, text):
    for number, line in enumerate(text.split("\n"), 1):
        for pattern, what in FORBIDDEN:
            if pattern.search(line):
                find(name, number, what)


def snake(operation):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", operation).lower()


def rows_of(text):
    """The rows: braces with the operation in quotes first, and a Method:: among the other words: (line, operation, words)."""
    text = strip_comments(text)
    rows = []
    for match in re.finditer(r'\{\s*(?:\.\w+\s*=\s*)?"([A-Z]\w+)"\s*,', text):
        depth, end = 1, match.end()
        while depth > 0 and end < len(text):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        words = re.findall(r"\b[A-Za-z_][\w:]*", re.sub(r'"(?:\\.|[^"\\])*"', "", text[match.end():end]))
        if any(word.startswith("Method::") for word in words):
            rows.append((text.count("\n", 0, match.start()) + 1, match[1], words))
    return rows


def check_routes():
    path = ROOT / "protocol/s3/routes.cc"
    if not path.exists():
        find("protocol/s3/routes.cc", 1, "the table of operations is missing")
        return 0
    rows = rows_of(path.read_text())
    if not rows:
        find("protocol/s3/routes.cc", 1, "no row was recognised: adapt rows_of() in tests/tidy to the table")
    handled = 0
    for line, operation, words in rows:
        if "not_implemented" in words or "nullptr" in words:
            continue
        handled += 1
        # Small siblings of one sub-resource share a file: GetObjectTagging is tested by object_tagging_test.py.
        names = [snake(operation), snake(operation).split("_", 1)[1]]
        if not any((ROOT / f"tests/s3/{name}_test.py").exists() for name in names):
            find("protocol/s3/routes.cc", line, f"{operation} has no tests/s3/{names[0]}_test.py")
    return handled


def check_settings():
    """Every setting of server/config.cc stands in docs/configuration.md."""
    source = ROOT / "server/config.cc"
    text = source.read_text() if source.exists() else ""
    listing = (ROOT / "docs/configuration.md").read_text()
    rows = list(re.finditer(r'^\s*\{"([a-z][a-z0-9_.]*)",\s*"(--[a-z0-9-]+)?",', text, re.M))
    if not rows:
        find("server/config.cc", 1, "no setting was recognised: adapt check_settings() in tests/tidy to the table")
    for row in rows:
        line = text.count("\n", 0, row.start()) + 2
        if f"| `{row[1]}` |" not in listing or (row[2] and f"`{row[2]}`" not in listing):
            find("server/config.cc", line, f"{row[1]} is missing in docs/configuration.md")


def check_fuzzers(names):
    listing = (ROOT / "docs/testing.md").read_text()
    for name in names:
        if not name.startswith("tests/fuzz/") or not name.endswith(".cc"):
            continue
        text = (ROOT / name).read_text()
        stem = pathlib.Path(name).stem
        if not stem.endswith("_fuzz"):
            find(name, 1, "a fuzzer's file is called <what>_fuzz.cc")
        if "LLVMFuzzerTestOneInput" not in text:
            find(name, 1, "no LLVMFuzzerTestOneInput")
        if not text.startswith("//"):
            find(name, 1, "a fuzzer opens with what it proves")
        if f"`{stem}`" not in listing:
            find(name, 1, f"`{stem}` is missing in the list in docs/testing.md")


def main():
    global checked
    names = tracked_files()
    for name in names:
        suffix = pathlib.Path(name).suffix
        if suffix not in TEXT or name.endswith("package-lock.json") or name == "LICENSE" or name.startswith("tests/fuzz/corpus/"):
            continue
        try:
            text = (ROOT / name).read_text()
        except UnicodeDecodeError:
            find(name, 1, "not UTF-8 (binary test data belongs in tests/fuzz/corpus)")
            continue
        checked += 1
        check_words(name, text)
        if suffix in (".cc", ".h"):
            check_includes(name, text)
            check_lmdb(name, text)
        if suffix == ".h" and not re.search(r"^#pragma once$", text, re.M):
            find(name, 1, "no #pragma once")
        if name.endswith("CMakeLists.txt"):
            check_cmake(name, text)
        lines = text.count("\n")
        if lines > LINES_MAX and suffix in (".cc", ".h", ".py", ".mjs"):
            warnings.append(f"{name}:{lines}: warning: over {LINES_MAX} lines: look for the second noun")
    for name in ("tools/dev", ".ci/run"):
        if not os.access(ROOT / name, os.X_OK):
            find(name, 1, "is not executable")
    handled = check_routes()
    check_settings()
    check_fuzzers(names)
    for line in warnings + findings:
        print(line)
    print(f"tidy: {checked} files, {handled} handled operations, {len(findings)} findings, {len(warnings)} warnings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
