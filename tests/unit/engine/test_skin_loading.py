"""Fluence along the skin: a slab under the skin, beams across and along it."""

import numpy as np
import pytest

from engine.evaluate.skin_loading import skin_loading
from engine.model.beam import Beam, BeamletGrid
from engine.model.case import Case, Structure
from engine.model.grid import Grid

GRID = Grid((-48.75, -48.75, -48.75), (2.5, 2.5, 2.5), (40, 40, 40))
"""100 mm cube about the origin."""


def box(name, kind, x_mm, y_mm, z_mm):
    """Return a box on voxel faces: its edges are multiples of 2.5 mm."""
    inside = [
        (c > low) & (c < high) for c, (low, high) in zip(GRID.centres_mm_xyz, (x_mm, y_mm, z_mm), strict=True)
    ]
    x, y, z = inside
    return Structure(name, kind, (z[:, None, None] & y[:, None] & x).astype(np.float32))


def case_with(y_mm):
    """Return a body of 80 mm with a slab as target; its skin lies at y = -40 mm, towards a beam from gantry 0."""
    body = box("BODY", "EXTERNAL", (-40, 40), (-40, 40), (-40, 40))
    target = box("Target", "TARGET", (-20, 20), y_mm, (-20, 20))
    return Case("slab", GRID, np.zeros(GRID.shape_zyx, np.float32), (body, target))


def row_of_beamlets():
    column = np.arange(-9, 10, dtype=np.int32)
    return BeamletGrid((5.0, 5.0), column, np.zeros_like(column), np.array([0, column.size]))


def beam(gantry_deg):
    return Beam(f"at {gantry_deg}", float(gantry_deg), 0.0, 0.0, (0.0, -2.5, 0.0), 1000.0)


def loading(case, gantries_deg, weights):
    return skin_loading(
        case,
        "Target",
        5.0,
        [beam(g) for g in gantries_deg],
        [row_of_beamlets() for _ in gantries_deg],
        weights,
    )


def test_a_beam_along_the_skin_has_its_heaviest_grazing_beamlet_compared_with_those_that_pass_deeper():
    # Beamlets lie at y = -37.5, -32.5, ... mm: of those along the slab, the first lies within 5 mm of the skin.
    weight = np.ones(19)
    columns = row_of_beamlets().column
    across = np.where(np.abs(columns) <= 4, 2.0, 1.0)
    for grazing in (3.0, 6.0):
        along = np.where(np.abs(columns) == 7, grazing, weight)
        found = loading(case_with((-40, -20)), [0, 90], [across, along])
        assert found.target_percent == pytest.approx(25.0, abs=1.0)
        assert found.beam == "at 90"
        assert found.n_beamlet == 1
        # Deeper: 9 beamlets across of weight 2, and 3 along of weight 1.
        assert found.largest_ratio == pytest.approx(grazing / 2.0)


def test_beams_across_the_skin_do_not_graze_it():
    found = loading(case_with((-40, -20)), [0, 180], [np.ones(19), np.ones(19)])
    assert (found.n_beamlet, found.largest_ratio, found.beam) == (0, None, "")


def test_a_target_below_the_skin_has_no_loading():
    assert loading(case_with((-30, -10)), [0, 90], [np.ones(19), np.ones(19)]) is None


def test_closed_beamlets_do_not_count_as_those_that_pass_deeper():
    columns = row_of_beamlets().column
    along = np.where(np.abs(columns) == 7, 5.0, 0.0)
    found = loading(case_with((-40, -20)), [90], [along])
    assert (found.n_beamlet, found.largest_ratio) == (1, None)
