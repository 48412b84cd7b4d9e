r"""Functions of the hottest or the coldest part of a structure: mean tails and points of the dose-volume histogram.

Which voxels belong to a tail is known only when all are known. So every voxel's volume is dealt onto the nodes of a
fixed dose axis of spacing h, with B-splines of degree 5 (`engine.optimise.functions.splines`), and the threshold is
found in the histogram that all groups add up to, with edges softened by a Gaussian of standard deviation h
(`engine.optimise.functions.histogram`). Value and derivatives are exact for doses that are smeared by 1.22 h in this
way. A tail's mean is by that larger than the voxels' own, most for a small part :math:`\alpha` of a nearly uniform
dose: there by :math:`1.22\, h\, \varphi(\Phi^{-1}(\alpha)) / \alpha`, 2.5 h for 5 %. What is called convex is so but
for a ripple from the nodes of less than :math:`2 \cdot 10^{-4}\, h / \alpha` in the tail's mean. Tails that begin
beyond the axis (2000 h) are taken to begin at its end.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from engine.model.arrays import F64
from engine.optimise.functions.base import DoseFunction, Limit, LimitedFunction, Parts, Side
from engine.optimise.functions.histogram import FAR, Tail, ramp, square
from engine.optimise.functions.splines import BELOW, DEGREE, N_NODE, deal

_FINEST_GY = 0.05
_PERCENT = 100.0
_HALF_BAND = 0.01


class _OfHistogram(LimitedFunction):
    """A function of the histogram of the dose: of the mean dose of a tail, if it says nothing else."""

    resolution_gy: float | None = Field(
        None,
        ge=0.01,
        le=1.0,
        description="spacing and softness of the dose axis of 2000 steps; 0.05, or a 1000th of dose_gy, if absent",
    )

    @property
    def _spacing_gy(self) -> float:
        return self.resolution_gy or max(_FINEST_GY, (self.dose_gy or 0.0) / (N_NODE // 2))

    @property
    def rippled(self) -> bool:
        """Its dose axis has nodes."""
        return True

    def without_limit(self) -> DoseFunction:
        """Return the function whose value is the dose E itself, on the dose axis that its limit asks for."""
        return self.model_copy(update={"dose_gy": None, "resolution_gy": self._spacing_gy})

    @property
    def n_sum(self) -> int:
        """How many sums it takes."""
        return N_NODE

    @property
    def _part(self) -> float:
        """Size of the tail, as a part of 1."""
        raise NotImplementedError

    @property
    def _sign(self) -> float:
        """Doses are counted from the hottest, or negated and so from the coldest."""
        return 1.0 if self.side == "over" else -1.0

    def _parts(self, level_gy: F64, reference_gy: F64 | None, order: int) -> Parts:
        del reference_gy
        first = np.empty(level_gy.size, dtype=np.int64)
        parts = np.empty((DEGREE + 1, level_gy.size))
        deal(level_gy / self._spacing_gy, order, first, parts)
        return first + np.arange(DEGREE + 1)[:, None], parts / self._spacing_gy**order

    def _tail(self, totals: F64, part: float) -> Tail:
        dose_gy = (np.arange(N_NODE, dtype=np.float64) - BELOW) * self._spacing_gy
        highest_gy = dose_gy[-4 * FAR] if self._sign > 0.0 else np.inf
        return Tail.of(self._sign * dose_gy, totals, part, self._spacing_gy, float(highest_gy))

    def quantity(self, totals: F64) -> float:
        """Return the mean dose of the tail."""
        return self._sign * self._tail(totals, self._part).integral / self._part

    def quantity_slope(self, totals: F64) -> F64:
        """Return its derivative by the histogram, shape (n_sum,)."""
        return self._sign / self._part * self._tail(totals, self._part).integral_slope

    def quantity_slope_change(self, totals: F64, change: F64) -> F64:
        """Return the derivative of `quantity_slope` along a change of the histogram, shape (n_sum,)."""
        return self._sign / self._part * self._tail(totals, self._part).integral_slope_change(change)


class _MeanTail(_OfHistogram):
    volume_percent: float = Field(ge=0.1, le=99.9, description="size of the tail")

    @property
    def _part(self) -> float:
        return self.volume_percent / _PERCENT


class UpperMeanTail(_MeanTail):
    r"""Mean dose of the hottest part, in Gy: itself, or squared beyond a limit. Convex.

    Romeijn et al., Phys Med Biol 48 (2003) 3521; the conditional value at risk of the dose.
    """

    kind: Literal["upper_mean_tail"] = "upper_mean_tail"

    @property
    def side(self) -> Side:
        """It punishes dose."""
        return "over"


class LowerMeanTail(_MeanTail):
    r"""Mean dose of the coldest part, squared below a limit. Convex, as that mean is concave.

    Romeijn et al., Phys Med Biol 48 (2003) 3521.
    """

    kind: Literal["lower_mean_tail"] = "lower_mean_tail"

    @property
    def side(self) -> Side:
        """It punishes what is missing."""
        return "under"


class _DvhPoint(_OfHistogram):
    """A limit for one point of the DVH: the hottest volume_percent gets at most, or at least, dose_gy."""

    dose_gy: float = Field(ge=0.0, description="dose of the point")
    volume_percent: float = Field(ge=0.1, le=99.9, description="volume of the point: the part that gets more")
    limit: Limit = Field(description="'upper' or 'lower': should it stay below or above dose_gy")

    @property
    def side(self) -> Side:
        """An upper limit punishes dose, a lower one its absence."""
        return "over" if self.limit == "upper" else "under"

    @property
    def _part(self) -> float:
        """The tail beyond the point: hotter than an upper limit, colder than a lower one."""
        volume = self.volume_percent / _PERCENT
        return volume if self.limit == "upper" else 1.0 - volume


class DvhMeanTail(_DvhPoint):
    r"""A point of the DVH by way of a mean tail: squared excess of the tail's mean dose over the dose of the point.

    Where it is 0, the point is met, because the dose at the tail's edge is not beyond its mean: a convex restriction
    (Romeijn et al., Phys Med Biol 48 (2003) 3521), stricter than the point itself.
    """

    kind: Literal["dvh_mean_tail"] = "dvh_mean_tail"


class _DvhDose(_DvhPoint):
    """A function of the dose D that the volume of the point gets.

    It is the mean dose of a band of voxels around that volume, so that it has a bounded derivative.
    """

    @property
    def _convex_in_level(self) -> bool:
        return False

    def _band(self, totals: F64) -> tuple[Tail, Tail, float]:
        """Return the tails up to the band's end and up to its begin, and the band's width with a sign."""
        part = self._part
        half = min(_HALF_BAND, 0.5 * part, 0.5 * (1.0 - part))
        return self._tail(totals, part + half), self._tail(totals, part - half), self._sign * 2.0 * half

    def quantity(self, totals: F64) -> float:
        """Return the dose D."""
        end, begin, width = self._band(totals)
        return (end.integral - begin.integral) / width

    def quantity_slope(self, totals: F64) -> F64:
        """Return its derivative by the histogram, shape (n_sum,)."""
        end, begin, width = self._band(totals)
        return (end.integral_slope - begin.integral_slope) / width

    def quantity_slope_change(self, totals: F64, change: F64) -> F64:
        """Return the derivative of `quantity_slope` along a change of the histogram, shape (n_sum,)."""
        end, begin, width = self._band(totals)
        return (end.integral_slope_change(change) - begin.integral_slope_change(change)) / width


class DvhDistance(_DvhDose):
    r"""Squared distance of the DVH from a point, along the dose: :math:`\max(D_v - p, 0)^2`, or the mirror image.

    :math:`D_v` is the mean dose between the volumes :math:`v \pm 1 %` of the structure (less for points near 0 or
    100 %). Not convex.
    """

    kind: Literal["dvh_distance"] = "dvh_distance"


class DvhPenalty(_DvhDose):
    r"""Squares of the voxels between a point's dose and the DVH.

    :math:`\sum_i v_i (d_i - p)^2` over the voxels with :math:`p < d_i < D_v`: the hottest part v is let off. For a
    lower limit, the coldest part 1 - v is, and voxels with :math:`D_v < d_i < p` count. Wu and Mohan, Med Phys 27
    (2000) 701. Equal to :math:`\max_z \sum_i v_i \min(q(d_i), q(z)) - v\, q(z)` with :math:`q(d) = \max(d - p, 0)^2`,
    whose softened form is computed here. Not convex.
    """

    kind: Literal["dvh_penalty"] = "dvh_penalty"

    def without_limit(self) -> DoseFunction:
        """Return itself: the dose is that of a point, and what is limited is the penalty."""
        return self

    def _beyond(self, totals: F64) -> tuple[Tail, float]:
        """Return the tail that is let off, and how far it begins beyond the point's dose, or 0."""
        tail = self._tail(totals, self._part)
        return tail, max(tail.threshold_gy - self._sign * self.dose_gy, 0.0)

    def value(self, totals: F64) -> float:
        """Return the value from the histogram."""
        tail, beyond_gy = self._beyond(totals)
        return float(totals @ self.slope(totals)) - tail.part * beyond_gy**2

    def slope(self, totals: F64) -> F64:
        """Return the derivative of the value by the histogram, shape (n_sum,)."""
        tail, beyond_gy = self._beyond(totals)
        if beyond_gy == 0.0:
            return np.zeros_like(totals)
        from_point = tail.y_gy - self._sign * self.dose_gy
        from_edge = tail.y_gy - tail.threshold_gy
        let_off = square(from_edge, tail.width_gy) + 2.0 * beyond_gy * ramp(from_edge, tail.width_gy)
        return square(from_point, tail.width_gy) - let_off

    def slope_change(self, totals: F64, change: F64) -> F64:
        """Return the derivative of `slope` along a change of the histogram, shape (n_sum,)."""
        tail, beyond_gy = self._beyond(totals)
        return 2.0 * beyond_gy * tail.step * tail.threshold_change(change)
