"""Electrons and positrons on their way through water: small losses together, hard collisions one by one."""

import math

from engine._jit import inlined
from engine.model.arrays import F64
from engine.physics.kernel_calculation.interactions import bremsstrahlung_mev, single_scattering_cosine
from engine.physics.kernel_calculation.particles import (
    ELECTRON,
    PHOTON,
    RADIATIVE,
    TWO_PI,
    deposit,
    interpolated,
    move,
    push,
)
from engine.physics.kernel_calculation.water_tables import (
    DELTA_CUTOFF_MEV,
    ELECTRON_CUTOFF_MEV,
    HIGHEST_ENERGY_MEV,
)
from engine.physics.monte_carlo.interactions import (
    collision_cosine,
    forward_cosine,
    knock_on_mev,
    multiple_scattering_cosine,
    turn,
)
from engine.physics.monte_carlo.random_numbers import U64, uniform

_STEP_LOSS_FRACTION = 0.05
_STEP_MEAN_ONE_MINUS_COS = 0.1
"""Longest step: share of the energy lost, and mean of 1 - cos of its small deflections."""
_LOG_SPAN = math.log(HIGHEST_ENERGY_MEV / ELECTRON_CUTOFF_MEV)


@inlined
def follow_electron(
    electron: F64,
    water_electron: F64,
    stack: F64,
    n_stack: int,
    deposits: F64,
    n_deposit: int,
    random_state: U64,
) -> tuple[int, int]:
    """Follow an electron or positron to rest: continuous loss, hard collisions one by one. Return the new heights.

    Random hinge (Sempau, Wilderman and Bielajew, Phys. Med. Biol. 45 (2000) 2263): the step's whole deflection is
    applied at a random point of it.
    """
    per_log = (water_electron.shape[0] - 1) / _LOG_SPAN
    while electron[0] > ELECTRON_CUTOFF_MEV:
        place = math.log(electron[0] / ELECTRON_CUTOFF_MEV) * per_log
        stopping = interpolated(water_electron, 0, place)
        brems = interpolated(water_electron, 1, place)
        knock_on = interpolated(water_electron, 2, place)
        hard = brems + knock_on + interpolated(water_electron, 3, place)
        step_mm = min(
            _STEP_LOSS_FRACTION * electron[0] / stopping,
            _STEP_MEAN_ONE_MINUS_COS / interpolated(water_electron, 4, place),
        )
        free_mm = -math.log(uniform(random_state)) / hard
        is_hard = free_mm < step_mm
        step_mm = min(step_mm, free_mm)
        # Half the loss of a first guess leads to the middle of the step: second order in the step.
        middle = math.log((electron[0] - 0.5 * stopping * step_mm) / ELECTRON_CUTOFF_MEV) * per_log
        loss_mev = min(step_mm * interpolated(water_electron, 0, middle), electron[0])
        before = uniform(random_state)
        booked = uniform(random_state)
        if booked < before:
            move(electron, booked * step_mm)
            n_deposit = deposit(deposits, n_deposit, electron, loss_mev)
            move(electron, (before - booked) * step_mm)
        else:
            move(electron, before * step_mm)
        cosine = multiple_scattering_cosine(step_mm * interpolated(water_electron, 4, middle), random_state)
        turn(electron, cosine, TWO_PI * uniform(random_state))
        if booked < before:
            move(electron, (1.0 - before) * step_mm)
        else:
            move(electron, (booked - before) * step_mm)
            n_deposit = deposit(deposits, n_deposit, electron, loss_mev)
            move(electron, (1.0 - booked) * step_mm)
        electron[0] -= loss_mev
        if is_hard and electron[0] > ELECTRON_CUTOFF_MEV:
            choice = uniform(random_state) * hard
            if choice < brems + knock_on:
                n_stack = radiate_or_knock_on(electron, choice < brems, stack, n_stack, random_state)
            else:
                half_screening2 = interpolated(water_electron, 5, place)
                cosine = single_scattering_cosine(electron[0], half_screening2, random_state)
                turn(electron, cosine, TWO_PI * uniform(random_state))
    if electron[0] > 0.0:
        n_deposit = deposit(deposits, n_deposit, electron, electron[0])
    return n_stack, n_deposit


@inlined
def radiate_or_knock_on(electron: F64, radiative: bool, stack: F64, n_stack: int, random_state: U64) -> int:
    """Emit a bremsstrahlung photon or knock an electron on; return the new height of the stack."""
    azimuth_rad = TWO_PI * uniform(random_state)
    if radiative:
        photon_mev = bremsstrahlung_mev(electron[0], random_state)
        n_stack = push(stack, n_stack, PHOTON, photon_mev, electron, RADIATIVE)
        turn(stack[n_stack - 1], forward_cosine(electron[0], random_state), azimuth_rad)
        electron[0] -= photon_mev
        return n_stack
    # The loss within the step can have left too little for a knock-on above the cut-off.
    if electron[0] > 2.0 * DELTA_CUTOFF_MEV:
        transfer_mev = knock_on_mev(electron[0], DELTA_CUTOFF_MEV, random_state)
        n_stack = push(stack, n_stack, ELECTRON, transfer_mev, electron, electron[7])
        turn(stack[n_stack - 1], collision_cosine(electron[0], transfer_mev), azimuth_rad + math.pi)
        turn(electron, collision_cosine(electron[0], electron[0] - transfer_mev), azimuth_rad)
        electron[0] -= transfer_mev
    return n_stack
