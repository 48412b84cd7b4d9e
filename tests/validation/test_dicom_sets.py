"""The table of real sets in docs/dicom_in.md says, word for word, what `nightbeam import` answers."""

from pathlib import Path

import numpy as np
import pytest

from engine.errors import DicomError
from storage.dicom.read_case import read_case
from tests.archives import unpack

PAGE = Path(__file__).parents[2] / "docs" / "dicom_in.md"
HEADER = ("| set | answer |", "|---|---|")

pytestmark = pytest.mark.validate


def row(folder: Path, scratch: Path) -> str:
    """Return the table's row on one set; archives are unpacked first."""
    where = folder
    for archive in folder.glob("*.tar.*"):
        where = scratch / folder.name
        unpack(archive, where)
    try:
        case = read_case(where)
    except DicomError as error:
        return f"| {folder.name} | **refused:** {error} |"
    nz, ny, nx = case.grid.shape_zyx
    voxel_cc = case.grid.voxel_volume_mm3 / 1000.0
    structures = ", ".join(
        f"{s.name} ({s.kind}, {s.coverage.sum(dtype=np.float64) * voxel_cc:.2f} cc)" for s in case.structures
    )
    dx, dy, dz = case.grid.spacing_mm_xyz
    notes = "".join(f"<br>**note:** {note}" for note in case.notes)
    return (
        f"| {folder.name} | **read:** {nx} × {ny} × {nz} voxels of {dx:.4g} × {dy:.4g} × {dz:.4g} mm, "
        f"{case.patient_position}; {structures}{notes} |"
    )


def test_the_table_of_real_sets_is_true(reference_data: Path, tmp_path: Path) -> None:
    folders = sorted(path for path in (reference_data / "dicom").iterdir() if path.is_dir())
    assert folders
    table = "\n".join([*HEADER, *(row(folder, tmp_path) for folder in folders)])
    assert table in PAGE.read_text(), f"the page should say\n{table}"
