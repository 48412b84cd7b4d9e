"""Electrons and positrons on their way through voxels: class II condensed history."""

import math

from engine._jit import inlined
from engine.model.arrays import F64, I64
from engine.physics.constants import ELECTRON_REST_ENERGY_MEV
from engine.physics.monte_carlo.interactions import (
    bhabha_knock_on_mev,
    collision_cosine,
    forward_cosine,
    hard_deflection_cosine,
    knock_on_mev,
    multiple_scattering_cosine,
    quantile,
    turn,
)
from engine.physics.monte_carlo.particles import (
    ELECTRON,
    ENERGY,
    GONE,
    KIND,
    PHOTON,
    TWO_PI,
    VOXEL_X,
    VOXEL_Y,
    VOXEL_Z,
    U,
    X,
    move,
    push,
)
from engine.physics.monte_carlo.photon_transport import voxel_of
from engine.physics.monte_carlo.random_numbers import U64, uniform
from engine.physics.monte_carlo.tables import (
    HARD,
    HARD_COLLISION,
    HARD_RADIATIVE,
    LOSS,
    SOFT_STRENGTH,
    SPREAD,
    STEP_STRENGTH,
    STRAGGLING,
    Tables,
)
from engine.physics.monte_carlo.tally import ESCAPED, UNITS_PER_MEV, score
from engine.physics.monte_carlo.voxels import Voxels

_FACE, _DEFLECTION, _HARD = range(3)
_FAR_MM = 1.0e30
_SMALL_MEAN = 0.08
"""Below it the Gaussian on the sphere does not reach around it: exp(-2 / 0.08) is 1e-11."""


@inlined
def follow_electron(
    electron: F64,
    history: int,
    voxels: Voxels,
    tables: Tables,
    stack: F64,
    n_stack: int,
    rows: I64,
    counts: I64,
    random_state: U64,
) -> int:
    """Follow an electron or positron to the cut-off or out of the grid (its kind is then GONE); return the new height.

    Random hinge (Sempau, Wilderman and Bielajew, Phys. Med. Biol. 45 (2000) 2263): a step is a fixed amount of
    scattering strength, and its deflection comes at a random point of it. From hinge to hinge the way is straight
    through the ends of steps, faces of voxels and materials; only the loss is booked voxel by voxel.
    """
    charge = 0 if electron[KIND] == ELECTRON else 1
    last_row = tables.electron.shape[2] - 2
    hard_left = -math.log(uniform(random_state))
    material = -1
    strength, left, after_hinge = -1.0, 0.0, 0.0
    loss_per_mm, strength_per_mm, next_strength = 0.0, 0.0, 0.0
    while electron[ENERGY] > tables.electron_cutoff_mev:
        density = voxels.density_g_cm3[int(electron[VOXEL_Z]), int(electron[VOXEL_Y]), int(electron[VOXEL_X])]
        here = int(voxels.material[int(electron[VOXEL_Z]), int(electron[VOXEL_Y]), int(electron[VOXEL_X])])
        if here != material:
            material = here
            place = (math.log(electron[ENERGY]) - tables.electron_log_low) * tables.electron_per_log
            row = min(int(place), last_row)
            loss_per_mm = between(tables.electron, charge, material, row, place - row, LOSS)
            strength_per_mm = between(tables.electron, charge, material, row, place - row, SOFT_STRENGTH)
            next_strength = between(tables.electron, charge, material, row, place - row, STEP_STRENGTH)
        if strength < 0.0:
            strength = next_strength
            left = strength * uniform(random_state)
            after_hinge = strength - left
        face_mm, axis = to_face(electron, voxels)
        # The rates of the middle of the flight hold for all of it.
        planned_mm = min(face_mm, left / (strength_per_mm * density))
        middle_mev = max(
            electron[ENERGY] - 0.5 * loss_per_mm * density * planned_mm, 0.5 * tables.electron_cutoff_mev
        )
        place = (math.log(middle_mev) - tables.electron_log_low) * tables.electron_per_log
        row = min(max(int(place), 0), last_row)
        share = place - row
        loss_per_mm = between(tables.electron, charge, material, row, share, LOSS)
        strength_per_mm = between(tables.electron, charge, material, row, share, SOFT_STRENGTH)
        next_strength = between(tables.electron, charge, material, row, share, STEP_STRENGTH)
        hard_per_mm = between(tables.electron, charge, material, row, share, HARD) * density
        event, step_mm = _FACE, face_mm
        if left < strength_per_mm * density * step_mm:
            event, step_mm = _DEFLECTION, left / (strength_per_mm * density)
        if hard_left < hard_per_mm * step_mm:
            event, step_mm = _HARD, hard_left / hard_per_mm
        variance_mev2 = between(tables.electron, charge, material, row, share, STRAGGLING) * density * step_mm
        loss_mev = min(
            straggled_mev(loss_per_mm * density * step_mm, variance_mev2, random_state), electron[ENERGY]
        )
        score(rows, voxel_of(electron, voxels), loss_mev, history)
        electron[ENERGY] -= loss_mev
        move(electron, step_mm)
        left -= strength_per_mm * density * step_mm
        hard_left -= hard_per_mm * step_mm
        if event == _FACE:
            if not cross(electron, axis, voxels):
                rest_mev = 2.0 * ELECTRON_REST_ENERGY_MEV if charge == 1 else 0.0
                counts[ESCAPED] += int((electron[ENERGY] + rest_mev) * UNITS_PER_MEV + 0.5)
                electron[KIND] = GONE
                return n_stack
        elif event == _DEFLECTION:
            spread = between(tables.electron, charge, material, row, share, SPREAD)
            turn(electron, soft_cosine(strength, spread, random_state), TWO_PI * uniform(random_state))
            # The next hinge: what is left of this step, and a random part of the next.
            strength = next_strength
            before_hinge = strength * uniform(random_state)
            left, after_hinge = after_hinge + before_hinge, strength - before_hinge
        else:
            hard_left = -math.log(uniform(random_state))
            if electron[ENERGY] > tables.electron_cutoff_mev:
                radiative = between(tables.electron, charge, material, row, share, HARD_RADIATIVE)
                collision = between(tables.electron, charge, material, row, share, HARD_COLLISION)
                n_stack = hard_event(
                    electron, charge, material, radiative, collision, tables, stack, n_stack, random_state
                )
    score(rows, voxel_of(electron, voxels), electron[ENERGY], history)
    return n_stack


@inlined
def between(table: F64, charge: int, material: int, row: int, share: float, column: int) -> float:
    """Return a column of `Tables.electron` between a row and the next."""
    low = table[charge, material, row, column]
    return float(low + share * (table[charge, material, row + 1, column] - low))


@inlined
def to_face(particle: F64, voxels: Voxels) -> tuple[float, int]:
    """Return the distance in mm to the face through which a particle leaves its voxel, and the face's axis (0 is x)."""
    nearest_mm, axis = _FAR_MM, 0
    for candidate in range(3):
        direction = particle[U + candidate]
        if direction == 0.0:
            continue
        size_mm = (voxels.size_x_mm, voxels.size_y_mm, voxels.size_z_mm)[candidate]
        edge = particle[VOXEL_X + candidate] + (1.0 if direction > 0.0 else 0.0)
        distance_mm = (edge * size_mm - particle[X + candidate]) / direction
        if distance_mm < nearest_mm:
            nearest_mm, axis = distance_mm, candidate
    return max(nearest_mm, 0.0), axis


@inlined
def cross(particle: F64, axis: int, voxels: Voxels) -> bool:
    """Put a particle into the next voxel along an axis; return whether that is in the grid."""
    particle[VOXEL_X + axis] += 1.0 if particle[U + axis] > 0.0 else -1.0
    return bool(0.0 <= particle[VOXEL_X + axis] < voxels.material.shape[2 - axis])


@inlined
def soft_cosine(strength: float, spread: float, random_state: U64) -> float:
    """Return the cosine of all small deflections of a step, with the first two moments of Goudsmit and Saunderson.

    The mean cosine is exp(-strength). Of two Gaussians on the sphere, one wider and one narrower, one is drawn; by how
    much they differ gives the mean square of 1 - cos, in which ``spread`` (the single deflections' mean square over
    their mean) adds to that of many small ones.
    """
    mean = -math.expm1(-strength)
    widening = min(1.0, math.sqrt(0.5 * spread * strength) / mean)
    draw = 2.0 * uniform(random_state)
    if draw >= 1.0:
        draw -= 1.0
        widening = -widening
    mean *= 1.0 + widening
    if mean < _SMALL_MEAN:
        return max(-1.0, 1.0 + mean * math.log(draw))
    return multiple_scattering_cosine(mean, random_state)


@inlined
def straggled_mev(mean_mev: float, variance_mev2: float, random_state: U64) -> float:
    """Return a loss with this mean and variance, not negative.

    Evenly distributed, if it then is not negative; else nothing with some probability, and evenly distributed from 0
    otherwise. Only mean and variance matter, because many flights add up (Salvat, PENELOPE-2018, section 4.2).
    """
    draw = uniform(random_state)
    if mean_mev * mean_mev >= 3.0 * variance_mev2:
        return mean_mev + (2.0 * draw - 1.0) * math.sqrt(3.0 * variance_mev2)
    most = 3.0 * variance_mev2 + 3.0 * mean_mev * mean_mev
    none = (3.0 * variance_mev2 - mean_mev * mean_mev) / most
    if draw < none:
        return 0.0
    return (draw - none) / (1.0 - none) * most / (2.0 * mean_mev)


@inlined
def hard_event(
    electron: F64,
    charge: int,
    material: int,
    radiative_share: float,
    collision_share: float,
    tables: Tables,
    stack: F64,
    n_stack: int,
    random_state: U64,
) -> int:
    """Emit a bremsstrahlung photon, knock an electron on, or be deflected by a nucleus; return the new height."""
    energy_mev = electron[ENERGY]
    choice = uniform(random_state)
    azimuth_rad = TWO_PI * uniform(random_state)
    if choice >= collision_share:
        cosine = hard_deflection_cosine(
            energy_mev,
            1.0 if charge == 0 else -1.0,
            material,
            tables.heaviest,
            tables.element_share,
            tables.element_number,
            tables.element_screening_mev2,
            random_state,
        )
        if cosine < 1.0:
            turn(electron, cosine, azimuth_rad)
        return n_stack
    if choice < radiative_share:
        place = (math.log(energy_mev) - tables.bremsstrahlung_log_low) * tables.bremsstrahlung_per_log
        share = quantile(tables.bremsstrahlung[material], place, random_state)
        cutoff_mev = tables.photon_cutoff_mev
        photon_mev = min(cutoff_mev * math.exp(share * math.log(energy_mev / cutoff_mev)), energy_mev)
        n_stack = push(stack, n_stack, PHOTON, photon_mev, electron)
        turn(stack[n_stack - 1], forward_cosine(energy_mev, random_state), azimuth_rad)
        electron[ENERGY] -= photon_mev
        return n_stack
    # The loss on the way can have left too little for a transfer above the cut-off.
    if energy_mev <= (2.0 if charge == 0 else 1.0) * tables.electron_cutoff_mev:
        return n_stack
    if charge == 0:
        transfer_mev = knock_on_mev(energy_mev, tables.electron_cutoff_mev, random_state)
    else:
        transfer_mev = bhabha_knock_on_mev(energy_mev, tables.electron_cutoff_mev, random_state)
    n_stack = push(stack, n_stack, ELECTRON, transfer_mev, electron)
    turn(stack[n_stack - 1], collision_cosine(energy_mev, transfer_mev), azimuth_rad + math.pi)
    if energy_mev > transfer_mev:
        turn(electron, collision_cosine(energy_mev, energy_mev - transfer_mev), azimuth_rad)
    electron[ENERGY] -= transfer_mev
    return n_stack
