"""What a file system is asked to do by a plan: files, bytes and metadata operations, by kind of object.

``python -m benchmarks.file_operations STUDY.toml``, from the repository's root. Runs the plan on a new store under
``strace`` (Debian's), which sees every call of every process of the run, and counts those inside the store. Times mean
nothing under strace; counts do not depend on it, nor on other work on the machine (but for those of leases and of
Prefect's database, which grow with time).
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measuring import machine

OPERATIONS = ("look", "open", "create", "rename", "remove", "folder", "list", "sync", "touch")
"""Look: stat, access, or an open that found nothing. Folder: mkdir. List: an open of a folder. Touch: utime."""
_TRACED = "trace=%file,fsync,fdatasync"
_LINE = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+|\?)")
_PATHS = re.compile(r'"([^"]*)"|<([^>]*)>')
_LOOKS = (
    "stat",
    "lstat",
    "newfstatat",
    "statx",
    "access",
    "faccessat",
    "faccessat2",
    "readlink",
    "readlinkat",
)
_REMOVES = ("unlink", "unlinkat", "rmdir")
_NAMES = {
    "rename": "rename", "renameat": "rename", "renameat2": "rename", "mkdir": "folder", "mkdirat": "folder",
    "utimensat": "touch", "fsync": "sync", "fdatasync": "sync",
    **dict.fromkeys(_LOOKS, "look"), **dict.fromkeys(_REMOVES, "remove"),
}  # fmt: skip


def calls_of(trace: Path) -> Iterator[tuple[str, str, bool]]:
    """Yield name, arguments and success of every call, those that strace cut in two put together."""
    begun: dict[str, str] = {}
    with trace.open(errors="replace") as lines:
        for line in lines:
            pid, _, rest = line.partition(" ")
            if "<unfinished ...>" in line:
                begun[pid] = rest.strip().removesuffix("<unfinished ...>")
                continue
            resumed = re.match(r"<\.\.\. \w+ resumed>(.*)", rest.strip())
            if resumed:
                line = f"{pid} {begun.pop(pid, '')}{resumed[1]}"
            found = _LINE.match(line)
            if found:
                yield found[2], found[3], not found[4].startswith(("-", "?"))


def operation(name: str, arguments: str, succeeded: bool) -> str | None:
    """Return which of `OPERATIONS` a call is, or None."""
    if name in ("open", "openat", "creat"):
        if not succeeded:
            return "look"
        if "O_DIRECTORY" in arguments:
            return "list"
        return "create" if "O_CREAT" in arguments else "open"
    return _NAMES.get(name)


def kind_of(path: str, store: str, aside: dict[str, str]) -> str | None:
    """Return the kind of object that a path in the store belongs to; of one written aside, what it is to become."""
    if not path.startswith(store):
        return None
    inside = path.removeprefix(store).strip("/")
    if inside.startswith("aside/"):
        return aside.get(inside.removeprefix("aside/"), "aside")
    return inside.split("/")[0] if "/" in inside else "(top)"


def count(trace: Path, store: str) -> dict[str, Counter[str]]:
    """Return operations by kind of object."""
    aside: dict[str, str] = {}
    for name, arguments, _ in calls_of(trace):
        if name.startswith("rename"):
            first, *more = [a or b for a, b in _PATHS.findall(arguments) if store in (a or b)] or [""]
            for last in more if "/aside/" in first else ():
                aside[Path(first).name] = last.removeprefix(store).strip("/").split("/")[0]
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    for name, arguments, succeeded in calls_of(trace):
        done = operation(name, arguments, succeeded)
        paths = [a or b for a, b in _PATHS.findall(arguments) if (a or b).startswith(store)]
        if done is not None and paths:
            kind = kind_of(paths[-1], store, aside)
            counted[str(kind)][done] += 1
    return counted


def left(store: Path) -> dict[str, dict[str, int]]:
    """Return for every kind of object what stays in the store: files, folders, bytes, entries of the largest folder."""
    found = {}
    for folder in sorted(path for path in store.iterdir() if path.is_dir()):
        paths = list(folder.rglob("*"))
        files = [path for path in paths if path.is_file()]
        entries = Counter(path.parent for path in paths)
        found[folder.name] = {
            "files": len(files),
            "folders": len(paths) - len(files) + 1,
            "bytes": sum(path.stat().st_size for path in files),
            "largest_folder": max(entries.values(), default=0),
        }
    return found


def table(result: dict[str, Any]) -> list[str]:
    """Return the counts as a markdown table."""
    lines = [
        "| kind | files | folders | kB a file | largest folder | " + " | ".join(OPERATIONS) + " |",
        "|---|---|---|---|---|" + "---|" * len(OPERATIONS),
    ]
    for kind in sorted({*result["left"], *result["operations"]}):
        kept = result["left"].get(kind, {"files": 0, "folders": 0, "bytes": 0, "largest_folder": 0})
        done = result["operations"].get(kind, {})
        each = kept["bytes"] / kept["files"] / 1e3 if kept["files"] else 0.0
        lines.append(
            f"| {kind} | {kept['files']} | {kept['folders']} | {each:.1f} | {kept['largest_folder']} | "
            + " | ".join(str(done.get(name, 0)) for name in OPERATIONS)
            + " |"
        )
    return lines


def main() -> None:
    """Read the command line, run the plan, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("study", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--keep-trace", type=Path, help="file for what strace says")
    given = parser.parse_args()
    if shutil.which("strace") is None:
        sys.exit("strace is not installed (Debian: apt-get install strace)")
    with tempfile.TemporaryDirectory(prefix="nightbeam-files-") as temporary:
        folder = Path(temporary)
        trace, store = folder / "trace", folder / "store"
        command = [
            "strace",
            "-f",
            "-qq",
            "--seccomp-bpf",
            "-y",
            "-s",
            "4096",
            "-e",
            _TRACED,
            "-e",
            "signal=none",
        ]
        command += ["-o", str(trace), sys.executable, "-m", "flows.cli", "plan", str(given.study), "--quiet"]
        command += ["--workers", str(given.workers), "--store", str(store), "--output", str(folder / "out")]
        subprocess.run(command, check=True, cwd=Path(__file__).parents[1])
        result: dict[str, Any] = {
            "machine": machine(),
            "operations": {kind: dict(done) for kind, done in count(trace, str(store)).items()},
            "left": left(store),
        }
        if given.keep_trace:
            shutil.copy(trace, given.keep_trace)
    print("\n".join(table(result)))
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
