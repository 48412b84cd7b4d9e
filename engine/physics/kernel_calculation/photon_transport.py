"""Photons on their way through water: free flights and collisions, one by one."""

import math

from engine._jit import inlined
from engine.model.arrays import F64
from engine.physics.constants import ELECTRON_REST_ENERGY_MEV
from engine.physics.kernel_calculation.particles import (
    ELECTRON,
    LATER,
    POSITRON,
    TWO_PI,
    deposit,
    interpolated,
    move,
    push,
)
from engine.physics.kernel_calculation.water_tables import HIGHEST_ENERGY_MEV, PHOTON_CUTOFF_MEV
from engine.physics.monte_carlo.interactions import (
    compton_electron_cosine,
    compton_photon_cosine,
    compton_photon_mev,
    forward_cosine,
    turn,
)
from engine.physics.monte_carlo.random_numbers import U64, uniform

_LOG_SPAN = math.log(HIGHEST_ENERGY_MEV / PHOTON_CUTOFF_MEV)


@inlined
def follow_photon(
    photon: F64,
    forced: bool,
    water_photon: F64,
    stack: F64,
    n_stack: int,
    deposits: F64,
    n_deposit: int,
    random_state: U64,
) -> tuple[int, int]:
    """Follow a photon until it is absorbed; charged particles go on the stack. Return the new heights."""
    per_log = (water_photon.shape[0] - 1) / _LOG_SPAN
    while photon[0] > PHOTON_CUTOFF_MEV:
        place = math.log(photon[0] / PHOTON_CUTOFF_MEV) * per_log
        if not forced:
            move(photon, -math.log(uniform(random_state)) / interpolated(water_photon, 0, place))
        forced = False
        choice = uniform(random_state)
        azimuth_rad = TWO_PI * uniform(random_state)
        if choice < interpolated(water_photon, 1, place):
            scattered_mev = compton_photon_mev(photon[0], random_state)
            n_stack = push(stack, n_stack, ELECTRON, photon[0] - scattered_mev, photon, photon[7])
            turn(stack[n_stack - 1], compton_electron_cosine(photon[0], scattered_mev), azimuth_rad + math.pi)
            turn(photon, compton_photon_cosine(photon[0], scattered_mev), azimuth_rad)
            photon[0] = scattered_mev
            if photon[7] < LATER:
                photon[7] += 1.0
        elif choice < interpolated(water_photon, 2, place) or photon[0] <= 2.0 * ELECTRON_REST_ENERGY_MEV:
            n_stack = push(stack, n_stack, ELECTRON, photon[0], photon, photon[7])
            photon[0] = 0.0
        else:
            kinetic_mev = photon[0] - 2.0 * ELECTRON_REST_ENERGY_MEV
            electron_mev = kinetic_mev * uniform(random_state)
            n_stack = push(stack, n_stack, ELECTRON, electron_mev, photon, photon[7])
            turn(stack[n_stack - 1], forward_cosine(electron_mev, random_state), azimuth_rad)
            positron_mev = kinetic_mev - electron_mev
            n_stack = push(stack, n_stack, POSITRON, positron_mev, photon, photon[7])
            turn(stack[n_stack - 1], forward_cosine(positron_mev, random_state), azimuth_rad + math.pi)
            photon[0] = 0.0
    if photon[0] > 0.0:
        n_deposit = deposit(deposits, n_deposit, photon, photon[0])
    return n_stack, n_deposit
