"""Regions of objectives: relative volumes of a structure, perhaps without others, on the optimiser's rows."""

from collections.abc import Sequence

import numpy as np

from engine.errors import CaseError
from engine.geometry.bricks import BrickLayout
from engine.geometry.resample import average_onto
from engine.model.arrays import F32
from engine.model.case import Case


def region_share(case: Case, layout: BrickLayout, name: str, excluding: Sequence[str]) -> F32:
    """Return the relative volume of every row's voxel in a structure without others; the sum is 1.

    Voxels that the body does not touch are left out.

    Parameters
    ----------
    case
        CT and structures.
    layout
        Row numbering of the optimiser's grid.
    name, excluding
        The structure, and those that are taken away from it.

    Raises
    ------
    CaseError
        If nothing is left.
    """
    coverage = case.structure(name).coverage
    for other in excluding:
        coverage = coverage * (1.0 - case.structure(other).coverage)
    coverage = coverage * (case.external.coverage > 0.0)
    rows = layout.to_rows(average_onto(coverage, case.grid, layout.grid))
    total = float(rows.sum(dtype=np.float64))
    if total <= 0.0:
        without = f" without {', '.join(excluding)}" if excluding else ""
        raise CaseError(f"structure '{name}'{without} has no voxel inside the body; leave its objective out")
    return (rows / total).astype(np.float32)
