"""Made structures go out as an RT Structure Set and come back."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.model.case import Structure
from engine.phantoms import tg119_cshape
from engine.structures.contouring import with_contours
from engine.structures.margins import Margins, grow, shrink
from storage.dicom.read_case import read_case
from storage.dicom.write_ct import write_ct
from storage.dicom.write_structures import write_structures


def test_a_margin_a_shell_and_a_hole_come_back_from_dicom(tmp_path: Path) -> None:
    case = tg119_cshape(5.0)
    target = case.structure("OuterTarget").coverage
    larger = grow(target, case.grid, Margins(3.0, 4.0, 5.0, 6.0, superior=5.0, inferior=10.0))
    body = case.external.coverage
    made = {
        "PTV": larger,
        "Ring": larger - target,
        "Skin": body - shrink(body, case.grid, Margins.all_round(5.0)),
    }
    case = replace(
        case,
        structures=(
            *case.structures,
            *(Structure(name, "OTHER", coverage) for name, coverage in made.items()),
        ),
    )
    write_structures(with_contours(case), tmp_path, write_ct(case, tmp_path))
    back = read_case(tmp_path)
    # Flat ends lie on the faces of slices: within a slice they would become a whole one, or none.
    within = {"PTV": 0.01, "Ring": 0.02, "Skin": 0.005}
    for name, coverage in made.items():
        found = back.structure(name).coverage
        assert float(found.sum(dtype=np.float64)) == pytest.approx(
            float(coverage.sum(dtype=np.float64)), rel=within[name]
        )
        assert float(np.abs(found - coverage).mean()) < 0.25 * float(coverage.mean())
