r"""What all functions of the dose in one structure have in common.

A function is :math:`f(d) = g(S)` with a few sums over voxels, :math:`S_k = \sum_i v_i\, s_k(d_i)`, where the relative
volumes :math:`v_i` of the structure's voxels (fractional ones included) add up to 1. So weights do not depend on the
grid, and what travels between whoever holds rows and whoever adds up is the sums, whatever the number of voxels:

.. math::

    \frac{\partial f}{\partial d_i} = v_i \sum_k g_k\, s_k'(d_i), \qquad
    (\nabla^2 f\, u)_i = v_i \sum_k \bigl[ g_k\, s_k''(d_i)\, u_i + h_k\, s_k'(d_i) \bigr]

with :math:`g_k = \partial g / \partial S_k` and :math:`h = \nabla^2 g\; \Delta`, where
:math:`\Delta_k = \sum_i v_i\, s_k'(d_i)\, u_i`. Holders of rows know :math:`s`, the adder knows :math:`g`.
"""

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from engine.errors import OptimisationError
from engine.model.arrays import F64, I64

Side = Literal["over", "under", "both"]
"""Which error of the dose a function punishes; voxel-wise worst cases take the highest or the lowest dose by it."""
Limit = Literal["upper", "lower"]
Parts = tuple[I64 | None, F64]
"""For every voxel the numbers of the sums that it adds to, and what it adds, both of shape (n_part, n).

Without numbers, part k adds to sum k.
"""


class Eqd2(BaseModel):
    r"""Dose in fractions of 2 Gy with the same effect: :math:`e = d\,(d/n + \alpha/\beta) / (2 + \alpha/\beta)`.

    All doses of the function, its limits as well, are then of that kind. Withers, Thames and Peters, Radiother Oncol 1
    (1983) 187.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    alpha_beta_gy: float = Field(gt=0.0, le=100.0, description="ratio of the linear-quadratic model")
    fractions: int | None = Field(
        None, ge=1, le=100, description="fractions of the course; the prescription's if absent"
    )

    def project(self, dose_gy: F64) -> tuple[F64, F64, float]:
        """Return the projected doses and their first (n,) and second derivative by the dose."""
        n, ratio_gy = require_fractions(self.fractions), self.alpha_beta_gy
        scale = 1.0 / (2.0 + ratio_gy)
        return (
            dose_gy * (dose_gy / n + ratio_gy) * scale,
            (2.0 * dose_gy / n + ratio_gy) * scale,
            2.0 * scale / n,
        )


def require_fractions(fractions: int | None) -> int:
    """Return the number of fractions.

    Raises
    ------
    OptimisationError
        If nobody has set it.
    """
    if fractions is None:
        raise OptimisationError("a function needs the number of fractions; set it with of_course()")
    return fractions


class DoseFunction(BaseModel):
    """A function of the dose in one structure."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @property
    def side(self) -> Side:
        """Which error of the dose it punishes."""
        raise NotImplementedError

    @property
    def unit(self) -> str:
        """Unit of the value."""
        return "Gy²"

    @property
    def convex(self) -> bool:
        """Whether it is convex in the dose, for all doses from 0."""
        return True

    @property
    def rippled(self) -> bool:
        """Whether it is sampled, so that it is convex but for a ripple, and a plane may lie a little above it."""
        return False

    @property
    def n_sum(self) -> int:
        """How many sums it takes."""
        return 1

    def of_course(self, fractions: int) -> "DoseFunction":
        """Return the function with what it leaves to the prescription."""
        del fractions
        return self

    def without_limit(self) -> "DoseFunction":
        """Return the function whose value a hard constraint limits: this one, if it has no limit of its own."""
        return self

    def silent_to_gy(self, reference_gy: F64 | None = None) -> F64 | float | None:
        """Return the dose up to which a voxel adds nothing to the sums, nor to any derivative; None if there is none.

        Parameters
        ----------
        reference_gy
            Each voxel's own reference dose, for functions that have one, shape (n,).
        """
        del reference_gy
        return None

    # What the holders of rows do.

    def sums(self, dose_gy: F64, share: F64, reference_gy: F64 | None = None) -> F64:
        """Return the sums over some voxels, shape (n_sum,).

        Parameters
        ----------
        dose_gy, share
            Dose and relative volume of the voxels, shape (n,).
        reference_gy
            Each voxel's own reference dose, for functions that have one, shape (n,).
        """
        level_gy, _, _ = self._level(dose_gy)
        place, parts = self._parts(level_gy, reference_gy, 0)
        return self._collected(place, share * parts)

    def gradient(self, dose_gy: F64, share: F64, slope: F64, reference_gy: F64 | None = None) -> F64:
        """Return the derivative by each voxel's dose, shape (n,).

        Parameters
        ----------
        dose_gy, share, reference_gy
            As for `sums`.
        slope
            Derivative by each sum: that of this function, or of something that it is a part of, shape (n_sum,).
        """
        level_gy, first, _ = self._level(dose_gy)
        result = self._contracted(level_gy, share, slope, reference_gy, 1)
        return result if first is None else result * first

    def directional_sums(
        self, dose_gy: F64, share: F64, direction_gy: F64, reference_gy: F64 | None = None
    ) -> F64:
        """Return the derivative of the sums along a change of the doses, shape (n_sum,)."""
        level_gy, first, _ = self._level(dose_gy)
        place, parts = self._parts(level_gy, reference_gy, 1)
        moved = share * direction_gy if first is None else share * direction_gy * first
        return self._collected(place, moved * parts)

    def product(
        self,
        dose_gy: F64,
        share: F64,
        direction_gy: F64,
        slope: F64,
        change: F64,
        reference_gy: F64 | None = None,
    ) -> F64:
        """Return the derivative of the gradient along a change of the doses, shape (n,).

        Parameters
        ----------
        dose_gy, share, reference_gy
            As for `sums`.
        direction_gy
            Change of each voxel's dose, shape (n,).
        slope, change
            Derivative by each sum, and its own change in that direction, shape (n_sum,).
        """
        level_gy, first, second = self._level(dose_gy)
        curvature = self._contracted(level_gy, share, slope, reference_gy, 2)
        if first is not None:
            steepness = self._contracted(level_gy, share, slope, reference_gy, 1)
            curvature = curvature * first**2 + steepness * second
        return curvature * direction_gy + self.gradient(dose_gy, share, change, reference_gy)

    # What the adder does.

    def value(self, totals: F64) -> float:
        """Return the value from the sums over all voxels."""
        return float(totals[0])

    def slope(self, totals: F64) -> F64:
        """Return the derivative of the value by each sum, shape (n_sum,)."""
        return np.ones_like(totals)

    def slope_change(self, totals: F64, change: F64) -> F64:
        """Return the derivative of `slope` along a change of the sums, shape (n_sum,)."""
        del change
        return np.zeros_like(totals)

    # What each kind says.

    def _parts(self, level_gy: F64, reference_gy: F64 | None, order: int) -> Parts:
        """Return what each voxel adds to the sums, or the first or second derivative of that by ``level_gy``."""
        raise NotImplementedError

    def _level(self, dose_gy: F64) -> tuple[F64, F64 | None, float]:
        """Return the doses that the function looks at, and their derivatives by the dose if they are others."""
        return dose_gy, None, 0.0

    def _collected(self, place: I64 | None, added: F64) -> F64:
        if place is None:
            return np.array([np.sum(part) for part in added])
        result = np.zeros(self.n_sum)
        for where, part in zip(place, added, strict=True):
            result += np.bincount(where, part, self.n_sum)
        return result

    def _contracted(
        self, level_gy: F64, share: F64, factor: F64, reference_gy: F64 | None, order: int
    ) -> F64:
        """Return what each voxel adds, or a derivative of it, times a factor for each sum."""
        place, parts = self._parts(level_gy, reference_gy, order)
        factors = factor if place is None else factor[place]
        result: F64 = factors[0] * (share * parts[0])
        for each, part in zip(factors[1:], parts[1:], strict=True):
            result += each * (share * part)
        return result


class ProjectedFunction(DoseFunction):
    """A function that may look at EQD2 instead of dose.

    What is convex and grows with EQD2 is convex in the dose, too, because EQD2 is convex and grows with the dose. What
    falls with it, or has a best value, is not.
    """

    eqd2: Eqd2 | None = Field(None, description="{ alpha_beta_gy = ... }: look at EQD2 instead of dose")

    @property
    def convex(self) -> bool:
        """Whether it is convex in the dose, for all doses from 0."""
        return self._convex_in_level and (self.eqd2 is None or self.side == "over")

    @property
    def _convex_in_level(self) -> bool:
        return True

    def of_course(self, fractions: int) -> "DoseFunction":
        """Return the function with the fractions of its EQD2."""
        if self.eqd2 is None or self.eqd2.fractions is not None:
            return self
        return self.model_copy(update={"eqd2": self.eqd2.model_copy(update={"fractions": fractions})})

    def _level(self, dose_gy: F64) -> tuple[F64, F64 | None, float]:
        return (dose_gy, None, 0.0) if self.eqd2 is None else self.eqd2.project(dose_gy)


class LimitedFunction(ProjectedFunction):
    r"""A dose :math:`E` that stands for a structure: itself, or its squared excess over a limit, or shortfall.

    :math:`f = E`, or :math:`\max(E - p, 0)^2` for an upper limit p and :math:`\max(p - E, 0)^2` for a lower one.
    """

    dose_gy: float | None = Field(
        None, ge=0.0, description="the limit; without one, the value is the dose itself (upper limits alone)"
    )

    def model_post_init(self, context: object) -> None:
        """Refuse what has no least value.

        Raises
        ------
        ValueError
            If a function of a lower limit has none.
        """
        del context
        if self.dose_gy is None and self.side == "under":
            raise ValueError("needs dose_gy, the dose to reach (without one, more would always be better)")

    @property
    def unit(self) -> str:
        """Unit of the value."""
        return "Gy" if self.dose_gy is None else "Gy²"

    def without_limit(self) -> DoseFunction:
        """Return the function whose value is the dose E itself, whichever side its limit was on."""
        return self.model_copy(update={"dose_gy": None})

    def quantity(self, totals: F64) -> float:
        """Return the dose E from the sums over all voxels."""
        raise NotImplementedError

    def quantity_slope(self, totals: F64) -> F64:
        """Return the derivative of E by each sum, shape (n_sum,)."""
        raise NotImplementedError

    def quantity_slope_change(self, totals: F64, change: F64) -> F64:
        """Return the derivative of `quantity_slope` along a change of the sums, shape (n_sum,)."""
        raise NotImplementedError

    def _excess_gy(self, totals: F64) -> float:
        """Return how far E is beyond its limit, negative beyond a lower one."""
        limit_gy, quantity_gy = self.dose_gy or 0.0, self.quantity(totals)
        if self.side == "over":
            return max(quantity_gy - limit_gy, 0.0)
        return -max(limit_gy - quantity_gy, 0.0)

    def value(self, totals: F64) -> float:
        """Return the value from the sums over all voxels."""
        return self.quantity(totals) if self.dose_gy is None else self._excess_gy(totals) ** 2

    def slope(self, totals: F64) -> F64:
        """Return the derivative of the value by each sum, shape (n_sum,)."""
        slope = self.quantity_slope(totals)
        return slope if self.dose_gy is None else 2.0 * self._excess_gy(totals) * slope

    def slope_change(self, totals: F64, change: F64) -> F64:
        """Return the derivative of `slope` along a change of the sums, shape (n_sum,)."""
        if self.dose_gy is None:
            return self.quantity_slope_change(totals, change)
        excess_gy = self._excess_gy(totals)
        if excess_gy == 0.0:
            return np.zeros_like(totals)
        slope = self.quantity_slope(totals)
        changed: F64 = 2.0 * float(slope @ change) * slope
        return changed + 2.0 * excess_gy * self.quantity_slope_change(totals, change)
