"""One history: a photon interacts at the origin of unbounded water, and everything it sets in motion is followed."""

import numpy as np

from engine._jit import inlined
from engine.model.arrays import F64
from engine.physics.constants import ELECTRON_REST_ENERGY_MEV
from engine.physics.kernel_calculation.electron_transport import follow_electron
from engine.physics.kernel_calculation.particles import (
    PARTICLE_SIZE,
    PHOTON,
    POSITRON,
    RADIATIVE,
    push,
    set_isotropic,
)
from engine.physics.kernel_calculation.photon_transport import follow_photon
from engine.physics.monte_carlo.random_numbers import U64

MAX_STACK = 512
MAX_DEPOSIT = 8192


@inlined
def follow_history(
    energy_mev: float,
    water_photon: F64,
    water_electron: F64,
    stack: F64,
    deposits: F64,
    random_state: U64,
) -> int:
    """Fill ``deposits`` with one history and return their number (larger than the array if it was too short).

    ``stack`` has shape (MAX_STACK, PARTICLE_SIZE), ``deposits`` (n, DEPOSIT_SIZE), ``random_state`` (1,).
    """
    particle = np.zeros(PARTICLE_SIZE)
    particle[0], particle[6] = energy_mev, 1.0
    n_stack, n_deposit = follow_photon(particle, True, water_photon, stack, 0, deposits, 0, random_state)
    while n_stack > 0:
        n_stack -= 1
        particle[:] = stack[n_stack]
        if particle[8] == PHOTON:
            n_stack, n_deposit = follow_photon(
                particle, False, water_photon, stack, n_stack, deposits, n_deposit, random_state
            )
            continue
        n_stack, n_deposit = follow_electron(
            particle, water_electron, stack, n_stack, deposits, n_deposit, random_state
        )
        if particle[8] == POSITRON:
            # At rest: two photons back to back (annihilation in flight is neglected).
            set_isotropic(particle, random_state)
            for _ in range(2):
                n_stack = push(stack, n_stack, PHOTON, ELECTRON_REST_ENERGY_MEV, particle, RADIATIVE)
                particle[4], particle[5], particle[6] = -particle[4], -particle[5], -particle[6]
    return n_deposit
