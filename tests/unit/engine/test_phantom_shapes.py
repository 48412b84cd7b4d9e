"""Solids against the formulas of their volumes, on slices that do not fit them."""

import math

import numpy as np
import pytest

from engine.geometry.voxelise import voxelise
from engine.model.grid import Grid
from engine.phantoms.shapes import Ellipsoid, Oval, Solid, Tube, keep_in, keep_out, polygon_area_mm2

GRID = Grid((-60.3, -60.1, -60.7), (3.7, 3.1, 4.3), (30, 40, 34))


def volume_and_centre(solid: Solid) -> tuple[float, list[float]]:
    coverage = voxelise(solid.contours(GRID), GRID).coverage.astype(np.float64)
    centre = [
        float(np.average(at_mm, weights=coverage.sum(axis=tuple({0, 1, 2} - {axis}))))
        for axis, at_mm in zip((2, 1, 0), GRID.centres_mm_xyz, strict=True)
    ]
    return float(coverage.sum()) * GRID.voxel_volume_mm3, centre


def test_ellipsoid_keeps_volume_and_centre_wherever_the_slices_are() -> None:
    for shift_mm in (0.0, 0.9, 2.1, 3.3):
        ellipsoid = Ellipsoid((1.3, -2.7, shift_mm), (14.0, 13.0, 15.0))
        volume_mm3, centre_mm = volume_and_centre(ellipsoid.solid)
        assert volume_mm3 == pytest.approx(ellipsoid.volume_mm3, rel=2e-4)
        np.testing.assert_allclose(centre_mm, ellipsoid.centre_mm_xyz, atol=0.05)


def test_truncated_cone_has_the_volume_of_its_formula() -> None:
    cone = Tube(((-20.0, 0.0, 0.0, 10.0, 10.0), (21.0, 4.0, 2.0, 25.0, 25.0)))
    volume_mm3, _ = volume_and_centre(cone.solid())
    assert volume_mm3 == pytest.approx(math.pi / 3.0 * 41.0 * (100.0 + 250.0 + 625.0), rel=1e-5)


@pytest.mark.parametrize("power", [1.7, 2.0, 4.0])
def test_polygon_of_a_superellipse_has_its_area(power: float) -> None:
    oval = Oval(3.0, 4.0, 30.0, 20.0, power, 33.0)
    x = np.linspace(0.0, 1.0, 2_000_001)
    quadrant = float(np.trapezoid((1.0 - x**power) ** (1.0 / power), x))
    assert oval.area_mm2 == pytest.approx(4.0 * 30.0 * 20.0 * quadrant, rel=1e-5)
    assert polygon_area_mm2(oval.polygon()) == pytest.approx(oval.area_mm2, rel=1e-12)


def test_dented_and_cut_polygons_end_at_the_oval() -> None:
    circle, oval = Oval(0.0, 0.0, 20.0, 20.0).polygon(720), Oval(22.0, 0.0, 10.0, 6.0)
    dented = keep_out(circle, oval)
    assert oval.radius(dented).min() >= 1.0 - 1e-12
    assert polygon_area_mm2(dented) < polygon_area_mm2(circle) - 20.0
    cut = keep_in(circle, Oval(0.0, 0.0, 40.0, 10.0))
    assert np.abs(cut[:, 1]).max() == pytest.approx(10.0, rel=1e-4)
