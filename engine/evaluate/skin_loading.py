"""How much fluence a plan sends along the skin.

Photons build their dose up over the first millimetres. Where a target reaches the skin and is asked for dose there, an
optimiser can only load the beamlets that graze the skin. What such a beamlet carries falls beside a patient who
breathes, swells or lies a little differently, or gives far too much to one who moved into it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.geometry.frames import bev_from_lps, source_mm
from engine.geometry.raytrace import radiological_depth_mm
from engine.model.arrays import F32, F64
from engine.model.beam import Beam, BeamletGrid
from engine.model.case import Case, PatientPosition
from engine.model.grid import Grid
from engine.structures.booleans import overlap
from engine.structures.margins import Margins, shrink
from engine.units import PERCENT

_LEAST_PERCENT = 0.5
"""Of a target: less near the skin is none."""
_LEAST_PATH_MM = 1.0
"""In a target: a beamlet with less passes it by."""


@dataclass(frozen=True, slots=True)
class SkinLoading:
    """Fluence of the beamlets whose path in a target lies near the skin, for more than half of it.

    Parameters
    ----------
    target
        Name of the target.
    depth_mm
        What lies nearer to the body outline than this is near the skin.
    target_percent
        Share of the target that is.
    n_beamlet
        Number of these beamlets in all beams.
    largest_ratio
        Their largest weight over the median weight of all other beamlets that pass the target and are open; None
        where there are none of either.
    beam
        Name of the beam with the largest weight; empty where there are none.
    """

    target: str
    depth_mm: float
    target_percent: float
    n_beamlet: int
    largest_ratio: float | None
    beam: str


def skin_loading(
    case: Case,
    target: str,
    depth_mm: float,
    beams: Sequence[Beam],
    beamlets: Sequence[BeamletGrid],
    weights: Sequence[F64],
) -> SkinLoading | None:
    """Measure the fluence along the skin; None where the target does not reach it.

    Parameters
    ----------
    case
        CT and structures.
    target
        Name of the target, as a whole.
    depth_mm
        How deep the skin is taken to be.
    beams, beamlets, weights
        One entry a beam; the weights of its beamlets, shape (n_beamlet,).
    """
    grid, whole, near = _near_skin(case, target, depth_mm)
    share = PERCENT * float(near.sum(dtype=np.float64)) / float(whole.sum(dtype=np.float64))
    if share < _LEAST_PERCENT:
        return None
    at_skin: list[tuple[float, str]] = []
    deep: list[F64] = []
    for beam, of_beam, weight in zip(beams, beamlets, weights, strict=True):
        in_target, in_skin = (
            _path_mm(coverage, grid, beam, of_beam, case.patient_position) for coverage in (whole, near)
        )
        passes = in_target >= _LEAST_PATH_MM
        grazes = passes & (in_skin > 0.5 * in_target)
        at_skin.extend((float(w), beam.name) for w in weight[grazes])
        deep.append(weight[passes & ~grazes & (weight > 0.0)])
    others = np.concatenate(deep)
    if not at_skin or not others.size:
        return SkinLoading(target, depth_mm, share, len(at_skin), None, "")
    largest, name = max(at_skin, key=lambda pair: pair[0])
    return SkinLoading(target, depth_mm, share, len(at_skin), largest / float(np.median(others)), name)


def _near_skin(case: Case, target: str, depth_mm: float) -> tuple[Grid, F32, F32]:
    """Return the part of the grid around a target, its coverage there, and what of it lies near the skin."""
    coverage = case.structure(target).coverage
    spacing_zyx = case.grid.spacing_mm_xyz[::-1]
    box = []
    for touched, spacing_mm in zip(np.nonzero(coverage > 0.0), spacing_zyx, strict=True):
        beyond = int(np.ceil(depth_mm / spacing_mm)) + 2
        box.append(slice(max(int(touched.min()) - beyond, 0), int(touched.max()) + beyond + 1))
    piece, body = (np.ascontiguousarray(c[tuple(box)]) for c in (coverage, case.external.coverage))
    origin = [
        o + part.start * s
        for o, s, part in zip(case.grid.origin_mm_xyz, case.grid.spacing_mm_xyz, box[::-1], strict=True)
    ]
    nz, ny, nx = piece.shape
    grid = Grid((origin[0], origin[1], origin[2]), case.grid.spacing_mm_xyz, (nz, ny, nx))
    core = shrink(body, grid, Margins.all_round(depth_mm))
    inside = overlap(piece, body, grid)
    near: F32 = (inside - overlap(piece, core, grid)).clip(0.0, 1.0)
    return grid, inside, near


def _path_mm(coverage: F32, grid: Grid, beam: Beam, beamlets: BeamletGrid, position: PatientPosition) -> F64:
    """Return how long the axis of every beamlet runs in a structure, shape (n_beamlet,)."""
    x_mm, y_mm = beamlets.centres_mm()
    in_bev = np.stack([x_mm, y_mm, np.zeros_like(x_mm)], axis=1)
    source, isocentre = source_mm(beam, position), np.asarray(beam.isocentre_mm)
    on_plane = isocentre + in_bev @ bev_from_lps(beam, position)
    # As far behind the isocentre as the source is before it.
    return radiological_depth_mm(coverage, grid, source, 2.0 * on_plane - source).astype(np.float64)
