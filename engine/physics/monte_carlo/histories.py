"""Run histories: particles of a beam, and everything that they set in motion, through a grid of voxels."""

import numpy as np

from engine._jit import inlined, kernel
from engine.errors import DoseError
from engine.model.arrays import F64, I64
from engine.physics.constants import ELECTRON_REST_ENERGY_MEV
from engine.physics.monte_carlo.beam import Beam, emit
from engine.physics.monte_carlo.electron_transport import follow_electron
from engine.physics.monte_carlo.particles import (
    ENERGY,
    KIND,
    MAX_STACK,
    PARTICLE_SIZE,
    PHOTON,
    POSITRON,
    VOXEL_X,
    VOXEL_Y,
    VOXEL_Z,
    U,
    V,
    W,
    X,
    Y,
    push,
    set_isotropic,
)
from engine.physics.monte_carlo.photon_transport import follow_photon
from engine.physics.monte_carlo.random_numbers import seed_history
from engine.physics.monte_carlo.tables import Tables
from engine.physics.monte_carlo.tally import (
    ESCAPED,
    SQUARE,
    STARTED,
    SUM,
    UNITS_PER_MEV,
    Tally,
    settle_all,
)
from engine.physics.monte_carlo.voxels import Voxels

_LARGEST_LOST_MEV = 1.0e-5
"""Per history. Rounding leaves below 5e-10 MeV for each deposit."""


def run_histories(
    beam: Beam, voxels: Voxels, tables: Tables, *, first_history: int, n_history: int, seed: int
) -> Tally:
    """Return the tally of histories ``first_history`` to ``first_history + n_history - 1``.

    A history's random numbers depend on ``seed`` and its own number alone, and tallies are sums of integers: however a
    calculation is cut into ranges of histories, the merged tally is the same to the last bit.

    Raises
    ------
    DoseError
        If a range or an energy makes no sense, or energy was lost.
    """
    if n_history < 1 or first_history < 0:
        raise DoseError(f"{n_history} histories from number {first_history}; ask for at least one, from 0 on")
    highest_mev = float(np.exp(tables.photon_log_low + (tables.photon.shape[1] - 1) / tables.photon_per_log))
    if beam.high_mev.max() > highest_mev * (1.0 + 1.0e-9):
        raise DoseError(
            f"a beam of up to {beam.high_mev.max():g} MeV (the tables end at {highest_mev:g} MeV); make the tables up "
            "to the beam's highest energy"
        )
    shape = voxels.material.shape
    rows = np.zeros((voxels.material.size, 4), dtype=np.int64)
    rows[:, -1] = -1
    counts = np.zeros(2, dtype=np.int64)
    _simulate(first_history, n_history, seed, beam, voxels, tables, rows, counts)
    settle_all(rows)
    tally = Tally(
        n_history,
        rows[:, SUM].reshape(shape).copy(),
        rows[:, SQUARE].reshape(shape).copy(),
        int(counts[STARTED]),
        int(counts[ESCAPED]),
    )
    if abs(tally.lost_mev()) > _LARGEST_LOST_MEV:
        raise DoseError(
            f"{tally.lost_mev():g} MeV per history are neither in the grid nor left it (rounding explains "
            f"{_LARGEST_LOST_MEV:g}); report it with seed {seed} and first history {first_history}"
        )
    return tally


@kernel
def _simulate(
    first_history: int,
    n_history: int,
    seed: int,
    beam: Beam,
    voxels: Voxels,
    tables: Tables,
    rows: I64,
    counts: I64,
) -> None:
    """Add histories to ``rows`` (n_voxel, 4) and ``counts`` (2,), see `engine.physics.monte_carlo.tally`."""
    stack = np.zeros((MAX_STACK, PARTICLE_SIZE))
    particle = np.zeros(PARTICLE_SIZE)
    random_state = np.zeros(1, dtype=np.uint64)
    for history in range(first_history, first_history + n_history):
        seed_history(random_state, np.uint64(seed), np.uint64(history))
        emit(beam, particle, random_state)
        counts[STARTED] += int(particle[ENERGY] * UNITS_PER_MEV + 0.5)
        n_stack = 0
        if enter(particle, voxels):
            n_stack = push(stack, 0, particle[KIND], particle[ENERGY], particle)
        else:
            counts[ESCAPED] += int(particle[ENERGY] * UNITS_PER_MEV + 0.5)
        while n_stack > 0:
            n_stack -= 1
            particle[:] = stack[n_stack]
            if particle[KIND] == PHOTON:
                n_stack = follow_photon(
                    particle, history, voxels, tables, stack, n_stack, rows, counts, random_state
                )
                continue
            n_stack = follow_electron(
                particle, history, voxels, tables, stack, n_stack, rows, counts, random_state
            )
            if particle[KIND] == POSITRON:
                # At rest: two photons back to back.
                set_isotropic(particle, random_state)
                for _ in range(2):
                    n_stack = push(stack, n_stack, PHOTON, ELECTRON_REST_ENERGY_MEV, particle)
                    particle[U], particle[V], particle[W] = -particle[U], -particle[V], -particle[W]


@inlined
def enter(particle: F64, voxels: Voxels) -> bool:
    """Find the voxel of a particle on the plane z = 0; return whether there is one."""
    n_y, n_x = voxels.material.shape[1], voxels.material.shape[2]
    if particle[X] < 0.0 or particle[Y] < 0.0:
        return False
    particle[VOXEL_X] = float(int(particle[X] / voxels.size_x_mm))
    particle[VOXEL_Y] = float(int(particle[Y] / voxels.size_y_mm))
    particle[VOXEL_Z] = 0.0
    return bool(particle[VOXEL_X] < n_x and particle[VOXEL_Y] < n_y)
