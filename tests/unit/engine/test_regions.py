"""Reference doses of regions: levels that fall with the distance from a target, doses from elsewhere."""

import numpy as np
import pytest

from engine.errors import CaseError
from engine.geometry.bricks import BrickLayout
from engine.model.case import Case, Structure
from engine.model.grid import Grid
from engine.optimise.functions import DoseFallOff
from engine.optimise.regions import fall_off_gy, imported_gy, region_share
from engine.structures.distance import distance_outside_mm
from tests.unit.engine.shapes import ball, grid_around, sampled

RADIUS_MM = 12.0
GRID = grid_around(40.0, (2.0, 2.0, 3.0), (0.31, 0.77, 0.12))
BALL = Structure("Ball", "TARGET", sampled(GRID, ball(RADIUS_MM)))
BODY = Structure("BODY", "EXTERNAL", np.ones(GRID.shape_zyx, np.float32))
CASE = Case("test", GRID, np.zeros(GRID.shape_zyx, np.float32), (BODY, BALL))
LAYOUT = BrickLayout(Grid((-36.0, -36.0, -36.0), (4.0, 4.0, 4.0), (19, 19, 19)), 8)


def radius_mm(points_mm):
    return np.linalg.norm(points_mm, axis=1)


def test_the_distance_from_a_ball_is_that_from_its_centre_less_its_radius():
    points_mm = np.random.default_rng(1).uniform(-38.0, 38.0, (500, 3))
    distance_mm = distance_outside_mm(BALL, GRID, points_mm)
    expected_mm = np.maximum(radius_mm(points_mm) - RADIUS_MM, 0.0)
    # Points 1 mm apart on planes in voxels of 2 and 3 mm.
    np.testing.assert_allclose(distance_mm, expected_mm, atol=0.6)
    far = expected_mm > 4.0
    assert np.abs(distance_mm - expected_mm)[far].max() < 0.2


def test_nothing_has_a_distance_from_an_empty_structure():
    empty = Structure("None", "TARGET", np.zeros(GRID.shape_zyx, np.float32))
    with pytest.raises(CaseError, match="'None' is empty"):
        distance_outside_mm(empty, GRID, np.zeros((1, 3)))


def test_the_level_of_a_region_falls_off_from_the_target():
    function = DoseFallOff(
        from_structure="Ball", near_gy=40.0, far_gy=10.0, fall_off_per_mm=0.1, begin_mm=3.0
    )
    share = region_share(CASE, LAYOUT, "BODY", ("Ball",))
    level_gy = fall_off_gy(CASE, LAYOUT, share, function)
    assert not level_gy[share == 0.0].any()
    row = np.flatnonzero(share)
    from_ball_mm = np.maximum(radius_mm(LAYOUT.centres_mm(row)) - RADIUS_MM, 0.0)
    # The level is steepest where it begins to fall: 3 Gy/mm.
    np.testing.assert_allclose(level_gy[row], function.level_gy(from_ball_mm), atol=0.6 * 3.0)


def test_a_dose_from_elsewhere_is_interpolated_onto_the_rows_of_its_region():
    other = Grid((-45.0, -44.0, -43.0), (3.0, 3.0, 3.0), (30, 30, 30))
    x, y, z = other.centres_mm_xyz
    linear = (50.0 + 0.5 * x + 0.2 * y[:, None] - 0.3 * z[:, None, None]).astype(np.float32)
    share = region_share(CASE, LAYOUT, "Ball", ())
    found_gy = imported_gy(linear, other, LAYOUT, share, "other")
    assert not found_gy[share == 0.0].any()
    row = np.flatnonzero(share)
    centre_mm = LAYOUT.centres_mm(row)
    np.testing.assert_allclose(found_gy[row], 50.0 + centre_mm @ [0.5, 0.2, -0.3], rtol=1e-5)


def test_a_dose_that_does_not_reach_a_region_is_refused():
    small = Grid((-8.0, -8.0, -8.0), (4.0, 4.0, 4.0), (5, 5, 5))
    share = region_share(CASE, LAYOUT, "Ball", ())
    with pytest.raises(CaseError, match=r"'other' does not reach \d+ of the \d+ voxels"):
        imported_gy(np.ones(small.shape_zyx, np.float32), small, LAYOUT, share, "other")
