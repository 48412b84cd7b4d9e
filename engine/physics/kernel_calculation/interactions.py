"""Sampling of single interactions in water: what the cut-offs of the kernel calculation belong to."""

import math

from engine._jit import inlined
from engine.physics.constants import ELECTRON_REST_ENERGY_MEV, FINE_STRUCTURE_CONSTANT
from engine.physics.kernel_calculation.elastic_scattering import OXYGEN, SINGLE_ONE_MINUS_COS
from engine.physics.kernel_calculation.water_tables import BREMSSTRAHLUNG_CUTOFF_MEV
from engine.physics.monte_carlo.random_numbers import U64, uniform

M = ELECTRON_REST_ENERGY_MEV


@inlined
def bremsstrahlung_mev(kinetic_mev: float, random_state: U64) -> float:
    """Return the energy of a bremsstrahlung photon: the spectrum of ``water_tables.bremsstrahlung_shape``."""
    log_ratio = math.log(kinetic_mev / BREMSSTRAHLUNG_CUTOFF_MEV)
    while True:
        photon_mev = BREMSSTRAHLUNG_CUTOFF_MEV * math.exp(log_ratio * uniform(random_state))
        share = photon_mev / (kinetic_mev + M)
        if uniform(random_state) <= 1.0 - share + 0.75 * share * share:
            return photon_mev


@inlined
def single_scattering_cosine(kinetic_mev: float, half_screening2: float, random_state: U64) -> float:
    """Return the cosine of a large deflection by a nucleus: screened Rutherford, Mott factor by rejection.

    Hydrogen (3 % of these collisions) is given the screening and the Mott factor of oxygen.
    """
    beta = math.sqrt(kinetic_mev * (kinetic_mev + 2.0 * M)) / (kinetic_mev + M)
    inverse_low = 1.0 / (SINGLE_ONE_MINUS_COS + half_screening2)
    inverse_high = 1.0 / (2.0 + half_screening2)
    spin = math.pi * FINE_STRUCTURE_CONSTANT * OXYGEN * beta
    while True:
        x = 1.0 / (inverse_low - (inverse_low - inverse_high) * uniform(random_state)) - half_screening2
        sine = math.sqrt(min(1.0, max(0.0, 0.5 * x)))
        factor = 1.0 - (beta * sine) ** 2 + spin * sine * (1.0 - sine)
        if uniform(random_state) * (1.0 + 0.25 * spin) <= factor:
            return 1.0 - x
