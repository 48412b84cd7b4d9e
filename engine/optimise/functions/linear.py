"""Linear forms: every voxel's dose beyond a limit, not squared. Together with means they make linear programs.

Their gradient jumps where a voxel's dose passes the limit, so that the solvers for smooth functions end early; they are
for the primal-dual one. With a large enough weight they are exact: the limit is kept wherever it can be kept.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from engine.model.arrays import F64
from engine.optimise.functions.base import DoseFunction, Parts, Side


class _Linear(DoseFunction):
    """What the dose is beyond a limit, on its side."""

    dose_gy: float = Field(ge=0.0, description="the limit, for all voxels")

    @property
    def unit(self) -> str:
        """Unit of the value."""
        return "Gy"

    def silent_to_gy(self, reference_gy: F64 | None = None) -> F64 | float | None:
        """Return the limit, where dose alone is punished."""
        del reference_gy
        return self.dose_gy if self.side == "over" else None

    def _parts(self, level_gy: F64, reference_gy: F64 | None, order: int) -> Parts:
        del reference_gy
        sign = 1.0 if self.side == "over" else -1.0
        beyond = np.maximum(sign * (level_gy - self.dose_gy), 0.0)
        if order == 0:
            return None, beyond[None]
        return None, (np.where(beyond > 0.0, sign, 0.0) if order == 1 else np.zeros_like(beyond))[None]


class LinearOverdose(_Linear):
    r"""Mean dose above a limit: :math:`\sum_i v_i \max(d_i - p, 0)`, in Gy. Convex."""

    kind: Literal["linear_overdose"] = "linear_overdose"

    @property
    def side(self) -> Side:
        """It punishes dose."""
        return "over"


class LinearUnderdose(_Linear):
    r"""Mean dose missing below a limit: :math:`\sum_i v_i \max(p - d_i, 0)`, in Gy. Convex."""

    kind: Literal["linear_underdose"] = "linear_underdose"
    dose_gy: float = Field(gt=0.0, description="the limit, for all voxels")

    @property
    def side(self) -> Side:
        """It punishes what is missing."""
        return "under"
