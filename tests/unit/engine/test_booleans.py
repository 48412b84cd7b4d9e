"""Booleans where two surfaces cut the same voxels: touching, coinciding, nested and crossing ones."""

import numpy as np
import pytest

from engine.structures.booleans import difference, overlap, union
from tests.unit.engine.shapes import ball, box, grid_around, sampled, volume_mm3

GRID = grid_around(22.0, (2.0, 2.0, 3.0), (0.3, 0.7, 0.1))


def test_a_structure_with_itself() -> None:
    one = sampled(GRID, ball(17.0))
    np.testing.assert_allclose(overlap(one, one, GRID), one, atol=0.01)
    np.testing.assert_allclose(union(one, one, GRID), one, atol=0.01)
    assert difference(one, one, GRID).max() < 0.01


def test_halves_that_touch_have_nothing_in_common_and_make_the_whole() -> None:
    whole = sampled(GRID, ball(17.0))
    left = sampled(GRID, lambda x, y, z: ball(17.0)(x, y, z) & (x + 0.4 * y > 0.7))
    right = (whole - left).clip(0.0, 1.0)
    assert volume_mm3(overlap(left, right, GRID), GRID) < 0.004 * volume_mm3(whole, GRID)
    both = union(left, right, GRID)
    assert volume_mm3(both, GRID) == pytest.approx(volume_mm3(whole, GRID), rel=0.004)


def test_crossing_balls_overlap_in_two_caps() -> None:
    one = sampled(GRID, ball(15.0))
    other = sampled(GRID, lambda x, y, z: ball(15.0)(x - 4.0, y - 6.0, z + 5.0))
    apart_mm = np.sqrt(4.0**2 + 6.0**2 + 5.0**2)
    lens = np.pi * (4.0 * 15.0 + apart_mm) * (2.0 * 15.0 - apart_mm) ** 2 / 12.0
    sphere = 4.0 / 3.0 * np.pi * 15.0**3
    assert volume_mm3(overlap(one, other, GRID), GRID) == pytest.approx(lens, rel=3e-3)
    assert volume_mm3(union(one, other, GRID), GRID) == pytest.approx(2.0 * sphere - lens, rel=3e-3)
    assert volume_mm3(difference(one, other, GRID), GRID) == pytest.approx(sphere - lens, rel=3e-3)


def test_a_shell_has_the_difference_of_volumes() -> None:
    shell = difference(sampled(GRID, ball(17.0)), sampled(GRID, ball(16.0)), GRID)
    assert volume_mm3(shell, GRID) == pytest.approx(4.0 / 3.0 * np.pi * (17.0**3 - 16.0**3), rel=5e-3)


def test_a_voxel_inside_one_has_the_coverage_of_the_other() -> None:
    one, other = sampled(GRID, box((-20, 20), (-20, 20), (-20, 20))), sampled(GRID, ball(11.0))
    np.testing.assert_allclose(overlap(one, other, GRID), other, atol=1e-6)
