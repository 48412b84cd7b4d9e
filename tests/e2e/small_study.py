"""A study small enough for tests: a water box, three beams, coarse beamlets; and ways to run the command."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from storage.places.address import Address

STUDY = """\
name = "small"

[case]
phantom = "water-box"
hu_table = "phantom"

[prescription]
target = "Target"
dose_gy = 20.0
fractions = 10
normalise = "D95% = 100 %"

[beams]
machine = "generic-6mv"
gantry_deg = [0, 90, 200]
beamlet_mm = 10.0
margin_mm = 5.0

[dose]
engine = "photon_pencil_beam"
grid_mm = 8.0
report_grid_mm = 5.0
lateral_cutoff_mm = 40.0

[scenarios]
setup = "axes"
shift_mm = 4.0

[optimisation]
robust = "composite_worst_case"
max_evaluations = 60

[[objectives]]
structure = "Target"
function = "squared_deviation"
dose_gy = 20.0
weight = 100.0
criterion = "target"

[[objectives]]
structure = "BODY"
excluding = ["Target"]
function = "squared_overdose"
dose_gy = 8.0
weight = 20.0
criterion = "body"

[[objectives]]
structure = "BODY"
excluding = ["Target"]
function = "mean"
weight = 1.0
criterion = "mean"

[[goals]]
structure = "Target"
goal = "D95% >= 20 Gy"

[pareto]
criteria = ["target", "body", "mean"]
divisions = 3
"""


def write_study(folder: Path, text: str = STUDY) -> Path:
    path = folder / "small.toml"
    path.write_text(text)
    return path


def command(what: str, study: Path, store: Address, output: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "flows.cli", what, str(study), "--store", str(store), "--output", str(output), *more,
    ]  # fmt: skip


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)


def plan(folder: Path, store: Address, text: str = STUDY, *more: str) -> npt.NDArray[np.float64]:
    """Plan the study and return its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    done = run(command("plan", write_study(folder, text), store, folder / "out", *more))
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out" / "weights.npz") as weights:
        return weights["weight"]


def tiles(store: Path, kind: str = "influence") -> dict[str, int]:
    """Return the stored tile files with their inode numbers: a file that is made again is another one."""
    return {path.name: path.stat().st_ino for path in (store / kind).rglob("*.zip")}


def kill_when(arguments: list[str], condition: Callable[[], bool]) -> None:
    """Start the command, and kill -9 it as soon as a condition holds."""
    process = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        limit_s = time.monotonic() + 120.0
        while not condition():
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < limit_s, "the moment to kill never came"
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()


def processes_of(store: Path) -> list[str]:
    """Return the command lines of live processes that a run on ``store`` started (they have its Prefect home)."""
    mark = f"PREFECT_HOME={store / 'prefect'}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
    return found
