r"""Functions of the hottest or the coldest part of a structure: mean tails and points of the dose-volume histogram.

Which voxels belong to a tail is known only when all are known. So every voxel's volume is dealt onto the nodes of a
fixed dose axis, with cubic B-splines of spacing h (mean and sum are kept), and the threshold is found in the histogram
that all groups add up to. In it, steps are Gaussian integrals of standard deviation h. Value and derivatives are exact
for doses that are smeared by 1.15 h in this way: the value differs from that of the voxels themselves by less than h,
but for a tail of a smaller part :math:`\alpha` of a dose that is nearly uniform: there by up to
:math:`1.15\, h\, \varphi(\Phi^{-1}(\alpha)) / \alpha`, which is 2.4 h for 5 %. What is convex for sharp tails is so
here but for a ripple of less than 3e-4 h, divided by :math:`\alpha`, from the nodes. Beyond the axis (2000 h), doses
are not told apart.

With a sign (doses y count from the hottest or, negated, from the coldest), the integral over the tail
:math:`\alpha` is, with the softened :math:`\phi(x) \approx \max(x, 0)`,

.. math:: I(\alpha) = \min_z \Bigl[ \alpha z + \sum_k S_k\, \phi(y_k - z) \Bigr]

(Rockafellar and Uryasev, J Risk 2 (2000) 21). Its derivative by :math:`S_k` is :math:`\phi(y_k - z)`, by the envelope
theorem.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field
from scipy.optimize import brentq
from scipy.special import ndtr

from engine.model.arrays import F64
from engine.optimise.functions.base import Limit, LimitedFunction, Parts, Side

_N_NODE = 2048
_LAST = _N_NODE - 4.0
"""In spacings: beyond it, parts go on along straight lines."""
_FAR = 9
"""In spacings: a softened step is 0 or 1 beyond it, to the last bit."""
_FINEST_GY = 0.05
_PERCENT = 100.0
_HALF_BAND = 0.01
_DENSITY_EPSILON = 1e-9


def _dealt(position: F64, order: int) -> F64:
    """Return the values of the four cubic B-splines around positions within (0, 1), or a derivative, shape (4, n)."""
    t, u = position, 1.0 - position
    if order == 0:
        return np.stack([u**3, 4.0 - 6.0 * t**2 + 3.0 * t**3, 4.0 - 6.0 * u**2 + 3.0 * u**3, t**3]) / 6.0
    if order == 1:
        return np.stack([-(u**2), 3.0 * t**2 - 4.0 * t, 4.0 * u - 3.0 * u**2, t**2]) / 2.0
    return np.stack([u, 3.0 * t - 2.0, 3.0 * u - 2.0, t])


def _ramp(x: F64, width: float) -> F64:
    """Return the integral of a softened step: max(x, 0), softened."""
    result: F64 = x * ndtr(x / width) + width**2 * _bell(x, width)
    return result


def _square(x: F64, width: float) -> F64:
    """Return twice the integral of `_ramp`: max(x, 0)², softened."""
    result: F64 = (x**2 + width**2) * ndtr(x / width) + x * width**2 * _bell(x, width)
    return result


def _bell(x: F64, width: float) -> F64:
    result: F64 = np.exp(-0.5 * (x / width) ** 2) / (width * np.sqrt(2.0 * np.pi))
    return result


@dataclass(frozen=True)
class _Tail:
    """The tail ``part`` of a histogram over doses y: where it begins, and how that moves with the histogram."""

    y_gy: F64
    volume: F64
    part: float
    width_gy: float
    threshold_gy: float
    moves: bool

    @classmethod
    def of(cls, y_gy: F64, volume: F64, part: float, width_gy: float, highest_gy: float) -> "_Tail":
        """Find the threshold, at most ``highest_gy``."""
        upwards = 1 if y_gy[0] < y_gy[-1] else -1
        y, v = y_gy[::upwards], volume[::upwards]
        beyond = np.cumsum(v[::-1])[::-1]
        node = int(np.flatnonzero(beyond > part)[-1])
        # Around this node, and nowhere else, a softened step differs from a sharp one.
        near = slice(max(node - 2 * _FAR, 0), node + 2 * _FAR + 1)
        hotter = float(v[near.stop :].sum())

        def excess(z_gy: float) -> float:
            return hotter + float(v[near] @ ndtr((y[near] - z_gy) / width_gy)) - part

        low, high = y[node] - _FAR * width_gy, min(y[node] + _FAR * width_gy, highest_gy)
        if low >= high or excess(high) > 0.0:
            return cls(y_gy, volume, part, width_gy, highest_gy, False)
        threshold_gy = float(brentq(excess, low, high, xtol=1e-13, rtol=1e-14))
        return cls(y_gy, volume, part, width_gy, threshold_gy, True)

    @property
    def integral(self) -> float:
        """Integral of y over the tail."""
        return self.part * self.threshold_gy + float(self.volume @ self.integral_slope)

    @property
    def integral_slope(self) -> F64:
        """Its derivative by the histogram."""
        return _ramp(self.y_gy - self.threshold_gy, self.width_gy)

    @property
    def step(self) -> F64:
        """Which part of each node belongs to the tail."""
        step: F64 = ndtr((self.y_gy - self.threshold_gy) / self.width_gy)
        return step

    def threshold_change(self, change: F64) -> float:
        """Return the derivative of the threshold along a change of the histogram; 0 where no volume is near it."""
        density = float(self.volume @ _bell(self.y_gy - self.threshold_gy, self.width_gy))
        if not self.moves or density * self.width_gy < _DENSITY_EPSILON:
            return 0.0
        return float(self.step @ change) / density

    def integral_slope_change(self, change: F64) -> F64:
        """Return the derivative of `integral_slope` along a change of the histogram."""
        return -self.step * self.threshold_change(change)


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
        return self.resolution_gy or max(_FINEST_GY, (self.dose_gy or 0.0) / (_N_NODE // 2))

    @property
    def n_sum(self) -> int:
        """How many sums it takes."""
        return _N_NODE

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
        position = level_gy / self._spacing_gy
        below = np.minimum(position, _LAST)
        first = np.minimum(np.floor(below), _LAST - 1.0)
        parts = _dealt(below - first, order)
        if order == 0:
            parts += (position - below) * _dealt(below - first, 1)
        elif order == 2:
            parts = np.where(position > _LAST, 0.0, parts)
        place = first.astype(np.int64) + np.arange(4)[:, None]
        return place, parts / self._spacing_gy**order

    def _tail(self, totals: F64, part: float) -> _Tail:
        # Node 0 lies one step below dose 0: the splines of a dose reach one step further down.
        dose_gy = (np.arange(_N_NODE) - 1.0) * self._spacing_gy
        highest_gy = dose_gy[-4 * _FAR] if self._sign > 0.0 else np.inf
        return _Tail.of(self._sign * dose_gy, totals, part, self._spacing_gy, float(highest_gy))

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
    volume_percent: float = Field(ge=0.1, le=99.9, description="which part of the structure")

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
    limit: Limit = Field(description="whether the dose to volume_percent should stay below or above dose_gy")

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

    def _band(self, totals: F64) -> tuple[_Tail, _Tail, float]:
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
    r"""Squares of the voxels between a point's dose and the DVH: :math:`\sum_i v_i (d_i - p)^2` for :math:`p < d_i < D_v`.

    The hottest part v is let off; for a lower limit, the coldest part 1 - v is, and voxels with :math:`D_v < d_i < p`
    count. Wu and Mohan, Med Phys 27 (2000) 701. Equal to :math:`\max_z \sum_i v_i \min(q(d_i), q(z)) - v\, q(z)` with
    :math:`q(d) = \max(d - p, 0)^2`, the softened form of which is computed here. Not convex.
    """

    kind: Literal["dvh_penalty"] = "dvh_penalty"

    def _beyond(self, totals: F64) -> tuple[_Tail, float]:
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
        let_off = _square(from_edge, tail.width_gy) + 2.0 * beyond_gy * _ramp(from_edge, tail.width_gy)
        return _square(from_point, tail.width_gy) - let_off

    def slope_change(self, totals: F64, change: F64) -> F64:
        """Return the derivative of `slope` along a change of the histogram, shape (n_sum,)."""
        tail, beyond_gy = self._beyond(totals)
        return 2.0 * beyond_gy * tail.step * tail.threshold_change(change)
