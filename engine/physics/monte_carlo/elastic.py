r"""How atoms deflect electrons and positrons: screened Rutherford scattering with the Mott factor.

Nuclei: Moliere's screening angle (1947) and the factor of McKinley and Feshbach (Phys. Rev. 74 (1948) 1759), good where
Z is well below 1/alpha. With :math:`x = 1 - \cos\theta`:

.. math:: \frac{d\sigma}{dx} = 2\pi Z^2 \left(\frac{r_0 m c}{p \beta}\right)^2 \frac{R(x)}{(x + \eta)^2}

Atomic electrons: the same with Z in place of Z squared and R = 1, up to the angle at which a collision counts as hard,
because hard ones are simulated one by one.
"""

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
from engine.physics.stopping_power import Charge
from engine.units import MM3_PER_CM3

SINGLE_ONE_MINUS_COS = 0.1
"""Nuclear deflections with a larger 1 - cos (26 degrees) are simulated one by one."""

_THOMAS_FERMI = 0.885
_N_NODE = 400


def half_screening_angle2(energy_mev: F64, atomic_number: int) -> F64:
    """Return half of Moliere's squared screening angle in rad2, same shape as ``energy_mev``."""
    momentum_mev, beta = momentum_and_speed(energy_mev)
    radius_mm = _THOMAS_FERMI * BOHR_RADIUS_MM / atomic_number ** (1.0 / 3.0)
    born = FINE_STRUCTURE_CONSTANT * atomic_number / beta
    return np.asarray(
        0.5 * (REDUCED_PLANCK_C_MEV_MM / (momentum_mev * radius_mm)) ** 2 * (1.13 + 3.76 * born**2)
    )


def cosine_of_transfer(energy_mev: F64 | float, transfer_mev: F64 | float) -> F64:
    """Return the cosine of the deflection in a collision with a free electron at rest."""
    left_mev = energy_mev - transfer_mev
    rest2_mev = 2.0 * ELECTRON_REST_ENERGY_MEV
    return np.sqrt(left_mev * (energy_mev + rest2_mev) / (energy_mev * (left_mev + rest2_mev)))


def momentum_and_speed(energy_mev: F64) -> tuple[F64, F64]:
    """Return momentum times c in MeV and speed over c."""
    momentum_mev = np.sqrt(energy_mev * (energy_mev + 2.0 * ELECTRON_REST_ENERGY_MEV))
    return momentum_mev, momentum_mev / (energy_mev + ELECTRON_REST_ENERGY_MEV)


def deflections(
    energy_mev: F64 | float,
    atomic_number: int,
    smallest: F64 | float,
    largest: F64 | float,
    *,
    mott: bool,
    charge: Charge = Charge.ELECTRON,
    n_node: int = 2000,
) -> tuple[F64, F64]:
    """Return nodes of x = 1 - cos and there dsigma/dx in mm2 for a unit charge, both of shape (..., ``n_node``).

    Energies and ends are single numbers, or of the same shape.
    """
    energy = np.asarray(energy_mev)
    momentum_mev, beta = (values[..., None] for values in momentum_and_speed(energy))
    screening = half_screening_angle2(energy, atomic_number)
    # Equal steps of ln(x + screening) resolve the screening angle and the large angles alike.
    shifted = np.geomspace(smallest + screening, largest + screening, n_node, axis=-1)
    x = shifted - screening[..., None]
    sine = np.sqrt(np.clip(0.5 * x, 0.0, 1.0))
    factor = np.ones_like(sine)
    if mott:
        factor += mott_strength(atomic_number, charge) * beta * sine * (1.0 - sine) - (beta * sine) ** 2
    front = (CLASSICAL_ELECTRON_RADIUS_MM * ELECTRON_REST_ENERGY_MEV / (momentum_mev * beta)) ** 2
    return x, 2.0 * np.pi * front * factor / shifted**2


def mott_strength(atomic_number: int, charge: Charge) -> float:
    """Return pi alpha Z, negative for positrons: the first order of the Mott factor."""
    sign = 1.0 if charge is Charge.ELECTRON else -1.0
    return sign * np.pi * FINE_STRUCTURE_CONSTANT * atomic_number


def soft_strength_per_mm(
    atoms: list[tuple[int, float]], energy_mev: F64, hard_transfer_mev: F64, charge: Charge
) -> tuple[F64, F64]:
    """Return the sum of 1 - cos and of its square, per mm at 1 g/cm3, of all deflections not simulated one by one.

    Parameters
    ----------
    atoms
        Atomic number and mol/g of every element.
    energy_mev
        Kinetic energies, shape (n_energy,).
    hard_transfer_mev
        Largest energy transfer to an atomic electron that is not simulated, shape (n_energy,).
    """
    first, second = np.zeros_like(energy_mev), np.zeros_like(energy_mev)
    largest = 1.0 - cosine_of_transfer(energy_mev, hard_transfer_mev)
    for atomic_number, mol_per_g in atoms:
        x, nuclei = deflections(
            energy_mev, atomic_number, 0.0, SINGLE_ONE_MINUS_COS, mott=True, charge=charge, n_node=_N_NODE
        )
        nuclei *= atomic_number**2 * _per_mm3(mol_per_g)
        first += np.trapezoid(nuclei * x, x, axis=-1)
        second += np.trapezoid(nuclei * x**2, x, axis=-1)
        x, electrons = deflections(energy_mev, atomic_number, 0.0, largest, mott=False, n_node=_N_NODE)
        electrons *= atomic_number * _per_mm3(mol_per_g)
        first += np.trapezoid(electrons * x, x, axis=-1)
        second += np.trapezoid(electrons * x**2, x, axis=-1)
    return first, second


def hard_bound_per_mm(atoms: list[tuple[int, float]], energy_mev: F64) -> F64:
    """Return an upper bound of nuclear deflections beyond `SINGLE_ONE_MINUS_COS` per mm at 1 g/cm3, shape (n_energy,).

    No screening, and the largest Mott factor of the heaviest element. What of it is no collision, the sampling sorts
    out (`engine.physics.monte_carlo.interactions.hard_deflection_cosine`).
    """
    momentum_mev, beta = momentum_and_speed(energy_mev)
    front = (
        2.0 * np.pi * (CLASSICAL_ELECTRON_RADIUS_MM * ELECTRON_REST_ENERGY_MEV / (momentum_mev * beta)) ** 2
    )
    charges = sum(_per_mm3(mol_per_g) * z**2 for z, mol_per_g in atoms)
    heaviest = max(z for z, _ in atoms)
    factor = 1.0 + 0.25 * mott_strength(heaviest, Charge.ELECTRON) * beta
    return np.asarray(front * charges * (1.0 / SINGLE_ONE_MINUS_COS - 0.5) * factor)


def screening_constant_mev2(atomic_number: int) -> float:
    """Return what half of the squared screening angle is times p2 / (1.13 + 3.76 (alpha Z / beta)2)."""
    radius_mm = _THOMAS_FERMI * BOHR_RADIUS_MM / atomic_number ** (1.0 / 3.0)
    return float(0.5 * (REDUCED_PLANCK_C_MEV_MM / radius_mm) ** 2)


def _per_mm3(mol_per_g: float) -> float:
    """Return atoms per mm3 at 1 g/cm3."""
    return mol_per_g * AVOGADRO_PER_MOL / MM3_PER_CM3
