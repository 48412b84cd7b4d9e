"""Coverage against areas and volumes that are known from formulas."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import CaseError
from engine.geometry.voxelise import voxelise
from engine.model.arrays import F64
from engine.model.case import Contour
from engine.model.grid import Grid

GRID = Grid((-28.5, -27.0, -19.0), (1.5, 2.0, 2.0), (20, 28, 39))
"""x from -29.25 to 29.25, y from -28 to 28, z from -20 to 20 mm."""
COORDINATE = st.floats(-25.0, 25.0).map(lambda value: round(value, 3))
"""Micrometres, so that the slow twin does not overflow on edges of 1e-308 mm."""
FLOAT32_RELATIVE = 1e-6
"""Coverage is kept in float32 (6e-8 per voxel); areas themselves are exact."""


def square(left: float, front: float, size: float) -> F64:
    return np.array([[left, front], [left + size, front], [left + size, front + size], [left, front + size]])


def turned(points: F64, angle_rad: float) -> F64:
    c, s = math.cos(angle_rad), math.sin(angle_rad)
    return points @ np.array([[c, s], [-s, c]])


def ring(radius: float, n: int = 400, x: float = 0.0, y: float = 0.0) -> F64:
    angle = np.arange(n) * 2.0 * np.pi / n
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)


def polygon_area(points: F64) -> float:
    x, y = points.T
    return 0.5 * abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))))


def volume(contours: list[Contour], grid: Grid = GRID) -> float:
    coverage = voxelise(contours, grid).coverage
    assert coverage.min() >= 0.0
    assert coverage.max() <= 1.0
    return float(coverage.sum(dtype=np.float64)) * grid.voxel_volume_mm3


def plane_area(*polygons: F64) -> float:
    """Area of polygons in one plane: a lone plane is as thick as a slice."""
    return volume([Contour(1.0, polygon) for polygon in polygons]) / GRID.spacing_mm_xyz[2]


def test_pixel_that_is_cut_by_a_corner_gets_the_exact_area() -> None:
    grid = Grid((0.5, 0.5, 0.5), (1.0, 1.0, 1.0), (1, 3, 3))
    triangle = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]])
    expected = [[1.0, 1.0, 0.5], [1.0, 0.5, 0.0], [0.5, 0.0, 0.0]]
    np.testing.assert_allclose(voxelise([Contour(0.5, triangle)], grid).coverage[0], expected, atol=1e-7)


def test_flat_edges_over_many_pixels_give_the_same_coverage_as_fine_sampling() -> None:
    sliver = np.array([[-25.0, -3.0], [24.0, 1.0], [20.0, 7.0], [-22.0, 2.5]])
    coverage = voxelise([Contour(1.0, sliver)], GRID).coverage[10]
    n = 40
    x = (np.arange(39 * n) + 0.5) / n * 1.5 - 29.25
    y = (np.arange(28 * n) + 0.5) / n * 2.0 - 28.0
    inside = np.ones((y.size, x.size), dtype=bool)
    for (x0, y0), (x1, y1) in zip(sliver, np.roll(sliver, -1, axis=0), strict=True):
        inside &= (x1 - x0) * (y[:, None] - y0) - (y1 - y0) * (x[None, :] - x0) > 0.0
    sampled = inside.reshape(28, n, 39, n).mean(axis=(1, 3))
    # 40 x 40 samples per pixel: a straight edge misses by about the width of a row of samples, 1/40 at the very worst.
    np.testing.assert_allclose(coverage, sampled, atol=1.0 / n)


@settings(max_examples=60)
@given(
    radii=st.lists(st.floats(2.0, 25.0), min_size=3, max_size=25),
    angle=st.floats(0.0, 6.28),
    thickness=st.floats(0.7, 4.3),
)
def test_coverage_sums_to_area_times_thickness_for_random_polygons(
    radii: list[float], angle: float, thickness: float
) -> None:
    turn = angle + np.arange(len(radii)) * 2.0 * np.pi / len(radii)
    star = np.stack([np.array(radii) * np.cos(turn), np.array(radii) * np.sin(turn)], axis=1)
    contours = [Contour((n - 1.0) * thickness, star) for n in range(3)]
    assert volume(contours) == pytest.approx(polygon_area(star) * 3.0 * thickness, rel=FLOAT32_RELATIVE)


@settings(max_examples=60)
@given(points=st.lists(st.tuples(COORDINATE, COORDINATE), min_size=3, max_size=9))
def test_self_crossing_polygons_follow_the_even_odd_rule(points: list[tuple[float, float]]) -> None:
    polygon = np.array(points)
    fine = Grid((-28.5, -27.0, 1.0), (1.5, 2.0, 2.0), (1, 28, 39))
    coverage = voxelise([Contour(1.0, polygon)], fine).coverage[0]
    n = 8
    x = ((np.arange(39 * n) + 0.5) / n * 1.5 - 29.25)[None, :]
    y = ((np.arange(28 * n) + 0.5) / n * 2.0 - 28.0)[:, None]
    inside = np.zeros((y.size, x.size), dtype=bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) / (y1 - y0) * (x1 - x0))
    sampled = inside.reshape(28, n, 39, n).mean(axis=(1, 3))
    # At worst a flat edge lies half a row of samples (1/16 pixel) off, in each of the 34 columns that it can cross.
    assert abs(float(coverage.sum(dtype=np.float64)) - sampled.sum()) <= len(points) * 34 / 16


def test_hole_and_island_inside_the_hole_follow_the_even_odd_rule() -> None:
    area = plane_area(square(-20, -20, 40), square(-10, -10, 20), square(-3, -3, 6))
    assert area == pytest.approx(1600 - 400 + 36, rel=FLOAT32_RELATIVE)


def test_direction_of_a_hole_does_not_matter() -> None:
    outer, hole = turned(square(-15, -15, 30), 0.3), turned(square(-5, -5, 10), 0.3)
    assert plane_area(outer, hole[::-1]) == pytest.approx(800, rel=FLOAT32_RELATIVE)


def test_keyhole_contour_is_a_ring() -> None:
    outer = np.concatenate([ring(20.0), [[20.0, 0.0]]])
    inner = np.concatenate([ring(8.0), [[8.0, 0.0]]])[::-1]
    keyhole = np.concatenate([outer, inner])
    expected = polygon_area(ring(20.0)) - polygon_area(ring(8.0))
    assert plane_area(keyhole) == pytest.approx(expected, rel=FLOAT32_RELATIVE)


def test_islands_in_one_plane_add_up() -> None:
    assert plane_area(square(-20, -20, 10), square(5, 3, 7)) == pytest.approx(149, rel=FLOAT32_RELATIVE)


@pytest.mark.parametrize("angle_rad", [0.0, 0.4])
def test_part_in_common_of_overlapping_polygons_is_outside(angle_rad: float) -> None:
    pair = [turned(square(-10, -10, 20), angle_rad), turned(square(0, 0, 15), angle_rad)]
    assert plane_area(*pair) == pytest.approx(400 + 225 - 2 * 100, rel=FLOAT32_RELATIVE)


def test_contour_drawn_twice_counts_once_and_is_noted() -> None:
    polygon = turned(square(-10, -10, 20), 0.2)
    again = np.roll(polygon, 2, axis=0)[::-1]
    result = voxelise([Contour(1.0, polygon), Contour(1.0, again)], GRID)
    assert result.coverage.sum(dtype=np.float64) * GRID.voxel_volume_mm3 == pytest.approx(
        800, rel=FLOAT32_RELATIVE
    )
    assert "drawn twice" in result.notes[0]


def test_nothing_is_left_behind_outside_of_a_polygon() -> None:
    coverage = voxelise([Contour(1.0, turned(ring(9.7, 77), 0.1))], GRID).coverage[10]
    x, y, _ = GRID.centres_mm_xyz
    far = np.hypot(x[None, :], y[:, None]) > 9.7 + 1.25
    deep = np.hypot(x[None, :], y[:, None]) < 9.6 - 1.25
    assert (coverage[far] == 0.0).all()
    assert (coverage[deep] == 1.0).all()


def test_sphere_of_stacked_circles_has_the_volume_of_the_midpoint_rule_and_nearly_the_formula() -> None:
    radius, step = 18.0, 1.0
    z = np.arange(-17.5, 18.0, step)
    contours = [Contour(float(p), ring(math.sqrt(radius**2 - p**2))) for p in z]
    found = volume(contours)
    stacked = sum(polygon_area(contour.points_mm_xy) for contour in contours) * step
    assert found == pytest.approx(stacked, rel=FLOAT32_RELATIVE)
    # Midpoint rule on pi (r^2 - z^2): error pi * 2r * h^2 / 12 = 9.4 mm3, relative h^2 / (8 r^2) = 3.9e-4;
    # the circles of 400 corners take off 4.1e-5.
    assert found == pytest.approx(4.0 / 3.0 * math.pi * radius**3, rel=5e-4)


def test_cylinder_has_its_volume_even_if_slices_and_planes_do_not_match() -> None:
    planes = -13.3 + 0.7 * np.arange(30)
    found = volume([Contour(float(z), ring(11.0, 720)) for z in planes])
    # 720 corners: relative area error (2 pi / 720)^2 / 6 = 1.3e-5.
    assert found == pytest.approx(math.pi * 11.0**2 * 21.0, rel=2e-5)


def test_torus_has_its_volume() -> None:
    big, small, step = 17.0, 6.0, 0.5
    contours: list[Contour] = []
    for z in np.arange(-5.75, 6.0, step):
        half = math.sqrt(small**2 - z**2)
        contours += [Contour(float(z), ring(big + half, 720)), Contour(float(z), ring(big - half, 720))]
    # Area of a plane is 4 pi R sqrt(r^2 - z^2). The midpoint rule errs by zeta(-1/2, 1/2) = 0.061 times
    # sqrt(2 r) h^1.5 at each end, where the root begins (Euler-Maclaurin); of pi r^2 / 2 that is 0.26 %.
    assert volume(contours) == pytest.approx(2.0 * math.pi**2 * big * small**2, rel=3e-3)


def test_nested_shells_add_up_to_the_whole() -> None:
    z = [float(v) for v in np.arange(-9.0, 10.0, 2.0)]
    whole = voxelise([Contour(p, ring(20.0)) for p in z], GRID).coverage
    core = voxelise([Contour(p, ring(9.0)) for p in z], GRID).coverage
    shell = voxelise([Contour(p, ring(r)) for p in z for r in (20.0, 9.0)], GRID).coverage
    # Two roundings to float32.
    np.testing.assert_allclose(core + shell, whole, atol=2e-7)


def test_planes_reach_half_way_to_their_neighbours() -> None:
    small, large = square(-6, -6, 12), square(-12, -12, 24)
    grid = Grid((0.0, 0.0, -4.0), (40.0, 40.0, 1.0), (15, 1, 1))
    coverage = voxelise([Contour(0.0, small), Contour(3.0, large), Contour(6.0, small)], grid).coverage
    profile = coverage[:, 0, 0] * 1600.0
    # Slabs: -1.5..1.5, 1.5..4.5, 4.5..7.5. Slices are centred at -4, -3, ..., so those at -2, 1 (wholly), ...
    expected = [0, 0, 0, 144, 144, 144, 576, 576, 576, 144, 144, 144, 0, 0, 0]
    np.testing.assert_allclose(profile, expected, rtol=1e-6)


def test_slice_across_two_slabs_gets_their_weighted_average() -> None:
    grid = Grid((0.0, 0.0, 1.5), (40.0, 40.0, 4.0), (1, 1, 1))
    contours = [Contour(0.0, square(-6, -6, 12)), Contour(3.0, square(-12, -12, 24))]
    # The slice -0.5..3.5 has 2 mm of the slab -1.5..1.5 and 2 mm of the slab 1.5..4.5.
    assert voxelise(contours, grid).coverage[0, 0, 0] * 1600.0 == pytest.approx(
        (2 * 144 + 2 * 576) / 4, rel=1e-6
    )


def test_lone_plane_is_as_thick_as_a_slice() -> None:
    assert volume([Contour(0.3, square(-5, -5, 10))]) == pytest.approx(100 * 2.0, rel=FLOAT32_RELATIVE)


def test_gap_between_islands_is_left_empty_and_noted() -> None:
    contours = [Contour(float(z), square(-5, -5, 10)) for z in (-15, -13, -11, 5, 7, 9)]
    result = voxelise(contours, GRID)
    assert result.coverage.sum(dtype=np.float64) * GRID.voxel_volume_mm3 == pytest.approx(
        1200, rel=FLOAT32_RELATIVE
    )
    assert result.coverage[6:11].max() == 0.0
    assert "left empty" in result.notes[0]


def test_forgotten_plane_of_one_body_is_filled_and_noted() -> None:
    contours = [Contour(float(z), square(-5, -5, 10)) for z in (-5, -3, -1, 3, 5)]
    result = voxelise(contours, GRID)
    assert result.coverage.sum(dtype=np.float64) * GRID.voxel_volume_mm3 == pytest.approx(
        1200, rel=FLOAT32_RELATIVE
    )
    assert "filled" in result.notes[0]


def test_absent_plane_between_polygons_side_by_side_is_left_empty() -> None:
    contours = [Contour(float(z), square(-15, -5, 10)) for z in (-5, -3, -1)]
    contours += [Contour(float(z), square(5, -5, 10)) for z in (3, 5)]
    result = voxelise(contours, GRID)
    assert result.coverage.sum(dtype=np.float64) * GRID.voxel_volume_mm3 == pytest.approx(
        1000, rel=FLOAT32_RELATIVE
    )
    assert "left empty" in result.notes[0]


def test_end_plane_never_reaches_beyond_half_of_a_gap() -> None:
    contours = [Contour(z, square(-15, -5, 10)) for z in (-4.0, -2.0, 0.0)]
    contours += [Contour(z, square(5, -5, 10)) for z in (3.2, 9.2, 11.2, 13.2)]
    # 0 to 3.2 is a gap between separate islands; 3.2 to 9.2 is filled, so half of it would reach from 3.2 down to 0.2,
    # into the slab of the plane at 0, if it were not held at 1.6. Islands: -5 to 1 and 1.6 to 14.2.
    assert volume(contours) == pytest.approx(100 * (6.0 + 12.6), rel=FLOAT32_RELATIVE)


def test_contours_beyond_the_grid_are_cut_and_noted() -> None:
    result = voxelise([Contour(1.0, square(-100, -100, 200))], GRID)
    assert (result.coverage[10] == 1.0).all()
    assert "cut" in result.notes[0]


def test_contours_wholly_outside_of_the_grid_cover_nothing() -> None:
    for outside in (square(100, 0, 10), square(-110, 0, 10), square(0, 100, 10), square(0, -110, 10)):
        assert voxelise([Contour(1.0, outside)], GRID).coverage.max() == 0.0


def test_structure_without_contours_is_empty() -> None:
    result = voxelise([], GRID)
    assert result.coverage.max() == 0.0
    assert result.notes == ()


def test_contours_that_are_no_polygons_are_refused() -> None:
    with pytest.raises(CaseError, match="needs"):
        voxelise([Contour(0.0, np.zeros((2, 2)))], GRID)
    with pytest.raises(CaseError, match="not finite"):
        voxelise([Contour(0.0, np.array([[0.0, 0.0], [1.0, 0.0], [1.0, np.nan]]))], GRID)


def test_target_of_a_planning_grid_takes_well_under_a_second() -> None:
    grid = Grid((-148.5, -148.5, -98.75), (3.0, 3.0, 2.5), (80, 100, 100))
    contours = [Contour(float(z), ring(r, 720)) for z in np.arange(-38.75, 40.0, 2.5) for r in (37.0, 15.0)]
    voxelise(contours, grid)
    start_s = time.process_time()
    voxelise(contours, grid)
    # 0.02 s on a 2020s core; the bound is loose so that a busy machine does not fail it.
    assert time.process_time() - start_s < 1.0
