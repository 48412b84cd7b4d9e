"""Particles of a history: their layout, the stack of those that wait, and the small kernels that handle them.

A particle is a row of eleven numbers: energy (MeV; kinetic for electrons), x, y, z (mm), direction cosines u, v, w,
kind, and the voxel that it is in (columns x, y, z). The voxel goes along because a place on a face belongs to two.
"""

import math

from engine._jit import inlined
from engine.model.arrays import F64
from engine.physics.monte_carlo.random_numbers import U64, uniform

ENERGY, X, Y, Z, U, V, W, KIND, VOXEL_X, VOXEL_Y, VOXEL_Z = range(11)
PARTICLE_SIZE = 11
PHOTON, ELECTRON, POSITRON, GONE = 0.0, 1.0, 2.0, 3.0
MAX_STACK = 1024
"""The newest particle is followed first, so that few wait. One too many is lost, which the energy balance shows."""
TWO_PI = 2.0 * math.pi


@inlined
def push(stack: F64, n_stack: int, kind: float, energy_mev: float, parent: F64) -> int:
    """Put a new particle with its parent's place and direction on the stack; return the new height."""
    if n_stack == stack.shape[0]:
        return n_stack
    for column in range(PARTICLE_SIZE):
        stack[n_stack, column] = parent[column]
    stack[n_stack, ENERGY] = energy_mev
    stack[n_stack, KIND] = kind
    return n_stack + 1


@inlined
def set_isotropic(particle: F64, random_state: U64) -> None:
    """Give a particle a random direction."""
    cosine = 2.0 * uniform(random_state) - 1.0
    azimuth_rad = TWO_PI * uniform(random_state)
    sine = math.sqrt(max(0.0, 1.0 - cosine * cosine))
    particle[U], particle[V], particle[W] = sine * math.cos(azimuth_rad), sine * math.sin(azimuth_rad), cosine


@inlined
def move(particle: F64, path_mm: float) -> None:
    """Move a particle along its direction."""
    particle[X] += path_mm * particle[U]
    particle[Y] += path_mm * particle[V]
    particle[Z] += path_mm * particle[W]
