"""A batch small enough for tests: DICOM folders of a water box, two of them broken, and a coarse protocol."""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pydicom

from flows.cases import write_phantom

REPOSITORY = Path(__file__).parents[2]
PROTOCOL = """\
name = "quick"

[prescription]
target = "Target"
dose_gy = 20.0
fractions = 10
normalise = "D95% = 100 %"

[beams]
machine = "generic-6mv"
gantry_deg = [0, 90]
beamlet_mm = 10.0

[dose]
engine = "photon_pencil_beam"
grid_mm = 9.0
report_grid_mm = 10.0
lateral_cutoff_mm = 30.0

[optimisation]
max_evaluations = 20

[[objectives]]
structure = "Target"
function = "squared_deviation"
dose_gy = 20.0
weight = 100.0

[[goals]]
structure = "Target"
goal = "D95% >= 20 Gy"
"""
TABLE = "hu,relative_electron_density\n-1000,0.00108\n0,1.0\n3000,4.0\n"
MISSING, OUTSIDE = "slice-missing", "target-outside"


def write_batch(folder: Path, good: Sequence[str], settings: str = "") -> Path:
    """Write a batch of some good cases and two broken ones; return the path of its file."""
    incoming = folder / "incoming"
    first = incoming / good[0]
    write_phantom("water-box", first, voxel_mm=10.0)
    for name in (*good[1:], MISSING, OUTSIDE):
        shutil.copytree(first, incoming / name)
    _delete_a_slice(incoming / MISSING)
    _move_target(incoming / OUTSIDE)
    (folder / "quick.toml").write_text(PROTOCOL)
    (folder / "scanner.csv").write_text(TABLE)
    file = folder / "night.toml"
    file.write_text(
        f'protocols = ["quick.toml"]\nhu_table = "scanner.csv"\ndicom = ["incoming/*"]\n{settings}'
    )
    return file


def batch_command(file: Path, *more: str) -> list[str]:
    """Return the command that works through the batch; results go beside its file."""
    folder = file.parent
    places = ("--store", str(folder / "store"), "--output", str(folder / "out"))
    return [sys.executable, "-m", "flows.cli", "batch", str(file), *places, *more]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment in which the command is found from any folder."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), **(more or {})}


def _delete_a_slice(folder: Path) -> None:
    slices = sorted(
        (float(pydicom.dcmread(path, stop_before_pixels=True).ImagePositionPatient[2]), path)
        for path in folder.glob("CT*.dcm")
    )
    slices[len(slices) // 2][1].unlink()


def _move_target(folder: Path) -> None:
    """Put the contours of the target a metre to the left of the patient."""
    (path,) = (path for path in folder.glob("*.dcm") if not path.name.startswith("CT"))
    dataset = pydicom.dcmread(path)
    names = {item.ROINumber: item.ROIName for item in dataset.StructureSetROISequence}
    for region in dataset.ROIContourSequence:
        if names[region.ReferencedROINumber] == "Target":
            for contour in region.ContourSequence:
                values = [float(value) for value in contour.ContourData]
                values[0::3] = [x_mm + 1000.0 for x_mm in values[0::3]]
                contour.ContourData = values
    dataset.save_as(path)
