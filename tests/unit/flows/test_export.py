"""What an export writes beside plan and dose: the CT only where there is none, and only structures with contours."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.geometry.voxelise import voxelise
from engine.model.case import Case, Structure
from engine.phantoms import tg119_cshape
from engine.spec.study import Study, load_study
from flows.export import choose_ct, writable_structures
from flows.progress import Reporter
from flows.references import CaseRef
from flows.run import Run
from storage.cases import write_case, write_reference
from storage.dicom.uids import CtReference
from storage.dicom.write_ct import ct_reference
from storage.store import Store
from tests.e2e.small_study import STUDY, write_study

CASE = replace(tg119_cshape(voxel_mm=10.0, body_size_mm_xyz=(120.0, 100.0, 120.0)), name="stored")
FROM_DICOM = CtReference("1.1", "1.2", "1.3", ("1.4",) * CASE.grid.shape_zyx[0])


def choose(folder: Path, of_store: CtReference, text: str, asked: bool = False) -> tuple[CtReference, bool]:
    study: Study = load_study(write_study(folder, text))
    renamed: Case = replace(CASE, name="in the study")
    with Run(Store(folder / "store"), Reporter(quiet=True)) as run:
        digest = write_case(run.store, CASE, {})
        write_reference(run.store, digest, of_store)
        return choose_ct(run, study, CaseRef(digest, renamed, "density", "phantom", ()), asked)


IMPORTED = STUDY.replace('phantom = "water-box"', 'imported = "x"').replace('"phantom"', '"table.csv"')
WRITTEN = ct_reference(replace(CASE, name="in the study"))


@pytest.mark.parametrize(
    ("of_store", "text", "asked", "expected"),
    [
        (FROM_DICOM, IMPORTED, False, (FROM_DICOM, False)),
        (FROM_DICOM, IMPORTED, True, (WRITTEN, True)),
        (FROM_DICOM, STUDY, False, (WRITTEN, True)),  # a phantom, whose files were thrown away
        (replace(FROM_DICOM, frame_of_reference_uid=""), IMPORTED, False, (WRITTEN, True)),
        (replace(FROM_DICOM, instance_uids=()), IMPORTED, False, (WRITTEN, True)),  # interpolated
        (replace(FROM_DICOM, instance_uids=("1.4",)), IMPORTED, False, (WRITTEN, True)),  # multi-frame
        (ct_reference(CASE), IMPORTED, False, (WRITTEN, True)),  # from arrays
    ],
)
def test_ct_is_written_where_there_is_none_and_where_it_is_asked_for(
    tmp_path: Path, of_store: CtReference, text: str, asked: bool, expected: tuple[CtReference, bool]
) -> None:
    assert choose(tmp_path, of_store, text, asked) == expected


def test_structures_that_dicom_cannot_hold_are_left_out_and_named() -> None:
    nothing = Structure("Nothing", "OTHER", np.zeros_like(CASE.structures[0].coverage))
    odd = [replace(CASE.structures[0], name=name) for name in ("a\\b", "x" * 65)]
    kept, notes = writable_structures(replace(CASE, structures=(*CASE.structures, nothing, *odd)))
    assert kept.structures == CASE.structures
    assert [note.split("'")[1] for note in notes] == ["Nothing", "a\\b", "x" * 65]
    assert writable_structures(CASE) == (CASE, ())


def test_structures_of_voxels_get_contours() -> None:
    drawn = CASE.structures[0]
    voxels = Structure("Voxels", "OTHER", drawn.coverage)
    kept, notes = writable_structures(replace(CASE, structures=(voxels,)))
    assert notes == ()
    again = voxelise(kept.structures[0].contours, CASE.grid).coverage
    assert again.sum() == pytest.approx(drawn.coverage.sum(), rel=0.01)
