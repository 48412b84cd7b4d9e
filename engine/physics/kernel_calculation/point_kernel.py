"""Energy deposited around a photon's first interaction, tallied in rings and slabs or in cones and spheres."""

import math
from dataclasses import dataclass

import numpy as np

from engine._jit import kernel
from engine.errors import DoseError
from engine.model.arrays import F64
from engine.physics.kernel_calculation.history import MAX_DEPOSIT, MAX_STACK, follow_history
from engine.physics.kernel_calculation.particles import DEPOSIT_SIZE, N_GENERATION, PARTICLE_SIZE
from engine.physics.kernel_calculation.water_tables import WaterTables
from engine.physics.monte_carlo.random_numbers import seed_history, uniform

Z_LOW_MM = -100.0
Z_HIGH_MM = 400.0
SLAB_MM = 0.5
RING_EDGES_MM = np.concatenate([[0.0], np.geomspace(0.25, 600.0, 65)])
"""The first ring is a disc; 64 rings of equal ratio (1.129) follow."""


@dataclass(frozen=True)
class PointKernel:
    """Energy shares of one energy interval, deposited around the first interaction at the origin.

    Parameters
    ----------
    mean_energy_mev
        Mean photon energy of the histories.
    energy_mev
        Energy deposited per photon, shape (n_slab, n_ring): slabs of `SLAB_MM` from `Z_LOW_MM` to `Z_HIGH_MM` along
        the photon's direction, rings of `RING_EDGES_MM` around it.
    outside_mev
        Energy per photon deposited beyond that cylinder.
    """

    mean_energy_mev: float
    energy_mev: F64
    outside_mev: float


def point_kernel(
    tables: WaterTables, low_mev: float, high_mev: float, *, n_history: int, first_history: int, seed: int
) -> PointKernel:
    """Return the kernel of photons spread evenly over an energy interval.

    Histories are numbered from ``first_history``: a range of numbers always gives the same result.

    Raises
    ------
    DoseError
        If a history made more deposits than the buffer holds.
    """
    n_slab = round((Z_HIGH_MM - Z_LOW_MM) / SLAB_MM)
    tally = np.zeros((n_slab, RING_EDGES_MM.size - 1))
    sums = np.zeros(3)
    _score_cylinder(
        low_mev,
        high_mev,
        n_history,
        first_history,
        seed,
        tables.photon,
        tables.electron,
        RING_EDGES_MM,
        tally,
        sums,
    )
    _check_overflow(sums[2])
    return PointKernel(float(sums[0]) / n_history, tally / n_history, float(sums[1]) / n_history)


def spherical_point_kernel(
    tables: WaterTables, energy_mev: float, radius_edges_mm: F64, n_cone: int, *, n_history: int, seed: int
) -> F64:
    """Return shares of the photon energy by generation, cone and shell, shape (`N_GENERATION`, n_cone, n_radius).

    Cones divide the polar angle evenly from 0 to 180 degrees; energy beyond the last radius is left out.

    Raises
    ------
    DoseError
        If a history made more deposits than the buffer holds.
    """
    tally = np.zeros((N_GENERATION, n_cone, radius_edges_mm.size - 1))
    sums = np.zeros(3)
    _score_sphere(energy_mev, n_history, seed, tables.photon, tables.electron, radius_edges_mm, tally, sums)
    _check_overflow(sums[2])
    return tally / (n_history * energy_mev)


def _check_overflow(n_overflow: float) -> None:
    if n_overflow > 0.0:
        raise DoseError(
            f"{int(n_overflow)} histories made more than {MAX_DEPOSIT} energy deposits (the rest would be lost): "
            "raise MAX_DEPOSIT"
        )


@kernel
def _score_cylinder(
    low_mev: float,
    high_mev: float,
    n_history: int,
    first_history: int,
    seed: int,
    water_photon: F64,
    water_electron: F64,
    ring_edges_mm: F64,
    tally: F64,
    sums: F64,
) -> None:
    """Add histories to ``tally`` (n_slab, n_ring) and to ``sums``: energy started, energy outside, overflows."""
    stack = np.zeros((MAX_STACK, PARTICLE_SIZE))
    deposits = np.zeros((MAX_DEPOSIT, DEPOSIT_SIZE))
    random_state = np.zeros(1, dtype=np.uint64)
    n_slab, n_ring = tally.shape
    first_edge_mm, last_edge_mm = ring_edges_mm[1], ring_edges_mm[n_ring]
    per_log = (n_ring - 1) / math.log(last_edge_mm / first_edge_mm)
    for history in range(first_history, first_history + n_history):
        seed_history(random_state, np.uint64(seed), np.uint64(history))
        energy_mev = low_mev + (high_mev - low_mev) * uniform(random_state)
        n_deposit = follow_history(energy_mev, water_photon, water_electron, stack, deposits, random_state)
        sums[0] += energy_mev
        if n_deposit > MAX_DEPOSIT:
            sums[2] += 1.0
            continue
        for row in range(n_deposit):
            radius_mm = math.hypot(deposits[row, 0], deposits[row, 1])
            slab = math.floor((deposits[row, 2] - Z_LOW_MM) / SLAB_MM)
            ring = 0
            if radius_mm >= first_edge_mm:
                ring = 1 + int(math.log(radius_mm / first_edge_mm) * per_log)
            if 0 <= slab < n_slab and ring < n_ring:
                tally[slab, ring] += deposits[row, 3]
            else:
                sums[1] += deposits[row, 3]


@kernel
def _score_sphere(
    energy_mev: float,
    n_history: int,
    seed: int,
    water_photon: F64,
    water_electron: F64,
    radius_edges_mm: F64,
    tally: F64,
    sums: F64,
) -> None:
    """Add histories to ``tally`` (n_generation, n_cone, n_radius) and to ``sums`` as `_score_cylinder` does."""
    stack = np.zeros((MAX_STACK, PARTICLE_SIZE))
    deposits = np.zeros((MAX_DEPOSIT, DEPOSIT_SIZE))
    random_state = np.zeros(1, dtype=np.uint64)
    n_cone, n_radius = tally.shape[1], tally.shape[2]
    for history in range(n_history):
        seed_history(random_state, np.uint64(seed), np.uint64(history))
        n_deposit = follow_history(energy_mev, water_photon, water_electron, stack, deposits, random_state)
        sums[0] += energy_mev
        if n_deposit > MAX_DEPOSIT:
            sums[2] += 1.0
            continue
        for row in range(n_deposit):
            radius_mm = math.sqrt(deposits[row, 0] ** 2 + deposits[row, 1] ** 2 + deposits[row, 2] ** 2)
            if radius_mm >= radius_edges_mm[n_radius]:
                sums[1] += deposits[row, 3]
                continue
            shell = np.searchsorted(radius_edges_mm, radius_mm, side="right") - 1
            angle_rad = math.acos(min(1.0, max(-1.0, deposits[row, 2] / max(radius_mm, 1.0e-12))))
            cone = min(int(angle_rad / math.pi * n_cone), n_cone - 1)
            tally[int(deposits[row, 4]), cone, shell] += deposits[row, 3]
