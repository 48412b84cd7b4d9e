"""The Monte Carlo against EGSnrc results that had no part in making it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from engine.model.arrays import F64
from engine.physics.materials import MATERIALS, Material
from engine.physics.monte_carlo.beam import Beam, Rectangle, build_beam
from engine.physics.monte_carlo.histories import run_histories
from engine.physics.monte_carlo.tables import Settings, build_tables
from engine.physics.monte_carlo.voxels import build_voxels
from engine.physics.spectrum import load_spectrum
from engine.units import CM_PER_MM, GY_PER_MEV_G, MM3_PER_CM3, MM_PER_CM

EGSNRC_CUTOFFS = Settings(electron_cutoff_mev=0.189, photon_cutoff_mev=0.05)
"""The electrons' of the reference; photons of 10 to 50 keV, which it follows, do not go far."""
SLAB_MATERIALS = [MATERIALS["water"], Material("aluminium", 2.702, {"Al": 1.0}), MATERIALS["lung-inflated"]]
N_BATCH = 10


@dataclass(frozen=True)
class Doses:
    """Doses in Gy cm2 and their standard errors in the same boxes, here and from EGSnrc, shape (n_z, n_y, n_x)."""

    here: F64
    here_error: F64
    reference: F64
    reference_error: F64
    z_edges_mm: F64
    x_edges_mm: F64

    @property
    def deviation(self) -> F64:
        """Difference in units of the reference's maximum."""
        return (self.here - self.reference) / self.reference.max()

    @property
    def deviation_error(self) -> F64:
        """Standard error of `deviation`."""
        return np.hypot(self.here_error, self.reference_error) / self.reference.max()

    def axis(self) -> tuple[int, int]:
        """Return the position in y and x of the column around the axis."""
        return 1, int(np.searchsorted(self.x_edges_mm, 0.0)) - 1


def compared(
    reference_data: Path,
    case: str,
    beam: Beam,
    size_mm: tuple[float, float, float],
    n_history: int,
    materials: list[Material],
    material_of_depth: npt.NDArray[np.uint8] | None = None,
) -> Doses:
    """Run a case on voxels of which all boxes of the reference are made, and average over these."""
    with np.load(reference_data / f"reference/egsnrc/{case}.npz") as stored:
        # Edges were stored as sums of float32 steps: round to 10 um.
        x_mm, y_mm, z_mm = (np.round(stored[f"{axis}_edges_cm"] * MM_PER_CM, 2) for axis in "xyz")
        reference, error = stored["dose"].astype(np.float64), stored["sigma"].astype(np.float64)
    cuts = [np.rint((e - e[0]) / s).astype(int) for e, s in zip((x_mm, y_mm, z_mm), size_mm, strict=True)]
    shape = (cuts[2][-1], cuts[1][-1], cuts[0][-1])
    layers = np.zeros(shape[0], np.uint8) if material_of_depth is None else material_of_depth
    material = np.ascontiguousarray(np.broadcast_to(layers[:, None, None], shape))
    density = np.array([m.density_g_cm3 for m in materials], dtype=np.float32)[material]
    tables = build_tables(materials, float(beam.high_mev.max()), EGSNRC_CUTOFFS)
    voxels = build_voxels(material, density, size_mm, tables)
    volume_mm3 = float(np.prod(size_mm))
    box_mass_g = boxes(density * volume_mm3 / MM3_PER_CM3, cuts)
    area_cm2 = (beam.high_x_mm - beam.low_x_mm) * (beam.high_y_mm - beam.low_y_mm) * CM_PER_MM**2
    batches = []
    for batch in range(N_BATCH):
        tally = run_histories(
            beam, voxels, tables, first_history=batch * n_history, n_history=n_history, seed=2007
        )
        batches.append(boxes(tally.energy_mev(), cuts) / box_mass_g * GY_PER_MEV_G * area_cm2)
    here = np.mean(batches, axis=0)
    here_error = np.std(batches, axis=0, ddof=1) / np.sqrt(N_BATCH)
    return Doses(here, here_error, reference, error, z_mm, x_mm)


def boxes(values: npt.NDArray[np.floating], cuts_xyz: list[npt.NDArray[np.int_]]) -> F64:
    for axis, cut in zip((2, 1, 0), cuts_xyz, strict=True):
        values = np.add.reduceat(values, cut[:-1], axis=axis)
    return values.astype(np.float64)


def square_field(half_phantom_mm: float, side_mm: float) -> Rectangle:
    low, high = half_phantom_mm - 0.5 * side_mm, half_phantom_mm + 0.5 * side_mm
    return Rectangle(low, high, low, high)


def mohan_6mv(field: Rectangle) -> Beam:
    spectrum = load_spectrum("mohan_6mv")
    return build_beam(
        field, spectrum.low_mev, spectrum.high_mev, spectrum.share, photons=True, source_distance_mm=1000.0
    )


def depth_of_level(depth_mm: F64, dose: F64, level: float) -> float:
    last = int(np.flatnonzero(dose > level)[-1])
    return float(np.interp(level, [dose[last + 1], dose[last]], [depth_mm[last + 1], depth_mm[last]]))


def test_electrons_of_12_mev_agree_with_egsnrc(reference_data: Path) -> None:
    one = np.array([12.0])
    beam = build_beam(
        square_field(150.0, 100.0), one, one, np.ones(1), photons=False, source_distance_mm=1000.0
    )
    doses = compared(
        reference_data, "electron_12MeV_10x10", beam, (5.0, 10.0, 1.0), 20_000, [MATERIALS["water"]]
    )
    y, x = doses.axis()
    middle_mm = 0.5 * (doses.z_edges_mm[1:] + doses.z_edges_mm[:-1])
    level = 0.5 * float(np.sort(doses.reference[:, y, x])[-5:].mean())
    r50_mm = [depth_of_level(middle_mm, dose[:, y, x], level) for dose in (doses.here, doses.reference)]
    # Statistics of either are 0.1 mm; without the Mott factor it would be 0.4 mm less.
    assert r50_mm[0] == pytest.approx(r50_mm[1], abs=0.35)
    column, error = doses.deviation[:, y, x], doses.deviation_error[:, y, x]
    # The error is from ten batches, so large deviations are more frequent than those of a Gaussian.
    assert np.mean(np.abs(column) < 0.01 + 2.0 * error) > 0.95
    energy = np.diff(doses.z_edges_mm) @ np.array([doses.here[:, y, x], doses.reference[:, y, x]]).T
    assert energy[0] == pytest.approx(energy[1], rel=0.006)


def test_photons_of_6_mv_agree_with_egsnrc(reference_data: Path) -> None:
    doses = compared(
        reference_data,
        "photon_6MV_10x10",
        mohan_6mv(square_field(150.0, 100.0)),
        (2.5, 10.0, 1.0),
        50_000,
        [MATERIALS["water"]],
    )
    middle_mm = 0.5 * (doses.z_edges_mm[1:] + doses.z_edges_mm[:-1])
    inside = np.abs(0.5 * (doses.x_edges_mm[1:] + doses.x_edges_mm[:-1])) < 40.0
    for low_mm, high_mm in ((10.0, 30.0), (30.0, 60.0), (60.0, 120.0), (120.0, 200.0), (200.0, 300.0)):
        deep = (middle_mm > low_mm) & (middle_mm < high_mm)
        here, reference = (dose[deep, 1][:, inside].mean() for dose in (doses.here, doses.reference))
        # Statistics about 0.5 % here and 0.2 % there.
        assert here == pytest.approx(reference, rel=0.02), f"{low_mm} to {high_mm} mm"
    strip = doses.reference[:, 1] > 0.1 * doses.reference.max()
    strip[middle_mm < 10.0] = False
    normal = (doses.deviation / doses.deviation_error)[:, 1][strip]
    assert abs(doses.deviation[:, 1][strip].mean()) < 0.005
    # Errors from ten batches: the mean square of the ratio is 9/7, and boxes share histories.
    assert 1.0 < np.mean(normal**2) < 1.6


@pytest.mark.validate
@pytest.mark.xfail(reason="2 to 4 % low in lung, not explained (docs/methods/monte_carlo.md)", strict=False)
def test_a_small_field_through_aluminium_and_lung_agrees_with_egsnrc(reference_data: Path) -> None:
    depth_mm = np.arange(150) * 2.0 + 1.0
    layers = np.select([depth_mm < 30.0, depth_mm < 50.0, depth_mm < 120.0], [0, 1, 2], 0).astype(np.uint8)
    doses = compared(
        reference_data,
        "slab_6MV_1.5x1.5",
        mohan_6mv(square_field(152.5, 15.0)),
        (5.0, 5.0, 2.0),
        100_000,
        SLAB_MATERIALS,
        layers,
    )
    y, x = doses.axis()
    for low_mm, high_mm in ((10, 30), (30, 50), (50, 70), (70, 120), (120, 140), (140, 220), (220, 300)):
        deep = (depth_mm > low_mm) & (depth_mm < high_mm)
        here, reference = (dose[deep, y, x].mean() for dose in (doses.here, doses.reference))
        assert here == pytest.approx(reference, rel=0.015), f"{low_mm} to {high_mm} mm"
