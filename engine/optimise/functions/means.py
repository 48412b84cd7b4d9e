"""Means of all voxels' doses: mean, generalised EUD, smooth maximum and minimum, variance."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from scipy.special import logsumexp

from engine.model.arrays import F64
from engine.optimise.functions.base import Limit, LimitedFunction, Parts, ProjectedFunction, Side

SMALLEST_GY = 1e-6
_SMALLEST_EXPONENT = 0.01
"""Relative volumes sum to 1 within 1e-7 (float32), which the root of this order raises to 1e-5 of the EUD."""


class MeanDose(ProjectedFunction):
    r"""Mean dose: :math:`\sum_i v_i d_i`, in Gy."""

    kind: Literal["mean"] = "mean"

    @property
    def side(self) -> Side:
        """It punishes dose."""
        return "over"

    @property
    def unit(self) -> str:
        """Unit of the value."""
        return "Gy"

    def _parts(self, level_gy: F64, reference_gy: F64 | None, order: int) -> Parts:
        del reference_gy
        parts = level_gy if order == 0 else np.full(level_gy.size, 1.0 if order == 1 else 0.0)
        return None, parts[None]


def power_parts(level_gy: F64, a: float, order: int) -> Parts:
    """Return the power of order ``a`` of each dose raised by 1e-6 Gy, or one of its derivatives.

    Raised, and not cut off below: that would not be concave for a lower limit.
    """
    factor = (1.0, a, a * (a - 1.0))[order]
    return None, factor * (level_gy + SMALLEST_GY)[None] ** (a - order)


def power_mean(totals: F64, a: float) -> tuple[float, float]:
    """Return the mean of order ``a`` from the sum of `power_parts`, and its derivative by the sum."""
    raised_gy = float(totals[0] ** (1.0 / a))
    return raised_gy - SMALLEST_GY, raised_gy / (a * float(totals[0]))


class Geud(LimitedFunction):
    r"""Generalised EUD, :math:`E = \bigl(\sum_i v_i d_i^a\bigr)^{1/a}`: itself, or squared beyond a limit.

    Niemierko, Med Phys 26 (1999) 1100. Convex for an upper limit with a >= 1 and for a lower limit with a <= 1.
    """

    kind: Literal["geud"] = "geud"
    a: float = Field(ge=-40.0, le=40.0, description="volume parameter: 1 is the mean, large is the maximum")
    limit: Limit = Field(description="'upper' or 'lower': should it stay below or above dose_gy")

    def model_post_init(self, context: object) -> None:
        """Refuse exponents for which the function is not convex.

        Raises
        ------
        ValueError
            If the exponent does not go with the side of the limit.
        """
        super().model_post_init(context)
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

    def _parts(self, level_gy: F64, reference_gy: F64 | None, order: int) -> Parts:
        del reference_gy
        return power_parts(level_gy, self.a, order)

    def quantity(self, totals: F64) -> float:
        """Return the EUD."""
        return power_mean(totals, self.a)[0]

    def quantity_slope(self, totals: F64) -> F64:
        """Return its derivative by the sum, shape (1,)."""
        return np.array([power_mean(totals, self.a)[1]])

    def quantity_slope_change(self, totals: F64, change: F64) -> F64:
        """Return the derivative of `quantity_slope` along a change of the sum, shape (1,)."""
        return (1.0 / self.a - 1.0) * self.quantity_slope(totals) * (change / totals)


_N_SLOT = 64
_SLOT = 500.0
"""Width of a slot in temperatures: within it, exponentials stay between e^-250 and e^250."""


class _SmoothExtreme(LimitedFunction):
    r""":math:`\pm T \ln \sum_i v_i\, e^{\pm d_i / T}`.

    There is one sum for each of 64 slots of the dose, with exponentials relative to the slot's middle, so that none
    overflows (below 32000 T) and sums of groups can simply be added.
    """

    temperature_gy: float = Field(
        ge=0.05, le=20.0, description="smoothing: the value is about so many Gy inside of the extreme"
    )
    _sign: ClassVar[float]

    @property
    def side(self) -> Side:
        """A maximum punishes dose, a minimum its absence."""
        return "over" if self._sign > 0.0 else "under"

    @property
    def n_sum(self) -> int:
        """How many sums it takes."""
        return _N_SLOT

    @property
    def _middle_gy(self) -> F64:
        middle_gy: F64 = (np.arange(_N_SLOT, dtype=np.float64) + 0.5) * _SLOT * self.temperature_gy
        return middle_gy

    def _parts(self, level_gy: F64, reference_gy: F64 | None, order: int) -> Parts:
        del reference_gy
        slot = np.clip(level_gy / (_SLOT * self.temperature_gy), 0, _N_SLOT - 1).astype(np.int64)
        rate = self._sign / self.temperature_gy
        raised = rate**order * np.exp(rate * (level_gy - self._middle_gy[slot]))
        return slot[None], raised[None]

    def _log_sum(self, totals: F64) -> float:
        return float(logsumexp(self._sign * self._middle_gy / self.temperature_gy, b=totals))

    def quantity(self, totals: F64) -> float:
        """Return the smooth extreme."""
        return self._sign * self.temperature_gy * self._log_sum(totals)

    def quantity_slope(self, totals: F64) -> F64:
        """Return its derivative by each sum, shape (n_sum,)."""
        filled = totals > 0.0
        exponent = self._sign * self._middle_gy / self.temperature_gy - self._log_sum(totals)
        slope: F64 = self._sign * self.temperature_gy * np.exp(np.where(filled, exponent, -np.inf))
        return slope

    def quantity_slope_change(self, totals: F64, change: F64) -> F64:
        """Return the derivative of `quantity_slope` along a change of the sums, shape (n_sum,)."""
        slope = self.quantity_slope(totals)
        return -self._sign / self.temperature_gy * float(slope @ change) * slope


class SmoothMaximum(_SmoothExtreme):
    r"""Smooth maximum dose, :math:`M = T \ln \sum_i v_i\, e^{d_i / T}`: itself, or squared beyond a limit.

    Never above the maximum, and below it by at most :math:`T \ln (1/v)` with the volume v of the hottest voxel. The
    log-sum-exp function: Boyd and Vandenberghe, Convex Optimization (2004), 3.1.5.
    """

    kind: Literal["smooth_maximum"] = "smooth_maximum"
    _sign: ClassVar[float] = 1.0


class SmoothMinimum(_SmoothExtreme):
    r"""Smooth minimum dose, :math:`m = -T \ln \sum_i v_i\, e^{-d_i / T}`, squared below a limit.

    Never below the minimum; concave, so that its squared shortfall is convex. See `SmoothMaximum`.
    """

    kind: Literal["smooth_minimum"] = "smooth_minimum"
    _sign: ClassVar[float] = -1.0


class Homogeneity(ProjectedFunction):
    r"""Variance of the dose, :math:`\sum_i v_i (d_i - \bar d)^2`, in Gy²: how uneven it is, whatever its mean.

    The relative volumes' own sum, 1 but for their rounding, is divided out. Convex, as a minimum over :math:`\bar d` of
    a convex function of both.
    """

    kind: Literal["homogeneity"] = "homogeneity"

    @property
    def side(self) -> Side:
        """It punishes both."""
        return "both"

    @property
    def n_sum(self) -> int:
        """How many sums it takes."""
        return 3

    def _parts(self, level_gy: F64, reference_gy: F64 | None, order: int) -> Parts:
        del reference_gy
        one, none = np.ones_like(level_gy), np.zeros_like(level_gy)
        if order == 0:
            return None, np.stack([one, level_gy, level_gy**2])
        return None, np.stack([none, one, 2.0 * level_gy] if order == 1 else [none, none, 2.0 * one])

    def value(self, totals: F64) -> float:
        """Return the value from the sums over all voxels."""
        volume, first, second = totals
        return float(second / volume - (first / volume) ** 2)

    def slope(self, totals: F64) -> F64:
        """Return the derivative of the value by each sum; the first is constant, so that its own is left out."""
        volume, first, _ = totals
        return np.array([0.0, -2.0 * first / volume**2, 1.0 / volume])

    def slope_change(self, totals: F64, change: F64) -> F64:
        """Return the derivative of `slope` along a change of the sums, shape (n_sum,)."""
        return np.array([0.0, -2.0 * change[1] / totals[0] ** 2, 0.0])
