"""Import randomly damaged DICOM folders and files of voxels, and check damaged study files, for as long as is asked.

``python -m tests.hostile.fuzz --minutes 60 --seed 1 --out FOLDER``

Every case must be read, or refused with one clear message and status 2, in bounded time and memory, with nothing left
behind. What is not is saved in FOLDER with the fewest damages that show it. Case N of a seed is always the same.
"""

import argparse
import json
import logging
import multiprocessing
import random
import re
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

from engine.errors import printable
from tests.e2e.small_study import STUDY
from tests.hostile.good import slices, write_good
from tests.hostile.good_attached import write_attached, write_enhanced, write_second
from tests.hostile.good_volumes import write_volumes
from tests.hostile.mutate import (
    damage_array,
    damage_attribute,
    damage_begin,
    damage_bytes,
    damage_header,
    damage_text,
)

TIME_LIMIT_S = 60.0
MEMORY_LIMIT_BYTES = 1 << 30
"""How much more a case may take than a good one."""


def good_files() -> dict[str, dict[str, bytes]]:
    """Return small good sets of files: slices with all that may lie beside them, a multi-frame CT, files of voxels."""
    with tempfile.TemporaryDirectory() as made:
        folders = {name: Path(made) / name for name in ("slices", "frames", "voxels")}
        for name in ("slices", "frames"):
            write_good(folders[name])
        write_attached(folders["slices"])
        write_second(folders["slices"])
        for path in slices(folders["slices"])[4:]:
            path.unlink()
        write_enhanced(folders["frames"])
        write_volumes(folders["voxels"])
        return {
            name: {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
            for name, folder in folders.items()
        }


Plan = list[tuple[str, str, int]]
"""What is damaged: the file, the kind of damage, and its own seed."""
DAMAGES = {
    "bytes": damage_bytes,
    "header": damage_header,
    "attribute": damage_attribute,
    "array": damage_array,
    "begin": damage_begin,
}


def plan_damage(number: int, seed: int, sets: dict[str, dict[str, bytes]]) -> Plan:
    """Return what case ``number`` of a seed damages."""
    rng = random.Random(f"{seed} {number}")
    chance = rng.random()
    if chance < 0.1:
        return [("study.toml", "text", rng.randrange(1 << 30)) for _ in range(rng.choice((1, 1, 2, 3)))]
    of = "voxels" if chance < 0.25 else "frames" if chance < 0.3 else "slices"
    names = sorted(sets[of])
    favoured = {"slices": ["rt.dcm", "plan.dcm", "ion.dcm", "dose.dcm"], "frames": [], "voxels": ["case.npz"]}
    name = rng.choice([*favoured[of], *names])
    damages = []
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        kind = rng.choice(("attribute", "attribute", "header", "header", "bytes"))
        if of == "voxels":
            kind = rng.choice(("array", "bytes") if name.endswith(".npz") else ("begin", "begin", "bytes"))
        damages.append((name, kind, rng.randrange(1 << 30)))
        if rng.random() < 0.2 and of != "voxels":
            name = rng.choice(names)
    return damages


def set_of(plan: Plan) -> str:
    """Return which of the good sets a case damages."""
    if not plan:
        return "slices"
    name = plan[0][0]
    return "frames" if name == "enhanced.dcm" else "slices" if name.endswith(".dcm") else "voxels"


def damaged(sets: dict[str, dict[str, bytes]], plan: Plan) -> dict[str, bytes]:
    """Return the files of a case."""
    if plan and plan[0][1] == "text":
        text = STUDY
        for _, _, seed in plan:
            text = damage_text(text, random.Random(seed))
        return {"study.toml": text.encode("utf-8", "surrogatepass")}
    changed = dict(sets[set_of(plan)])
    for name, kind, seed in plan:
        changed[name] = DAMAGES[kind](changed[name], random.Random(seed))
    return changed


def source_of(plan: Plan) -> list[str]:
    """Return what is imported: a folder of DICOM, or of the files of voxels the one that was damaged, or needs it."""
    if set_of(plan) != "voxels":
        return ["."]
    name = plan[0][0]
    if name.startswith("case"):
        return [name]
    ending = "nhdr" if name.endswith(".raw.gz") or name.endswith(".raw") else name.split(".", 1)[1]
    return [f"ct.{ending}", "--structures", f"PTV.{ending}", "--position", "HFS"]


def work(pipe: Connection, limit_bytes: int) -> None:
    """Answer cases until the pipe closes; runs in a process of its own, whose end harms nobody."""
    from click.testing import CliRunner

    from flows.cli import main
    from storage.store import Store

    here = Path(tempfile.mkdtemp(prefix="nightbeam-fuzz-"))
    try:
        files = good_files()
        first = True
        while True:
            try:
                plan = pipe.recv()
            except EOFError:
                return
            shutil.rmtree(here, ignore_errors=True)
            case, store, temporary = here / "case", here / "store", here / "tmp"
            for folder in (case, temporary):
                folder.mkdir(parents=True)
            for name, content in damaged(files, plan).items():
                (case / name).write_bytes(content)
            tempfile.tempdir = str(temporary)
            Store(store)
            before = {str(path) for path in store.rglob("*") if path.is_file()}
            if (case / "study.toml").exists():
                arguments = ["check", str(case / "study.toml")]
            else:
                source, *more = source_of(plan)
                more = [str(case / part) if part.startswith("PTV.") else part for part in more]
                arguments = ["import", str(case / source), *more, "--store", str(store), "--quiet"]
            started, peak = time.monotonic(), _peak_bytes()
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                answer = CliRunner().invoke(main, arguments)
            fault = ""
            if answer.exception is not None and not isinstance(answer.exception, SystemExit):
                fault = "traceback"
            elif answer.exit_code not in (0, 2):
                fault = f"status {answer.exit_code}"
            elif warned:
                fault = f"warning {warned[0].category.__name__}: {warned[0].message}"
            elif printable(answer.output, newlines=True) != answer.output or len(answer.output) > 4000:
                fault = "unclear message"
            elif answer.exit_code == 0 and answer.stderr:
                fault = "noise"
            elif answer.exit_code == 2 and answer.stderr.count("nightbeam: ") != 1:
                fault = "not one message"
            elif answer.exit_code == 2 and re.search(r"\n(?!  |$)", answer.stderr.rstrip()):
                fault = "not one message and its list"
            elif "not enough memory" in answer.stderr:
                fault = "memory without a name"
            elif list(temporary.iterdir()):
                fault = "temporary files left"
            elif answer.exit_code == 2 and {str(p) for p in store.rglob("*") if p.is_file()} != before:
                fault = "left in the store"
            elif not first and _peak_bytes() - peak > MEMORY_LIMIT_BYTES:
                fault = "too much memory"
            detail = answer.output[-3000:]
            if fault == "traceback":
                detail += "".join(traceback.format_exception(answer.exception))[-6000:]
            pipe.send((answer.exit_code, fault, detail, time.monotonic() - started, _peak_bytes()))
            if first:
                used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (used + limit_bytes, used + limit_bytes))
                first = False
    finally:
        shutil.rmtree(here, ignore_errors=True)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Worker:
    """A process that answers cases, and another one when it ends."""

    def __init__(self) -> None:
        self._process: multiprocessing.process.BaseProcess | None = None

    def ask(self, plan: Plan) -> tuple[int, str, str, float, int]:
        """Return status, fault, output, seconds and peak of memory of a case."""
        if self._process is None:
            self._pipe, other = multiprocessing.Pipe()
            self._process = multiprocessing.get_context("spawn").Process(
                target=work, args=(other, 2 * MEMORY_LIMIT_BYTES), daemon=True
            )
            self._process.start()
            other.close()
            assert not self.ask([])[1], "the good folder is not good"
        self._pipe.send(plan)
        started = time.monotonic()
        try:
            if self._pipe.poll(TIME_LIMIT_S + 60.0 * (not plan)):
                return self._pipe.recv()
            why = "too slow"
        except EOFError:
            why = "the process ended"
        self.close()
        return -1, why, "", time.monotonic() - started, 0

    def close(self) -> None:
        if self._process is not None:
            self._pipe.close()
            self._process.join(5.0)
            if self._process.is_alive():
                self._process.kill()
            self._process.join()
            self._process = None


def fewest(worker: Worker, plan: Plan, fault: str) -> Plan:
    """Return as few of the damages as show the same fault."""
    for one in list(plan):
        fewer = [other for other in plan if other is not one]
        if fewer and worker.ask(fewer)[1] == fault:
            plan = fewer
    return plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--cases", type=int, default=None, help="end after so many")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"))
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    worker, files = Worker(), good_files()
    outcomes: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    slowest_s, peak_bytes = 0.0, 0
    began, told = time.monotonic(), time.monotonic()
    number = given.first
    end = None if given.cases is None else given.first + given.cases
    while time.monotonic() - began < given.minutes * 60.0 and number != end:
        plan = plan_damage(number, given.seed, files)
        status, fault, output, took_s, peak = worker.ask(plan)
        outcomes["fault" if fault else {0: "read", 2: "refused"}[status]] += 1
        slowest_s, peak_bytes = max(slowest_s, took_s), max(peak_bytes, peak)
        if fault:
            lines = output.strip().splitlines() or [""]
            kind = f"{fault}: {lines[-1][:100]}"
            kinds[kind] += 1
            if kinds[kind] <= 2:
                plan = fewest(worker, plan, fault)
                folder = given.out / f"{given.seed}-{number}"
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "fault.txt").write_text(f"{fault}\n{plan}\n{output}\n", errors="backslashreplace")
                for name, content in damaged(files, plan).items():
                    (folder / name).write_bytes(content)
                print(f"case {number}: {kind} ({folder})", flush=True)
        number += 1
        if time.monotonic() - told > 60.0:
            told = time.monotonic()
            print(f"{number} cases, {dict(outcomes)}", flush=True)
    worker.close()
    took_s = time.monotonic() - began
    summary = {
        "cases": number - given.first, "seed": given.seed, "minutes": round(took_s / 60.0, 1),
        "per_second": round((number - given.first) / took_s, 1), **outcomes, "kinds_of_fault": dict(kinds),
        "slowest_s": round(slowest_s, 1), "peak_mib": peak_bytes >> 20,
    }  # fmt: skip
    print(json.dumps(summary, indent=2))
    sys.exit(1 if kinds else 0)


if __name__ == "__main__":
    main()
