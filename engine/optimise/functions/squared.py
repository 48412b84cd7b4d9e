"""Squared forms: every voxel's own deviation from a dose, on one side or both.

Wu and Mohan, Med Phys 27 (2000) 701. The dose may be one for all voxels, or each voxel's own: that of an imported
dose (dose mimicking), or one that falls with the distance from a target.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from engine.errors import OptimisationError
from engine.model.arrays import F64
from engine.optimise.functions.base import Parts, ProjectedFunction, Side


class _Squared(ProjectedFunction):
    """Squares of what the dose is beyond a level, on its side."""

    def _aim(self, reference_gy: F64 | None) -> F64 | float:
        """Return the level: one for all voxels, or each voxel's own."""
        if reference_gy is None:
            raise OptimisationError(
                f"'{type(self).__name__}' needs each voxel's reference dose; none was given"
            )
        return reference_gy

    def silent_to_gy(self, reference_gy: F64 | None = None) -> F64 | float | None:
        """Return the level, where dose alone is punished."""
        return self._aim(reference_gy) if self.side == "over" and self.eqd2 is None else None

    def _parts(self, level_gy: F64, reference_gy: F64 | None, order: int) -> Parts:
        beyond = level_gy - self._aim(reference_gy)
        if self.side == "over":
            beyond = np.maximum(beyond, 0.0)
        elif self.side == "under":
            beyond = np.minimum(beyond, 0.0)
        if order == 0:
            return None, beyond[None] ** 2
        if order == 1:
            return None, 2.0 * beyond[None]
        punished = np.full(beyond.size, True) if self.side == "both" else beyond != 0.0
        return None, np.where(punished, 2.0, 0.0)[None]


class _SquaredAtDose(_Squared):
    """Squares about a dose of the user's or about an imported one."""

    dose_gy: float | None = Field(None, ge=0.0, description="the dose, in all voxels")
    reference_dose: str | None = Field(
        None, min_length=1, description="instead of dose_gy: label or UID of an imported RT Dose"
    )

    def model_post_init(self, context: object) -> None:
        """Refuse two levels, or none.

        Raises
        ------
        ValueError
            If there is not exactly one level, or an imported dose would be projected.
        """
        del context
        if (self.dose_gy is None) == (self.reference_dose is None):
            raise ValueError("needs dose_gy or reference_dose, and not both")
        if self.reference_dose is not None and self.eqd2 is not None:
            raise ValueError("reference_dose is no EQD2 (its fractions are not known); leave eqd2 out")
        if self.dose_gy == 0.0 and self.side != "over":
            raise ValueError("dose_gy should be greater than 0")

    def _aim(self, reference_gy: F64 | None) -> F64 | float:
        return super()._aim(reference_gy) if self.dose_gy is None else self.dose_gy


class SquaredOverdose(_SquaredAtDose):
    r"""Mean squared dose above a limit: :math:`\sum_i v_i \max(d_i - p_i, 0)^2`, in Gy²."""

    kind: Literal["squared_overdose"] = "squared_overdose"

    @property
    def side(self) -> Side:
        """It punishes dose."""
        return "over"


class SquaredUnderdose(_SquaredAtDose):
    r"""Mean squared dose missing below a limit: :math:`\sum_i v_i \max(p_i - d_i, 0)^2`, in Gy²."""

    kind: Literal["squared_underdose"] = "squared_underdose"

    @property
    def side(self) -> Side:
        """It punishes what is missing."""
        return "under"


class SquaredDeviation(_SquaredAtDose):
    r"""Mean squared deviation from a dose: :math:`\sum_i v_i (d_i - p_i)^2`, in Gy²."""

    kind: Literal["squared_deviation"] = "squared_deviation"

    @property
    def side(self) -> Side:
        """It punishes both."""
        return "both"


class DoseFallOff(_Squared):
    r"""Mean squared dose above a level that falls with the distance from a target, in Gy².

    .. math::

        \sum_i v_i \max(d_i - p(r_i), 0)^2, \qquad
        p(r) = p_\infty + (p_0 - p_\infty)\, e^{-\kappa \max(r - r_0, 0)}

    with the distance :math:`r_i` from the target's surface, 0 inside: the exponential fall that planning systems know
    as normal tissue objective, as a level for squared overdose.
    """

    kind: Literal["dose_fall_off"] = "dose_fall_off"
    from_structure: str = Field(description="the target that the distance is counted from")
    near_gy: float = Field(gt=0.0, description="level at the target's surface")
    far_gy: float = Field(ge=0.0, description="level far away")
    fall_off_per_mm: float = Field(
        gt=0.0, le=10.0, description="how fast the level falls; 0.1 is 63 % in 10 mm"
    )
    begin_mm: float = Field(0.0, ge=0.0, description="distance from the target where it begins to fall")

    def model_post_init(self, context: object) -> None:
        """Refuse a level that grows.

        Raises
        ------
        ValueError
            If it would.
        """
        del context
        if self.far_gy > self.near_gy:
            raise ValueError("far_gy is above near_gy, so the level would grow with the distance")

    @property
    def side(self) -> Side:
        """It punishes dose."""
        return "over"

    def level_gy(self, distance_mm: F64) -> F64:
        """Return the level at some distances from the target."""
        beyond_mm = np.maximum(distance_mm - self.begin_mm, 0.0)
        level_gy: F64 = self.far_gy + (self.near_gy - self.far_gy) * np.exp(-self.fall_off_per_mm * beyond_mm)
        return level_gy
