r"""Stopping powers of any mixture for electrons and positrons, after ESTAR (NISTIR 4999; ICRU Report 37).

Collisions: the Bethe formula with the density effect of Sternheimer, Seltzer and Berger (Phys. Rev. B 26 (1982) 6067)
from the binding energies of all shells. Radiation: ESTAR's tables of the elements, mixed by mass.
"""

import math
from enum import Enum
from functools import cache

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq

from engine.model.arrays import F64
from engine.physics.constants import (
    AVOGADRO_PER_MOL,
    CLASSICAL_ELECTRON_RADIUS_MM,
    ELECTRON_REST_ENERGY_MEV,
)
from engine.physics.element_tables import mean_excitation_ev_of, radiative_of, require_energies, shells_of
from engine.physics.materials import Material
from engine.units import CM_PER_MM

BETHE_MEV_CM2_PER_MOL = (
    2.0
    * math.pi
    * (CLASSICAL_ELECTRON_RADIUS_MM * CM_PER_MM) ** 2
    * ELECTRON_REST_ENERGY_MEV
    * AVOGADRO_PER_MOL
)
"""2 pi r0^2 m c^2 N_A, 0.1535 MeV cm2/mol."""
_PLASMA_EV = 28.8159
"""Plasma energy in eV of one mole of electrons per cm3, to be multiplied by the root of the density times Z/A."""

_IN_COMPOUNDS_EV = {1: 19.2, 6: 81.0, 7: 82.0, 8: 106.0, 9: 112.0, 17: 180.0}
"""Mean excitation energies of atoms in liquid and solid compounds; of the others, 1.13 times that of the element."""
_IN_GAS_EV = {1: 19.2, 6: 70.0, 7: 82.0, 8: 97.0}
_OTHERS_FACTOR = 1.13
_GAS_BELOW_G_CM3 = 0.01
"""ICRU Report 37, table 5.1. What is thinner than 0.01 g/cm3 is taken for a gas."""


class Charge(Enum):
    """Which light charged particle."""

    ELECTRON = 0
    POSITRON = 1


def mean_excitation_ev(material: Material) -> float:
    """Return the mean excitation energy: the material's own, that of an element, or by Bragg's rule (ICRU 37)."""
    if material.mean_excitation_ev is not None:
        return material.mean_excitation_ev
    atoms = material.atoms()
    if len(atoms) == 1:
        return mean_excitation_ev_of(atoms[0][0])
    gas = material.density_g_cm3 < _GAS_BELOW_G_CM3
    table = _IN_GAS_EV if gas else _IN_COMPOUNDS_EV
    total = 0.0
    for atomic_number, mol_per_g in atoms:
        own = mean_excitation_ev_of(atomic_number) * (1.0 if gas else _OTHERS_FACTOR)
        total += atomic_number * mol_per_g * math.log(table.get(atomic_number, own))
    return math.exp(total / material.electrons_per_nucleon)


def density_effect(material: Material, energy_mev: F64) -> F64:
    """Return the density effect correction delta of the Bethe formula, same shape as ``energy_mev``."""
    share, binding_ev, conducting = _oscillators(material)
    plasma_ev = _PLASMA_EV * math.sqrt(material.density_g_cm3 * material.electrons_per_nucleon)
    free_share = np.where(conducting, 1.0, 2.0 / 3.0) * share
    level2 = np.where(conducting, 0.0, (binding_ev / plasma_ev) ** 2)
    wanted = 2.0 * math.log(mean_excitation_ev(material) / plasma_ev)

    def excess(log_factor: float) -> float:
        return float(np.sum(share * np.log(math.exp(log_factor) * level2 + free_share))) - wanted

    # The factor by which all levels are shifted so that they give the mean excitation energy.
    level2 = level2 * math.exp(brentq(excess, -30.0, 30.0, xtol=1.0e-12))
    oscillator2 = level2 + free_share
    tau = energy_mev / ELECTRON_REST_ENERGY_MEV
    momentum2 = tau * (tau + 2.0)
    low, high = np.full_like(momentum2, -30.0), np.full_like(momentum2, 30.0)
    for _ in range(60):
        middle = 0.5 * (low + high)
        too_small = np.sum(share / (level2 + np.exp(middle)[..., None]), axis=-1) > 1.0 / momentum2
        low, high = np.where(too_small, middle, low), np.where(too_small, high, middle)
    root2 = np.exp(0.5 * (low + high))
    delta = np.sum(share * np.log1p(root2[..., None] / oscillator2), axis=-1) - root2 / (1.0 + momentum2)
    # An insulator has none below the speed at which there is no root.
    reached = True if conducting.any() else np.sum(share / np.maximum(level2, 1e-300)) > 1.0 / momentum2
    return np.where(reached, np.maximum(delta, 0.0), 0.0)


def collision_stopping_power(material: Material, energy_mev: F64, charge: Charge = Charge.ELECTRON) -> F64:
    """Return the unrestricted collision stopping power in MeV cm2/g (ICRU 37, equations 2.9 to 2.14)."""
    require_energies(energy_mev)
    tau = energy_mev / ELECTRON_REST_ENERGY_MEV
    beta2 = tau * (tau + 2.0) / (tau + 1.0) ** 2
    if charge is Charge.ELECTRON:
        spin = (1.0 - beta2) * (1.0 + tau**2 / 8.0 - (2.0 * tau + 1.0) * math.log(2.0))
    else:
        power = 14.0 / (tau + 2.0) + 10.0 / (tau + 2.0) ** 2 + 4.0 / (tau + 2.0) ** 3
        spin = 2.0 * math.log(2.0) - beta2 / 12.0 * (23.0 + power)
    excitation_mev = mean_excitation_ev(material) * 1.0e-6
    bracket = 2.0 * np.log(energy_mev / excitation_mev) + np.log1p(0.5 * tau) + spin
    bracket -= density_effect(material, energy_mev)
    return np.asarray(BETHE_MEV_CM2_PER_MOL * material.electrons_per_nucleon / beta2 * bracket)


def radiative_stopping_power(material: Material, energy_mev: F64) -> F64:
    """Return the radiative stopping power in MeV cm2/g, for electrons; that of positrons is taken to be the same."""
    require_energies(energy_mev)
    total = math.fsum(material.composition.values())
    shares = zip(material.atoms(), material.composition.values(), strict=True)
    table_mev, mixed = _radiative_sum(tuple((z, share / total) for (z, _), share in shares))
    return np.asarray(np.exp(CubicSpline(np.log(table_mev), np.log(mixed))(np.log(energy_mev))))


def csda_range_g_cm2(material: Material, energy_mev: F64) -> F64:
    """Return the range of electrons in continuous slowing down, in g/cm2, same shape as ``energy_mev``.

    Below 10 keV the stopping power is taken to be what it is there (ESTAR begins at 1 keV, by half of the energy).
    """
    lowest_mev = 0.01
    grid_mev = np.geomspace(lowest_mev, 100.0, 4001)
    total = collision_stopping_power(material, grid_mev) + radiative_stopping_power(material, grid_mev)
    inverse = CubicSpline(np.log(grid_mev), grid_mev / total).antiderivative()
    # In water, 10 keV reach 2.5e-4 g/cm2; constant stopping power would give 4.4e-4, the power law E^1.75 this.
    below = lowest_mev / total[0] / 1.75
    return np.asarray(below + inverse(np.log(energy_mev)))


def _oscillators(material: Material) -> tuple[F64, F64, F64]:
    """Return share of the electrons, binding energy and whether they conduct, of all shells of all elements."""
    atoms = material.atoms()
    shares, bindings, conducting = [], [], []
    for atomic_number, mol_per_g in atoms:
        shells = shells_of(atomic_number)
        electrons = atomic_number * mol_per_g / material.electrons_per_nucleon
        shares.append(electrons * shells.n_electron / shells.n_electron.sum())
        bindings.append(shells.binding_ev)
        # In compounds no electron is free.
        conducting.append((shells.conducting > 0.0) & (len(atoms) == 1))
    return np.concatenate(shares), np.concatenate(bindings), np.concatenate(conducting)


@cache
def _radiative_sum(shares: tuple[tuple[int, float], ...]) -> tuple[F64, F64]:
    table_mev = radiative_of(shares[0][0])[0]
    return table_mev, np.sum([share * radiative_of(z)[1] for z, share in shares], axis=0)
