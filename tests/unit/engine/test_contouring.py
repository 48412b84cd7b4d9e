"""Contours from voxels: the volume comes back when they are voxelised again."""

from collections.abc import Callable

import numpy as np
import pytest

from engine.geometry.voxelise import voxelise
from engine.model.grid import Grid
from engine.structures.contouring import contours_of
from tests.unit.engine.shapes import ball, sampled

GRID = Grid((-29.3, -28.7, -28.0), (2.0, 2.0, 3.0), (20, 30, 30))


def shell(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return ball(24.0)(x, y, z) & ~ball(13.0)(x, y, z)


def island_in_a_hole(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return shell(x, y, z) | ball(7.0)(x, y, z)


@pytest.mark.parametrize("shape", [ball(24.0), ball(6.3), shell, island_in_a_hole])
def test_a_shape_that_goes_out_as_contours_comes_back(shape: Callable[..., np.ndarray]) -> None:
    coverage = sampled(GRID, shape)
    back = voxelise(contours_of(coverage, GRID), GRID)
    assert back.notes == ()
    assert float(back.coverage.sum()) == pytest.approx(float(coverage.sum()), rel=1e-3, abs=0.2)
    # And it lies in the same place: what differs are parts of voxels at the surface.
    assert float(np.abs(back.coverage - coverage).sum()) < 0.05 * float(coverage.sum()) + 5.0
    assert back.coverage[coverage == 1.0].min() > 0.8


def test_a_hole_is_joined_to_its_outline() -> None:
    contours = contours_of(sampled(GRID, shell), GRID)
    in_the_middle = [c for c in contours if abs(c.z_mm) < 2.0]
    assert len(in_the_middle) == 1
    assert len(contours) == len({c.z_mm for c in contours})


def test_a_flat_end_within_a_slice_counts_as_a_whole_slice_or_none() -> None:
    coverage = np.zeros(GRID.shape_zyx, np.float32)
    coverage[5:10, 8:20, 8:20] = 1.0
    coverage[10, 8:20, 8:20] = 0.4
    coverage[4, 8:20, 8:20] = 0.6
    planes = {c.z_mm for c in contours_of(coverage, GRID)}
    assert planes == {float(GRID.centres_mm_xyz[2][k]) for k in range(4, 10)}


def test_a_structure_at_the_edge_of_the_grid_is_closed_there() -> None:
    coverage = np.zeros(GRID.shape_zyx, np.float32)
    coverage[0:3, 0:10, 0:10] = 1.0
    back = voxelise(contours_of(coverage, GRID), GRID)
    assert float(back.coverage.sum()) == pytest.approx(300.0, rel=4e-3)


def test_nothing_has_no_contours() -> None:
    assert contours_of(np.zeros(GRID.shape_zyx, np.float32), GRID) == ()
