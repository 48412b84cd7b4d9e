"""How water deflects electrons: small deflections by their mean, large ones one by one."""

import numpy as np

from engine.model.arrays import F64
from engine.physics.constants import (
    AVOGADRO_PER_MOL,
    BOHR_RADIUS_MM,
    CLASSICAL_ELECTRON_RADIUS_MM,
    ELECTRON_REST_ENERGY_MEV,
    FINE_STRUCTURE_CONSTANT,
    REDUCED_PLANCK_C_MEV_MM,
)
from engine.units import MM3_PER_CM3

WATER_G_PER_MOL = 2.0 * 1.00794 + 15.9994
MOLECULES_PER_MM3 = AVOGADRO_PER_MOL / WATER_G_PER_MOL / MM3_PER_CM3
"""Water of 1 g/cm3."""
ELECTRONS_PER_MM3 = 10.0 * MOLECULES_PER_MM3

_ATOMS = ((1, 2.0), (8, 1.0))
"""Atomic number and atoms per molecule."""
_THOMAS_FERMI = 0.885
_N_QUADRATURE = 2000


SINGLE_ONE_MINUS_COS = 0.02
"""Nuclear deflections with a larger 1 - cos (11.5 degrees) are simulated one by one."""
OXYGEN = 8


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
        largest = 1.0 - _cosine_of_transfer(float(energy), delta_mev)
        for atomic_number, n_atom in _ATOMS:
            x, nuclei = _deflections(float(energy), atomic_number, 0.0, SINGLE_ONE_MINUS_COS, mott=True)
            moment = atomic_number**2 * float(np.trapezoid(nuclei * x, x))
            x, electrons = _deflections(float(energy), atomic_number, 0.0, largest, mott=False)
            moment += atomic_number * float(np.trapezoid(electrons * x, x))
            result[position] += MOLECULES_PER_MM3 * n_atom * moment
    return result


def single_scattering_per_mm(energy_mev: F64) -> F64:
    """Return nuclear deflections beyond `SINGLE_ONE_MINUS_COS` per mm, same shape as ``energy_mev``."""
    result = np.zeros_like(energy_mev)
    for position, energy in enumerate(energy_mev):
        for atomic_number, n_atom in _ATOMS:
            x, nuclei = _deflections(float(energy), atomic_number, SINGLE_ONE_MINUS_COS, 2.0, mott=True)
            result[position] += MOLECULES_PER_MM3 * n_atom * atomic_number**2 * float(np.trapezoid(nuclei, x))
    return result


def half_screening_angle2(energy_mev: F64, atomic_number: int) -> F64:
    """Return half of Moliere's squared screening angle in rad2, same shape as ``energy_mev``."""
    momentum_mev, beta = _momentum_and_speed(energy_mev)
    radius_mm = _THOMAS_FERMI * BOHR_RADIUS_MM / atomic_number ** (1.0 / 3.0)
    born = FINE_STRUCTURE_CONSTANT * atomic_number / beta
    return np.asarray(
        0.5 * (REDUCED_PLANCK_C_MEV_MM / (momentum_mev * radius_mm)) ** 2 * (1.13 + 3.76 * born**2)
    )


def _cosine_of_transfer(energy_mev: float, transfer_mev: float) -> float:
    """Return the cosine of the deflection in a collision with a free electron at rest."""
    left_mev = energy_mev - transfer_mev
    rest2_mev = 2.0 * ELECTRON_REST_ENERGY_MEV
    return float(np.sqrt(left_mev * (energy_mev + rest2_mev) / (energy_mev * (left_mev + rest2_mev))))


def _momentum_and_speed(energy_mev: F64) -> tuple[F64, F64]:
    """Return momentum times c in MeV and speed over c."""
    momentum_mev = np.sqrt(energy_mev * (energy_mev + 2.0 * ELECTRON_REST_ENERGY_MEV))
    return momentum_mev, momentum_mev / (energy_mev + ELECTRON_REST_ENERGY_MEV)


def _deflections(
    energy_mev: float, atomic_number: int, smallest: float, largest: float, *, mott: bool
) -> tuple[F64, F64]:
    """Return nodes of x = 1 - cos and there dsigma/dx in mm2 for a unit charge, both of shape (n,)."""
    energy = np.array([energy_mev])
    momentum_mev, beta = (float(v[0]) for v in _momentum_and_speed(energy))
    screening = float(half_screening_angle2(energy, atomic_number)[0])
    # Equal steps of ln(x + screening) resolve the screening angle and the large angles alike.
    shifted = np.geomspace(smallest + screening, largest + screening, _N_QUADRATURE)
    x = shifted - screening
    sine = np.sqrt(np.clip(0.5 * x, 0.0, 1.0))
    factor = np.ones_like(sine)
    if mott:
        factor += (
            np.pi * FINE_STRUCTURE_CONSTANT * atomic_number * beta * sine * (1.0 - sine) - (beta * sine) ** 2
        )
    front = (CLASSICAL_ELECTRON_RADIUS_MM * ELECTRON_REST_ENERGY_MEV / (momentum_mev * beta)) ** 2
    return x, 2.0 * np.pi * front * factor / shifted**2
