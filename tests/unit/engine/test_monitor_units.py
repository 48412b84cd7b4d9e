"""Monitor units against a sum by hand over the kernel's tables, and against Monte Carlo of the reference field."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.dose.monitor_units import beam_monitor_units, reference_dose_gy, weight_per_mu
from engine.errors import DoseError
from engine.model.machine import MACHINES, ReferenceCondition
from engine.physics.photon_kernel import load_photon_kernel

GENERIC = MACHINES["generic-6mv"]


@pytest.mark.parametrize(
    ("ssd_mm", "depth_mm", "field_mm"), [(1000.0, 15.0, 100.0), (1000.0, 100.0, 100.0), (900.0, 100.0, 60.0)]
)
def test_reference_dose_is_the_sum_over_the_field(ssd_mm: float, depth_mm: float, field_mm: float) -> None:
    machine = replace(
        MACHINES["point-source-6mv"], reference=ReferenceCondition(ssd_mm, depth_mm, field_mm, 0.01)
    )
    kernel = load_photon_kernel("mohan_6mv")
    distance_mm = ssd_mm + depth_mm
    # Photons that cross the plane of the point, square by square of 0.5 mm, each with the kernel around it.
    edge_mm = field_mm * distance_mm / 1000.0
    n = round(edge_mm / 0.5)
    at_mm = (np.arange(n) + 0.5) * edge_mm / n - 0.5 * edge_mm
    radius2 = at_mm[:, None] ** 2 + at_mm**2
    dose = 0.0
    for sigma, of_depth in zip(kernel.sigma_mm, kernel.weight_gy_mm2.T, strict=True):
        c = np.interp(depth_mm, kernel.depth_mm, of_depth)
        if sigma < 1.0:  # narrower than the squares, and far from the edge: all of it
            dose += c
        else:
            dose += c * np.exp(-radius2 / (2 * sigma**2)).sum() / (2 * np.pi * sigma**2) * (edge_mm / n) ** 2
    by_hand = 1e9 * dose * (1000.0 / distance_mm) ** 2
    # The engine's table of the normal distribution is 3e-6 off, its numbers are float32.
    assert reference_dose_gy(machine) == pytest.approx(by_hand, rel=2e-4)


def test_one_monitor_unit_gives_its_dose() -> None:
    assert weight_per_mu(GENERIC) * reference_dose_gy(GENERIC) == pytest.approx(GENERIC.reference.gy_per_mu)


def test_reference_depth_is_that_of_the_maximum() -> None:
    doses = {depth: reference_dose_gy(GENERIC, depth) for depth in (13.0, 14.0, 15.0, 16.0, 17.0)}
    assert max(doses, key=doses.__getitem__) == GENERIC.reference.depth_mm


def test_fluence_of_one_monitor_unit_agrees_with_egsnrc(reference_data: Path) -> None:
    with np.load(reference_data / "reference/egsnrc/photon_6MV_10x10.npz") as stored:
        x_cm, z_cm = stored["x_edges_cm"].astype(float), stored["z_edges_cm"].astype(float)
        # The column of voxels around the axis (2 cm wide), from 12 to 20 mm deep.
        axis = np.flatnonzero((x_cm[1:] > -0.3) & (x_cm[:-1] < 0.3))
        deep = np.flatnonzero((z_cm[:-1] >= 1.15) & (z_cm[1:] <= 2.05))
        dose = stored["dose"][:, 1, :][np.ix_(deep, axis)].mean()  # Gy cm² per photon
        depths_mm = 5.0 * (z_cm[1:] + z_cm[:-1])[deep]
    computed = np.mean([reference_dose_gy(MACHINES["point-source-6mv"], d) for d in depths_mm]) / 1e9 * 1e-2
    # Statistics of the reference 0.24 %; found is +0.1 %.
    assert computed == pytest.approx(dose, rel=0.01)


def test_units_follow_the_largest_fluence_and_share_fractions() -> None:
    weight = np.array([0.0, 1.0, 4.0, 3.0])
    found = beam_monitor_units(GENERIC, weight, 5)
    assert found.peak_weight == 4.0
    assert found.modulation_factor == pytest.approx(2.0)
    assert found.mu_per_fraction == pytest.approx(4.0 / 5 / weight_per_mu(GENERIC))
    assert beam_monitor_units(GENERIC, np.ones(3), 1).modulation_factor == 1.0
    assert beam_monitor_units(GENERIC, np.zeros(3), 1).mu_per_fraction == 0.0


@pytest.mark.parametrize(("weight", "n_fraction"), [([], 1), ([-1.0], 1), ([np.nan], 1), ([1.0], 0)])
def test_fluence_that_cannot_be_is_refused(weight: list[float], n_fraction: int) -> None:
    with pytest.raises(DoseError):
        beam_monitor_units(GENERIC, np.array(weight), n_fraction)
