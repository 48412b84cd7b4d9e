"""How water deflects electrons: small deflections by their mean, large ones one by one."""

import numpy as np

from engine.model.arrays import F64
from engine.physics.constants import AVOGADRO_PER_MOL
from engine.physics.monte_carlo.elastic import cosine_of_transfer, deflections
from engine.units import MM3_PER_CM3

WATER_G_PER_MOL = 2.0 * 1.00794 + 15.9994
MOLECULES_PER_MM3 = AVOGADRO_PER_MOL / WATER_G_PER_MOL / MM3_PER_CM3
"""Water of 1 g/cm3."""
ELECTRONS_PER_MM3 = 10.0 * MOLECULES_PER_MM3

_ATOMS = ((1, 2.0), (8, 1.0))
"""Atomic number and atoms per molecule."""
OXYGEN = 8
SINGLE_ONE_MINUS_COS = 0.02
"""Nuclear deflections with a larger 1 - cos (11.5 degrees) are simulated one by one."""


def multiple_scattering_per_mm(energy_mev: F64, delta_cutoff_mev: float) -> F64:
    """Return the mean of 1 - cos(theta) per mm of all deflections that are not simulated one by one.

    Same shape as ``energy_mev``. Nuclei: screened Rutherford scattering with Moliere's screening angle (1947) and
    the Mott factor of McKinley and Feshbach (Phys. Rev. 74 (1948) 1759), up to `SINGLE_ONE_MINUS_COS`. Atomic
    electrons: the same shape with Z in place of Z squared, up to the angle at which ``delta_cutoff_mev`` is
    transferred.
    """
    result = np.zeros_like(energy_mev)
    for position, energy in enumerate(energy_mev):
        delta_mev = min(delta_cutoff_mev, 0.5 * float(energy))
        largest = 1.0 - float(cosine_of_transfer(float(energy), delta_mev))
        for atomic_number, n_atom in _ATOMS:
            x, nuclei = deflections(float(energy), atomic_number, 0.0, SINGLE_ONE_MINUS_COS, mott=True)
            moment = atomic_number**2 * float(np.trapezoid(nuclei * x, x))
            x, electrons = deflections(float(energy), atomic_number, 0.0, largest, mott=False)
            moment += atomic_number * float(np.trapezoid(electrons * x, x))
            result[position] += MOLECULES_PER_MM3 * n_atom * moment
    return result


def single_scattering_per_mm(energy_mev: F64) -> F64:
    """Return nuclear deflections beyond `SINGLE_ONE_MINUS_COS` per mm, same shape as ``energy_mev``."""
    result = np.zeros_like(energy_mev)
    for position, energy in enumerate(energy_mev):
        for atomic_number, n_atom in _ATOMS:
            x, nuclei = deflections(float(energy), atomic_number, SINGLE_ONE_MINUS_COS, 2.0, mott=True)
            result[position] += MOLECULES_PER_MM3 * n_atom * atomic_number**2 * float(np.trapezoid(nuclei, x))
    return result
