"""Densities that the study sets: their shares in voxels, their order, and what a couch does to the dose behind it."""

import numpy as np
import pytest

from engine.dose.engine import Patient
from engine.dose.photon_pencil_beam import PhotonPencilBeam
from engine.geometry.bricks import BrickLayout
from engine.model.arrays import F32, F64
from engine.model.beam import Beam, BeamletGrid
from engine.model.grid import Grid
from engine.model.machine import MACHINES
from engine.physics.hu_table import AIR_DENSITY, HuTable
from engine.structures.density import DensityOf, patient_density
from tests.unit.engine.shapes import box_coverage

TABLE = HuTable("t", (-1000.0, 0.0, 1000.0), (0.001, 1.0, 1.6))
GRID = Grid((-97.5, -97.5, -97.5), (5.0, 5.0, 5.0), (40, 40, 40))
WIDE = (-90.0, 90.0)
# The skin lies at y = -52, inside a voxel that spans -55 to -50; the slab in front of it is 20 mm thick.
BODY = box_coverage(GRID, WIDE, (-52.0, 90.0), WIDE)
SLAB = box_coverage(GRID, WIDE, (-72.0, -52.0), WIDE)
CT = (BODY * 1000.0 - 1000.0 + SLAB * 1200.0).astype(np.float32)
SKIN = (20, 9, 20)
"""The voxel at the skin, of which 2 mm are body."""


def density(outside: tuple[DensityOf, ...] = (), overrides: tuple[DensityOf, ...] = ()) -> F32:
    return patient_density(CT, GRID, BODY, TABLE, outside, overrides)


def test_without_a_word_there_is_air_outside() -> None:
    found = density()
    assert found[20, 5, 20] == pytest.approx(AIR_DENSITY)
    assert found[20, 20, 20] == pytest.approx(1.0)


def test_a_couch_fills_its_own_part_of_a_voxel_and_leaves_the_body_its_own() -> None:
    found = density((DensityOf(SLAB, 0.5),))
    assert found[20, 6, 20] == pytest.approx(0.5)
    by_ct = TABLE.density_at(float(CT[SKIN]))
    assert found[SKIN] == pytest.approx(0.4 * by_ct + 0.6 * 0.5, abs=1e-3)
    np.testing.assert_array_equal(found[:, 10:], density()[:, 10:])
    assert density((DensityOf(SLAB, None),))[20, 6, 20] == pytest.approx(TABLE.density_at(200.0))


def test_where_a_couch_overlaps_the_body_the_body_counts() -> None:
    deep = box_coverage(GRID, WIDE, (-72.0, 0.0), WIDE)
    found = density((DensityOf(deep, 0.5),))
    assert found[20, 6, 20] == pytest.approx(0.5)
    assert found[20, 12, 20] == pytest.approx(1.0)


def test_an_override_holds_inside_and_outside_and_the_last_one_wins() -> None:
    deep = box_coverage(GRID, WIDE, (-72.0, 0.0), WIDE)
    found = density((DensityOf(SLAB, 0.5),), (DensityOf(deep, 3.0), DensityOf(SLAB, 1.0)))
    assert found[20, 6, 20] == pytest.approx(1.0)
    assert found[20, 12, 20] == pytest.approx(3.0)
    assert found[20, 30, 20] == pytest.approx(1.0)
    assert found[SKIN] == pytest.approx(0.4 * 3.0 + 0.6 * 1.0, abs=1e-3)


def test_an_override_of_a_part_of_a_voxel_is_weighted_with_it() -> None:
    part = box_coverage(GRID, (-0.0, 2.0), (0.0, 5.0), (0.0, 5.0))
    found = density((), (DensityOf(part, 6.0),))
    assert found[20, 20, 20] == pytest.approx(0.4 * 6.0 + 0.6 * 1.0)


def _axis_dose(density: F32, body: F32) -> F64:
    """Return the dose along y on the beam's axis, 100 mm square field from the front."""
    engine = PhotonPencilBeam(MACHINES["generic-6mv"], 60.0, 0.0)
    row, column = (a.ravel().astype(np.int32) for a in np.mgrid[-5:6, -5:6])
    beamlets = BeamletGrid((10.0, 10.0), column, row, np.array([0, row.size]))
    layout = BrickLayout(GRID, 8)
    beam = Beam("front", 0.0, 0.0, 0.0, (0.0, 0.0, 0.0), 1000.0)
    view = engine.view(
        Patient(GRID, density, "HFS"), layout, layout.to_rows(body) > 0.0, beam, (0.0, 0.0, 0.0), None
    )
    dose_gy = layout.to_volume(engine.forward(view, beamlets, np.ones(row.size), 1.0))
    return dose_gy[19:21, :, 19:21].mean(axis=(0, 2), dtype=np.float64)


def test_a_slab_of_couch_lowers_the_dose_as_the_depth_dose_says() -> None:
    bare = _axis_dose(density(), BODY)
    behind = _axis_dose(density((DensityOf(SLAB, 1.0),)), BODY)
    y = GRID.centres_mm_xyz[1]
    # 20 mm of water in front: the dose that lies 20 mm (four voxels) deeper, closer to the source by 20 mm.
    at = (y > -20.0) & (y < 60.0)
    deeper = np.roll(bare, -4)
    nearer = ((y + 20.0 + 1000.0) / (y + 1000.0)) ** 2
    np.testing.assert_allclose(behind[at], (deeper * nearer)[at], rtol=0.01)
    assert (behind[at] < 0.96 * bare[at]).all()
    half = _axis_dose(density((DensityOf(SLAB, 0.5),)), BODY)
    assert ((behind[at] < half[at]) & (half[at] < bare[at])).all()
