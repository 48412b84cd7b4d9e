"""Collisions with atomic electrons: Moller (1932) for electrons, Bhabha (1936) for positrons (ICRU 37, chapter 3)."""

import numpy as np

from engine.model.arrays import F64
from engine.physics.constants import ELECTRON_REST_ENERGY_MEV
from engine.physics.materials import Material
from engine.physics.stopping_power import BETHE_MEV_CM2_PER_MOL, Charge
from engine.units import CM_PER_MM

_N_QUADRATURE = 400


def collisions_per_mev_mm(material: Material, energy_mev: float, transfer_mev: F64, charge: Charge) -> F64:
    """Return collisions per mm at 1 g/cm3 and MeV of transfer, same shape as ``transfer_mev``."""
    tau = energy_mev / ELECTRON_REST_ENERGY_MEV
    beta2 = tau * (tau + 2.0) / (tau + 1.0) ** 2
    share = transfer_mev / energy_mev
    front = BETHE_MEV_CM2_PER_MOL * CM_PER_MM * material.electrons_per_nucleon / beta2
    bracket = _moller(tau, share) if charge is Charge.ELECTRON else _bhabha(tau, share)
    return np.asarray(front * bracket / transfer_mev**2)


def collision_moment(
    material: Material, energy_mev: float, low_mev: float, high_mev: float, power: int, charge: Charge
) -> float:
    """Return the integral of the transfer to a power over collisions between two transfers, per mm at 1 g/cm3."""
    if high_mev <= low_mev:
        return 0.0
    log_transfer = np.linspace(np.log(low_mev), np.log(high_mev), _N_QUADRATURE)
    transfer_mev = np.exp(log_transfer)
    rate = collisions_per_mev_mm(material, energy_mev, transfer_mev, charge)
    return float(np.trapezoid(rate * transfer_mev ** (power + 1), log_transfer))


def largest_transfer_mev(energy_mev: F64, charge: Charge) -> F64:
    """Return the largest transfer: of two electrons, the slower one after the collision counts as knocked on."""
    return 0.5 * energy_mev if charge is Charge.ELECTRON else energy_mev


def _moller(tau: float, share: F64) -> F64:
    """Return the bracket of the cross section, 1 for small shares of the energy."""
    mixed = (2.0 * tau + 1.0) / (tau + 1.0) ** 2
    ratio = share / (1.0 - share)
    return 1.0 + ratio**2 + (tau / (tau + 1.0)) ** 2 * share**2 - mixed * ratio


def _bhabha(tau: float, share: F64) -> F64:
    """Return the bracket of the cross section, 1 for small shares of the energy."""
    b1, b2, b3, b4 = bhabha_coefficients(tau)
    return np.asarray(1.0 - share * (b1 - share * (b2 - share * (b3 - share * b4))))


def bhabha_coefficients(tau: float) -> tuple[float, float, float, float]:
    """Return the coefficients of Bhabha's bracket for a kinetic energy in units of the rest energy."""
    front = (tau / (tau + 1.0)) ** 2
    gamma = tau + 2.0
    return (
        front * (2.0 * gamma**2 - 1.0) / (gamma * tau),
        front * (3.0 * gamma**2 + 1.0) / gamma**2,
        front * 2.0 * (tau + 1.0) * tau / gamma**2,
        front * tau**2 / gamma**2,
    )
