"""Energy per voxel, exact to the last bit in whatever order histories come.

Energies are added as integers, in units of 2**-30 MeV (0.93 meV), because sums of integers do not depend on order. So
a calculation may be cut into tasks in any way. The variance is history by history (Walters, Kawrakow and Rogers, Med.
Phys. 29 (2002) 2745): what one history leaves in a voxel is one sample.
"""

from dataclasses import dataclass

import numpy as np

from engine._jit import inlined, kernel
from engine.errors import DoseError
from engine.model.arrays import F64, I64

UNITS_PER_MEV = float(2**30)
SQUARES_PER_MEV2 = float(2**24)
"""The square of what a history leaves is kept to 6e-8 MeV2; that of less than 0.2 keV counts as nothing."""
_SQUARE_FACTOR = SQUARES_PER_MEV2 / UNITS_PER_MEV**2

SUM, SQUARE, PENDING, HISTORY = range(4)
"""Columns of a tally's rows: energy, squares, energy of the newest history to come here, and which one that is."""
STARTED, ESCAPED = range(2)
"""What else is counted: energy that the source gave, energy that left the grid."""
_LOST_UNITS_PER_DEPOSIT = 0.5


@dataclass(frozen=True)
class Tally:
    """What some histories left behind.

    Parameters
    ----------
    n_history
        Histories.
    energy
        Energy left in every voxel, in `UNITS_PER_MEV`, shape (n_z, n_y, n_x).
    square
        Sum over the histories of its square, in `SQUARES_PER_MEV2`, same shape.
    started, escaped
        Energy that the source gave and energy that left the grid, in `UNITS_PER_MEV`.
    """

    n_history: int
    energy: I64
    square: I64
    started: int
    escaped: int

    def merged(self, other: "Tally") -> "Tally":
        """Return both together; the order does not matter."""
        return Tally(
            self.n_history + other.n_history,
            self.energy + other.energy,
            self.square + other.square,
            self.started + other.started,
            self.escaped + other.escaped,
        )

    def energy_mev(self) -> F64:
        """Return the energy per history in every voxel."""
        return np.asarray(self.energy / (UNITS_PER_MEV * self.n_history))

    def standard_error_mev(self) -> F64:
        """Return the standard error of `energy_mev`.

        Raises
        ------
        DoseError
            If there are not two histories.
        """
        if self.n_history < 2:
            raise DoseError(f"a standard error of {self.n_history} history; run at least two")
        mean_square = self.square / (SQUARES_PER_MEV2 * self.n_history)
        variance = np.maximum(mean_square - self.energy_mev() ** 2, 0.0)
        return np.sqrt(variance / (self.n_history - 1))

    def lost_mev(self) -> float:
        """Return the energy per history that is neither in the grid nor known to have left it: rounding."""
        left = self.started - self.escaped - int(self.energy.sum(dtype=object))
        return left / (UNITS_PER_MEV * self.n_history)


@inlined
def score(rows: I64, voxel: int, energy_mev: float, history: int) -> None:
    """Leave energy in a voxel; ``rows`` has shape (n_voxel, 4)."""
    if rows[voxel, HISTORY] != history:
        settle(rows, voxel)
        rows[voxel, HISTORY] = history
    rows[voxel, PENDING] += int(energy_mev * UNITS_PER_MEV + _LOST_UNITS_PER_DEPOSIT)


@inlined
def settle(rows: I64, voxel: int) -> None:
    """Add the energy of the newest history to the sums."""
    pending = rows[voxel, PENDING]
    rows[voxel, SUM] += pending
    rows[voxel, SQUARE] += int(float(pending) * float(pending) * _SQUARE_FACTOR + 0.5)
    rows[voxel, PENDING] = 0


@kernel
def settle_all(rows: I64) -> None:
    """Close the tally: no history is pending any more."""
    for voxel in range(rows.shape[0]):
        settle(rows, voxel)
