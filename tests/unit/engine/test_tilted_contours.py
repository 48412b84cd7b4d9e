"""Contours that are not axial, and volumes that lie anyhow in the patient."""

import numpy as np
import pytest

from engine.geometry.resample import sample_onto
from engine.geometry.tilted_contours import voxelise_tilted
from engine.model.grid import Grid
from tests.dicom_files import turned

GRID = Grid((-20.0, -22.0, -25.0), (1.5, 2.0, 2.5), (21, 23, 27))


def test_a_linear_volume_is_sampled_exactly_and_ends_half_a_voxel_beyond_its_centres():
    turn = turned((1, 2, 3), 40.0)
    index_from_patient = np.eye(4)
    index_from_patient[:3, :3] = turn / 2.0
    index_from_patient[:3, 3] = (10.0, 9.0, 8.0)
    plane, row, column = np.meshgrid(np.arange(17), np.arange(19), np.arange(21), indexing="ij")
    volume = (1.0 + 2.0 * column - 3.0 * row + 5.0 * plane).astype(np.float32)
    values = sample_onto(volume, index_from_patient, GRID, -1.0e4)
    x, y, z = GRID.centres_mm_xyz
    zz, yy, xx = np.meshgrid(z, y, x, indexing="ij")
    index = (
        np.einsum("ij,jzyx->izyx", turn / 2.0, np.stack([xx, yy, zz]))
        + np.array([10, 9, 8])[:, None, None, None]
    )
    size = np.array([21, 19, 17])[:, None, None, None]
    between = ((index >= 0) & (index <= size - 1)).all(axis=0)
    beyond = ((index < -0.501) | (index > size - 0.499)).any(axis=0)
    expected = 1.0 + 2.0 * index[0] - 3.0 * index[1] + 5.0 * index[2]
    assert 0.2 < between.mean() < 0.9
    np.testing.assert_allclose(values[between], expected[between], atol=1e-3)
    assert (values[beyond] == -1.0e4).all()
    within = ((index > -0.499) & (index < size - 0.501)).all(axis=0)
    assert (values[within] > -1.0e3).all()


@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (1, -2, 1)])
@pytest.mark.parametrize("reverse", [False, True], ids=["one sense", "alternating senses"])
def test_a_turned_prism_keeps_its_volume_and_centre(axis, reverse):
    turn = turned(axis, 35.0)
    centre = np.array([1.0, -2.0, 3.0])
    triangle = np.array([[-9.0, -6.0], [9.0, -6.0], [0.0, 12.0]])
    contours = []
    for number, z in enumerate(np.arange(-9.0, 9.1, 2.0)):
        points = np.concatenate([triangle, np.full((3, 1), z)], axis=1) @ turn.T + centre
        contours.append(points[::-1] if reverse and number % 2 else points)
    voxelised = voxelise_tilted(contours, GRID)
    coverage = voxelised.coverage.astype(np.float64)
    assert coverage.sum() * GRID.voxel_volume_mm3 == pytest.approx(162.0 * 20.0, rel=0.01)
    x, y, z = GRID.centres_mm_xyz
    found = [
        np.average(x, weights=coverage.sum(axis=(0, 1))),
        np.average(y, weights=coverage.sum(axis=(0, 2))),
        np.average(z, weights=coverage.sum(axis=(1, 2))),
    ]
    np.testing.assert_allclose(found, centre, atol=0.1)


def test_contours_that_are_not_parallel_or_have_no_area_are_not_voxelised():
    square = np.array([[0, 0, 0], [9, 0, 0], [9, 9, 0], [0, 9, 0]], float)
    assert voxelise_tilted([square, square @ turned((1, 0, 0), 5.0).T], GRID) is None
    assert voxelise_tilted([np.array([[0, 0, 0], [1, 0, 1], [2, 0, 2]], float)], GRID) is None
