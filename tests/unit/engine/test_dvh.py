import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import CaseError
from engine.evaluate.dvh import Dvh, dose_axis_gy
from engine.evaluate.region import region_from_coverage
from engine.model.grid import Grid


def _cubic_grid(n: int, spacing_mm: float) -> Grid:
    start = -0.5 * (n - 1) * spacing_mm
    return Grid((start,) * 3, (spacing_mm,) * 3, (n, n, n))


def test_uniform_dose_gives_one_step() -> None:
    dvh = Dvh.from_voxels("A", np.full((3, 4, 5), 47.3, np.float32), np.ones((3, 4, 5), np.float32), 8.0)
    assert dvh.total_cc == pytest.approx(0.48)
    for percent in (0.0, 2.0, 50.0, 95.0, 100.0):
        assert dvh.dose_at_percent_gy(percent) == pytest.approx(47.3)
    # 47.3 has no float32: without the tolerance for rounding the last but one would be 0 %.
    np.testing.assert_allclose(
        dvh.curve_percent(np.array([0.0, 47.2, 47.3, 47.4])), [100.0, 100.0, 100.0, 0.0]
    )


def test_linear_ramp_in_a_box_has_the_straight_line_as_histogram() -> None:
    # Layers 0.05 Gy apart from 40 to 60 Gy; a layer is a plateau, so D_V is known to half a layer (0.06 %).
    ramp_gy = (40.0 + 0.05 * (np.arange(400) + 0.5)).astype(np.float32)
    dose_gy = np.broadcast_to(ramp_gy[:, None, None], (400, 5, 5))
    dvh = Dvh.from_voxels("A", dose_gy, np.ones((400, 5, 5), np.float32), 1.0)
    for percent in (2.0, 50.0, 95.0, 98.0):
        assert dvh.dose_at_percent_gy(percent) == pytest.approx(60.0 - 0.2 * percent, rel=1e-3)
    assert dvh.mean_gy == pytest.approx(50.0, rel=1e-7)
    # A limit between two layers counts whole layers.
    np.testing.assert_allclose(dvh.curve_percent(np.array([41.0, 55.0])), [95.0, 25.0], atol=1e-9)


def test_ramp_with_one_voxel_per_layer_is_exact_between_voxels() -> None:
    dose_gy = np.arange(10, dtype=np.float32) + 0.5
    dvh = Dvh.from_voxels("A", dose_gy, np.ones(10, np.float32), 1000.0)
    # The middle of voxel k from the top is at volume k + 0.5: linear interpolation meets the ramp exactly.
    for volume_cc in (0.5, 1.0, 3.3, 9.5):
        assert dvh.dose_at_volume_gy(volume_cc) == pytest.approx(10.0 - volume_cc, rel=1e-12)


def test_sphere_in_a_linear_gradient_has_the_cap_volume_above_every_dose() -> None:
    # V(d) is a spherical cap, so D95 = 50 + g * t with the cap of height R - t holding 95 % of the volume.
    radius_mm, gradient = 20.0, 0.5
    grid = _cubic_grid(84, 0.5)
    x, y, z = grid.centres_mm_xyz
    distance_mm = np.sqrt(z[:, None, None] ** 2 + y[None, :, None] ** 2 + x[None, None, :] ** 2)
    # Coverage of a voxel from the distance of its centre to the surface: good to second order in the spacing.
    coverage = np.clip((radius_mm - distance_mm) / 0.5 + 0.5, 0.0, 1.0).astype(np.float32)
    # Oblique, so that no two layers of voxels share a dose.
    along = np.array([1.0, 0.41, 0.23]) / np.sqrt(1.0 + 0.41**2 + 0.23**2)
    height_mm = along[0] * x[None, None, :] + along[1] * y[None, :, None] + along[2] * z[:, None, None]
    dose_gy = (50.0 + gradient * height_mm).astype(np.float32)
    dvh = region_from_coverage("ball", "TARGET", grid, coverage).dvh(dose_gy)

    def beyond(t: float) -> float:
        return 0.25 * (2.0 + t) * (1.0 - t) ** 2

    for percent in (2.0, 50.0, 95.0, 98.0):
        low, high = -1.0, 1.0
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if beyond(middle) > percent / 100.0 else (low, middle)
        expected_gy = 50.0 + gradient * radius_mm * low
        assert dvh.dose_at_percent_gy(percent) == pytest.approx(expected_gy, rel=1e-3)
    assert dvh.total_cc == pytest.approx(4.0 / 3.0 * np.pi * 8.0, rel=1e-3)
    assert dvh.mean_gy == pytest.approx(50.0, rel=1e-5)


def test_fractional_voxels_count_with_their_part_of_the_volume() -> None:
    dose_gy = np.array([10.0, 20.0, 30.0, 99.0], np.float32)
    coverage = np.array([1.0, 0.5, 0.25, 0.0], np.float32)
    dvh = Dvh.from_voxels("A", dose_gy, coverage, 4000.0)
    assert dvh.total_cc == pytest.approx(7.0)
    assert dvh.max_gy == 30.0
    assert dvh.mean_gy == pytest.approx((10.0 * 4 + 20.0 * 2 + 30.0 * 1) / 7.0)
    np.testing.assert_allclose(dvh.volume_at_dose_cc([5.0, 10.0, 15.0, 20.0, 25.0, 31.0]), [7, 7, 3, 3, 1, 0])
    # Middles of the voxels from the hottest: 0.5, 2 and 5 cc.
    assert dvh.dose_at_volume_gy(2.0) == pytest.approx(20.0)
    assert dvh.dose_at_volume_gy(1.25) == pytest.approx(25.0)
    assert dvh.dose_at_volume_gy(0.1) == pytest.approx(30.0)


@given(
    st.lists(
        st.tuples(st.floats(0.0, 80.0, width=32), st.floats(0.015625, 1.0, width=32)), min_size=1, max_size=40
    )
)
def test_histogram_falls_and_dose_at_volume_falls(voxels: list[tuple[float, float]]) -> None:
    dose_gy, coverage = (np.array(column, np.float32) for column in zip(*voxels, strict=True))
    dvh = Dvh.from_voxels("A", dose_gy, coverage, 27.0)
    curve = dvh.curve_percent(dose_axis_gy(dvh.max_gy))
    assert curve[0] == pytest.approx(100.0)
    assert (np.diff(curve) <= 1e-9).all()
    doses = [dvh.dose_at_percent_gy(percent) for percent in np.linspace(0.0, 100.0, 23)]
    assert (np.diff(doses) <= 1e-9).all()
    assert dvh.min_gy <= dvh.mean_gy * (1 + 1e-9)
    assert dvh.mean_gy <= dvh.max_gy * (1 + 1e-9)


def test_dose_axis_ends_above_the_maximum_with_400_steps() -> None:
    axis_gy = dose_axis_gy(51.3)
    assert axis_gy.size == 401
    assert axis_gy[0] == 0.0
    assert axis_gy[-1] == pytest.approx(53.0)
    assert dose_axis_gy(0.0)[-1] == 1.0


def test_histogram_refuses_an_empty_structure_and_damaged_doses() -> None:
    zero = np.zeros((2, 2, 2), np.float32)
    with pytest.raises(CaseError, match="'A' has no dose-volume histogram"):
        Dvh.from_voxels("A", zero, zero, 1.0)
    with pytest.raises(CaseError, match="not finite"):
        Dvh.from_voxels("A", np.full((2, 2, 2), np.nan), zero + 1, 1.0)
    with pytest.raises(CaseError, match="does not fit"):
        Dvh.from_voxels("A", zero, np.ones((3, 2, 2)), 1.0)


def test_dose_to_more_than_the_volume_is_refused() -> None:
    dvh = Dvh.from_voxels("A", np.ones(2), np.ones(2), 500.0)
    assert dvh.dose_at_volume_gy(1.0) == 1.0
    with pytest.raises(CaseError, match="D2cc has no meaning for 'A' \\(which has 1 cc\\)"):
        dvh.dose_at_volume_gy(2.0)
