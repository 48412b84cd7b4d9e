"""Bremsstrahlung and pair production: how energy is shared, after Bethe and Heitler with screening.

The screening functions are those of Butcher and Messel (Nucl. Phys. 20 (1960) 15), without Coulomb correction. Only the
shapes are used: totals are NIST's.
"""

import math

import numpy as np

from engine.model.arrays import F64
from engine.physics.constants import ELECTRON_REST_ENERGY_MEV

N_QUANTILE = 129
_N_QUADRATURE = 601


def bremsstrahlung_shape(atoms: list[tuple[int, float]], energy_mev: float, photon_mev: F64) -> F64:
    """Return k dN/dk up to a factor, same shape as ``photon_mev``."""
    before_mev = energy_mev + ELECTRON_REST_ENERGY_MEV
    after_mev = before_mev - photon_mev
    ratio = after_mev / before_mev
    total = np.zeros_like(photon_mev)
    for atomic_number, mol_per_g in atoms:
        near, far = _screened(atomic_number, photon_mev / (before_mev * after_mev))
        shape = (1.0 + ratio**2) * near - 2.0 / 3.0 * ratio * far
        total += mol_per_g * atomic_number * (atomic_number + 1.0) * np.maximum(shape, 0.0)
    return total


def pair_shape(atoms: list[tuple[int, float]], photon_mev: float, share: F64) -> F64:
    """Return dN/dshare up to a factor, where ``share`` is the electron's of the kinetic energy of the pair."""
    kinetic_mev = photon_mev - 2.0 * ELECTRON_REST_ENERGY_MEV
    one_mev = ELECTRON_REST_ENERGY_MEV + share * kinetic_mev
    other_mev = photon_mev - one_mev
    total = np.zeros_like(share)
    for atomic_number, mol_per_g in atoms:
        near, far = _screened(atomic_number, photon_mev / (one_mev * other_mev))
        shape = (one_mev**2 + other_mev**2) * near + 2.0 / 3.0 * one_mev * other_mev * far
        total += mol_per_g * atomic_number * (atomic_number + 1.0) * np.maximum(shape, 0.0)
    # At the threshold the formula, which is for high energies, leaves nothing: there all shares are equally likely.
    return total if total.max() > 0.0 else np.ones_like(share)


def bremsstrahlung_split(
    atoms: list[tuple[int, float]], energy_mev: float, cutoff_mev: float
) -> tuple[float, float]:
    """Return photons above the cut-off per MeV of radiated energy, and the share of that energy below the cut-off."""
    photon_mev = np.linspace(0.0, energy_mev, _N_QUADRATURE)
    energy = float(np.trapezoid(bremsstrahlung_shape(atoms, energy_mev, photon_mev), photon_mev))
    log_photon = np.linspace(math.log(cutoff_mev), math.log(energy_mev), _N_QUADRATURE)
    shape = bremsstrahlung_shape(atoms, energy_mev, np.exp(log_photon))
    above = float(np.trapezoid(shape * np.exp(log_photon), log_photon))
    return float(np.trapezoid(shape, log_photon)) / energy, max(0.0, 1.0 - above / energy)


def bremsstrahlung_quantiles(atoms: list[tuple[int, float]], energy_mev: F64, cutoff_mev: float) -> F64:
    """Return quantiles of ln(k / cut-off) / ln(T / cut-off) of photons above the cut-off.

    Shape (n_energy, `N_QUANTILE`), equally spaced from 0 to 1.
    """
    place = np.linspace(0.0, 1.0, _N_QUADRATURE)
    rows = []
    for energy in energy_mev:
        photon_mev = cutoff_mev * np.exp(place * math.log(float(energy) / cutoff_mev))
        rows.append(_quantiles(place, bremsstrahlung_shape(atoms, float(energy), photon_mev)))
    return np.array(rows)


def pair_quantiles(atoms: list[tuple[int, float]], photon_mev: F64) -> F64:
    """Return quantiles of the electron's share of the pair's kinetic energy, shape (n_energy, `N_QUANTILE`)."""
    share = np.linspace(0.0, 1.0, _N_QUADRATURE)
    return np.array([_quantiles(share, pair_shape(atoms, float(photon), share)) for photon in photon_mev])


def _quantiles(place: F64, density: F64) -> F64:
    steps = 0.5 * (density[1:] + density[:-1]) * np.diff(place)
    summed = np.concatenate([[0.0], np.cumsum(steps)])
    return np.interp(np.linspace(0.0, 1.0, N_QUANTILE), summed / summed[-1], place)


def _screened(atomic_number: int, momentum_per_mev: F64) -> tuple[F64, F64]:
    """Return both screening functions less 4/3 ln Z, where ``momentum_per_mev`` is k / (E E')."""
    delta = 136.0 * atomic_number ** (-1.0 / 3.0) * ELECTRON_REST_ENERGY_MEV * momentum_per_mev
    weak = 21.12 - 4.184 * np.log(delta + 0.952)
    near = np.where(delta <= 1.0, 20.867 - 3.242 * delta + 0.625 * delta**2, weak)
    far = np.where(delta <= 1.0, 20.029 - 1.930 * delta - 0.086 * delta**2, weak)
    charge = 4.0 / 3.0 * math.log(atomic_number)
    return np.maximum(near - charge, 0.0), np.maximum(far - charge, 0.0)
