r"""The pencil kernel of a spectrum: point kernels strung along the attenuated pencil.

.. math:: K(z, r) = \sum_E w_E \int_0^\infty \mu_E e^{-\mu_E z'} h_E(z - z', r)\, dz'

The lower bound 0 is the water surface. h is the kernel of unbounded water, so scatter that returns from beyond the
surface is counted although nothing is there to return it.
"""

import numpy as np

from engine.model.arrays import F64
from engine.physics.kernel_calculation.point_kernel import (
    RING_EDGES_MM,
    SLAB_MM,
    Z_HIGH_MM,
    Z_LOW_MM,
    PointKernel,
    point_kernel,
)
from engine.physics.kernel_calculation.water_tables import WaterTables, attenuation_per_mm
from engine.physics.spectrum import Spectrum
from engine.units import GY_PER_MEV_G, MM3_PER_CM3

DEPTH_MM = np.concatenate(
    [
        np.arange(0.0, 5.0, 0.5),
        np.arange(5.0, 30.0, 1.0),
        np.arange(30.0, 100.0, 5.0),
        np.arange(100.0, 401.0, 10.0),
    ]
)
"""Depths of the kernel table: multiples of the slab thickness, fine in the build-up region."""
_N_ENERGY = 16
_LEAST_SHARE = 0.005


def histories_per_interval(spectrum: Spectrum, n_history: int) -> list[int]:
    """Return how many histories each interval gets: in proportion to its energy fluence, but never next to none."""
    importance = spectrum.share * spectrum.mean_mev()
    importance = np.maximum(importance / importance.sum(), _LEAST_SHARE)
    return [int(n) for n in np.ceil(n_history * importance / importance.sum())]


def ring_doses(spectrum: Spectrum, tables: WaterTables, *, n_history: int, batch: int, seed: int) -> F64:
    """Return the pencil kernel integrated over rings, Gy mm2 per photon, shape (n_depth, n_ring).

    Depths are `DEPTH_MM`, rings `RING_EDGES_MM`. Batches of the same ``seed`` use different histories.
    """
    total = np.zeros((DEPTH_MM.size, RING_EDGES_MM.size - 1))
    counts = histories_per_interval(spectrum, n_history)
    for interval, count in enumerate(counts):
        low_mev, high_mev = float(spectrum.low_mev[interval]), float(spectrum.high_mev[interval])
        point = point_kernel(
            tables, low_mev, high_mev, n_history=count, first_history=batch * count, seed=seed + interval
        )
        total += spectrum.share[interval] * strung_along_pencil(point, low_mev, high_mev)
    return total


def strung_along_pencil(point: PointKernel, low_mev: float, high_mev: float) -> F64:
    """Return ring doses (Gy mm2 per photon, shape (n_depth, n_ring)) of a pencil of one spectral interval.

    Exact for a kernel that is constant within its slabs. Within the interval the kernel is taken to grow in
    proportion to the energy, while attenuation is followed energy by energy.
    """
    energy_mev = low_mev + (high_mev - low_mev) * (np.arange(_N_ENERGY) + 0.5) / _N_ENERGY
    attenuation = attenuation_per_mm(energy_mev)
    slab_edges_mm = np.arange(Z_LOW_MM, Z_HIGH_MM + 0.5 * SLAB_MM, SLAB_MM)
    # Interactions at depth z' reach depth z from the slab that holds z - z'.
    upstream_mm = np.clip(DEPTH_MM[:, None] - slab_edges_mm[None, :], 0.0, None)
    survival = np.exp(-attenuation[:, None, None] * upstream_mm)
    interacting = survival[:, :, 1:] - survival[:, :, :-1]
    weight = np.tensordot(energy_mev / point.mean_energy_mev, interacting, axes=1) / _N_ENERGY
    mev_per_mm = weight @ point.energy_mev / SLAB_MM
    return mev_per_mm * MM3_PER_CM3 * GY_PER_MEV_G
