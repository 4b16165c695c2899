"""The seeded bugs (storage/seeded_bugs.h), which tests must catch them, and builds that have one (docs/reliability.md)."""
import re
import subprocess

from harness.server import ROOT

BUILD = ROOT / "build-bug"
# Each by at least one of the two. A journaling file system brings a new name to the disk with the file's own fsync: only a
# simulated disk sees that it could be lost. LMDB's commits are atomic in the simulation: only crash states see its flags.
MUST_CATCH = {
    "ack_before_flush": {"crash", "sim"},
    "no_crc": {"crash", "sim"},
    "early_recycle": {"crash", "sim"},
    "no_generation": {"crash", "sim"},
    "bulk_not_synced": {"crash", "sim"},
    "mdb_nosync": {"crash"},
    "later_batch_first": {"crash", "sim"},
    "directory_not_synced": {"sim"},
}
BUGS = tuple(MUST_CATCH)


def configure(bug, *options):
    command = ["cmake", "-S", str(ROOT), "-B", str(BUILD), "-G", "Ninja", "-DCMAKE_CXX_COMPILER=clang++-19",
               "-DCMAKE_CXX_COMPILER_LAUNCHER=ccache", "-DCMAKE_BUILD_TYPE=RelWithDebInfo", f"-DBASALT_SEEDED_BUG={bug}", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def check_refusals():
    """Every bug that there is has its row above, and none of them gets into a release build."""
    enum = re.search(r"enum class Bug [^{]*\{(.*?)\};", (ROOT / "storage" / "seeded_bugs.h").read_text(), re.DOTALL)
    there = set(re.findall(r"^  (\w+),", enum[1], re.MULTILINE)) - {"none"}
    if there != set(BUGS) or not all(MUST_CATCH.values()):
        raise RuntimeError(f"who must catch these seeded bugs? {sorted(there ^ set(BUGS))}")
    if configure("no_crc", "-DBASALT_LTO=ON").returncode == 0:
        raise RuntimeError("CMake accepts a seeded bug in a release build")


def build(bug, target, builder=None):
    """The program `target` with `bug`. `builder` is what builds instead of cmake: COMMAND, called with DIR TARGET."""
    configured = configure(bug, "-DBASALT_LTO=OFF")
    if configured.returncode != 0:
        raise RuntimeError(configured.stderr)
    command = [*builder.split(), str(BUILD), target] if builder else ["cmake", "--build", str(BUILD), "--target", target]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return BUILD / "bin" / target
