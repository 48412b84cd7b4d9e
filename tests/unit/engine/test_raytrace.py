import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.geometry.raytrace import radiological_depth_mm
from engine.model.arrays import F32, F64
from engine.model.grid import Grid

GRID = Grid((-9.0, -6.0, -3.5), (2.0, 1.5, 1.0), (8, 9, 10))
"""Faces at ±10 (x), -6.75 to 6.75 (y), ±4 (z); voxels 2 × 1.5 × 1 mm."""


def _random_density() -> F32:
    return np.random.default_rng(3).random(GRID.shape_zyx).astype(np.float32)


def _sampled_depth_mm(density: F32, grid: Grid, source_mm: F64, point_mm: F64, n: int = 20_000) -> float:
    """Return the line integral by the midpoint rule: the slow twin."""
    length_mm = float(np.linalg.norm(point_mm - source_mm))
    along = (np.arange(n) + 0.5) / n
    positions_mm = source_mm + along[:, None] * (point_mm - source_mm)
    low_mm = np.array([edges[0] for edges in grid.edges_mm_xyz])
    index = np.floor((positions_mm - low_mm) / np.array(grid.spacing_mm_xyz)).astype(int)
    inside = ((index >= 0) & (index < np.array(grid.shape_zyx[::-1]))).all(axis=1)
    x, y, z = index[inside].T
    return float(density[z, y, x].sum(dtype=np.float64)) * length_mm / n


def _depth(density: F32, source: tuple[float, ...], point: tuple[float, ...], grid: Grid = GRID) -> float:
    return float(radiological_depth_mm(density, grid, np.array(source), np.array([point]))[0])


def _points(offset_mm: float) -> st.SearchStrategy[tuple[float, float, float]]:
    """Points on a lattice that is off all voxel faces: a ray that runs inside a face may count either neighbour."""
    coordinate = st.integers(-120, 120).map(lambda eighths: eighths / 8 + offset_mm)
    return st.tuples(coordinate, coordinate, coordinate)


source_point, target_point = _points(0.0173), _points(0.0431)


@settings(max_examples=60)
@given(source_point, target_point)
def test_depth_is_the_line_integral_that_sampling_finds(
    source: tuple[float, float, float], target: tuple[float, float, float]
) -> None:
    density = _random_density()
    sampled = _sampled_depth_mm(density, GRID, np.array(source), np.array(target))
    # Midpoints miss each of at most 27 crossed faces by half a step of at most 53 mm / 20 000.
    assert _depth(density, source, target) == pytest.approx(sampled, abs=27 * 0.5 * 53 / 20_000)


@pytest.mark.parametrize("degree", [0.0, 20.0, 45.0, 70.0])
def test_oblique_slab_is_longer_by_the_secant(degree: float) -> None:
    grid = Grid((-195.0, -195.0, 0.5), (10.0, 10.0, 1.0), (20, 40, 40))
    density = np.zeros(grid.shape_zyx, np.float32)
    density[5:15] = 0.7  # 10 mm thick.
    shift = 40.0 * np.tan(np.deg2rad(degree))
    depth = _depth(density, (-shift / 2, 0.3, -10.0), (shift / 2, 0.3, 30.0), grid)
    assert depth == pytest.approx(7.0 / np.cos(np.deg2rad(degree)), rel=1e-6)


def test_chords_of_a_sphere_are_as_long_as_geometry_says() -> None:
    n, spacing, radius = 120, 0.5, 25.0
    origin = -0.5 * (n - 1) * spacing
    grid = Grid((origin,) * 3, (spacing,) * 3, (n, n, n))
    x, y, z = grid.centres_mm_xyz
    inside = (x**2)[None, None] + (y**2)[None, :, None] + (z**2)[:, None, None] < radius**2
    random = np.random.default_rng(5)
    source = random.normal(size=(30, 3))
    source *= 400.0 / np.linalg.norm(source, axis=1)[:, None]
    for start in source:
        aim = random.uniform(-12.0, 12.0, 3)
        end = start + 2.0 * (aim - start)
        direction = (end - start) / np.linalg.norm(end - start)
        miss2 = float(np.sum((start - (start @ direction) * direction) ** 2))
        chord = 2.0 * np.sqrt(radius**2 - miss2)
        # Each of two surfaces is rough by up to one voxel diagonal (0.87 mm).
        assert _depth(inside.astype(np.float32), tuple(start), tuple(end), grid) == pytest.approx(
            chord, abs=1.0
        )


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_ray_along_an_axis_sums_a_line_of_voxels(axis: int, sign: float) -> None:
    density = _random_density()
    start, end = [1.0, 0.75, 0.5], [1.0, 0.75, 0.5]  # Index 5, 5, 4; the centre of the line.
    start[axis], end[axis] = -20.0 * sign, 20.0 * sign
    line = (density[4, 5, :], density[4, :, 5], density[:, 5, 5])[axis]
    if axis == 0:
        start[1:], end[1:] = [1.5, 0.5], [1.5, 0.5]
    elif axis == 1:
        start[0], end[0], start[2], end[2] = 1.0, 1.0, 0.5, 0.5
    else:
        start[1], end[1] = 1.5, 1.5
    expected = float(line.sum(dtype=np.float64)) * GRID.spacing_mm_xyz[axis]
    assert _depth(density, tuple(start), tuple(end)) == pytest.approx(expected, rel=1e-6)


def test_ray_that_starts_and_ends_in_one_voxel_counts_its_own_length() -> None:
    density = _random_density()
    start, end = (0.2, 1.0, 0.1), (1.8, 1.9, 0.8)  # Voxel x 5, y 5, z 4.
    length = float(np.linalg.norm(np.subtract(end, start)))
    assert _depth(density, start, end) == pytest.approx(length * float(density[4, 5, 5]), rel=1e-5)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ((-50.0, 8.0, 0.0), (50.0, 8.0, 0.0)),  # Past a side, parallel to it.
        ((-50.0, 0.0, 0.0), (-11.0, 0.0, 0.0)),  # Ends before it.
        ((11.0, 0.0, 0.0), (50.0, 0.0, 0.0)),  # Starts behind it.
        ((-30.0, 0.0, 0.0), (0.0, 30.0, 0.0)),  # Past an edge.
        ((3.0, 3.0, 30.0), (3.0, 3.0, 30.0)),  # No length, outside.
        ((3.0, 3.0, 0.3), (3.0, 3.0, 0.3)),  # No length, inside.
    ],
)
def test_ray_that_misses_has_no_depth(start: tuple[float, ...], end: tuple[float, ...]) -> None:
    assert _depth(_random_density(), start, end) == 0.0


def test_rays_through_corners_and_edges_count_every_millimetre_once() -> None:
    grid = Grid((0.5, 0.5, 0.5), (1.0, 1.0, 1.0), (6, 6, 6))
    water = np.ones(grid.shape_zyx, np.float32)
    # The space diagonal meets every face in a corner, the plane diagonal in an edge.
    assert _depth(water, (-3.0, -3.0, -3.0), (9.0, 9.0, 9.0), grid) == pytest.approx(
        6.0 * np.sqrt(3.0), rel=1e-6
    )
    assert _depth(water, (9.0, -3.0, 2.5), (-3.0, 9.0, 2.5), grid) == pytest.approx(
        6.0 * np.sqrt(2.0), rel=1e-6
    )
    # Along a face between voxels and along the outer faces: one of the neighbours, never both.
    assert _depth(water, (-3.0, 2.0, 2.0), (9.0, 2.0, 2.0), grid) == pytest.approx(6.0, rel=1e-6)
    assert _depth(water, (-3.0, 0.0, 0.0), (9.0, 0.0, 0.0), grid) == pytest.approx(6.0, rel=1e-6)
    assert _depth(water, (-3.0, 6.0, 6.0), (9.0, 6.0, 6.0), grid) == pytest.approx(6.0, rel=1e-6)


def test_diagonal_through_corners_sees_the_diagonal_voxels() -> None:
    grid = Grid((0.5, 0.5, 0.5), (1.0, 1.0, 1.0), (5, 5, 5))
    density = np.zeros(grid.shape_zyx, np.float32)
    for i in range(5):
        density[i, i, i] = i + 1.0
    depth = _depth(density, (-1.0, -1.0, -1.0), (6.0, 6.0, 6.0), grid)
    # Rounding may choose a neighbour, but only over a length of rounding.
    assert depth == pytest.approx(15.0 * np.sqrt(3.0), rel=1e-6)


@settings(max_examples=40)
@given(source_point, target_point, st.sampled_from([0, 1, 2]))
def test_mirrored_phantom_has_the_depth_of_the_mirrored_ray(
    source: tuple[float, float, float], target: tuple[float, float, float], axis: int
) -> None:
    density = _random_density()
    mirror = np.ones(3)
    mirror[axis] = -1.0  # The grid is centred on 0.
    flipped = np.ascontiguousarray(np.flip(density, axis=2 - axis))
    there = _depth(flipped, tuple(np.array(source) * mirror), tuple(np.array(target) * mirror))
    assert there == pytest.approx(_depth(density, source, target), abs=1e-4)


@settings(max_examples=40)
@given(source_point, target_point)
def test_reversed_ray_has_the_same_depth(
    source: tuple[float, float, float], target: tuple[float, float, float]
) -> None:
    density = _random_density()
    assert _depth(density, source, target) == pytest.approx(_depth(density, target, source), abs=1e-4)


def test_a_ray_has_the_same_depth_in_any_company() -> None:
    # Rays that hit, miss and run along the image's axes, traced together and one by one.
    density, rng = _random_density(), np.random.default_rng(5)
    source = np.array([-40.0, 3.0, 1.0])
    points = rng.uniform(-60.0, 60.0, (200, 3))
    points[::9] = source + np.array([80.0, 0.0, 0.0])
    together = radiological_depth_mm(density, GRID, source, points)
    alone = [radiological_depth_mm(density, GRID, source, point[None])[0] for point in points]
    np.testing.assert_array_equal(together, alone)
    assert (together == 0.0).sum() > 20
    assert (together > 0.0).sum() > 20
    assert together.min() >= 0.0
