r"""The hottest or the coldest part of a histogram of the dose, with softened edges.

With a sign (doses y count from the hottest or, negated, from the coldest), the integral over the tail
:math:`\alpha` is, with the softened :math:`\phi(x) \approx \max(x, 0)`,

.. math:: I(\alpha) = \min_z \Bigl[ \alpha z + \sum_k S_k\, \phi(y_k - z) \Bigr]

(Rockafellar and Uryasev, J Risk 2 (2000) 21). Its derivative by :math:`S_k` is :math:`\phi(y_k - z)`, by the envelope
theorem.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr

from engine.model.arrays import F64

FAR = 9
"""In spacings: a softened step is 0 or 1 beyond it, to the last bit."""
_DENSITY_EPSILON = 1e-9


def ramp(x: F64, width: float) -> F64:
    """Return the integral of a softened step: max(x, 0), softened."""
    result: F64 = x * ndtr(x / width) + width**2 * _bell(x, width)
    return result


def square(x: F64, width: float) -> F64:
    """Return twice the integral of `ramp`: max(x, 0)², softened."""
    result: F64 = (x**2 + width**2) * ndtr(x / width) + x * width**2 * _bell(x, width)
    return result


def _bell(x: F64, width: float) -> F64:
    result: F64 = np.exp(-0.5 * (x / width) ** 2) / (width * np.sqrt(2.0 * np.pi))
    return result


@dataclass(frozen=True)
class Tail:
    """The tail ``part`` of a histogram over doses y: where it begins, and how that moves with the histogram."""

    y_gy: F64
    volume: F64
    part: float
    width_gy: float
    threshold_gy: float
    moves: bool

    @classmethod
    def of(cls, y_gy: F64, volume: F64, part: float, width_gy: float, highest_gy: float) -> "Tail":
        """Find the threshold, at most ``highest_gy``."""
        upwards = 1 if y_gy[0] < y_gy[-1] else -1
        y, v = y_gy[::upwards], volume[::upwards]
        beyond = np.cumsum(v[::-1])[::-1]
        node = int(np.flatnonzero(beyond > part)[-1])
        # Around this node, and nowhere else, a softened step differs from a sharp one.
        near = slice(max(node - 2 * FAR, 0), node + 2 * FAR + 1)
        hotter = float(v[near.stop :].sum())

        def excess(z_gy: float) -> float:
            return hotter + float(v[near] @ ndtr((y[near] - z_gy) / width_gy)) - part

        low, high = float(y[node] - FAR * width_gy), float(y[node] + FAR * width_gy)
        if low >= highest_gy or (high > highest_gy and excess(highest_gy) > 0.0):
            return cls(y_gy, volume, part, width_gy, highest_gy, False)
        # Where a gap between doses is at the very edge of the tail, rounding may decide: any place in it will do.
        if excess(low) <= 0.0 or excess(high) >= 0.0:
            threshold_gy = low if excess(low) <= 0.0 else high
        else:
            threshold_gy = float(brentq(excess, low, high, xtol=1e-13, rtol=1e-14))
        return cls(y_gy, volume, part, width_gy, threshold_gy, True)

    @property
    def integral(self) -> float:
        """Integral of y over the tail."""
        return self.part * self.threshold_gy + float(self.volume @ self.integral_slope)

    @property
    def integral_slope(self) -> F64:
        """Its derivative by the histogram."""
        return ramp(self.y_gy - self.threshold_gy, self.width_gy)

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
