r"""Objective functions of the dose in one structure.

Every function is a smooth function of one sum over voxels, :math:`S = \sum_i v_i\, s(d_i)` with the relative volumes
:math:`v_i` of the structure's voxels (:math:`\sum v_i = 1`, fractional voxels included), so that a sum over rows held
by many workers is all that has to travel. Weights therefore do not depend on the grid. Sources: Wu and Mohan,
Med Phys 27 (2000) 701, for the squared forms; Niemierko, Med Phys 26 (1999) 1100, for the generalised EUD.
"""

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from engine.model.arrays import F64

Side = Literal["over", "under", "both"]
"""Which error of the dose a function punishes; voxel-wise worst cases take the highest or the lowest dose by it."""

_SMALLEST_GY = 1e-6
_SMALLEST_EXPONENT = 0.01
"""Relative volumes sum to 1 within 1e-7 (float32), which the root of this order raises to 1e-5 of the EUD."""


class _Function(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    convex: ClassVar[bool] = True

    def value(self, total: float) -> float:
        """Return the value from the sum over all voxels."""
        return total


class SquaredOverdose(_Function):
    r"""Mean squared dose above a limit: :math:`\sum_i v_i \max(d_i - p, 0)^2`, in Gy²."""

    kind: Literal["squared_overdose"] = "squared_overdose"
    dose_gy: float = Field(ge=0.0, description="dose above which voxels are penalised")

    side: ClassVar[Side] = "over"
    unit: ClassVar[str] = "Gy²"

    def sum(self, dose_gy: F64, share: F64) -> float:
        """Return the sum over some voxels, arrays of shape (n,)."""
        return float(np.sum(share * np.maximum(dose_gy - self.dose_gy, 0.0) ** 2))

    def gradient(self, dose_gy: F64, share: F64, total: float) -> F64:
        """Return the derivative of the value by each voxel's dose, shape (n,)."""
        del total
        result: F64 = 2.0 * share * np.maximum(dose_gy - self.dose_gy, 0.0)
        return result


class SquaredUnderdose(_Function):
    r"""Mean squared dose missing below a limit: :math:`\sum_i v_i \max(p - d_i, 0)^2`, in Gy²."""

    kind: Literal["squared_underdose"] = "squared_underdose"
    dose_gy: float = Field(gt=0.0, description="dose below which voxels are penalised")

    side: ClassVar[Side] = "under"
    unit: ClassVar[str] = "Gy²"

    def sum(self, dose_gy: F64, share: F64) -> float:
        """Return the sum over some voxels, arrays of shape (n,)."""
        return float(np.sum(share * np.maximum(self.dose_gy - dose_gy, 0.0) ** 2))

    def gradient(self, dose_gy: F64, share: F64, total: float) -> F64:
        """Return the derivative of the value by each voxel's dose, shape (n,)."""
        del total
        result: F64 = -2.0 * share * np.maximum(self.dose_gy - dose_gy, 0.0)
        return result


class SquaredDeviation(_Function):
    r"""Mean squared deviation from a dose: :math:`\sum_i v_i (d_i - p)^2`, in Gy²."""

    kind: Literal["squared_deviation"] = "squared_deviation"
    dose_gy: float = Field(gt=0.0, description="dose every voxel should have")

    side: ClassVar[Side] = "both"
    unit: ClassVar[str] = "Gy²"

    def sum(self, dose_gy: F64, share: F64) -> float:
        """Return the sum over some voxels, arrays of shape (n,)."""
        return float(np.sum(share * (dose_gy - self.dose_gy) ** 2))

    def gradient(self, dose_gy: F64, share: F64, total: float) -> F64:
        """Return the derivative of the value by each voxel's dose, shape (n,)."""
        del total
        result: F64 = 2.0 * share * (dose_gy - self.dose_gy)
        return result


class MeanDose(_Function):
    r"""Mean dose: :math:`\sum_i v_i d_i`, in Gy."""

    kind: Literal["mean"] = "mean"

    side: ClassVar[Side] = "over"
    unit: ClassVar[str] = "Gy"

    def sum(self, dose_gy: F64, share: F64) -> float:
        """Return the sum over some voxels, arrays of shape (n,)."""
        return float(np.sum(share * dose_gy))

    def gradient(self, dose_gy: F64, share: F64, total: float) -> F64:
        """Return the derivative of the value by each voxel's dose, shape (n,)."""
        del dose_gy, total
        return share


class SquaredGeud(_Function):
    r"""Squared excess of the generalised EUD over a limit, or its squared shortfall, in Gy².

    .. math:: E = \Bigl(\sum_i v_i d_i^a\Bigr)^{1/a}, \qquad f = \max(E - p, 0)^2 \text{ or } \max(p - E, 0)^2

    Convex for an upper limit with a >= 1 and for a lower limit with a <= 1.
    """

    kind: Literal["geud"] = "geud"
    a: float = Field(ge=-40.0, le=40.0, description="volume parameter: 1 is the mean, large is the maximum")
    limit: Literal["upper", "lower"] = Field(description="whether the EUD should stay below or above dose_gy")
    dose_gy: float = Field(ge=0.0, description="the limit; an upper limit of 0 minimises the squared EUD")

    unit: ClassVar[str] = "Gy²"

    def model_post_init(self, context: object) -> None:
        """Refuse exponents for which the function is not convex.

        Raises
        ------
        ValueError
            If the exponent does not go with the side of the limit.
        """
        del context
        if self.limit == "upper" and self.a < 1.0:
            raise ValueError("an upper limit needs a >= 1 (smaller exponents are not convex)")
        if self.limit == "lower" and (self.a > 1.0 or abs(self.a) < _SMALLEST_EXPONENT):
            raise ValueError(
                f"a lower limit needs a <= 1 (larger exponents are not convex), and a beyond ±{_SMALLEST_EXPONENT} "
                "(the root of an order near 0 amplifies every rounding error)"
            )

    @property
    def side(self) -> Side:
        """An upper limit punishes dose, a lower one its absence."""
        return "over" if self.limit == "upper" else "under"

    def sum(self, dose_gy: F64, share: F64) -> float:
        """Return the sum over some voxels, arrays of shape (n,)."""
        return float(np.sum(share * np.maximum(dose_gy, _SMALLEST_GY) ** self.a))

    def _excess_gy(self, total: float) -> float:
        geud_gy = float(total ** (1.0 / self.a))
        return (
            max(geud_gy - self.dose_gy, 0.0) if self.limit == "upper" else -max(self.dose_gy - geud_gy, 0.0)
        )

    def value(self, total: float) -> float:
        """Return the value from the sum over all voxels."""
        return self._excess_gy(total) ** 2

    def gradient(self, dose_gy: F64, share: F64, total: float) -> F64:
        """Return the derivative of the value by each voxel's dose, shape (n,)."""
        geud_gy = total ** (1.0 / self.a)
        ratio = np.maximum(dose_gy, _SMALLEST_GY) / geud_gy
        result: F64 = 2.0 * self._excess_gy(total) * share * ratio ** (self.a - 1.0)
        return result


Function = Annotated[
    SquaredOverdose | SquaredUnderdose | SquaredDeviation | MeanDose | SquaredGeud,
    Field(discriminator="kind"),
]
"""Any objective function, chosen by its ``kind``."""


def one_sided(function: Function) -> tuple[Function, ...]:
    """Return functions of one side each whose values add up to the given one's.

    A voxel-wise worst case sees the hot side of a deviation in the highest dose and the cold side in the lowest.
    """
    if isinstance(function, SquaredDeviation):
        return SquaredOverdose(dose_gy=function.dose_gy), SquaredUnderdose(dose_gy=function.dose_gy)
    return (function,)
