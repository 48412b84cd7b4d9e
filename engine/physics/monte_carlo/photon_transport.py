"""Photons on their way through voxels: Woodcock's flights, and collisions one by one."""

import math

from engine._jit import inlined
from engine.model.arrays import F64, I64
from engine.physics.constants import ELECTRON_REST_ENERGY_MEV
from engine.physics.monte_carlo.interactions import (
    compton_electron_cosine,
    compton_photon_cosine,
    compton_photon_mev,
    forward_cosine,
    quantile,
    turn,
)
from engine.physics.monte_carlo.particles import (
    ELECTRON,
    ENERGY,
    POSITRON,
    TWO_PI,
    VOXEL_X,
    VOXEL_Y,
    VOXEL_Z,
    X,
    Y,
    Z,
    move,
    push,
)
from engine.physics.monte_carlo.random_numbers import U64, uniform
from engine.physics.monte_carlo.tables import (
    ATTENUATION,
    INCOHERENT,
    INCOHERENT_OR_PHOTOELECTRIC,
    Tables,
)
from engine.physics.monte_carlo.tally import ESCAPED, UNITS_PER_MEV, score
from engine.physics.monte_carlo.voxels import Voxels


@inlined
def follow_photon(
    photon: F64,
    history: int,
    voxels: Voxels,
    tables: Tables,
    stack: F64,
    n_stack: int,
    rows: I64,
    counts: I64,
    random_state: U64,
) -> int:
    """Follow a photon until it is absorbed or leaves; charged particles go on the stack. Return its new height."""
    while photon[ENERGY] > tables.photon_cutoff_mev:
        place = (math.log(photon[ENERGY]) - tables.photon_log_low) * tables.photon_per_log
        row = min(int(place), tables.photon.shape[1] - 2)
        share = place - row
        if not fly(photon, row, share, voxels, tables, random_state):
            counts[ESCAPED] += int(photon[ENERGY] * UNITS_PER_MEV + 0.5)
            return n_stack
        material = voxels.material[int(photon[VOXEL_Z]), int(photon[VOXEL_Y]), int(photon[VOXEL_X])]
        choice = uniform(random_state)
        if choice < between(tables.photon, material, row, share, INCOHERENT):
            scattered_mev = compton_photon_mev(photon[ENERGY], random_state)
            azimuth_rad = TWO_PI * uniform(random_state)
            electron_mev = photon[ENERGY] - scattered_mev
            cosine = compton_electron_cosine(photon[ENERGY], scattered_mev)
            n_stack = release(
                photon,
                electron_mev,
                cosine,
                azimuth_rad + math.pi,
                history,
                voxels,
                tables,
                stack,
                n_stack,
                rows,
            )
            turn(photon, compton_photon_cosine(photon[ENERGY], scattered_mev), azimuth_rad)
            photon[ENERGY] = scattered_mev
            continue
        both = between(tables.photon, material, row, share, INCOHERENT_OR_PHOTOELECTRIC)
        if choice < both or photon[ENERGY] <= 2.0 * ELECTRON_REST_ENERGY_MEV:
            return release(photon, photon[ENERGY], 1.0, 0.0, history, voxels, tables, stack, n_stack, rows)
        return make_pair(photon, material, history, voxels, tables, stack, n_stack, rows, random_state)
    score(rows, voxel_of(photon, voxels), photon[ENERGY], history)
    return n_stack


@inlined
def fly(photon: F64, row: int, share: float, voxels: Voxels, tables: Tables, random_state: U64) -> bool:
    """Move a photon to its next collision; return whether that is in the grid.

    Woodcock (1965): flights as in a uniform medium that attenuates as no voxel does more; where a voxel attenuates
    less, so many of the collisions are none. Faces of voxels need not be looked for.
    """
    n_z, n_y, n_x = voxels.material.shape
    majorant = voxels.majorant_per_mm[row]
    majorant += share * (voxels.majorant_per_mm[row + 1] - majorant)
    while True:
        move(photon, -math.log(uniform(random_state)) / majorant)
        if photon[X] < 0.0 or photon[Y] < 0.0 or photon[Z] < 0.0:
            return False
        voxel_x = int(photon[X] / voxels.size_x_mm)
        voxel_y = int(photon[Y] / voxels.size_y_mm)
        voxel_z = int(photon[Z] / voxels.size_z_mm)
        if voxel_x >= n_x or voxel_y >= n_y or voxel_z >= n_z:
            return False
        material = voxels.material[voxel_z, voxel_y, voxel_x]
        per_mm = between(tables.photon, material, row, share, ATTENUATION)
        per_mm *= voxels.density_g_cm3[voxel_z, voxel_y, voxel_x]
        if uniform(random_state) * majorant <= per_mm:
            photon[VOXEL_X], photon[VOXEL_Y], photon[VOXEL_Z] = voxel_x, voxel_y, voxel_z
            return True


@inlined
def between(table: F64, material: int, row: int, share: float, column: int) -> float:
    """Return a column of `Tables.photon` between a row and the next."""
    low = table[material, row, column]
    return float(low + share * (table[material, row + 1, column] - low))


@inlined
def voxel_of(particle: F64, voxels: Voxels) -> int:
    """Return the position of a particle's voxel in the flat grid."""
    n_y, n_x = voxels.material.shape[1], voxels.material.shape[2]
    return int((int(particle[VOXEL_Z]) * n_y + int(particle[VOXEL_Y])) * n_x + int(particle[VOXEL_X]))


@inlined
def release(
    parent: F64,
    energy_mev: float,
    cosine: float,
    azimuth_rad: float,
    history: int,
    voxels: Voxels,
    tables: Tables,
    stack: F64,
    n_stack: int,
    rows: I64,
) -> int:
    """Set an electron free, or leave its energy here if that is below the cut-off; return the new height."""
    if energy_mev <= tables.electron_cutoff_mev:
        score(rows, voxel_of(parent, voxels), energy_mev, history)
        return n_stack
    n_new = push(stack, n_stack, ELECTRON, energy_mev, parent)
    if cosine < 1.0:
        turn(stack[n_new - 1], cosine, azimuth_rad)
    return n_new


@inlined
def make_pair(
    photon: F64,
    material: int,
    history: int,
    voxels: Voxels,
    tables: Tables,
    stack: F64,
    n_stack: int,
    rows: I64,
    random_state: U64,
) -> int:
    """Turn a photon into an electron and a positron; return the new height."""
    place = (math.log(photon[ENERGY]) - tables.pair_log_low) * tables.pair_per_log
    kinetic_mev = photon[ENERGY] - 2.0 * ELECTRON_REST_ENERGY_MEV
    electron_mev = kinetic_mev * quantile(tables.pair[material], place, random_state)
    azimuth_rad = TWO_PI * uniform(random_state)
    cosine = forward_cosine(electron_mev, random_state)
    n_stack = release(
        photon, electron_mev, cosine, azimuth_rad, history, voxels, tables, stack, n_stack, rows
    )
    # A positron below the cut-off still annihilates.
    n_stack = push(stack, n_stack, POSITRON, kinetic_mev - electron_mev, photon)
    turn(stack[n_stack - 1], forward_cosine(kinetic_mev - electron_mev, random_state), azimuth_rad + math.pi)
    return n_stack
