"""Particles and energy deposits of a history: their layout and the small kernels that handle them.

A particle is a row of nine numbers: energy (MeV; kinetic for electrons), x, y, z (mm), direction cosines u, v, w,
generation, kind. A deposit is a row of five: x, y, z (mm), energy (MeV), generation. The generation says which
collision of the photon set the electron in motion: 0 the first (primary dose), 1 the second, 2 the third, 3 any
later one, 4 every collision of a bremsstrahlung or annihilation photon.
"""

import math

from engine._jit import inlined
from engine.model.arrays import F64
from engine.physics.monte_carlo.random_numbers import U64, uniform

N_GENERATION = 5
PARTICLE_SIZE = 9
DEPOSIT_SIZE = 5
PHOTON, ELECTRON, POSITRON = 0.0, 1.0, 2.0
LATER = 3.0
RADIATIVE = 4.0
TWO_PI = 2.0 * math.pi


@inlined
def interpolated(table: F64, column: int, place: float) -> float:
    """Return a column of a table at a fractional row number, clamped to the table."""
    row = min(max(int(place), 0), table.shape[0] - 2)
    share = min(max(place - row, 0.0), 1.0)
    return float(table[row, column] * (1.0 - share) + table[row + 1, column] * share)


@inlined
def push(stack: F64, n_stack: int, kind: float, energy_mev: float, parent: F64, generation: float) -> int:
    """Put a new particle with its parent's place and direction on the stack; return the new height."""
    new = stack[n_stack]
    new[:] = parent
    new[0] = energy_mev
    new[7] = generation
    new[8] = kind
    return n_stack + 1


@inlined
def deposit(deposits: F64, n_deposit: int, particle: F64, energy_mev: float) -> int:
    """Book energy at the particle's place; return the new number of deposits."""
    if n_deposit < deposits.shape[0]:
        row = deposits[n_deposit]
        row[0], row[1], row[2] = particle[1], particle[2], particle[3]
        row[3], row[4] = energy_mev, particle[7]
    return n_deposit + 1


@inlined
def move(particle: F64, path_mm: float) -> None:
    """Move a particle along its direction."""
    particle[1] += path_mm * particle[4]
    particle[2] += path_mm * particle[5]
    particle[3] += path_mm * particle[6]


@inlined
def set_isotropic(particle: F64, random_state: U64) -> None:
    """Give a particle a random direction."""
    cosine = 2.0 * uniform(random_state) - 1.0
    azimuth_rad = TWO_PI * uniform(random_state)
    sine = math.sqrt(max(0.0, 1.0 - cosine * cosine))
    particle[4], particle[5], particle[6] = sine * math.cos(azimuth_rad), sine * math.sin(azimuth_rad), cosine
