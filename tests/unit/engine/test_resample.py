import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.geometry.resample import average_onto, grid_over, interpolate_onto
from engine.model.grid import Grid

SOURCE = Grid((-9.0, 4.0, -20.0), (2.0, 1.5, 3.0), (11, 13, 10))


def _random(grid: Grid = SOURCE, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).random(grid.shape_zyx).astype(np.float32)


@settings(max_examples=40)
@given(st.floats(0.7, 9.0), st.integers(0, 1000))
def test_average_keeps_the_integral_on_a_grid_that_covers_it(spacing_mm: float, seed: int) -> None:
    volume = _random(seed=seed)
    target = grid_over(SOURCE, spacing_mm, np.ones(SOURCE.shape_zyx, np.float32))
    averaged = average_onto(volume, SOURCE, target)
    integral = volume.sum(dtype=np.float64) * SOURCE.voxel_volume_mm3
    assert averaged.sum(dtype=np.float64) * target.voxel_volume_mm3 == pytest.approx(integral, rel=1e-5)


def test_average_of_a_box_is_its_volume_in_every_voxel() -> None:
    target = Grid((0.0, 10.0, -5.0), (5.0, 5.0, 5.0), (2, 2, 2))
    volume = np.zeros(SOURCE.shape_zyx, np.float32)
    volume[4, 5, 6] = 1.0  # x 2 to 4, y 10.75 to 12.25, z -9.5 to -6.5 mm.
    averaged = average_onto(volume, SOURCE, target)
    # Voxel faces at x 2.5, y 12.5, z -7.5 and -2.5 mm: two parts along x, one along y; of z 1 of 3 mm lies inside.
    assert averaged[0, 0, 0] == pytest.approx(0.5 * 1.5 * 1.0 / 125.0, rel=1e-6)
    assert averaged[0, 0, 1] == pytest.approx(1.5 * 1.5 * 1.0 / 125.0, rel=1e-6)
    assert averaged.sum() == pytest.approx(2.0 * 1.5 * 1.0 / 125.0, rel=1e-6)


def test_average_onto_the_same_grid_changes_nothing() -> None:
    np.testing.assert_allclose(average_onto(_random(), SOURCE, SOURCE), _random(), rtol=1e-6)


@settings(max_examples=40)
@given(st.floats(0.8, 7.0), st.integers(0, 1000))
def test_grid_over_a_region_covers_it_and_is_centred(spacing_mm: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    inside = np.zeros(SOURCE.shape_zyx, np.float32)
    (z0, z1), (y0, y1), (x0, x1) = (np.sort(random.choice(n + 1, 2, replace=False)) for n in SOURCE.shape_zyx)
    inside[z0:z1, y0:y1, x0:x1] = 0.01
    grid = grid_over(SOURCE, spacing_mm, inside)
    for edges, source_edges, low, high in zip(
        grid.edges_mm_xyz, SOURCE.edges_mm_xyz, (x0, y0, z0), (x1, y1, z1), strict=True
    ):
        assert edges[0] <= source_edges[low] + 1e-6
        assert edges[-1] >= source_edges[high] - 1e-6
        assert edges[0] + edges[-1] == pytest.approx(source_edges[low] + source_edges[high], abs=1e-9)
        assert edges[-1] - edges[0] < source_edges[high] - source_edges[low] + spacing_mm


def test_interpolation_is_exact_for_a_linear_dose_inside() -> None:
    def linear(grid: Grid) -> np.ndarray:
        x, y, z = grid.centres_mm_xyz
        return (3.0 + 0.2 * x[None, None, :] - 0.5 * y[None, :, None] + 0.1 * z[:, None, None]).astype(
            np.float32
        )

    target = Grid(
        (-8.3, 4.9, -19.0), (1.7, 1.9, 2.3), (12, 8, 10)
    )  # Between the outer voxel centres of the source.
    everywhere = np.ones(SOURCE.shape_zyx, np.float32)
    np.testing.assert_allclose(
        interpolate_onto(linear(SOURCE), SOURCE, target, everywhere), linear(target), atol=1e-5
    )


def test_dose_at_the_skin_is_continued_from_inside_not_mixed_with_air() -> None:
    valid = np.zeros(SOURCE.shape_zyx, np.float32)
    valid[:, :, 5:] = 0.3
    dose = np.where(valid > 0.0, np.float32(7.0), np.float32(0.0))
    x_mm = SOURCE.centres_mm_xyz[0]
    # Half a voxel outside of the first valid centre it is still the body's dose; a voxel further there is none.
    near, far = (
        interpolate_onto(dose, SOURCE, Grid((at_mm, 7.0, -5.0), (1.0, 1.0, 1.0), (1, 1, 1)), valid)
        for at_mm in (x_mm[5] - 1.0, x_mm[4] - 1.0)
    )
    assert near[0, 0, 0] == pytest.approx(7.0, rel=1e-6)
    assert far[0, 0, 0] == 0.0


def test_interpolation_takes_the_axis_that_it_says() -> None:
    volume = np.zeros(SOURCE.shape_zyx, np.float32)
    volume[4, 5, 6] = 1.0
    there = Grid(
        tuple(c[i] for c, i in zip(SOURCE.centres_mm_xyz, (6, 5, 4), strict=True)), (1.0,) * 3, (1, 1, 1)
    )  # type: ignore[arg-type]
    found = interpolate_onto(volume, SOURCE, there, np.ones(SOURCE.shape_zyx, np.float32))
    assert found[0, 0, 0] == pytest.approx(1.0, abs=1e-6)


def test_grid_of_a_single_slice_can_be_resampled() -> None:
    slice_grid = Grid((0.0, 0.0, 0.0), (2.0, 2.0, 5.0), (1, 6, 6))
    volume = _random(slice_grid)
    found = interpolate_onto(volume, slice_grid, slice_grid, np.ones(slice_grid.shape_zyx, np.float32))
    np.testing.assert_allclose(found, volume, rtol=1e-6)
