import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import CaseError
from engine.geometry.beamlets import PATCH_EDGE, centre_of_mass_mm, covered_points_mm, place_beamlets
from engine.geometry.frames import project
from engine.model.beam import Beam
from engine.model.case import Case, Structure
from engine.model.grid import Grid

GRID = Grid((-38.0, -38.0, -38.0), (4.0, 4.0, 4.0), (20, 20, 20))
"""Faces at ±40 mm."""


def _case(x: slice, y: slice, z: slice, part: float = 1.0) -> Case:
    coverage = np.zeros(GRID.shape_zyx, np.float32)
    coverage[z, y, x] = part
    return Case("c", GRID, np.zeros(GRID.shape_zyx, np.float32), (Structure("T", "TARGET", coverage),))


def _beam(gantry: float = 0.0, couch: float = 0.0, collimator: float = 0.0, sad_mm: float = 1000.0) -> Beam:
    return Beam("b", gantry, couch, collimator, (0.0, 0.0, 0.0), sad_mm)


def test_flat_target_in_the_isocentre_plane_is_covered_exactly() -> None:
    # x from -20 to 12, z from 0 to 24 mm; y from -4 to 4 mm magnifies by up to 0.4 %, 0.1 mm at most.
    case = _case(slice(5, 13), slice(9, 11), slice(10, 16))
    beamlets = place_beamlets(case, "T", _beam(), (5.0, 5.0), 0.0)
    # Centres at multiples of 5 mm, cell edges at ±2.5 mm: from -22.5 to 12.5 and from -2.5 to 27.5 mm.
    assert (beamlets.column.min(), beamlets.column.max()) == (-4, 2)
    assert (beamlets.row.min(), beamlets.row.max()) == (0, 5)
    assert beamlets.n_beamlet == 7 * 6


@pytest.mark.parametrize(
    ("gantry", "couch", "collimator", "expected_mm"),
    [
        # The target's centre lies 20 mm left, 24 mm anterior, 28 mm to the head.
        (0.0, 0.0, 0.0, (20.0, 28.0)),
        (90.0, 0.0, 0.0, (-24.0, 28.0)),
        (270.0, 0.0, 0.0, (24.0, 28.0)),
        (0.0, 90.0, 0.0, (-28.0, 20.0)),
        (0.0, 0.0, 90.0, (28.0, -20.0)),
    ],
)
def test_beamlets_lie_around_the_target_in_each_view(
    gantry: float, couch: float, collimator: float, expected_mm: tuple[float, float]
) -> None:
    case = _case(slice(14, 16), slice(3, 5), slice(16, 18))
    beamlets = place_beamlets(case, "T", _beam(gantry, couch, collimator), (2.0, 2.0), 0.0)
    u_mm, v_mm = beamlets.centres_mm()
    # Magnification 3 %, raster 2 mm.
    assert u_mm.mean() == pytest.approx(expected_mm[0], abs=2.0)
    assert v_mm.mean() == pytest.approx(expected_mm[1], abs=2.0)


@settings(max_examples=40)
@given(
    gantry=st.floats(0.0, 360.0),
    couch=st.floats(-90.0, 90.0),
    collimator=st.floats(0.0, 180.0),
    size_mm=st.tuples(st.floats(2.0, 12.0), st.floats(2.0, 12.0)),
    margin_mm=st.floats(0.0, 10.0),
    seed=st.integers(0, 1000),
)
def test_beamlets_are_those_within_the_margin_of_a_projected_corner(
    gantry: float,
    couch: float,
    collimator: float,
    size_mm: tuple[float, float],
    margin_mm: float,
    seed: int,
) -> None:
    coverage = (np.random.default_rng(seed).random(GRID.shape_zyx) > 0.999).astype(np.float32)
    coverage[10, 10, 10] = 0.01  # Touched voxels count, however little of them.
    target = Structure("T", "TARGET", coverage)
    case = Case("c", GRID, np.zeros(GRID.shape_zyx, np.float32), (target,))
    beam = _beam(gantry, couch, collimator)
    beamlets = place_beamlets(case, "T", beam, size_mm, margin_mm)
    corners_mm, _ = project(covered_points_mm(target, GRID), beam, "HFS")
    opened = set(zip(beamlets.column.tolist(), beamlets.row.tolist(), strict=True))
    assert len(opened) == beamlets.n_beamlet
    columns, rows = np.arange(-50, 51), np.arange(-50, 51)
    outside = [
        np.abs(centres[:, None] * size - corner) - size / 2
        for centres, size, corner in zip((columns, rows), size_mm, corners_mm.T, strict=True)
    ]
    distance = np.maximum(outside[0][None, :, :], outside[1][:, None, :]).min(axis=2)
    for i, j in zip(*np.nonzero(distance < margin_mm - 1e-9), strict=True):
        assert (int(columns[j]), int(rows[i])) in opened
    for i, j in zip(*np.nonzero(distance > margin_mm + 1e-9), strict=True):
        assert (int(columns[j]), int(rows[i])) not in opened


def test_blocks_are_patches_of_the_raster_and_hold_every_beamlet_once() -> None:
    case = _case(slice(1, 19), slice(9, 11), slice(2, 17))
    beamlets = place_beamlets(case, "T", _beam(), (3.0, 3.0), 4.0)
    assert beamlets.block_begin[0] == 0
    assert beamlets.block_begin[-1] == beamlets.n_beamlet
    patches = []
    for begin, end in zip(beamlets.block_begin[:-1], beamlets.block_begin[1:], strict=True):
        assert begin < end
        patch = {
            (int(c) // PATCH_EDGE, int(r) // PATCH_EDGE)
            for c, r in zip(beamlets.column[begin:end], beamlets.row[begin:end], strict=True)
        }
        assert len(patch) == 1
        patches += patch
    assert len(set(patches)) == len(patches) == beamlets.n_block


def test_covered_points_of_one_voxel_are_its_eight_corners() -> None:
    coverage = np.zeros(GRID.shape_zyx, np.float32)
    coverage[2, 3, 4] = 0.5
    points_mm = covered_points_mm(Structure("T", "TARGET", coverage), GRID)
    assert points_mm.shape == (8, 3)
    np.testing.assert_allclose(points_mm.min(axis=0), [-24.0, -28.0, -32.0])
    np.testing.assert_allclose(points_mm.max(axis=0), [-20.0, -24.0, -28.0])


def test_centre_of_mass_is_weighted_by_coverage() -> None:
    coverage = np.zeros(GRID.shape_zyx, np.float32)
    coverage[10, 10, 10], coverage[10, 10, 14] = 1.0, 0.25  # At x 2 and 18, y 2, z 2 mm.
    assert centre_of_mass_mm(Structure("T", "TARGET", coverage), GRID) == pytest.approx((5.2, 2.0, 2.0))


def test_empty_target_is_refused() -> None:
    case = _case(slice(0, 0), slice(0, 0), slice(0, 0))
    with pytest.raises(CaseError, match="'T' covers no voxel"):
        place_beamlets(case, "T", _beam(), (5.0, 5.0), 0.0)
    with pytest.raises(CaseError, match="'T' covers no voxel"):
        centre_of_mass_mm(case.structure("T"), GRID)


def test_target_behind_the_source_is_refused() -> None:
    case = _case(slice(0, 20), slice(0, 20), slice(0, 20))
    with pytest.raises(CaseError, match="reaches the source"):
        place_beamlets(case, "T", _beam(sad_mm=30.0), (5.0, 5.0), 0.0)
