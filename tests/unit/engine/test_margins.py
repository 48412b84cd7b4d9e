"""Margins against shapes whose growth is known in closed form, on fine, coarse and unequal grids."""

import math

import numpy as np
import pytest

from engine.errors import CaseError
from engine.model.arrays import F32
from engine.model.grid import Grid
from engine.structures.margins import Margins, _nearest_by_octant, grow, shrink
from tests.unit.engine.shapes import ball, box_coverage, grid_around, sampled, volume_mm3

OFFSET = (0.31, 0.77, 0.12)


def radius_of(coverage: F32, grid: Grid) -> float:
    return (volume_mm3(coverage, grid) * 0.75 / math.pi) ** (1.0 / 3.0)


@pytest.mark.parametrize(
    ("spacing_mm", "radius_mm", "margin_mm", "within_mm"),
    [
        ((1.0, 1.0, 1.0), 12.0, 5.0, 0.03),
        ((1.0, 1.0, 3.0), 15.0, 5.0, 0.06),
        ((2.5, 2.5, 2.5), 20.0, 7.0, 0.05),
        ((5.0, 5.0, 5.0), 25.0, 10.0, 0.12),
        ((2.0, 2.0, 2.0), 20.0, 0.7, 0.03),
        ((1.0, 1.0, 3.0), 18.0, -5.0, 0.06),
        ((2.5, 2.5, 2.5), 20.0, -6.0, 0.09),
    ],
)
def test_a_ball_grows_and_shrinks_by_its_margin(
    spacing_mm: tuple[float, float, float], radius_mm: float, margin_mm: float, within_mm: float
) -> None:
    grid = grid_around(radius_mm + max(margin_mm, 0.0) + 3.0, spacing_mm, OFFSET)
    given = sampled(grid, ball(radius_mm))
    margins = Margins.all_round(abs(margin_mm))
    made = grow(given, grid, margins) if margin_mm > 0.0 else shrink(given, grid, margins)
    assert radius_of(made, grid) == pytest.approx(radius_mm + margin_mm, abs=within_mm)
    assert made.min() >= 0.0
    assert made.max() <= 1.0
    ordered = made - given if margin_mm > 0.0 else given - made
    assert ordered.min() >= -1e-6


SIX = Margins(left=3.0, right=7.0, anterior=5.0, posterior=2.0, superior=9.0, inferior=4.0)


def steiner_mm3(edges: tuple[float, float, float], margins: Margins) -> float:
    """Return the volume of a box with margins: box, plates on its faces, quarter columns on edges, octants."""
    a, b, c = edges
    (xl, xh), (yl, yh), (zl, zh) = margins.low_high()
    x, y, z = xl + xh, yl + yh, zl + zh
    faces = a * b * z + a * c * y + b * c * x
    # Quarters of ellipses with half axes u and v have the area π u v / 4; the four of an edge direction add up.
    columns = math.pi / 4.0 * (a * y * z + b * x * z + c * x * y)
    corners = math.pi / 6.0 * x * y * z
    return a * b * c + faces + columns + corners


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (1.2, 1.2, 3.0), (2.5, 2.5, 2.5)])
def test_a_box_with_six_margins_has_the_volume_of_steiners_formula(
    spacing_mm: tuple[float, float, float],
) -> None:
    grid = grid_around(24.0, spacing_mm, OFFSET)
    given = box_coverage(grid, (-10.3, 9.1), (-8.0, 11.7), (-7.5, 8.6))
    made = grow(given, grid, SIX)
    assert volume_mm3(made, grid) == pytest.approx(steiner_mm3((19.4, 19.7, 16.1), SIX), rel=0.01)
    # Every face has moved by its own margin: profiles through the middle.
    k, j, i = (int(np.abs(c).argmin()) for c in grid.centres_mm_xyz[::-1])
    profiles = (made[k, j, :], made[k, :, i], made[:, j, i])
    expected = ((-17.3, 12.1), (-13.0, 13.7), (-11.5, 17.6))
    for profile, edges, (low, high), spacing in zip(
        profiles, grid.edges_mm_xyz, expected, spacing_mm, strict=True
    ):
        # Length below and above the middle voxel's centre, which lies inside.
        middle = edges[int(np.abs(0.5 * (edges[1:] + edges[:-1])).argmin())] + 0.5 * spacing
        n = int(np.abs(0.5 * (edges[1:] + edges[:-1])).argmin())
        assert middle - spacing * (profile[:n].sum() + 0.5) == pytest.approx(low, abs=0.05)
        assert middle + spacing * (profile[n + 1 :].sum() + 0.5) == pytest.approx(high, abs=0.05)


def test_shrinking_moves_the_face_that_a_margin_names() -> None:
    grid = grid_around(20.0, (1.0, 1.0, 2.0), OFFSET)
    given = box_coverage(grid, (-15.0, 15.0), (-14.0, 14.0), (-16.0, 16.0))
    made = shrink(given, grid, SIX)
    x, y, z = grid.centres_mm_xyz
    total = made.sum(dtype=np.float64)
    centre = [
        float((made.sum(axis=axes) * c).sum() / total) for axes, c in (((0, 1), x), ((0, 2), y), ((1, 2), z))
    ]
    # Left is +x, posterior +y, superior +z: what is left lies between these faces.
    low, high = (-8.0, -9.0, -12.0), (12.0, 12.0, 7.0)
    np.testing.assert_allclose(centre, 0.5 * (np.array(low) + np.array(high)), atol=0.05)
    assert volume_mm3(made, grid) == pytest.approx(20.0 * 21.0 * 19.0, rel=0.008)


def test_a_direction_without_margin_stays_where_it_is() -> None:
    grid = grid_around(20.0, (1.0, 1.0, 1.0), (0.5, 0.5, 0.5))
    given = box_coverage(grid, (-8.0, 8.0), (-8.0, 8.0), (-8.0, 8.0))
    made = grow(given, grid, Margins(5.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    assert volume_mm3(made, grid) == pytest.approx(21.0 * 16.0 * 16.0, rel=1e-3)
    np.testing.assert_allclose(made, box_coverage(grid, (-8.0, 13.0), (-8.0, 8.0), (-8.0, 8.0)), atol=1e-3)


def test_the_search_by_octants_finds_what_a_search_of_all_points_finds() -> None:
    draw = np.random.default_rng(5)
    points, centre = draw.uniform(-20.0, 20.0, (400, 3)), draw.uniform(-20.0, 20.0, (200, 3))
    metric = SIX.low_high()
    found = _nearest_by_octant(centre, points, metric, np.ones(3))
    v = centre[:, None, :] - points[None, :, :]
    g2 = ((v / np.where(v > 0.0, metric[:, 1], metric[:, 0])) ** 2).sum(axis=2)
    within = g2.min(axis=1) <= 1.0
    assert within.sum() > 50
    np.testing.assert_array_equal(found[within], g2.argmin(axis=1)[within])


def test_equal_and_nearly_equal_margins_agree() -> None:
    """The first are searched with a tree, the others cell by cell."""
    grid = grid_around(22.0, (1.5, 1.5, 2.5), OFFSET)
    given = sampled(grid, ball(13.0))
    one = grow(given, grid, Margins.all_round(6.0))
    other = grow(given, grid, Margins(6.0, 6.0, 6.0, 6.0, 6.0, 6.0001))
    np.testing.assert_allclose(one, other, atol=2e-3)


def test_the_grid_cuts_and_nothing_stays_nothing() -> None:
    grid = Grid((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (10, 10, 10))
    nothing = np.zeros(grid.shape_zyx, np.float32)
    assert not grow(nothing, grid, SIX).any()
    assert not shrink(nothing, grid, SIX).any()
    everything = nothing + 1
    np.testing.assert_array_equal(grow(everything, grid, SIX), everything)
    np.testing.assert_array_equal(shrink(everything, grid, SIX), everything)
    thin = nothing.copy()
    thin[5] = 1.0
    assert not shrink(thin, grid, Margins.all_round(2.0)).any()


def test_negative_margins_are_refused() -> None:
    with pytest.raises(CaseError, match="zero or more"):
        Margins.all_round(-1.0)
